"""The figures of a counting run.

Nothing here knows a socket, a clock or a stream: times come in, in seconds,
and figures go out.
"""

import copy
import math
from typing import Any, Dict, List, Optional

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
        self.count = 0
        self.sum = 0.0
        self.min = math.inf
        self.max = 0.0
        self._counters: Dict[int, int] = {}

    def add(self, seconds: float) -> None:
        """Count one more time."""
        self.count += 1
        self.sum += seconds
        self.min = min(self.min, seconds)
        self.max = max(self.max, seconds)
        # A coarse clock may have seen no time pass at all.
        key = round(math.log(max(seconds, 1e-9)) / _STEP)
        self._counters[key] = self._counters.get(key, 0) + 1

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

    Attributes: verified, lost and wrong, numbers of messages; unanswered, of
    those on their way, since when each has waited; times, waits and connects,
    Histograms of the round trips, of the same since they were due, and of
    connecting; retransmissions of TCP segments, None if the system does not
    tell.
    """

    def __init__(self) -> None:
        self.verified = self.lost = self.wrong = 0
        self.unanswered: Dict[int, float] = {}
        self.times = Histogram()
        self.waits = Histogram()
        self.connects = Histogram()
        self.retransmissions: Optional[int] = None
        self._words: Dict[str, int] = {}
        self._first_failure: Optional[str] = None
        self._outages = 0
        self._longest_outage = 0.0
        self._out_since = math.inf

    @property
    def messages(self) -> int:
        """How many there were."""
        return self.verified + self.lost + self.wrong + len(self.unanswered)

    def succeed(self, now: float) -> None:
        """Count a reply."""
        self.verified += 1
        if self._out_since < now:
            self._outages += 1
            self._longest_outage = max(self._longest_outage,
                                       now - self._out_since)
            self._out_since = math.inf

    def fail(self, is_wrong: bool, began: float) -> None:
        """Count a message that began at that time and has no good reply."""
        self.wrong += is_wrong
        self.lost += not is_wrong
        self._out_since = min(self._out_since, began)

    def note(self, word: str, line: str) -> None:
        """Count a cause by its word, and keep the line of the first."""
        self._words[word] = self._words.get(word, 0) + 1
        self._first_failure = self._first_failure or line

    def figures(self, size: int, is_paced: bool, start: float,
                now: float) -> Dict[str, Any]:
        """Return all figures of a run with messages of size bytes, at their
        times if it is paced.  What has no value is None."""
        seconds = now - start
        rate = self.verified / seconds if seconds > 0 else None
        outage = max(now - self._out_since, 0)      # that goes on
        ages = [now - since for since in self.unanswered.values()]
        waits = copy.deepcopy(self.waits)
        for age in ages if is_paced else ():
            waits.add(age)      # so long at least: a stall is not hidden
        figures: Dict[str, Any] = {
            "messages_sent": self.messages,
            "replies_verified": self.verified,
            "messages_lost": self.lost,
            "replies_wrong": self.wrong,
            "messages_unanswered": len(ages),
            "oldest_unanswered_seconds": round(max(ages, default=0), 6),
            "seconds": round(seconds, 6),
            "replies_per_s": rate and round(rate, 1),
            "bytes_per_s": rate and round(rate * size, 1),
            "failures": self._words,
            "first_failure": self._first_failure,
            "outages": self._outages + (outage > 0),
            "longest_outage_seconds": round(max(self._longest_outage, outage),
                                            6),
            "tcp_retransmissions": self.retransmissions,
        }
        for name, times in (("rtt", self.times), ("wait", waits),
                            ("connect", self.connects)):
            figures.update(times.figures(name))
        return figures
