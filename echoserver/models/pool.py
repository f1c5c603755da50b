"""--model pool: a fixed number of worker threads, for any number of peers."""

import contextlib
import errno
import os
import queue
import socket
import threading
from time import monotonic
from typing import Any, List, Optional

from ..server.base import EchoServer
from ..server.drain import CUT_TIMEOUT
from ..server.handler import Buffer, Peer
from ..server.loop import READ, WRITE
from ..server.system import limit_wait
from ..server.threads import start_thread
from .turns import limit_to_select, take_turn

__all__ = ["ThreadPoolEchoServer"]

# Seconds that a worker waits for a connection's next bytes before it parks
# it: some round trips on a local network.
TURN_TIMEOUT = 0.005


class ThreadPoolEchoServer(EchoServer):

    """A fixed number of worker threads, for any number of connections.

    A worker keeps its connection while bytes keep coming and nobody waits.
    Silent connections wait in the loop, not in a worker; when others wait for
    a worker, a busy one goes there, too, after a turn.  So idle peers and
    never-ending streams starve nobody: not the lesson's pool, which pins a
    worker to a connection until it ends.

    A handler class that overrides more than reply() gets the lesson's pool,
    since only a thread of its own can hold its state.

    Class variables that may be overridden, or given as keywords:

    - pool_size: the number of workers, 1 or more
    """

    model = "pool"
    one_cpu = True
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
        # Connections that have something to say; idle workers wait for one.
        # What is with a worker or waits for one is an unfinished task.
        self._ready: "queue.Queue[Optional[Peer]]" = queue.Queue()
        self._workers: List[threading.Thread] = []
        super().__init__(*args, **options)
        limit_to_select(self)

    def server_activate(self) -> None:
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
            self._ready.put(None)
        end = monotonic() + CUT_TIMEOUT
        for worker in self._workers:
            worker.join(max(end - monotonic(), 0))

    def set_up(self, request: Any) -> None:
        super().set_up(request)
        if self.turns:
            limit_wait(request, socket.SO_RCVTIMEO, TURN_TIMEOUT)
            limit_wait(request, socket.SO_SNDTIMEO, TURN_TIMEOUT)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hand the connection to a worker if one is free, or park it.

        Who connects is likely to speak at once, but may be one of many that
        are silent.  A handler of its own kind may be the one to speak first.
        """
        peer = self.peers[request]
        if self.turns and os.name != "posix":
            request.setblocking(False)  # where limit_wait() does nothing
        if self._ready.unfinished_tasks < self.pool_size or not self.turns:
            self._ready.put(peer)
        else:
            self._park(peer)

    def _park(self, peer: Peer) -> None:
        """Have the loop call when peer can go on."""
        self.loop.add(peer, self._unpark, WRITE if peer.pending else READ)

    def _unpark(self, peer: Peer) -> None:
        self.loop.remove(peer)
        self._ready.put(peer)

    def _work(self) -> None:
        """Be a worker."""
        buffer = Buffer()
        for peer in iter(self._ready.get, None):
            if self.turns:
                self._take_turns(peer, buffer)
            else:
                with contextlib.suppress(SystemExit):   # of a handler
                    self.serve_here(peer.request, peer.client_address)
                self._ready.task_done()

    def _take_turns(self, peer: Peer, buffer: Buffer) -> None:
        """Serve peer for as long as nobody waits for a worker."""
        moved = take_turn(self, peer, buffer)
        while moved and self._ready.unfinished_tasks <= self.pool_size:
            moved = take_turn(self, peer, buffer)
        self._ready.task_done()
        if moved is not False:
            try:
                self._park(peer)
            except (OSError, ValueError, MemoryError) as error:
                # no room in the poller; or the server did not wait for this
                self.acceptor.complain("%s: cannot go on: %s", peer, error)
                self.peers.abort(peer, "drain" if self.is_ending() else
                                 "error")
                self.shutdown_request(peer.request)
