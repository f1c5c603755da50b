"""What a counting run shows: lines as it goes, and the summary."""

import argparse
import json
import math
import shutil
import sys
from typing import Any, Dict, List, Set

from .connecting import describe
from .figures import Tally
from .output import Progress, put, stamped, tell

__all__ = ["Report", "summary"]


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
        self._has_lines = (args.interval >= self.line_interval
                           and not args.quiet)
        # Seconds between two lines of progress.
        self._pause = 0.0 if self._progress.exists else self.progress_interval
        if args.quiet or self._has_lines or (args.json and self._pause):
            self._pause = math.inf
        # The time and the number of replies of the last line of progress, and
        # the longest round trip since.
        self._then, self._before, self._worst = 0.0, 0, 0.0

    def reply(self, number: int, seconds: float) -> None:
        """Show that the reply to a message took so long."""
        self._worst = max(self._worst, seconds)
        if self._has_lines and not self._args.json:
            put(stamped(self._args, "%d bytes from %s: seq=%d time=%.3f ms" % (
                self._args.size, self._where, number, seconds * 1e3)))

    def failure(self, word: str, line: str) -> None:
        """Show a line, or only the first one with that word."""
        if self._has_lines or word not in self._told:
            self._told.add(word)
            self._progress.erase()
            tell(stamped(self._args, line))

    def progress(self, seconds: float) -> None:
        """Show how it goes after so many seconds, if it is time for that."""
        passed, tally = seconds - self._then, self._tally
        if not passed or passed < self._pause:
            return
        replies = tally.verified - self._before
        line = "%.0f replies/s, max %s ms, %d verified, %d lost, %d wrong" % (
            replies / passed, "%.3f" % (self._worst * 1e3) if replies else "-",
            tally.verified, tally.lost, tally.wrong)
        self._then, self._before, self._worst = seconds, tally.verified, 0.0
        if self._progress.exists:
            self._progress.show(line)
        else:
            put(stamped(self._args, line))

    def so_far(self, figures: Dict[str, Any]) -> None:
        """Show figures in the middle of the run, for a person."""
        self._progress.erase(True)
        for line in summary(figures):
            tell(line)

    def summary(self, figures: Dict[str, Any], interrupted: bool) -> None:
        """Print the figures of the whole run."""
        args = self._args
        self._progress.erase(interrupted)
        if args.json:
            put(json.dumps(dict({
                "host": args.host, "port": args.port,
                "connections": args.connections, "size_bytes": args.size,
                "interval_seconds": args.interval}, **figures),
                allow_nan=False))
            return
        lines = ["--- %s, %d bytes a message, %d connection%s" % (
            self._where, args.size, args.connections,
            "s" * (args.connections > 1))] + summary(figures)
        if args.histogram:
            columns, rows = shutil.get_terminal_size()
            lines += self._tally.times.chart(
                columns - 1, max(rows - 9, 8),
                "utf" in str(sys.stdout.encoding).lower())
        for line in lines:
            put(line)


def summary(figures: Dict[str, Any]) -> List[str]:
    """Return the figures of a Tally as lines for a person."""
    lines = ["%d sent, %d verified, %d lost, %d wrong%s in %.2f s" % (
        figures["messages_sent"], figures["replies_verified"],
        figures["messages_lost"], figures["replies_wrong"],
        ", %d unanswered for up to %.3f s" % (
            figures["messages_unanswered"],
            figures["oldest_unanswered_seconds"])
        if figures["messages_unanswered"] else "", figures["seconds"])]
    rate = figures["bytes_per_s"] or 0
    lines.append("%.1f replies/s, %.0f bytes/s (%.1f Mbit/s)" % (
        figures["replies_per_s"] or 0, rate, rate * 8 / 1e6))
    if figures["outages"]:
        lines.append("outages: %d, the longest %.3f s" % (
            figures["outages"], figures["longest_outage_seconds"]))
    for name, title in ("rtt", "RTT"), ("wait", "wait"):
        times = [us for key, us in figures.items() if key.startswith(name)]
        if name == "rtt" or times[0] is not None:
            lines.append("%s min/mean/p50/p90/p99/max %s ms" % (
                title, "/".join("-" if us is None else "%.3f" % (us / 1e3)
                                for us in times)))
    return lines
