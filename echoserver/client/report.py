"""What a counting run shows: a line for each reply or one of progress, the
failures, and the summary."""

import argparse
import json
import os
import shutil
import sys
from typing import Any, Dict, List, Optional, Set

from .connecting import describe
from .figures import BLOCKS, Tally, milliseconds
from .output import put, tell

__all__ = ["Report", "summary"]

# Seconds between messages from which on each has its line; with less, a
# terminal would show a blur.
LINE_INTERVAL = 0.2


class Report:
    """Show how a run goes, and in the end what tally has."""

    def __init__(self, args: argparse.Namespace, tally: Tally) -> None:
        self._args = args
        self._tally = tally
        self._where = describe((args.host, args.port))
        self._terminal = sys.stderr.isatty()
        self._has_lines = args.interval >= LINE_INTERVAL and not args.quiet
        self._has_progress = (self._terminal and not args.quiet
                              and not self._has_lines)
        # The columns that the progress line takes at present.
        self._columns = 0
        # The words of the failures that have been told.
        self._told: Set[str] = set()

    def reply(self, number: int, seconds: float) -> None:
        """Show that the reply to a message took so long."""
        if self._has_lines and not self._args.json:
            put("%d bytes from %s: seq=%d time=%s ms" % (
                self._args.size, self._where, number, milliseconds(seconds)))

    def failure(self, word: str, line: str) -> None:
        """Show a line, or only the first with that word."""
        if self._has_lines or word not in self._told:
            self._told.add(word)
            self._erase_progress()
            tell(line)

    def progress(self, seconds: float) -> None:
        """Show on the terminal how it goes, after so many seconds."""
        if not self._has_progress:
            return
        try:
            columns = os.get_terminal_size(sys.stderr.fileno()).columns
        except OSError:
            return      # a terminal that is gone
        # Not the last three: room for ^C and the cursor behind it.
        self._columns = max((columns or 80) - 3, 0)
        line = "%d verified, %d lost, %d wrong, %.0f replies/s" % (
            self._tally.verified, self._tally.lost, self._tally.wrong,
            self._tally.verified / max(seconds, 1e-6))
        tell("\r" + line[:self._columns].ljust(self._columns), end="")

    def _erase_progress(self) -> None:
        if self._columns:
            tell("\r%*s\r" % (self._columns, ""), end="")
            self._columns = 0

    def summary(self, seconds: float, interrupted: bool) -> None:
        """Print the figures of a run of that length."""
        args = self._args
        if interrupted and self._terminal:
            tell("")        # leaves the line where it says ^C
        self._erase_progress()
        figures = self._tally.figures(args.size, seconds)
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
            lines += self._tally.times.chart(columns - 1, max(rows - 6, 8),
                                             _has_blocks())
        for line in lines:
            put(line)


def summary(figures: Dict[str, Any]) -> List[str]:
    """Return the figures of a Tally as lines for a person."""
    unanswered = ", %d unanswered" % figures["messages_unanswered"]
    return [
        "{messages_sent} sent, {replies_verified} verified, {messages_lost} "
        "lost, {replies_wrong} wrong{} in {seconds:.2f} s".format(
            unanswered if figures["messages_unanswered"] else "", **figures),
        "%s replies/s, %s bytes/s" % (_rate(figures["replies_per_s"]),
                                      _rate(figures["bytes_per_s"])),
        "RTT min/mean/p50/p90/p99/max %s ms" % "/".join(
            "-" if value is None else "%.3f" % (value / 1e3)
            for name, value in figures.items() if name.startswith("rtt_"))]


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
