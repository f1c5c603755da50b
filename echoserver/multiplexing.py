"""The models in which connections share threads.

A connection that cannot go on is parked in the loop's selector until it can,
and costs no thread meanwhile.
"""

import errno
import logging
import os
import queue
import select
import selectors
import socket
import threading
from typing import Any, List, Optional

from .handler import Peer, Room
from .loop import READ, WRITE
from .server import EchoServer, limit_wait
from .threads import learn_to_end, start_thread

__all__ = ["SelectorEchoServer", "ThreadPoolEchoServer"]

logger = logging.getLogger("echoserver")

# select() on Windows holds 512 sockets; some are the loop's own.
SELECT_MAX = 500

# Those that notice in the middle of a wait what is registered.
LIVE_POLLERS = tuple(getattr(module, name) for module, name in
                     ((select, "epoll"), (selectors, "KqueueSelector"))
                     if hasattr(module, name))

# How long a worker waits for a connection's next bytes: some round trips on a
# local network.
PATIENCE = 0.005


class MultiplexingEchoServer(EchoServer):

    """Base of the models in which connections share threads.

    A connection that cannot go on is parked in the loop's selector until it
    can.  Such a model calls Peer.turn() itself, between two of which nothing
    of a connection is on any stack; so it needs a handler that answers by
    turns: EchoHandler, or a subclass that overrides reply() only.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.peers.rouse = self._rouse
        if isinstance(self._poller, selectors.SelectSelector) \
                and not 0 < self.max_connections <= SELECT_MAX:
            logger.warning("select() is all that this system has: at most %d "
                           "connections", SELECT_MAX)
            self.max_connections = SELECT_MAX

    def _rouse(self, peer: Peer) -> None:
        if self.watches(peer):  # or else it is with a worker, or closed
            self.ready(peer)

    def park(self, peer: Peer) -> None:
        """Have ready() called when peer's socket is what it waits for."""
        self.watch(peer, self.ready, WRITE if peer.pending else READ)

    def ready(self, peer: Peer) -> None:
        """Go on with a parked connection.  Models override it."""
        raise NotImplementedError

    def turn(self, peer: Peer, room: Room) -> Optional[bool]:
        """Give peer a turn.  True: bytes moved; None: its socket was not
        ready; False: it has ended and is closed."""
        try:
            if peer.turn(room):
                return True
        except (BlockingIOError, socket.timeout):
            return None
        except (Exception, SystemExit):  # which ends a handler, not a worker
            self.handle_error(peer.request, peer.client_address)
        self.shutdown_request(peer.request)
        return False


class ThreadPoolEchoServer(MultiplexingEchoServer):

    """A fixed number of worker threads, for any number of connections.

    A worker keeps its connection while bytes keep coming and nobody waits.
    Silent connections wait in the loop's selector, not in a worker; when
    others wait for a worker, a busy one goes there, too, after a turn.  So
    idle peers and never-ending streams starve nobody: not the lesson's pool,
    which pins a worker to a connection until it ends.

    A handler class that overrides more than reply() gets the lesson's pool,
    since only a thread of its own can hold its state.

    Class variables that may be overridden, or given as keywords:

    - pool_size: the number of workers, 1 or more
    """

    model = "pool"
    # Threads are cheap while they wait, and more do not gain: with 64 busy
    # connections 64 workers hand over nothing, and beyond that all share one
    # interpreter lock anyway.
    pool_size = 64

    def __init__(self, *args: Any, pool_size: Optional[int] = None,
                 **options: Any) -> None:
        if pool_size is not None:
            self.pool_size = pool_size
        if self.pool_size < 1:
            raise ValueError("pool_size must be 1 or more, not %r"
                             % self.pool_size)
        # Connections that have something to say; idle workers wait on it.
        self._waiting: queue.Queue[Optional[Peer]] = queue.Queue()
        self._workers: List[threading.Thread] = []
        super().__init__(*args, **options)

    def server_activate(self) -> None:
        learn_to_end()
        super().server_activate()
        try:
            for _ in range(self.pool_size):
                self._workers.append(start_thread(self._work))
        except (OSError, MemoryError) as error:
            self._end_workers()
            raise OSError(errno.EAGAIN, "%s, having started %d of %d" % (
                getattr(error, "strerror", "out of memory"),
                len(self._workers), self.pool_size)) from error

    def server_close(self) -> None:
        super().server_close()
        self._end_workers()

    def _end_workers(self) -> None:
        for _ in self._workers:
            self._waiting.put(None)
        for worker in self._workers:
            worker.join(1)

    def set_up(self, request: Any) -> None:
        super().set_up(request)
        if self.turns and os.name == "posix":
            limit_wait(request, socket.SO_RCVTIMEO, PATIENCE)
            limit_wait(request, socket.SO_SNDTIMEO, PATIENCE)
        elif self.turns:
            request.settimeout(PATIENCE)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hand the connection to a worker if one is free, or park it.

        Who connects is likely to speak at once, but may be one of many that
        are silent.  A handler of its own kind may be the one to speak first.
        """
        peer = self.peers[request]
        if (self._waiting.unfinished_tasks < self.pool_size
                or not self.turns):
            self._waiting.put(peer)
        else:
            super().park(peer)

    def park(self, peer: Peer) -> None:
        try:
            super().park(peer)
        except (OSError, ValueError, MemoryError) as error:
            if not self._closed:    # without waiting for this
                self.complain("%s: cannot go on: %s", peer, error)
            self.peers.abort(peer, "drain" if self._closed else "error")
            self.shutdown_request(peer.request)
        if not isinstance(self._poller, LIVE_POLLERS):
            self.wake()

    def ready(self, peer: Peer) -> None:
        self.ignore(peer)
        self._waiting.put(peer)

    def _work(self) -> None:
        """Be a worker."""
        room = Room()
        for peer in iter(self._waiting.get, None):
            if not self.turns:
                self._pin(peer)
                continue
            moved = self.turn(peer, room)
            # what is with a worker or waits for one is an unfinished task
            while (moved and self._waiting.unfinished_tasks
                    <= self.pool_size):
                moved = self.turn(peer, room)
            self._waiting.task_done()
            if moved is not False:
                self.park(peer)

    def _pin(self, peer: Peer) -> None:
        """Serve a connection to its end, as the lesson's pool does."""
        try:
            self.process_request_here(peer.request, peer.client_address)
        except SystemExit:
            pass  # which ends a handler, not a worker
        finally:
            self._waiting.task_done()


class SelectorEchoServer(MultiplexingEchoServer):

    """No thread at all: the loop itself gives each ready connection a turn."""

    model = "events"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._room = Room()

    def server_activate(self) -> None:
        if not self.turns:
            raise TypeError("SelectorEchoServer cannot run %r: it needs an "
                            "EchoHandler that overrides reply() at most; use "
                            "another server" % self.RequestHandlerClass)
        super().server_activate()

    def process_request(self, request: Any, client_address: Any) -> None:
        request.setblocking(False)
        self.park(self.peers[request])

    def ready(self, peer: Peer) -> None:
        reads = not peer.pending
        if (self.turn(peer, self._room) is not False
                and (not peer.pending) is not reads):
            self.rewatch(peer, WRITE if reads else READ)

    def close_request(self, request: Any) -> None:
        try:
            self.ignore(self.peers[request])
        except KeyError:
            pass  # it was turned away, and never parked
        super().close_request(request)
