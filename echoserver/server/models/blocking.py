"""--model blocking: one connection at a time, as the lesson begins."""

import threading
from time import monotonic, sleep
from typing import Any, Optional

from ..base import EchoServer
from ..system import unread
from ..threads import start_thread

__all__ = ["BlockingEchoServer"]

TICK = 0.02     # seconds between two looks of the time keeper


class BlockingEchoServer(EchoServer):

    """One connection at a time, served in the thread that accepts.

    Its handler blocks in recv() twice: until there is data, and while that is
    copied.  Meanwhile no other client is accepted, however little the first
    one says, and all wait in the kernel's backlog.

    The loop stands still while it serves.  So a second thread does what the
    loop does in other models: it ends idle connections, and drains.
    """

    model = "blocking"

    def __init__(self, *args: Any, **options: Any) -> None:
        # Set while a connection is served; the time keeper waits for it.
        self._serving = threading.Event()
        self._keeper: Optional[threading.Thread] = None
        super().__init__(*args, **options)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._keeper is None:
            self._keeper = start_thread(self._keep_time)
        if self.drain.began and not unread(request):
            # A client of the backlog has had its time to ask.
            self.peers.end(self.peers[request], "drain", at_rest=True)
        self._serving.set()
        try:
            self.serve(request, client_address)
        finally:
            self._serving.clear()

    def _keep_time(self) -> None:
        due = 0.0
        while self._serving.wait() and not self.loop.closed:
            now = monotonic()
            if self.is_ending():
                self.drain.begin()
                self.drain.step(now)
            elif self.idle.timeout and now >= due:
                due = self.idle.end_idle(now)
            sleep(TICK)

    def release(self) -> None:
        super().release()
        self._serving.set()     # so that the time keeper ends
        if self._keeper is not None:
            self._keeper.join(1)
