"""Accepting: who is let in, and who waits in the kernel's backlog.

At the limit nobody is accepted: the backlog holds the others, and nobody is
let in to be thrown away.

When the system is out of descriptors, memory, threads or processes, the
listener rests for a moment and clients wait in the same way; those inside are
served on.  An accept loop without that pause spins at full speed.
"""

import errno
import logging
import selectors
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from .serving import report_error
from .system import reset_on_close

if TYPE_CHECKING:
    from .base import EchoServer

__all__ = ["Acceptor", "limit_to_select"]

logger = logging.getLogger("echoserver")

MAX_ACCEPTS = 64    # connections accepted before others get their turn

# What fork(), pthread_create(), epoll_ctl() and socket calls report of a
# system that is out of something, in this order.  Any other error of a hook
# is the hook's own.
SHORTAGES = {errno.EAGAIN, errno.ENOMEM, errno.ENOSPC, errno.EMFILE,
             errno.ENFILE, errno.ENOBUFS}


# select() on Windows holds 512 sockets; some are the loop's own.
SELECT_MAX = 500


class Acceptor:

    """Watches a server's listener while it may accept, and accepts.

    It calls the hooks of socketserver: get_request, verify_request and
    process_request; handle_error and shutdown_request where they fail.

    Class variables that may be overridden, in seconds:

    - pause: without accepting, when the system was out of something; and
      short_pause, when a hook has failed
    - complaint_interval: between two log lines about that
    - breather: before one more of those who come at once, so that another
      process that shares the listener has its turn; 0 for a listener of one
    """

    pause = 0.5
    short_pause = 0.01
    complaint_interval = 1.0
    breather = 0.0

    def __init__(self, server: "EchoServer") -> None:
        self._server = server
        self._watching = False      # whether the loop watches the listener
        self._at_limit = False
        self._paused = False
        self._complained_at = float("-inf")

    def update(self) -> None:
        """Watch the listener if there is room; called before each wait."""
        if self._at_limit and not self._is_full():
            self._accept_some()     # those who have waited longest
        full = self._is_full()
        if full is not self._at_limit:
            self._at_limit = full
            if full:
                logger.warning("at the limit of %d connections; others wait",
                               self._server.max_connections)
            else:
                logger.info("below the limit of %d connections again",
                            self._server.max_connections)
        self.watch(not full and not self._paused)

    def _is_full(self) -> bool:
        return 0 < self._server.max_connections <= len(self._server.peers)

    def removed(self, count: int) -> None:
        """Have the loop look for who waits, if it was full: of so many
        connections one was removed."""
        if 0 < self._server.max_connections <= count:
            self._server.loop.wake()

    def watch(self, wanted: bool) -> None:
        """Have the loop watch the listener, or not."""
        if wanted is not self._watching:
            if wanted:
                self._server.loop.add(self._server.socket,
                                      lambda listener: self._accept_some())
            else:
                self._server.loop.remove(self._server.socket)
            self._watching = wanted

    def _accept_some(self) -> None:
        for count in range(MAX_ACCEPTS):
            # after a stop nobody is accepted any more (bpo-35017)
            if (self._server.loop.stopping or self._paused or self._is_full()
                    or not self.accept_one()):
                break
            if count and self.breather:
                sleep(self.breather)

    def accept_rest(self, end: float) -> None:
        """Accept whom the kernel has accepted, over the limit if need be; no
        longer than until end, where that means to serve each of them."""
        accepted = True
        while accepted and monotonic() <= end:
            accepted = self.accept_one()

    def accept_one(self) -> bool:
        """Accept one connection and have it served; False if there is none."""
        server = self._server
        try:
            request, client_address = server.get_request()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return False  # it was there and is gone again (bpo-7995)
        except (OSError, MemoryError) as error:
            self._rest(error)
            return False
        try:
            server.peers.add(request, client_address)
            server.idle.watch()
            if self._is_verified(request, client_address):
                server.process_request(request, client_address)
            else:
                server.shutdown_request(request)
        except Exception as error:
            if is_shortage(error):
                self._turn_away(request)
                self._rest(error)
                return False
            report_error(server, request, client_address)
            server.shutdown_request(request)
        except BaseException:
            self._turn_away(request)
            raise
        return True

    def _is_verified(self, request: Any, client_address: Any) -> bool:
        """Ask the hook, whose errors are its own and no shortage."""
        try:
            return self._server.verify_request(request, client_address)
        except Exception:
            report_error(self._server, request, client_address)
            return False

    def _turn_away(self, request: Any) -> None:
        """Reset a connection that cannot be served."""
        reset_on_close(request)
        if request in self._server.peers:
            self._server.peers[request].ends("error")
        self._server.close_request(request)

    def _rest(self, error: Exception) -> None:
        """Accept nobody for a moment: at once it would fail again."""
        self.complain("cannot accept another connection: %s",
                      error or "out of memory")
        self._paused = True
        self._server.loop.call_at(
            monotonic() + (self.pause if is_shortage(error)
                           else self.short_pause), self._resume)

    def _resume(self) -> None:
        self._paused = False
        self._server.loop.wake()    # and so to update()

    def complain(self, message: str, *args: Any) -> None:
        """Log an error of the kind that comes in floods: at most one line a
        second."""
        now = monotonic()
        if now >= self._complained_at + self.complaint_interval:
            self._complained_at = now
            logger.error(message, *args)


def is_shortage(error: Exception) -> bool:
    return isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno in SHORTAGES)


def limit_to_select(server: "EchoServer") -> None:
    """Lower max_connections to what select() holds, where that is all."""
    selector_class = getattr(server.loop.poller, "selector_class", None)
    if (selector_class is selectors.SelectSelector
            and not 0 < server.max_connections <= SELECT_MAX):
        logger.warning("select() is all that this system has: at most %d "
                       "connections", SELECT_MAX)
        server.max_connections = SELECT_MAX
