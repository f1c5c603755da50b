"""The figures of a counting run, and how they are shown.

Nothing here knows a socket, a clock or a stream: times come in, in seconds,
and figures go out.
"""

import copy
import math
from collections import Counter
from typing import Any, Dict, Iterable, List, Optional, Sequence, Set, Tuple

__all__ = ["Histogram", "Tally", "bars", "is_utf8", "ms", "summary"]

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
        # A coarse clock may have seen no time pass.
        self._counters.update([round(math.log(seconds or 1e-9) / _STEP)
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
        values = (self.min, self.sum / max(self.count, 1), *map(
            self.percentile, (50, 90, 99)), self.max)
        return {"%s_%s_us" % (name, key):
                round(value * 1e6, 1) if self.count else None for key, value
                in zip(("min", "mean", "p50", "p90", "p99", "max"), values)}

    def chart(self, width: int, height: int, blocks: bool = True) -> List[str]:
        """Return a bar chart of at most height lines of at most width.

        Each row shows the least time that belongs to it, how many do, and a
        bar, of blocks or of #.  Where it is narrow the bars go first, and the
        counts stay.
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
        form = "%%%ds ms %%%dd " % (max(map(len, labels)), len(str(max(rows))))
        room = max(width - len(form % (labels[0], 0)), 0)
        return [form % (label, count) + math.ceil(count * room / max(rows)) * (
            "\u2588" if blocks else "#") for label, count in zip(labels, rows)]


class Tally:
    """The outcomes of round trips.

    Attributes: verified, lost and wrong, numbers of messages; unsent, of those
    that found no connection; unanswered and unconnected, of those on their way
    and of those whose connection is being made, since when each has waited;
    times, waits, connects and firsts, Histograms of the round trips, of the
    same since they were due, of connecting, and from the beginning of
    connecting to the first reply of a connection; replies, of each connection
    of the run; addresses that were measured; retransmissions of TCP segments,
    None if the system does not tell.

    An outage is a time in which no connection got a reply: it begins with the
    last good reply before a failure, or with the run, and ends with the next.
    """

    def __init__(self, start: float = 0.0) -> None:
        self.verified = self.lost = self.wrong = self.unsent = 0
        self.unanswered: Dict[int, float] = {}
        self.unconnected: Dict[int, float] = {}
        self.times, self.waits = Histogram(), Histogram()
        self.connects, self.firsts = Histogram(), Histogram()
        self.replies: List[int] = []
        self.addresses: Set[str] = set()
        self.retransmissions: Optional[int] = None
        self._is_out, self._last_good = False, start
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

    def settle(self) -> float:
        """Count the times since the last call, which is cheaper than each by
        itself; return the longest round trip of them."""
        if not self._new:
            return 0.0
        times, waits = zip(*self._new)
        self._new = []
        self.times.add(times)
        self.waits.add(waits)
        return float(max(times))

    def fail(self, is_sent: bool, is_wrong: bool = False) -> None:
        """Count a message without a good reply."""
        self.wrong += is_wrong
        self.lost += is_sent and not is_wrong
        self.unsent += not is_sent
        self._is_out = True

    def figures(self, size: int, start: float, now: float) -> Dict[str, Any]:
        """Return all figures of a run with messages of size bytes.  A figure
        without a value is None."""
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
        figures: Dict[str, Any] = dict(
            messages_sent=sent, messages_unsent=unsent,
            messages_lost=self.lost, messages_unanswered=len(ages),
            replies_verified=self.verified, replies_wrong=self.wrong,
            replies_least=min(self.replies, default=None),
            replies_most=max(self.replies, default=None),
            oldest_unanswered_seconds=round(max(ages, default=0), 6),
            seconds=round(seconds, 6), replies_per_s=rate and round(rate, 1),
            bytes_per_s=rate and round(rate * size, 1), outages=len(outages),
            longest_outage_seconds=round(max(outages, default=0), 6),
            tcp_retransmissions=self.retransmissions,
            addresses=sorted(self.addresses))
        for name, times in zip(("rtt", "wait", "connect", "first"), (
                self.times, waits, self.connects, self.firsts)):
            figures.update(times.figures(name))
        return figures


def _ages(begun: Dict[int, float], now: float) -> List[float]:
    return [max(now - since, 0) for since in begun.values()]


def is_utf8(stream: Any) -> bool:
    """Return whether a stream can show bars."""
    return "utf" in str(stream.encoding).lower()


def ms(seconds: Optional[float]) -> str:
    """Return a time in milliseconds, or a dash."""
    return "-" if seconds is None else "%.3f" % (seconds * 1e3)


def bars(times: Iterable[float], blocks: bool) -> str:
    """Return a row of bars, each as high as its time beside the longest."""
    marks = "".join(map(chr, range(0x2581, 0x2589))) if blocks else "_.-=#"
    top, most = len(marks) - 1, max(times, default=0) or 1
    return "".join(marks[math.ceil(time / most * top)] for time in times)


# The lines of a summary, in parts: each is there if its figure is not zero.
_SUMMARY = (
    ("", "%(messages_sent)d sent, %(replies_verified)d verified, "
     "%(messages_lost)d lost, %(replies_wrong)d wrong"),
    ("messages_unsent", ", %(messages_unsent)d not sent"),
    ("messages_unanswered", ", %(messages_unanswered)d unanswered for up to "
     "%(oldest_unanswered_seconds).3f s"),
    ("", " in %(seconds).2f s"),
    ("bytes_per_s", "\n%(replies_per_s).1f replies/s, %(bytes_per_s).0f "
     "bytes/s (%(mbit_per_s).1f Mbit/s)"),
    ("outages", "\noutages: %(outages)d, the longest "
     "%(longest_outage_seconds).3f s"),
    ("stopped_seconds", "\nthis program stood still for "
     "%(stopped_seconds).1f s"),
    ("tcp_retransmissions", "\nTCP segments sent again: "
     "%(tcp_retransmissions)d"),
    ("others", "\nreplies of a connection: least %(replies_least)d, most "
     "%(replies_most)d"))
# Name, title, the figure without which it is not shown, and a note.
_TIMES = (("connect", "connect", "reconnect", ""),
          ("first", "first reply", "others", ""),
          ("rtt", "RTT", "connections", ""),
          ("wait", "wait", "connections", " (connecting is in the first)"))


def summary(figures: Dict[str, Any]) -> List[str]:
    """Return the figures of a run as lines for a person."""
    values = dict(figures, others=figures["connections"] - 1,
                  mbit_per_s=(figures["bytes_per_s"] or 0) * 8 / 1e6)
    lines = "".join(form for key, form in _SUMMARY if not key or values[key])
    for name, title, key, note in _TIMES:
        times = [us for what, us in figures.items()
                 if what.startswith(name + "_") and what.endswith("_us")]
        if values[key] and None not in times:
            lines += "\n%s min/mean/p50/p90/p99/max %s ms%s" % (
                title, "/".join("%.3f" % (us / 1e3) for us in times), note)
    return (lines % values).split("\n")
