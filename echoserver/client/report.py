"""What a counting run shows: lines as it goes, and the summary."""

import argparse
import json
import math
import shutil
import sys
from collections import deque
from typing import Any, Deque, Dict, List, Optional, Set

from .connecting import describe
from .figures import Tally
from .output import Voice, put

__all__ = ["Report", "bars", "summary"]


class Report:
    """Show how a run goes, and in the end what tally has.

    Class variables: line_interval, seconds between messages from which on each
    has its line; progress_interval, seconds between two lines of progress that
    are there otherwise, but for a terminal, where one changes all the time;
    bars, of the worst round trips, that this one shows.
    """

    line_interval = 0.2
    progress_interval = 1.0
    bars = 20

    def __init__(self, args: argparse.Namespace, tally: Tally,
                 voice: Voice) -> None:
        self._voice = voice
        self._args, self._tally = args, tally
        self._where = describe((args.host, args.port))
        self._told: Set[str] = set()        # words of failures
        # Whether each message has a line.
        self.has_lines = (args.interval >= self.line_interval
                          and not args.quiet)
        # Seconds between two lines of progress.
        self._pause = 0.0 if self._voice.is_shown else self.progress_interval
        if args.quiet or self.has_lines or (args.json and self._pause):
            self._pause = math.inf
        # The time and the number of replies of the last line of progress.
        self._then, self._before = 0.0, 0
        self._row: Deque[float] = deque(maxlen=self.bars)

    def reply(self, number: int, seconds: Optional[float],
              connecting: float) -> None:
        """Show that the reply to a message took so long, None if that is not
        known, and its connection."""
        if not self._args.json:
            self._voice.put("%d bytes from %s: seq=%d %stime=%s ms" % (
                self._args.size, self._where, number, "connect=%s ms " % _ms(
                    connecting) if self._args.reconnect else "", _ms(seconds)))

    def failure(self, word: str, line: str) -> None:
        """Show a line, or only the first one with that word."""
        if self.has_lines or word not in self._told:
            self._told.add(word)
            self._voice.tell(line)

    def progress(self, seconds: float) -> None:
        """Show how it goes after so many seconds, if it is time for that."""
        passed, tally = seconds - self._then, self._tally
        if passed <= 0 or passed < self._pause:
            return
        worst, replies = tally.take_worst(), tally.verified - self._before
        self._row.append(worst)
        self._then, self._before = seconds, tally.verified
        line = "%.0f replies/s, max %s ms, %d verified, %d lost, %d wrong" % (
            replies / passed, _ms(worst if replies else None),
            tally.verified, tally.lost, tally.wrong)
        if self._voice.is_shown:
            self._voice.show("%s %s" % (line, bars(
                self._row, _is_utf8(sys.stderr))))
        else:
            self._voice.put(line)

    def lines(self, figures: Dict[str, Any]) -> List[str]:
        """Return figures for a person."""
        return summary(figures, self._args.connections, self._args.reconnect)

    def summary(self, figures: Dict[str, Any]) -> None:
        """Print the figures of the whole run."""
        args = self._args
        if args.json:
            put(json.dumps(dict(
                figures, size_bytes=args.size, connections=args.connections,
                interval_seconds=args.interval, reconnect=args.reconnect),
                allow_nan=False))
            return
        others = [ip for ip in figures["addresses"] if ip != args.host]
        lines = ["--- %s%s, %d bytes a message, %d connection%s" % (
            self._where, " (%s)" % ", ".join(others) if others else "",
            args.size, args.connections, "s" * (args.connections > 1))]
        lines += self.lines(figures)
        if args.histogram:
            columns, rows = shutil.get_terminal_size()
            lines += self._tally.times.chart(
                columns - 1, max(rows - 9, 8), _is_utf8(sys.stdout))
        self._voice.put(*lines)


def _is_utf8(stream: Any) -> bool:
    return "utf" in str(getattr(stream, "encoding", "")).lower()


def _ms(seconds: Optional[float]) -> str:
    return "-" if seconds is None else "%.3f" % (seconds * 1e3)


def bars(times: "Deque[float]", blocks: bool) -> str:
    """Return a row of bars, each as high as its time beside the longest."""
    marks = ("\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588" if blocks
             else "_.-=#")
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
     "%(tcp_retransmissions)d"))
_SERVED = ("\nreplies of a connection: least %(replies_least)d, most "
           "%(replies_most)d")
_TIMES = (("connect", "connect", ""), ("first", "first reply", ""),
          ("rtt", "RTT", ""),
          ("wait", "wait", " (connecting is in the first)"))


def summary(figures: Dict[str, Any], connections: int = 1,
            reconnect: bool = False) -> List[str]:
    """Return the figures of a run as lines for a person."""
    figures = dict(figures,
                   mbit_per_s=(figures["bytes_per_s"] or 0) * 8 / 1e6)
    lines = "".join(form for key, form in _SUMMARY + (
        ("replies_most", _SERVED),) * (connections > 1)
        if not key or figures[key])
    for name, title, note in _TIMES:
        if figures[name + "_max_us"] is not None and {
                "connect": reconnect, "first": connections > 1}.get(name, True):
            times = [us for key, us in figures.items()
                     if key.startswith(name + "_") and key.endswith("_us")]
            lines += "\n%s min/mean/p50/p90/p99/max %s ms%s" % (
                title, "/".join("%.3f" % (us / 1e3) for us in times), note)
    return (lines % figures).split("\n")
