"""The figures of a counting run.

Nothing here knows a socket, a clock or a stream: times come in, in seconds,
and figures go out.
"""

import copy
import math
from collections import Counter
from typing import Any, Dict, List, Optional, Sequence, Set, Tuple

__all__ = ["Histogram", "Tally"]

# Eighths of a character, from one to eight.
_BLOCKS = "\u258f\u258e\u258d\u258c\u258b\u258a\u2589\u2588"

# Two times that differ by less than this part of them are counted as one.
_STEP = 0.008


class Histogram:
    """A distribution of times, in bounded memory.

    Times are counted by the rounded logarithm: some dozens of counters as a
    rule, some thousands if they go from nanoseconds to hours.  A percentile is
    therefore true within 0.4 %; count, mean, min and max are exact.
    """

    def __init__(self) -> None:
        self.count, self.sum, self.min, self.max = 0, 0.0, math.inf, 0.0
        self._counters: Counter[int] = Counter()

    def add(self, times: Sequence[float]) -> None:
        """Count more times, which is cheapest by the thousand."""
        self.count += len(times)
        self.sum += sum(times)
        self.min = min(self.min, *times)
        self.max = max(self.max, *times)
        if self.min < 1e-9:     # a coarse clock may have seen no time pass
            times = [max(seconds, 1e-9) for seconds in times]
        self._counters.update([round(math.log(seconds) / _STEP)
                               for seconds in times])

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
        if not self.count:
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
    of TCP segments, None if the system does not tell.  Class variable batch:
    round trips whose times are counted together, which is cheaper.

    An outage is a time in which no connection got a reply: it begins with the
    last good reply before a failure, or with the run, and ends with the next.
    """

    batch = 4096

    def __init__(self, start: float = 0.0) -> None:
        self.verified = self.lost = self.wrong = self.unsent = 0
        self.unanswered: Dict[int, float] = {}
        self.unconnected: Dict[int, float] = {}
        self.times, self.waits = Histogram(), Histogram()
        self.connects, self.firsts = Histogram(), Histogram()
        self.replies: List[int] = []
        self.addresses: Set[str] = set()
        self.retransmissions: Optional[int] = None
        self._worst, self._is_out, self._last_good = 0.0, False, start
        self._outages: List[float] = []
        self._new: List[Tuple[float, float]] = []

    def succeed(self, now: float, seconds: Optional[float] = None,
                waited: float = 0.0) -> None:
        """Count a reply, and what its round trip took if that is known, and
        how long ago it was due."""
        self.verified += 1
        if self._is_out:
            self._outages.append(now - self._last_good)
            self._is_out = False
        self._last_good = now
        if seconds is not None:
            self._new.append((seconds, waited))
            if len(self._new) >= self.batch:
                self.settle()

    def settle(self) -> None:
        """Count the times that are only kept so far."""
        if self._new:
            times, waits = zip(*self._new)
            self._new = []
            self.times.add(times)
            self.waits.add(waits)
            self._worst = max(self._worst, *times)

    def take_worst(self) -> float:
        """Return the longest round trip since the last call."""
        self.settle()
        worst, self._worst = self._worst, 0.0
        return worst

    def fail(self, is_sent: bool, is_wrong: bool = False) -> None:
        """Count a message without a good reply."""
        self.wrong += is_wrong
        self.lost += is_sent and not is_wrong
        self.unsent += not is_sent
        self._is_out = True

    def figures(self, size: int, start: float, now: float) -> Dict[str, Any]:
        """Return all figures of a run with messages of size bytes.  What has
        no value is None."""
        self.settle()
        sent = self.verified + self.lost + self.wrong + len(self.unanswered)
        seconds, unsent = now - start, self.unsent + len(self.unconnected)
        outages, ages = self._outages, _ages(self.unanswered, now)
        # A single message has no rate, and makes no outage.
        rate = None if self.verified < 2 else (
            self.verified / max(seconds, 1e-9))
        if self._is_out and sent + unsent > 1:
            outages = outages + [now - self._last_good]     # it goes on
        waits = copy.deepcopy(self.waits)
        for age in ages + _ages(self.unconnected, now):
            waits.add([age])    # so long at least: a stall is not hidden
        return dict(
            {key: value for name, times in (
                ("rtt", self.times), ("wait", waits),
                ("connect", self.connects), ("first", self.firsts))
             for key, value in times.figures(name).items()},
            messages_sent=sent, replies_verified=self.verified,
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
