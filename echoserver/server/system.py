"""Calls to the operating system beyond the socket module, with their reasons.

Each function does nothing, or returns 0, on a system that does not know the
call, and for a socket that is closed.
"""

import array
import contextlib
import errno
import socket
import struct
import sys
from fcntl import ioctl
from termios import FIONREAD, TIOCOUTQ
from time import monotonic
from typing import Any, Optional

__all__ = ["ACCEPTED_INHERIT", "ignore_callers", "limit_wait", "linger",
           "listens", "reason_of", "reset_on_close", "resets_on_close",
           "shut_down", "unread", "unsent"]

# Errors, beside ConnectionError, that a peer or the network on the way to it
# can cause.  Any other error is a bug and keeps its traceback.
PEER_ERRNOS = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH,
               errno.ENETDOWN, errno.ENETRESET, errno.ENOTCONN}

LINUX = sys.platform.startswith("linux")

# Whether accepted sockets have the options of their listener.
ACCEPTED_INHERIT = LINUX

# Linux counts the bytes that are not sent apart from those that are not
# acknowledged.  The latter have mostly arrived, and the acknowledgement takes
# 40 ms.
SIOCOUTQNSD = 0x894B if LINUX else TIOCOUTQ

LINGER_0 = struct.pack("ii", 1, 0)

# A packet filter for a listener, in the classic instructions of BPF (code, two
# jumps, operand): drop packets that begin a connection, pass all others.
SO_ATTACH_FILTER = 26   # Python has no name for it
DROP_SYN = array.array("B", b"".join(
    struct.pack("=HBBI", *line) for line in (
        (0x30, 0, 0, 13),           # load the TCP header's byte of flags
        (0x54, 0, 0, 0x12),         # keep SYN and ACK of them
        (0x15, 0, 1, 0x02),         # if it is SYN alone,
        (0x06, 0, 0, 0),            # drop the packet
        (0x06, 0, 0, 0xFFFFFFFF))))


def ignore_callers(listener: socket.socket) -> None:
    """Have Linux ignore clients that connect from now on.

    A client that the kernel accepts between the last accept() and the close()
    of the listener is reset: 18 of 120 callers lost a request in 20 stops.  A
    client that is ignored tries again after a second, and is refused.
    """
    address, size = DROP_SYN.buffer_info()
    with contextlib.suppress(OSError):  # forbidden, by a container perhaps
        if LINUX:
            listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER,
                                struct.pack("@HP", size // 8, address))


def limit_wait(request: socket.socket, option: int, seconds: float) -> None:
    """Let recv() or send() raise BlockingIOError after so many seconds.

    The option is SO_RCVTIMEO or SO_SNDTIMEO.  The kernel's timeout needs no
    extra call; settimeout() needs a poll() before each, 16 % of the time of a
    small reply.
    """
    timeval = int(seconds), int(seconds % 1 * 1e6)
    try:
        request.setsockopt(socket.SOL_SOCKET, option,
                           struct.pack("@ll", *timeval))
    except OSError:  # 32-bit Linux with 64-bit times
        request.setsockopt(socket.SOL_SOCKET, option,
                           struct.pack("=qq", *timeval))


def reset_on_close(request: socket.socket, reset: bool = True) -> None:
    """Let close() end the connection with a reset, whatever is queued; or
    undo that."""
    with contextlib.suppress(OSError):
        request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                           LINGER_0 if reset else bytes(len(LINGER_0)))


def resets_on_close(request: socket.socket) -> bool:
    """Return whether close() would end the connection with a reset."""
    return request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                              len(LINGER_0)) == LINGER_0


def linger(request: socket.socket, seconds: float) -> None:
    """End our side, and read unread input for at most so many seconds.

    Closing with unread input sends a reset, which can destroy the last reply
    on its way (RFC 2525, section 2.17).
    """
    end = monotonic() + seconds
    with contextlib.suppress(OSError):  # the peer is gone, or the time is over
        request.shutdown(socket.SHUT_WR)
        request.settimeout(max(end - monotonic(), 0))
        while request.recv(65536) and monotonic() < end:
            request.settimeout(max(end - monotonic(), 0))


def listens(s: socket.socket) -> bool:
    """Return whether a socket is open and accepts connections."""
    try:
        return bool(s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False


def reason_of(error: Optional[BaseException], request: socket.socket) -> str:
    """Return the word for the end of a connection by error; "" for a bug.

    Since Python 3.10 a timeout of the socket and the network's ETIMEDOUT are
    both TimeoutError.
    """
    if (isinstance(error, ConnectionError)
            and not isinstance(error, ConnectionRefusedError)   # of another
            or getattr(error, "errno", None) in PEER_ERRNOS):
        return "reset"
    if isinstance(error, socket.timeout) and request.gettimeout():
        return "idle"
    return ""


def shut_down(request: socket.socket, how: int) -> None:
    """Shut down one side; a peer that is gone already is no error."""
    with contextlib.suppress(OSError):
        request.shutdown(how)


def unsent(request: socket.socket) -> int:
    """Return how many bytes the kernel has still to send."""
    return ask_kernel(request, SIOCOUTQNSD)


def unread(request: socket.socket) -> int:
    """Return how many bytes wait to be read."""
    return ask_kernel(request, FIONREAD)


def ask_kernel(request: Any, question: int) -> int:
    try:
        return int.from_bytes(ioctl(request, question, bytes(4)),
                              sys.byteorder)
    except (OSError, ValueError):
        return 0
