"""--model pinned: a fixed number of threads, each pinned to a connection."""

import queue
import threading
from time import monotonic
from typing import Any, List

from ..base import EchoServer
from ..drain import CUT_TIMEOUT
from ..log import logger
from ..threads import start_thread

__all__ = ["PinnedEchoServer"]

# A signal handler may interrupt put() and call it again; not so Python 3.6's.
Queue: Any = getattr(queue, "SimpleQueue", queue.Queue)


class PinnedEchoServer(EchoServer):

    """The lesson's pool: worker threads that are started once.  Each serves a
    connection to its end and then takes the next.

    It bounds the cost of threads, and is at its ceiling when each worker has a
    connection.  The next client is accepted, and waits until one of those
    ends, however idle they are.
    """

    model = "pinned"
    one_cpu = True
    # The ceiling: as many clients can be served.  Threads are cheap while
    # they wait.
    pool_size = 64

    def __init__(self, *args: Any, **options: Any) -> None:
        # Connections that wait for a worker; idle workers wait for one.
        self.waiting: Any = Queue()
        self._workers: List[threading.Thread] = []
        super().__init__(*args, **options)

    def server_activate(self) -> None:
        if self.pool_size < 1:
            raise ValueError("pool_size must be 1 or more")
        for _ in range(self.pool_size):
            self._workers.append(start_thread(self._be_a_worker))
        super().server_activate()   # now that clients can be served

    def end_handlers(self) -> None:
        self.end_work()
        # With the drain, which was to be over then.
        end = CUT_TIMEOUT + (self.drain.began + self.grace
                             if self.drain.began else monotonic())
        for worker in self._workers:
            if worker is not threading.current_thread():
                worker.join(min(max(end - monotonic(), 0),
                                threading.TIMEOUT_MAX))

    def has_workers(self) -> bool:
        """Return whether a worker runs, other than the one that asks."""
        return any(worker.is_alive() for worker in self._workers
                   if worker is not threading.current_thread())

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
            except BaseException:   # of a hook
                logger.exception("unexpected error in a worker")

    def work(self) -> None:
        """Be a worker, until end_work()."""
        for peer in iter(self.waiting.get, None):
            self.serve(peer.request, peer.client_address)
