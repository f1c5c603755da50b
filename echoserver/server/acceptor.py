"""Accepting: which clients are let in, and which wait in the kernel's backlog.

At the limit no client is accepted, and the backlog holds the others.  We never
accept a client only to close it again.

If the system is out of descriptors, memory, threads or processes, the listener
rests until a connection ends, or for a moment.  New clients wait, and those
inside are served.  An accept loop without that pause spins at full speed.
"""

import errno
import socketserver
from time import monotonic, sleep
from typing import Any, Callable, Optional, Tuple

from .connections import Connections
from .log import logger
from .loop import Loop

__all__ = ["Acceptor", "is_shortage"]

# What fork(), pthread_create(), epoll_ctl() and socket calls report of a
# system that is out of something, in this order.  Any other error of a hook
# is the hook's own.
SHORTAGES = {errno.EAGAIN, errno.ENOMEM, errno.ENOSPC, errno.EMFILE,
             errno.ENFILE, errno.ENOBUFS}


class Acceptor:

    """Watches a listener while clients may be accepted, and accepts them.

    It calls the hooks get_request, verify_request, process_request and
    shutdown_request of server, and fail(request, client_address) if one of
    them raises.  limit() is how many connections may be open; 0 is no limit.

    Class variables that may be overridden:

    - max_accepts: clients accepted in one go, before those inside get their
      turn again
    - breather: seconds between two of them, so that another process that
      shares the listener has its turn; 0 for a listener of one
    - pause: seconds without accepting if the system was out of something; and
      short_pause, if a hook has failed
    - limit_interval: seconds between two log lines about the limit
    """

    max_accepts = 1024
    breather = 0.0
    pause = 0.5
    short_pause = 0.01
    limit_interval = 1.0

    def __init__(self, server: socketserver.TCPServer,
                 fail: Callable[[Any, Any], Any], limit: Callable[[], int],
                 loop: Loop, peers: Connections) -> None:
        self._server = server
        self._fail = fail
        self._limit = limit
        self._loop = loop
        self._peers = peers
        self._listener: Any = None  # while the loop watches it
        self._complained_at = float("-inf")
        # Clients wait until a connection ends; or for a moment, until there
        # may be more of what the system was out of.
        self.at_limit = self._is_resting = False
        # Accepted, and to be served as soon as the system has the means.
        self._held: Optional[Tuple[Any, Any]] = None
        self.drains = False     # whether a stop has to wait for the backlog
        # Whether the last line about the limit said that it is reached, and
        # whether that was a moment ago.
        self._told = self._told_lately = False

    def update(self, listener: Any) -> None:
        """Watch listener if there is room; called before each wait."""
        if (self.at_limit or self._held) and not self._is_full():
            self.accept_waiting()   # those that have waited longest
        # First: a connection that ends from now on wakes the loop.
        self.at_limit = True
        self.at_limit = self._is_full()
        if not self._told_lately:
            self._tell_limit()
        self.watch(None if self.at_limit or self._is_resting else listener)

    def watch(self, listener: Any) -> None:
        """Have the loop watch listener; None for nothing."""
        if listener is not self._listener:
            if self._listener is not None:
                self._loop.remove(self._listener)
            if listener is not None:
                self._loop.add(listener, lambda ready: self.accept_waiting())
            self._listener = listener

    def connection_ended(self) -> None:
        """Note that there may be room again; called in any thread."""
        if self.at_limit or self._is_resting:
            self._retry()

    def accept_waiting(self) -> bool:
        """Accept the clients that wait; return whether more may wait."""
        try:
            for count in range(self.max_accepts):
                if self._is_resting or self._is_full():
                    return True
                if not self.accept():
                    return self._is_resting
                if count and self.breather:
                    sleep(self.breather)
            return True
        finally:
            self._peers.gate.open()     # a start of a thread has closed it

    def accept(self) -> bool:
        """Accept one connection and have it served; False if there is none."""
        if self._loop.closed or self._loop.stopping and not self.drains:
            return False    # after a stop none is accepted (bpo-35017)
        held, self._held = self._held, None
        try:
            request, client_address = held or self._server.get_request()
        except (BlockingIOError, ConnectionError):
            return False    # it was there and is gone again (bpo-7995)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            if not self._loop.closed:   # by a signal handler
                self._rest(error)
            return False
        try:
            self._begin(request, client_address)
        except BaseException as error:
            if not is_shortage(error):
                self._fail(request, client_address)
                return True
            peer = self._peers.get(request)
            if peer is None or not peer.reason:
                self._held = request, client_address
            else:       # a part of it was served
                self._server.close_request(request)
            self._rest(error)
            return False
        return True

    def _begin(self, request: Any, client_address: Any) -> None:
        if request not in self._peers:
            self._peers.add(request, client_address)
            try:
                verified = self._server.verify_request(request, client_address)
            except BaseException:   # held, it would be served without
                self._fail(request, client_address)
                return
            if not verified:
                self._server.shutdown_request(request)
                return
        self._server.process_request(request, client_address)

    def _rest(self, error: BaseException) -> None:
        """Accept no client for a moment: at once it would fail again."""
        self.complain("cannot accept another connection: %s",
                      str(error) or type(error).__name__)
        self._is_resting = True
        self._loop.call_at(
            monotonic() + (self.pause if is_shortage(error)
                           else self.short_pause), self._retry)

    def complain(self, message: str, *args: Any) -> None:
        """Log that the system is out of something, once a second at most."""
        now = monotonic()
        if now >= self._complained_at + 1:
            self._complained_at = now
            logger.error(message, *args)

    def _retry(self) -> None:
        self._is_resting = False
        self._loop.wake()       # and so to update()

    def _is_full(self) -> bool:
        inside = len(self._peers) - (self._held is not None)
        return 0 < self._limit() <= inside

    def _tell_limit(self) -> None:
        """Log that the limit is reached or left, once in an interval."""
        self._told_lately = self.at_limit is not self._told
        if self._told_lately:
            self._told = self.at_limit
            if self.at_limit:
                logger.warning("at the limit of %d connections; others wait",
                               self._limit())
            else:
                logger.info("below the limit of %d connections again",
                            self._limit())
            self._loop.call_at(monotonic() + self.limit_interval,
                               self._tell_limit)


def is_shortage(error: BaseException) -> bool:
    """Whether error means that the system is out of something."""
    return isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno in SHORTAGES)
