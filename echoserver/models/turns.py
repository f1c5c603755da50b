"""What the models share in which a connection has no thread of its own."""

import logging
import selectors
from typing import Optional

from ..server.base import EchoServer
from ..server.handler import Buffer, Peer

__all__ = ["limit_to_select", "take_turn"]

logger = logging.getLogger("echoserver")

# select() on Windows holds 512 sockets; some are the loop's own.
SELECT_MAX = 500


def take_turn(server: EchoServer, peer: Peer, buffer: Buffer
              ) -> Optional[bool]:
    """Call peer.turn(), and close the connection when it has ended: False."""
    try:
        moved = peer.turn(buffer)
        if moved is not False:
            return moved
    except Exception:
        server.handle_error_safely(peer.request, peer.client_address)
    except SystemExit:  # which ends a handler, and no worker
        peer.ends("error")
    server.shutdown_request(peer.request)
    return False


def limit_to_select(server: EchoServer) -> None:
    """Lower max_connections to what select() holds, where that is all."""
    selector_class = getattr(server.loop.poller, "selector_class", None)
    if (selector_class is selectors.SelectSelector
            and not 0 < server.max_connections <= SELECT_MAX):
        logger.warning("select() is all that this system has: at most %d "
                       "connections", SELECT_MAX)
        server.max_connections = SELECT_MAX
