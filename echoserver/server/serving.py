"""Serving a connection: to its end or by a turn, whatever its handler raises.

Handlers have no except clause: what they raise arrives here, and is told by
handle_error(), a hook of socketserver.  Then the connection is closed by
shutdown_request(), another one.
"""

import errno
import logging
import socket
import sys
from time import monotonic
from typing import TYPE_CHECKING, Any, Optional

from .handler import Buffer, Peer

if TYPE_CHECKING:
    from .base import EchoServer

__all__ = ["finish", "report_error", "serve", "take_turn", "tell_error"]

logger = logging.getLogger("echoserver")

# What a peer, or the network on the way to it, can do to a connection besides
# a ConnectionError.  Any other error is a bug and keeps its traceback.
PEER_ERRNOS = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH,
               errno.ENETDOWN, errno.ENETRESET, errno.ENOTCONN}

LINGER_TIMEOUT = 1.0    # seconds for which unread input is read at a close


def serve(server: "EchoServer", request: Any, client_address: Any) -> None:
    """Serve a connection to its end in the calling thread."""
    try:
        server.finish_request(request, client_address)
    except Exception:
        report_error(server, request, client_address)
    except BaseException:   # a handler that calls sys.exit(), say
        if request in server.peers:
            server.peers[request].ends("error")
        raise
    finally:
        server.shutdown_request(request)


def take_turn(server: "EchoServer", peer: Peer, buffer: Buffer
              ) -> Optional[bool]:
    """Call peer.turn(), and close the connection when it has ended: False."""
    try:
        moved = peer.turn(buffer)
        if moved is not False:
            return moved
    except Exception:
        report_error(server, peer.request, peer.client_address)
    except SystemExit:  # which ends a handler, and no worker
        peer.ends("error")
    except BaseException:
        peer.ends("error")
        server.shutdown_request(peer.request)
        raise
    server.shutdown_request(peer.request)
    return False


def report_error(server: "EchoServer", request: Any,
                 client_address: Any) -> None:
    """Call handle_error(), whose own errors end nothing else."""
    try:
        server.handle_error(request, client_address)
    except (Exception, SystemExit):
        logger.exception("handle_error() has failed")
    if request in server.peers:
        server.peers[request].ends("error")


def tell_error(server: "EchoServer", request: Any,
               client_address: Any) -> None:
    """Note what a peer did as the reason of its end; log our own bug, with
    its traceback."""
    error = sys.exc_info()[1]
    peer = server.peers.get(request) or Peer(request, client_address)
    reason = reason_of(error, request)
    if isinstance(error, MemoryError):
        server.acceptor.complain("%s: out of memory", peer)
    elif not reason:
        logger.exception("%s: unexpected error", peer)
    peer.ends(reason or "error")


def reason_of(error: Optional[BaseException], request: Any) -> str:
    """Return for what reason a connection ends with error; "" for a bug.

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


def finish(server: "EchoServer", request: Any) -> None:
    """Bring a connection to the end that its peer deserves: the end of the
    stream, or a reset where that would pass for the end of a whole reply."""
    peer = server.peers.get(request)
    if peer is not None and peer.incomplete:
        server.peers.reset(peer, "error")
    # With its input read to the end, close() alone does all of it.
    if peer is None or not (peer.aborted or peer.at_end):
        linger(request, 0 if server.loop.in_thread() else LINGER_TIMEOUT)


def linger(request: Any, seconds: float) -> None:
    """End our side, and read what is unread, for at most so many seconds.

    Closing with unread input sends a reset, which can destroy the last reply
    on its way (RFC 2525, section 2.17).
    """
    end = monotonic() + seconds
    try:
        request.shutdown(socket.SHUT_WR)
        request.settimeout(max(end - monotonic(), 0))
        while request.recv(65536) and monotonic() < end:
            request.settimeout(max(end - monotonic(), 0))
    except OSError:
        pass  # the peer is gone, or has had its moment
