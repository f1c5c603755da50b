"""--model pinned: a fixed number of threads, each pinned to a connection."""

import contextlib
import errno
import logging
import queue
import threading
from time import monotonic
from typing import Any, List, Optional

from ..base import EchoServer
from ..drain import CUT_TIMEOUT
from ..handler import Peer
from ..serving import serve
from ..threads import start_thread

__all__ = ["PinnedEchoServer"]

logger = logging.getLogger("echoserver")


class PinnedEchoServer(EchoServer):

    """The lesson's pool: worker threads that were started once, each of which
    serves a connection to its end and then takes the next.

    It bounds the cost of threads, and is at its ceiling when each worker has a
    connection: who comes then is accepted, and waits until one of those ends,
    however idle they are.

    Class variables that may be overridden, or given as keywords:

    - pool_size: the number of workers, 1 or more
    """

    model = "pinned"
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
        # Connections that wait for a worker; idle workers wait for one.
        self.waiting: "queue.Queue[Optional[Peer]]" = queue.Queue()
        self._workers: List[threading.Thread] = []
        super().__init__(*args, **options)

    def server_activate(self) -> None:
        super().server_activate()
        try:
            for _ in range(self.pool_size):
                self._workers.append(start_thread(self._be_a_worker))
        except (OSError, MemoryError) as error:
            self._end_workers()
            raise OSError(
                getattr(error, "errno", errno.ENOMEM),
                "%s, having started %d of %d workers" % (
                    getattr(error, "strerror", "out of memory"),
                    len(self._workers), self.pool_size)) from error

    def server_close(self) -> None:
        super().server_close()
        self._end_workers()

    def _end_workers(self) -> None:
        self.end_work()
        # With the drain, which was to be over then.
        end = CUT_TIMEOUT + (self.draining_since + self.grace
                             if self.draining_since else monotonic())
        for worker in self._workers:
            worker.join(max(end - monotonic(), 0))

    def process_request(self, request: Any, client_address: Any) -> None:
        self.waiting.put(self.peers[request])

    def end_work(self) -> None:
        """Have work() return in every worker."""
        for _ in self._workers:
            self.waiting.put(None)

    def _be_a_worker(self) -> None:
        while True:
            try:
                return self.work()
            except BaseException:   # of a handler, or of a hook
                logger.exception("unexpected error in a worker")

    def work(self) -> None:
        """Be a worker, until end_work()."""
        for peer in iter(self.waiting.get, None):
            self.serve_pinned(peer)

    def serve_pinned(self, peer: Peer) -> None:
        """Serve a connection to its end; sys.exit() ends it, not a worker."""
        with contextlib.suppress(SystemExit):
            serve(self, peer.request, peer.client_address)
