"""The figures of a counting run.

Nothing here knows a socket, a clock or a stream: times come in, in seconds,
and figures go out.
"""

import copy
import math
from typing import Any, Dict, List, Optional, Set

__all__ = ["Histogram", "Tally"]

# Eighths of a character, from one to eight.
_BLOCKS = "\u258f\u258e\u258d\u258c\u258b\u258a\u2589\u2588"

# Two times that differ by less than this part of them are counted as one.
_STEP = 0.008


# Times that are kept until they are counted, which is cheaper by the thousand.
_BATCH = 4096


class Histogram:
    """A distribution of times, in bounded memory.

    Times are counted by the rounded logarithm: some dozens of counters as a
    rule, some thousands if they go from nanoseconds to hours.  A percentile is
    therefore true within 0.4 %; count, mean, min and max are exact.
    """

    def __init__(self) -> None:
        self.count = 0
        self.sum = 0.0
        self.min = math.inf
        self.max = 0.0
        self._counters: Dict[int, int] = {}
        self._new: List[float] = []

    def add(self, seconds: float) -> None:
        """Count one more time, in the figures after the next settle()."""
        self._new.append(seconds)
        if len(self._new) >= _BATCH:
            self.settle()

    def settle(self) -> "Histogram":
        """Count all times that were added."""
        new, self._new = self._new, []
        self.count += len(new)
        self.sum += sum(new)
        self.min = min([self.min, *new])
        self.max = max([self.max, *new])
        log, counters = math.log, self._counters
        for seconds in new:
            # A coarse clock may have seen no time pass at all.
            key = round(log(seconds if seconds > 1e-9 else 1e-9) / _STEP)
            counters[key] = counters.get(key, 0) + 1
        return self

    def percentile(self, percent: float) -> float:
        """Return the time that percent of all do not exceed."""
        rank = math.ceil(self.count * percent / 100)
        for key in sorted(self._counters):
            rank -= self._counters[key]
            if rank <= 0:
                return min(max(math.exp(key * _STEP), self.min), self.max)
        return self.max

    def figures(self, name: str) -> Dict[str, Optional[float]]:
        """Return min, mean, percentiles and max in microseconds, as name_*_us;
        None for all if there was no time."""
        self.settle()
        values = {"min": self.min, "mean": self.sum / max(self.count, 1),
                  "p50": self.percentile(50), "p90": self.percentile(90),
                  "p99": self.percentile(99), "max": self.max}
        return {"%s_%s_us" % (name, key):
                round(value * 1e6, 1) if self.count else None
                for key, value in values.items()}

    def chart(self, width: int, height: int, blocks: bool = True) -> List[str]:
        """Return a bar chart of at most height lines of at most width.

        Each row shows the least time that belongs to it, how many do, and a
        bar, drawn in eighths of a character with blocks and in # without.
        Where it is narrow the bars go first, and the counts stay.
        """
        if not self.settle().count:
            return []
        least, most = min(self._counters), max(self._counters)
        span = (most - least) // height + 1
        rows = [0] * ((most - least) // span + 1)
        for key, count in self._counters.items():
            rows[(key - least) // span] += count
        labels = ["%.3f" % (1e3 * math.exp((least + row * span - 0.5) * _STEP))
                  for row in range(len(rows))]
        form = "%%%ds ms %%%dd " % (max(map(len, labels)),
                                    len(str(max(rows))))
        room = max(width - len(form % (labels[0], 0)), 0)
        return [form % (label, count) + _bar(count * room / max(rows), blocks)
                for label, count in zip(labels, rows)]


def _bar(length: float, blocks: bool) -> str:
    """Return a bar of so many characters, rounded up."""
    if not blocks:
        return "#" * math.ceil(length)
    full, part = divmod(math.ceil(length * 8), 8)
    return _BLOCKS[-1] * full + (_BLOCKS[part - 1] if part else "")


class Tally:
    """The outcomes of round trips.

    Attributes: verified, lost and wrong, numbers of messages; unsent, of those
    that found no connection; unanswered and unconnected, of those on their way
    and of those whose connection is being made, since when each has waited; times, waits, connects and firsts, Histograms of the
    round trips, of the same since they were due, of connecting, and from the
    beginning of connecting to the first reply of a connection; replies, of
    each connection of the run; addresses that were measured; retransmissions
    of TCP segments, None if the system does not tell.

    An outage is a time in which no connection got a reply: it begins with the
    last good reply before a failure, or with the run, and ends with the next.
    """

    def __init__(self, start: float = 0.0) -> None:
        self.verified = self.lost = self.wrong = self.unsent = 0
        self.unanswered: Dict[int, float] = {}
        self.unconnected: Dict[int, float] = {}
        self.times = Histogram()
        self.waits = Histogram()
        self.connects = Histogram()
        self.firsts = Histogram()
        self.replies: List[int] = []
        self.addresses: Set[str] = set()
        self.retransmissions: Optional[int] = None
        self._outages: List[float] = []
        self._is_out = False
        self._last_good = start

    @property
    def messages(self) -> int:
        """How many were sent."""
        return self.verified + self.lost + self.wrong + len(self.unanswered)

    def succeed(self, now: float) -> None:
        """Count a reply."""
        self.verified += 1
        if self._is_out:
            self._outages.append(now - self._last_good)
            self._is_out = False
        self._last_good = now

    def fail(self, is_sent: bool, is_wrong: bool = False) -> None:
        """Count a message without a good reply."""
        self.wrong += is_wrong
        self.lost += is_sent and not is_wrong
        self.unsent += not is_sent
        self._is_out = True

    def figures(self, size: int, start: float, now: float) -> Dict[str, Any]:
        """Return all figures of a run with messages of size bytes.  What has
        no value is None."""
        seconds, unsent = now - start, self.unsent + len(self.unconnected)
        outages, ages = self._outages, _ages(self.unanswered, now)
        # A single message has no rate, and makes no outage.
        rate = (self.verified / seconds
                if seconds > 0 and self.verified > 1 else None)
        if self._is_out and self.messages + unsent > 1:
            outages = outages + [now - self._last_good]     # it goes on
        waits = copy.deepcopy(self.waits)
        for age in ages + _ages(self.unconnected, now):
            waits.add(age)      # so long at least: a stall is not hidden
        return dict(
            {key: value for name, times in (
                ("rtt", self.times), ("wait", waits),
                ("connect", self.connects), ("first", self.firsts))
             for key, value in times.figures(name).items()},
            messages_sent=self.messages, replies_verified=self.verified,
            messages_lost=self.lost, replies_wrong=self.wrong,
            messages_unanswered=len(ages), messages_unsent=unsent,
            oldest_unanswered_seconds=round(max(ages, default=0), 6),
            seconds=round(seconds, 6), replies_per_s=rate and round(rate, 1),
            bytes_per_s=rate and round(rate * size, 1),
            replies_least=min(self.replies, default=None),
            replies_most=max(self.replies, default=None),
            outages=len(outages),
            longest_outage_seconds=round(max(outages, default=0), 6),
            tcp_retransmissions=self.retransmissions,
            addresses=sorted(self.addresses))


def _ages(begun: Dict[int, float], now: float) -> List[float]:
    return [max(now - since, 0) for since in begun.values()]
