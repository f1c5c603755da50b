"""Accepting: who is let in, and who waits in the kernel's backlog.

At the limit nobody is accepted: the backlog holds the others, and nobody is
let in to be thrown away.

When the system is out of descriptors, memory, threads or processes, the
listener rests for a moment and clients wait in the same way; those inside are
served on.  An accept loop without that pause spins at full speed.
"""

import logging
from time import monotonic
from typing import Any, Set, Tuple, Type

from .handler import Peer
from .loop import NEVER, SelectorTCPServer
from .registry import Registry, reset_on_close

__all__ = ["COMPLAINT", "PAUSE", "AcceptingTCPServer"]

logger = logging.getLogger("echoserver")

PAUSE = 0.5         # seconds without accepting after the means for it ran out
COMPLAINT = 1.0     # seconds between two log lines about that
ACCEPTS = 64        # connections accepted before others get their turn


class AcceptingTCPServer(SelectorTCPServer):

    """Base class of the servers: letting clients in, and counting them.

    Methods for derived classes:

    - register(request, client_address), which may be overridden
    - complain(message, ...)

    Class variables that may be overridden:

    - max_connections: open at the same time; 0 is no limit
    - peer_class: the Peer that the registry has of each

    Instance variables:

    - peers: the Registry of live connections, which the derived class makes
    """

    # Enough for a balancer's pool, within the 1,024 descriptors that a
    # process may have by default on Linux.
    max_connections = 1000
    peer_class: Type[Peer] = Peer
    peers: Registry

    def __init__(self, server_address: Tuple[Any, ...],
                 RequestHandlerClass: Any,
                 bind_and_activate: bool = True) -> None:
        self._paused_until = 0.0
        self._complained_at = -NEVER
        self._at_limit = False
        self._attentive = False     # whether a closing has to wake the loop
        super().__init__(server_address, RequestHandlerClass,
                         bind_and_activate)

    def descriptors(self) -> Set[int]:
        numbers = {request.fileno() for request in self.peers}
        return numbers - {-1} | super().descriptors()

    def let_go(self, keep: Any = None) -> None:
        super().let_go(keep)
        self._attentive = False

    def sweep(self, now: float) -> float:
        if now < self._paused_until:
            return self._paused_until
        if self._paused_until:
            self._paused_until = 0.0
            self._watch_listener()
        return NEVER

    def woken(self) -> None:
        if self._at_limit:
            self.accept_ready()
            if not self._full():
                self._at_limit = False
                logger.info("below the limit of %d connections again",
                            self.max_connections)

    def _full(self) -> bool:
        """Whether the limit is reached; watch the listener accordingly."""
        if self.max_connections and len(self.peers) >= self.max_connections:
            self._ignore_listener()
            # First the flag, then a second look: a connection that ended
            # between the two looks did not see the flag and wakes nobody.
            self._attentive = True
            if len(self.peers) >= self.max_connections:
                if not self._at_limit:
                    self._at_limit = True
                    logger.warning("at the limit of %d connections; others "
                                   "wait", self.max_connections)
                return True
        self._attentive = False
        if not self._paused_until:
            self._watch_listener()
        return False

    def accept_ready(self) -> None:
        for _ in range(ACCEPTS):
            if (self._stopping or self._paused_until or self._full()
                    or not self._handle_request_noblock()):
                break

    def _handle_request_noblock(self) -> bool:
        """Take one connection; False if there was none to take.

        The name is socketserver's: its handle_request() comes here, too.
        """
        try:
            request, client_address = self.get_request()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return False  # it was there and is gone again (bpo-7995)
        except (OSError, MemoryError) as error:
            return self._pause(error)
        try:
            self.register(request, client_address)
            if self.verify_request(request, client_address):
                self.process_request(request, client_address)
            else:
                self.shutdown_request(request)
        except (OSError, MemoryError) as error:
            self._turn_away(request)
            return self._pause(error)
        except Exception:
            self.handle_error(request, client_address)
            self.shutdown_request(request)
        except BaseException:
            self._turn_away(request)
            raise
        return True

    def register(self, request: Any, client_address: Any) -> None:
        """Enter an accepted connection in the registry."""
        self.peers[request] = self.peer_class(
            request, client_address,
            getattr(self.RequestHandlerClass, "reply", bytes.upper))

    def _turn_away(self, request: Any) -> None:
        """Reset a connection that cannot be served."""
        reset_on_close(request)
        if request in self.peers:
            self.peers[request].ends("error")
        self.close_request(request)

    def _pause(self, error: Exception) -> bool:
        """Let the listener rest, since the means to accept have run out."""
        self.complain("no means for another connection: %s",
                      error or "out of memory")
        self._paused_until = monotonic() + PAUSE
        self._due = min(self._due, self._paused_until)
        self._ignore_listener()
        return False

    def complain(self, message: str, *args: Any) -> None:
        """Log an error of the kind that comes in floods: one line a second."""
        now = monotonic()
        if now >= self._complained_at + COMPLAINT:
            self._complained_at = now
            logger.error(message, *args)

    def close_request(self, request: Any) -> None:
        with self.peers.closing:
            super().close_request(request)
        self.peers.leave(request)
        if self._attentive:
            self.wake()
