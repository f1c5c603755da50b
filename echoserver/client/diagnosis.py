"""What went wrong, as one line for a person and one number for a script.

All faces of the client program share it.  The line begins with a word that
says whose fault it is likely to be.  The sentence of the error follows: the
address, the event, and the next thing to try.  Only WrongEcho shows data, and
keeps them short.

A shortage of this host (descriptors, memory, local ports) is no fault of the
network's.  Its line has no such word, and its exit code is the one of wrong
usage.
"""

import errno
import socket
from typing import Any, Dict, Optional, Tuple

from .connecting import Address, describe
from .errors import WrongEcho

__all__ = ["CUT", "Failures", "INTERRUPTED", "NETWORK", "OK", "USAGE",
           "WRONG", "diagnose", "shortage"]

# Exit codes; CUT is that of --idle, and the last one is 128 and SIGINT, as the
# shell counts signals.
OK, NETWORK, USAGE, WRONG, CUT, INTERRUPTED = 0, 1, 2, 3, 4, 130

# Where there are several: the one that comes last here.
_SEVERITY = OK, NETWORK, CUT, USAGE, WRONG

_WORDS: Any = (
    (socket.gaierror, "DNS"),           # the name has no address
    (TimeoutError, "TIMEOUT"),          # no connection came, or no reply
    (ConnectionRefusedError, "REFUSED"),    # nothing listens, or a firewall
                                            # rejects: an answer came
    ((ConnectionResetError, ConnectionAbortedError), "RESET"),  # it was cut
    (ConnectionError, "CLOSED"),        # the server ended the stream early
    (OSError, "UNREACHABLE"))           # no way there, or forbidden here
_SHORTAGES = {errno.EMFILE: "descriptors", errno.ENFILE: "descriptors",
              errno.ENOMEM: "memory", errno.ENOBUFS: "network buffers"}


def diagnose(error: Exception, address: Address) -> Tuple[int, str, str]:
    """Return an exit code, a word and the line for error, which is an OSError,
    a MemoryError or a WrongEcho: a wrong answer."""
    if isinstance(error, WrongEcho):
        return WRONG, "WRONG", "WRONG %s: %s" % (describe(address), error)
    ours = shortage(error)
    if ours:
        return USAGE, "SHORTAGE", ours
    word = next(word for kind, word in _WORDS if isinstance(error, kind))
    return NETWORK, word, "%s %s" % (
        word, getattr(error, "strerror", None) or error)


def shortage(error: Exception) -> str:
    """Return a sentence if this host is short of something, otherwise ""."""
    # A gaierror's number is the resolver's, and may be one of these; a
    # MemoryError has none.
    number = 0 if isinstance(error, socket.gaierror) else getattr(
        error, "errno", errno.ENOMEM)
    if number == errno.EADDRNOTAVAIL:   # connect() says what to do
        return str(getattr(error, "strerror", ""))
    return number in _SHORTAGES and (
        "this host is out of %s; raise its limits (ulimit), or use fewer "
        "connections and smaller messages" % _SHORTAGES[number]) or ""


class Failures:
    """The failures of a run.

    Attributes: words, how often each word came; first, the line of the first
    failure; code, the worst exit code.
    """

    def __init__(self, address: Address) -> None:
        self._address, self.code = address, OK
        self.words: Dict[str, int] = {}
        self.first: Optional[str] = None

    def worsen(self, code: int) -> None:
        """Let the exit code be this one, unless it is worse."""
        self.code = max(self.code, code, key=_SEVERITY.index)

    def note(self, error: Exception) -> Tuple[str, str]:
        """Count error; return its word and its line."""
        code, word, line = diagnose(error, self._address)
        self.words[word] = self.words.get(word, 0) + 1
        self.first = self.first or line
        self.worsen(code)
        return word, line
