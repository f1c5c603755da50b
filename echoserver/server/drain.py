"""The drain: how a server comes to its end.

It accepts whom the kernel has accepted; closes the listener, so that a client
that is turned away can go elsewhere; ends each connection when it is at rest;
and cuts what is left after the grace.
"""

import logging
from time import monotonic
from typing import TYPE_CHECKING

from .system import ignore_callers

if TYPE_CHECKING:
    from .base import EchoServer

__all__ = ["CUT_TIMEOUT", "drain"]

logger = logging.getLogger("echoserver")

TICK = 0.005            # seconds between two looks at a draining server
CUT_TIMEOUT = 1.0       # seconds for handlers to notice that they were cut


def drain(server: "EchoServer") -> None:
    """Let every connection of server end, within server.grace seconds and
    CUT_TIMEOUT."""
    began = server.draining_since
    peers, loop = server.peers, server.loop
    server.idle.timeout = 0.0
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
