"""What a counting run shows: lines as it goes, and the summary."""

import math
from collections import deque
from typing import Any, Deque, Dict, Iterable, List, Optional

from .connecting import describe
from .figures import Tally

__all__ = ["Progress", "bars", "headline", "is_utf8", "ms", "summary"]


class Progress:
    """How a run goes, between two lines about that.

    Attributes: then, when the last line was; row, the worst round trips of the
    last lines.
    """

    def __init__(self, now: float) -> None:
        self.then, self._before = now, 0
        self.row: Deque[float] = deque(maxlen=20)

    def line(self, tally: Tally, now: float) -> str:
        """Return a line about the time since the last one."""
        worst, replies = tally.take_worst(), tally.verified - self._before
        passed, self.then, self._before = now - self.then, now, tally.verified
        self.row.append(worst)
        return "%.0f replies/s, max %s ms, %d verified, %d lost, %d wrong" % (
            replies / passed, ms(worst if replies else None), tally.verified,
            tally.lost, tally.wrong)


def is_utf8(stream: Any) -> bool:
    """Return whether a stream can show bars."""
    return "utf" in str(stream.encoding).lower()


def ms(seconds: Optional[float]) -> str:
    """Return a time in milliseconds, or a dash."""
    return "-" if seconds is None else "%.3f" % (seconds * 1e3)


def bars(times: Iterable[float], blocks: bool) -> str:
    """Return a row of bars, each as high as its time beside the longest."""
    marks = "".join(map(chr, range(0x2581, 0x2589))) if blocks else "_.-=#"
    most = max(times, default=0) or 1
    return "".join(marks[math.ceil(time / most * (len(marks) - 1))]
                   for time in times)


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


def headline(figures: Dict[str, Any]) -> List[str]:
    """Return what was measured, as a line."""
    ips = set(figures["addresses"]) - {figures["host"]}
    return ["--- %s%s, %d bytes a message, %d connection%s" % (
        describe((figures["host"], figures["port"])),
        " (%s)" % ", ".join(sorted(ips)) if ips else "",
        figures["size_bytes"], figures["connections"],
        "s" * (figures["connections"] > 1))]


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
