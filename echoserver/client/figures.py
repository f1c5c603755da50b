"""The figures of a counting run.

Nothing here knows a socket, a clock or a stream: times come in, in seconds,
and figures go out.
"""

import math
from typing import Any, Dict, List, Optional

__all__ = ["BLOCKS", "Histogram", "Tally", "milliseconds"]

# Eighths of a character, from one to eight.
BLOCKS = "\u258f\u258e\u258d\u258c\u258b\u258a\u2589\u2588"

# Two times that differ by less than this part of them are counted as one.
_STEP = 0.008


def milliseconds(seconds: float) -> str:
    """Return a time as ping shows it, without its unit."""
    return "%.3f" % (seconds * 1e3)


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
        """
        if not self.count:
            return []
        least, most = min(self._counters), max(self._counters)
        span = (most - least) // height + 1
        rows = [0] * ((most - least) // span + 1)
        for key, count in self._counters.items():
            rows[(key - least) // span] += count
        lines = []
        for row, count in enumerate(rows):
            line = "%12s ms %*d " % (
                milliseconds(math.exp((least + row * span - 0.5) * _STEP)),
                len(str(max(rows))), count)
            eighths = -(-count * max(width - len(line), 1) * 8 // max(rows))
            if blocks:
                line += BLOCKS[-1] * (eighths // 8) + BLOCKS[eighths % 8 - 1:][
                    :eighths % 8 > 0]
            else:
                line += "#" * -(-eighths // 8)
            lines.append(line[:max(width, 0)])
        return lines


class Tally:
    """The outcomes of round trips.

    Attributes: verified, lost, wrong and unanswered, numbers of messages;
    times, a Histogram of the verified ones.
    """

    def __init__(self) -> None:
        self.verified = self.lost = self.wrong = self.unanswered = 0
        self.times = Histogram()

    def figures(self, size: int, seconds: float) -> Dict[str, Any]:
        """Return all figures of a run of so many seconds, with messages of
        size bytes.  What has no value is None."""
        rate = self.verified / seconds if seconds > 0 else None
        figures: Dict[str, Any] = {
            "messages_sent": (self.verified + self.lost + self.wrong
                              + self.unanswered),
            "replies_verified": self.verified,
            "messages_lost": self.lost,
            "replies_wrong": self.wrong,
            "messages_unanswered": self.unanswered,
            "seconds": round(seconds, 6),
            "replies_per_s": rate and round(rate, 1),
            "bytes_per_s": rate and round(rate * size, 1),
        }
        figures.update(self.times.figures("rtt"))
        return figures
