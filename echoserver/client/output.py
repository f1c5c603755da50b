"""What the client program says: results on standard output, all else on
standard error.

make_output_wait() of console.py lets both wait where a neighbour has made them
non-blocking.
"""

import argparse
import os
import sys
from datetime import datetime, timezone


__all__ = ["StreamError", "Voice", "encoded", "expressible", "now", "put",
           "tell", "write"]


class StreamError(Exception):
    """A standard stream cannot be used; the arguments say which, and why."""


def encoded(text: str) -> bytes:
    """Return text as UTF-8, with undecoded bytes as they were."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        # Half a pair of surrogates, which a Windows console can produce.
        return text.encode("utf-8", "replace")


def expressible(text: str) -> str:
    """Return text, with what standard output cannot express escaped."""
    charset = sys.stdout.encoding
    return encoded(text).decode("utf-8", "backslashreplace").encode(
        charset, "backslashreplace").decode(charset)


def now() -> str:
    """Return the time of day, as ISO 8601 writes it."""
    return datetime.now(timezone.utc).astimezone().isoformat(
        timespec="milliseconds")


def put(text: str) -> None:
    """Print a line on standard output."""
    write((expressible(text) + "\n").encode(sys.stdout.encoding))


def write(data: bytes) -> None:
    """Write data to standard output, at once and in full."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    except OSError as error:
        raise StreamError("standard output cannot be written",
                          error) from None


def tell(text: str, end: str = "\n") -> None:
    """Print text on standard error, if that takes it."""
    try:
        print(text, file=sys.stderr, end=end, flush=True)
    except OSError:
        pass


class Voice:
    """What a run says: lines, with the time of day if args ask for it, and on
    standard error, where that is a terminal (is_shown), one that changes."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.is_shown = sys.stderr.isatty()
        self._has_stamps = args.timestamps
        self._columns = 0       # that the line takes at present

    def put(self, *lines: str) -> None:
        """Print lines on standard output."""
        self.erase()
        for line in lines:
            put(self._stamped(line))

    def tell(self, *lines: str) -> None:
        """Print lines on standard error."""
        self.erase()
        for line in lines:
            tell(self._stamped(line))

    def _stamped(self, line: str) -> str:
        return "%s %s" % (now(), line) if self._has_stamps else line

    def show(self, text: str) -> None:
        """Show text in place of what the changing line says."""
        try:
            columns = os.get_terminal_size(sys.stderr.fileno()).columns
        except OSError:
            return      # no terminal, or one that is gone
        # Not the last three: room for ^C and the cursor behind it.
        self._columns = max((columns or 80) - 3, 0)
        tell("\r" + text[:self._columns].ljust(self._columns), end="")

    def erase(self, key: bool = False) -> None:
        """Make place for other lines; leave the one where the terminal has
        shown a key, such as ^C."""
        if key and self.is_shown:
            tell("")
        if self._columns:
            tell("\r%*s\r" % (self._columns, ""), end="")
            self._columns = 0
