"""The drain: how a server comes to its end, and a connection to its own.

    drain   accept whom the kernel has accepted; close the listener, so that a
            client that is turned away can go elsewhere; end each connection
            when it is at rest; after the grace, cut what is left
    finish  end the stream, read what is unread, for a moment
"""

import logging
import socket
from time import monotonic
from typing import TYPE_CHECKING, Any

from .system import ignore_callers

if TYPE_CHECKING:
    from .base import EchoServer

__all__ = ["CUT_TIMEOUT", "drain", "finish"]

logger = logging.getLogger("echoserver")

TICK = 0.005            # seconds between two looks at a draining server
CUT_TIMEOUT = 1.0       # seconds for handlers to notice that they were cut
LINGER_TIMEOUT = 1.0    # seconds for which unread input is read at a close


def drain(server: "EchoServer") -> None:
    """Let every connection of server end, within server.grace seconds and
    CUT_TIMEOUT."""
    began = server.draining_since
    peers, loop = server.peers, server.loop
    peers.idle_timeout = 0.0
    server.socket.setblocking(False)
    server.acceptor.watch(False)
    if not server.adopted:  # or else others use it
        ignore_callers(server.socket)
    server.acceptor.accept_rest(began + server.grace)
    if server.server_address[0] not in ("127.0.0.1", "::1"):
        # on a network somebody may be in the midst of the TCP handshake
        while monotonic() < began + min(peers.last_call, server.grace):
            loop.run_once(TICK)
        server.acceptor.accept_rest(began + server.grace)
    server.socket.close()
    while peers and monotonic() < began + server.grace:
        peers.end_resting(monotonic(), began, server.grace)
        loop.run_once(TICK)
    end = monotonic() + CUT_TIMEOUT
    while peers and monotonic() < end:
        peers.cut_all("drain")
        loop.run_once(TICK)
    server.kill_handlers()
    logger.info("served %s", peers.totals())


def finish(request: Any, seconds: float) -> None:
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
