"""What went wrong, as one line for a person and one number for a script.

Shared by all faces of the client program.  The line begins with a word that
says whose fault it is likely to be.  Then come the address, what happened, and
what to try, as the error has it.  What was sent and received is shown by
WrongEcho alone, which keeps it short.

What this host is short of is no fault of the network's: it has a sentence
without such a word, and the exit code of a usage that cannot be.
"""

import errno
import socket
from typing import Tuple

from .connecting import Address, describe
from .errors import WrongEcho

__all__ = ["INTERRUPTED", "NETWORK", "OK", "USAGE", "WRONG", "diagnose",
           "shortage"]

# Exit codes; the last is 128 and SIGINT, as the shell counts signals.
OK, NETWORK, USAGE, WRONG, INTERRUPTED = 0, 1, 2, 3, 130

_WORDS = (
    (socket.gaierror, "DNS"),           # the name has no address
    (TimeoutError, "TIMEOUT"),          # no connection came, or no reply
    (ConnectionRefusedError, "REFUSED"),    # nothing listens, or a firewall
                                            # rejects: an answer came
    (ConnectionResetError, "RESET"),    # the connection was cut
    (ConnectionAbortedError, "RESET"),
    (ConnectionError, "CLOSED"),        # the server ended the stream early
    (OSError, "UNREACHABLE"),           # no way there, or forbidden here
)
_SHORTAGES = {errno.EMFILE: "descriptors", errno.ENFILE: "descriptors",
              errno.ENOMEM: "memory", errno.ENOBUFS: "network buffers"}


def diagnose(error: Exception, address: Address) -> Tuple[int, str, str]:
    """Return an exit code, a word and the line for error, which is an OSError,
    a MemoryError or a WrongEcho: a wrong answer."""
    ours = shortage(error)
    if ours:
        return USAGE, "SHORTAGE", ours
    if isinstance(error, WrongEcho):
        return WRONG, "WRONG", "WRONG %s: %s" % (describe(address), error)
    word = next(word for kind, word in _WORDS if isinstance(error, kind))
    return NETWORK, word, "%s %s" % (
        word, getattr(error, "strerror", None) or error)


def shortage(error: Exception) -> str:
    """Return a sentence if this host is short of something, otherwise ""."""
    if isinstance(error, MemoryError):
        return "this host is out of memory; send less, over fewer connections"
    # A gaierror's number is the resolver's, and may be one of these.
    what = None if isinstance(error, socket.gaierror) else _SHORTAGES.get(
        getattr(error, "errno", None) or 0)
    return "" if what is None else (
        "this host is out of %s; raise its limits (ulimit -n), or use fewer "
        "connections" % what)
