"""What a counting run shows: lines as it goes, and the summary."""

import argparse
import json
import math
import shutil
import sys
from datetime import datetime
from typing import Any, Dict, List, Optional, Set

from .connecting import describe
from .figures import BLOCKS, Tally, milliseconds
from .output import Progress, put, tell

__all__ = ["Report", "stamped", "summary"]

def stamped(args: argparse.Namespace, line: str) -> str:
    """Return line, after the time of day if args ask for it."""
    if not args.timestamps:
        return line
    return "%s %s" % (datetime.now().astimezone().isoformat(
        timespec="milliseconds"), line)


class Report:
    """Show how a run goes, and in the end what tally has.

    Class variables, in seconds: line_interval, between messages from which on
    each has its line; progress_interval, between two lines of progress that
    are there otherwise, but for a terminal, where one changes all the time.
    """

    line_interval = 0.2
    progress_interval = 1.0

    def __init__(self, args: argparse.Namespace, tally: Tally) -> None:
        self._args = args
        self._tally = tally
        self._where = describe((args.host, args.port))
        self._progress = Progress()
        self._told: Set[str] = set()        # words of failures
        self._has_lines = not args.quiet and args.interval >= self.line_interval
        # Seconds between two lines of progress; the time and the number of
        # replies of the last one, and the longest round trip since.
        self._pause = math.inf
        if not args.quiet and not self._has_lines:
            if self._progress.exists:
                self._pause = 0.0
            elif not args.json:
                self._pause = self.progress_interval
        self._then, self._before, self._worst = 0.0, 0, 0.0

    def reply(self, number: int, seconds: float) -> None:
        """Show that the reply to a message took so long."""
        self._worst = max(self._worst, seconds)
        if self._has_lines and not self._args.json:
            put(stamped(self._args, "%d bytes from %s: seq=%d time=%s ms" % (
                self._args.size, self._where, number, milliseconds(seconds))))

    def failure(self, word: str, line: str) -> None:
        """Show a line, or only the first one with that word."""
        if self._has_lines or word not in self._told:
            self._told.add(word)
            self._progress.erase()
            tell(stamped(self._args, line))

    def progress(self, seconds: float) -> None:
        """Show how it goes, after so many seconds."""
        passed = seconds - self._then
        if passed < self._pause or not passed:
            return
        tally = self._tally
        line = "%d verified, %d lost, %d wrong, %.0f replies/s, max %s ms" % (
            tally.verified, tally.lost, tally.wrong,
            (tally.verified - self._before) / passed,
            milliseconds(self._worst))
        self._then, self._before, self._worst = seconds, tally.verified, 0.0
        if self._progress.exists:
            self._progress.show(line)
        else:
            put(stamped(self._args, line))

    def so_far(self, figures: Dict[str, Any]) -> None:
        """Show the figures, as they are now, on standard error."""
        self._progress.erase()
        for line in summary(figures):
            tell(line)

    def summary(self, figures: Dict[str, Any], interrupted: bool) -> None:
        """Print the figures of the run."""
        args = self._args
        if interrupted and self._progress.exists:
            tell("")        # leaves the line where it says ^C
        self._progress.erase()
        if args.json:
            put(json.dumps(dict(
                figures, host=args.host, port=args.port,
                connections=args.connections, size_bytes=args.size,
                interval_seconds=args.interval), allow_nan=False))
            return
        put("--- %s, %d bytes a message, %d connection%s" % (
            self._where, args.size, args.connections,
            "" if args.connections == 1 else "s"))
        lines = summary(figures)
        if args.histogram:
            columns, rows = shutil.get_terminal_size()
            lines += self._tally.times.chart(columns - 1, max(rows - 9, 8),
                                             _has_blocks())
        for line in lines:
            put(line)


def summary(figures: Dict[str, Any]) -> List[str]:
    """Return the figures of a Tally as lines for a person."""
    lines = [
        "{messages_sent} sent, {replies_verified} verified, {messages_lost} "
        "lost, {replies_wrong} wrong{} in {seconds:.2f} s".format(
            ", {messages_unanswered} unanswered".format(**figures)
            if figures["messages_unanswered"] else "", **figures),
        "%s replies/s, %s bytes/s (%.1f Mbit/s)" % (
            _rate(figures["replies_per_s"]), _rate(figures["bytes_per_s"]),
            (figures["bytes_per_s"] or 0) * 8 / 1e6)]
    if figures["outages"]:
        lines.append("%d outage(s), the longest %.3f s" % (
            figures["outages"], figures["longest_outage_seconds"]))
    for name, title in ("rtt", "RTT"), ("wait", "wait"):
        times = [us for key, us in figures.items() if key.startswith(name)]
        if name == "rtt" or times[0] is not None:
            lines.append("%s min/mean/p50/p90/p99/max %s ms" % (
                title, "/".join("-" if us is None else "%.3f" % (us / 1e3)
                                for us in times)))
    return lines


def _rate(rate: Optional[float]) -> str:
    if rate is None:
        return "-"
    return "%.0f" % rate if rate >= 100 else "%.1f" % rate


def _has_blocks() -> bool:
    """Return whether standard output can show the bars of a chart."""
    try:
        BLOCKS.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
