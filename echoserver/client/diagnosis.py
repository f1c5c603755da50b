"""What went wrong, as one line for a person and one number for a script.

Shared by all faces of the client program.  The line begins with a word that
says whose fault it is likely to be:

    REFUSED      an answer came: nothing listens there, or a firewall rejects
    UNREACHABLE  there is no way there, or this host's own rules forbid it
    DNS          the name has no address
    TIMEOUT      the connection attempt timed out, or the server fell silent
    RESET        the connection was cut
    CLOSED       the server ended the stream before its reply was complete
    WRONG        it answered, but not with an uppercase echo

Then come the address, what happened, and what to try, as the error has it.
What was sent and received is shown by WrongEcho alone, which keeps it short.

What this host is short of is no fault of the network's: it has a sentence
without such a word, and the exit code of a usage that cannot be.
"""

import errno
import socket
from typing import NamedTuple

from .connection import WrongEcho
from .connecting import Address, describe

__all__ = ["CLOSED_OUTPUT", "Diagnosis", "INTERRUPTED", "NETWORK", "OK",
           "USAGE", "WRONG", "diagnose", "shortage"]

# Exit codes.  The last two are 128 and a signal, SIGINT and SIGPIPE, as the
# shell counts them for the programs that those signals end.
OK = 0
NETWORK = 1
USAGE = 2
WRONG = 3
INTERRUPTED = 130
CLOSED_OUTPUT = 141

_SHORTAGES = {errno.EMFILE: "descriptors", errno.ENFILE: "descriptors",
              errno.ENOMEM: "memory", errno.ENOBUFS: "network buffers"}


class Diagnosis(NamedTuple):
    """An exit code, its word, and the line that begins with it; only SHORTAGE,
    where this host is to blame, is not said there."""

    code: int
    word: str
    line: str


def diagnose(error: Exception, address: Address) -> Diagnosis:
    """Return what error, an OSError or a WrongEcho, means."""
    ours = shortage(error)
    if ours:
        return Diagnosis(USAGE, "SHORTAGE", ours)
    if isinstance(error, WrongEcho):
        return Diagnosis(WRONG, "WRONG", "WRONG %s: %s" % (
            describe(address), error))
    word = _word(error)
    return Diagnosis(NETWORK, word, "%s %s" % (
        word, getattr(error, "strerror", None) or error))


def _word(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return "DNS"
    if isinstance(error, TimeoutError):
        return "TIMEOUT"
    if isinstance(error, (ConnectionResetError, ConnectionAbortedError)):
        return "RESET"
    if type(error) is ConnectionError:
        return "CLOSED"
    if isinstance(error, ConnectionRefusedError):
        return "REFUSED"
    return "UNREACHABLE"


def shortage(error: Exception) -> str:
    """Return a sentence if error says that this host is short of something,
    otherwise ""."""
    if isinstance(error, MemoryError):
        return "this host is out of memory; send less, over fewer connections"
    # A gaierror's number is the resolver's, and may be one of these.
    what = None if isinstance(error, socket.gaierror) else _SHORTAGES.get(
        getattr(error, "errno", None) or 0)
    return "" if what is None else (
        "this host is out of %s; raise its limits (ulimit -n), or use fewer "
        "connections" % what)
