"""What went wrong, as one line for a person and one number for a script.

Shared by the three faces of the client program.  The line begins with a word that says whose fault it is likely
to be:

    REFUSED   nothing listens there, or the way there is closed
    DNS       the name has no address
    TIMEOUT   no answer to the dialling, or silence afterwards
    RESET     the connection was cut
    CLOSED    the server ended the stream before its reply was complete
    WRONG     it answered, but not with an uppercase echo

Then come the address, what happened, and what to try.  What was sent and
received is shown by WrongEcho alone, which keeps it short.

What this host is short of is no fault of the network's: it has a sentence
without such a word, and the exit code of a usage that cannot be.
"""

import errno
import socket
import sys
from typing import Optional, Tuple

from ..address import show_address
from .connection import Address, Connection
from .verifier import WrongEcho

__all__ = ["CLOSED_OUTPUT", "INTERRUPTED", "NETWORK", "OK", "USAGE", "WRONG",
           "diagnose", "shortage", "tell"]

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


def diagnose(error: Exception, address: Address,
             connection: Optional[Connection] = None) -> Tuple[int, str]:
    """Return the exit code and the line for error, an OSError or a WrongEcho.

    connection is the one that it happened to, None while dialling.
    """
    where = show_address(address)
    if isinstance(error, WrongEcho):
        return WRONG, "WRONG %s: %s" % (where, error)
    ours = shortage(error)
    if ours:
        return USAGE, ours
    if connection is None:
        word, what = _not_dialled(error)
    else:
        word, what = _lost(error, connection.owed)
    return NETWORK, "%s %s %s" % (word, where, what)


def shortage(error: Exception) -> str:
    """Return a sentence if error says that this host is short of something,
    otherwise "".
    """
    # A gaierror's number is the resolver's, and may be one of these.
    if (not isinstance(error, OSError) or isinstance(error, socket.gaierror)
            or error.errno not in _SHORTAGES):
        return ""
    return ("this host is out of %s; raise its limits (ulimit -n), or use "
            "fewer connections" % _SHORTAGES[error.errno])


def _not_dialled(error: Exception) -> Tuple[str, str]:
    if isinstance(error, socket.gaierror):
        return "DNS", ("cannot be looked up (%s); check the spelling, or give "
                       "the address itself" % _reason(error))
    if isinstance(error, TimeoutError):
        return "TIMEOUT", ("did not answer the call in time; a firewall may "
                           "be dropping it, or the host is down")
    if isinstance(error, ConnectionRefusedError):
        return "REFUSED", ("refused the connection; is the server running, "
                           "and on this port?")
    if isinstance(error, (ConnectionResetError, ConnectionAbortedError)):
        return "RESET", ("cut the connection while it was being made; "
                         "something in between may not allow it")
    return "REFUSED", ("cannot be reached (%s); check the address and the "
                       "way there" % _reason(error))


def _lost(error: Exception, owed: int) -> Tuple[str, str]:
    missing = "%s unanswered" % ("%d bytes" % owed if owed else "nothing")
    if isinstance(error, TimeoutError):
        return "TIMEOUT", ("went silent with %s; if it is only slow, allow it "
                           "more with -W" % missing)
    # A broken pipe is a server that had ended its stream before; one that
    # cuts the connection shows as a reset.
    if (isinstance(error, ConnectionError)
            and not isinstance(error, (ConnectionResetError,
                                       ConnectionAbortedError))):
        return "CLOSED", ("ended the stream with %s; it may be stopping, or "
                          "have a limit on idle time" % missing)
    return "RESET", ("cut the connection (%s) with %s; the server, or "
                     "something in between, gave it up"
                     % (_reason(error), missing))


def _reason(error: Exception) -> str:
    """Return the system's words for error, without its number."""
    return getattr(error, "strerror", None) or str(error)


def tell(line: str, end: str = "\n") -> None:
    """Print one line on standard error, if that takes it."""
    try:
        print(line, file=sys.stderr, end=end, flush=True)
    except OSError:
        pass
