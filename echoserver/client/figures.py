"""The figures of a counting run, and how they are written down.

Nothing here knows a socket, a clock, a thread or a stream: times come in and
text goes out.
"""

from typing import Any, Dict, List, Optional, Tuple

__all__ = ["BLOCKS", "Histogram", "Tally", "milliseconds"]

# Leading binary digits of a time that are kept, less one.
_DIGITS = 7

# Eighths of a character, from one to eight.
BLOCKS = "\u258f\u258e\u258d\u258c\u258b\u258a\u2589\u2588"


def milliseconds(ns: int) -> str:
    """Return ns, nanoseconds, as ping shows a time, without its unit."""
    return "%.3f" % (ns / 1e6)


class Histogram:
    """A distribution of times, in nanoseconds, in bounded memory.

    Of each time the eight leading binary digits are kept, by counting those
    that have the same: some dozens of counters as a rule, some thousands if
    the times go from nanoseconds to hours.  A percentile is therefore true
    within 0.4 %; count, mean, min and max are exact.
    """

    def __init__(self) -> None:
        self.count = 0
        self.sum = 0
        self.min: Optional[int] = None
        self.max: Optional[int] = None
        self._counters: Dict[int, int] = {}

    def add(self, ns: int) -> None:
        """Count one more time of ns nanoseconds."""
        self.count += 1
        self.sum += ns
        if self.min is None or ns < self.min:
            self.min = ns
        if self.max is None or ns > self.max:
            self.max = ns
        key = self._key(ns)
        self._counters[key] = self._counters.get(key, 0) + 1

    @property
    def mean(self) -> Optional[int]:
        """The mean time, None without any."""
        return round(self.sum / self.count) if self.count else None

    def percentile(self, percent: int) -> Optional[int]:
        """Return the time that percent of all do not exceed (nearest rank),
        None without any."""
        rank = -(-self.count * percent // 100)      # rounded up
        if rank >= self.count:
            return self.max
        if rank <= 1:
            return self.min
        for key in sorted(self._counters):
            rank -= self._counters[key]
            if rank <= 0:
                return (self._least(key) + self._least(key + 1) - 1) // 2
        return None

    def chart(self, width: int, height: int,
              blocks: bool = True) -> List[str]:
        """Return a bar chart of at most height lines of at most width.

        Each row shows the least time that belongs to it, how many do, and a
        bar, drawn in eighths of a character with blocks and in # without.
        """
        shift, rows = self._rows(height)
        if not rows:
            return []
        scale = max(rows.values())
        lines = []
        for row in range(min(rows), max(rows) + 1):
            label = "%12s ms %*d " % (
                milliseconds(self._least(row << shift)),
                len(str(scale)), rows.get(row, 0))
            lines.append(label + _bar(rows.get(row, 0), scale,
                                      max(width - len(label), 1), blocks))
        return [line[:max(width, 0)] for line in lines]

    def _rows(self, height: int) -> Tuple[int, Dict[int, int]]:
        """Return the counters, merged until height rows are enough, and how
        many binary digits of their keys that took."""
        shift = 0
        keys = self._counters or [0]
        while (max(keys) >> shift) - (min(keys) >> shift) >= height:
            shift += 1
        rows: Dict[int, int] = {}
        for key, count in self._counters.items():
            rows[key >> shift] = rows.get(key >> shift, 0) + count
        return shift, rows

    # Keys ascend with the times.  Up to 255 a time is its own key; from there
    # on, each doubling of the time takes another 128 keys.

    @staticmethod
    def _key(ns: int) -> int:
        shift = max(ns.bit_length() - _DIGITS - 1, 0)
        return (shift << _DIGITS) + (ns >> shift)

    @staticmethod
    def _least(key: int) -> int:
        """Return the least time that has the given key."""
        shift = max((key >> _DIGITS) - 1, 0)
        return (key - (shift << _DIGITS)) << shift


def _bar(count: int, scale: int, room: int, blocks: bool) -> str:
    """Return a bar that takes all of room for count == scale, and shows that
    there is something where there is."""
    if not blocks:
        return "#" * -(-count * room // scale)
    full, part = divmod(-(-count * room * 8 // scale), 8)
    return BLOCKS[-1] * full + BLOCKS[:part][-1:]


class Tally:
    """The outcomes of round trips.

    Attributes: verified, lost, wrong and unanswered, numbers of messages;
    sent, their sum; bytes, those of the verified replies; times, a Histogram
    of theirs.
    """

    def __init__(self) -> None:
        self.verified = 0
        self.lost = 0
        self.wrong = 0
        self.unanswered = 0
        self.bytes = 0
        self.times = Histogram()

    @property
    def sent(self) -> int:
        """The number of messages, those on their way included."""
        return self.verified + self.lost + self.wrong + self.unanswered

    def add_verified(self, size: int, ns: int) -> None:
        """Count a reply of size bytes that came after ns nanoseconds."""
        self.verified += 1
        self.bytes += size
        self.times.add(ns)

    def figures(self, seconds: float) -> Dict[str, Any]:
        """Return all figures of a run of that length, by names that contain
        their units.  What has no value is None."""
        figures: Dict[str, Any] = {
            "messages_sent": self.sent,
            "replies_verified": self.verified,
            "messages_lost": self.lost,
            "replies_wrong": self.wrong,
            "messages_unanswered": self.unanswered,
            "seconds": round(seconds, 6),
            "replies_per_s": _rate(self.verified, seconds),
            "bytes_per_s": _rate(self.bytes, seconds),
        }
        for name, ns in self._times():
            figures["rtt_%s_us" % name] = (None if ns is None
                                           else round(ns / 1e3, 1))
        return figures

    def summary(self, seconds: float) -> List[str]:
        """Return the figures as lines for a person."""
        unanswered = (", %d unanswered" % self.unanswered
                      if self.unanswered else "")
        lines = [
            "%d sent, %d verified, %d lost, %d wrong%s in %.2f s"
            % (self.sent, self.verified, self.lost, self.wrong, unanswered,
               seconds),
            "%s replies/s, %s bytes/s" % (
                _shown(_rate(self.verified, seconds)),
                _shown(_rate(self.bytes, seconds)))]
        names = "/".join(name for name, _ in self._times())
        times = "/".join("-" if ns is None else milliseconds(ns)
                         for _, ns in self._times())
        return lines + ["RTT %s %s ms" % (names, times)]

    def _times(self) -> List[Tuple[str, Optional[int]]]:
        times = self.times
        return [("min", times.min), ("mean", times.mean),
                ("p50", times.percentile(50)), ("p90", times.percentile(90)),
                ("p99", times.percentile(99)), ("max", times.max)]


def _rate(amount: int, seconds: float) -> Optional[float]:
    return round(amount / seconds, 1) if seconds > 0 else None


def _shown(rate: Optional[float]) -> str:
    if rate is None:
        return "-"
    return "%.0f" % rate if rate >= 100 else "%.1f" % rate
