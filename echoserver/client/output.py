"""What the client program says: results on standard output, all else on
standard error.

make_output_wait() of console.py lets both wait where a neighbour has made them
non-blocking.
"""

import contextlib
import sys
from datetime import datetime, timezone

from ..console import WaitingFile

__all__ = ["StreamError", "encoded", "expressible", "now", "put", "tell",
           "write"]


class StreamError(Exception):
    """A standard stream cannot be used; the arguments say which, and why."""


def encoded(text: str) -> bytes:
    """Return text as UTF-8, with undecoded bytes as they were."""
    return text.encode("utf-8", "surrogateescape")


def expressible(text: str) -> str:
    """Return text, with what standard output cannot express escaped."""
    charset = sys.stdout.encoding
    return encoded(text).decode("utf-8", "backslashreplace").encode(
        charset, "backslashreplace").decode(charset)


def now() -> str:
    """Return the time of day, as ISO 8601 writes it."""
    time = datetime.now(timezone.utc).astimezone()
    return time.isoformat(timespec="milliseconds")


def put(text: str) -> None:
    """Print a line on standard output."""
    write((expressible(text) + "\n").encode(sys.stdout.encoding))


def write(data: bytes) -> None:
    """Write data to standard output, at once and in full."""
    try:
        sys.stdout.flush()
        # Not by its buffer: if a signal interrupts that, it writes twice.
        WaitingFile(sys.stdout.fileno(), "w", closefd=False).write(data)
    except OSError as why:
        raise StreamError("standard output cannot be written", why) from None


def tell(text: str, end: str = "\n") -> None:
    """Print text on standard error, if that takes it."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, end=end, flush=True)
