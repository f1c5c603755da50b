"""--model threads: a thread for each connection."""

import collections
import queue
import socketserver
from typing import Any, Deque

from ..server.base import EchoServer
from ..server.serving import serve
from ..server.threads import start_thread

__all__ = ["ThreadingEchoServer"]


class ThreadingEchoServer(socketserver.ThreadingTCPServer, EchoServer):

    """A thread for each connection: blocking code, and no peer blocks another.

    A thread whose connection has ended takes another if one comes soon, since
    to start a thread takes longer than a short exchange.  (Connections a
    second, with one exchange each: 8,500 with spare threads, 4,800 without.)

    The threads are daemons that nobody joins, since the drain sees to their
    end with a deadline.  (Joined, an idle peer holds the server for ever,
    bpo-31233; unjoined and without a drain, replies are cut at exit.)

    Class variables that may be overridden:

    - spare_timeout: seconds for which a thread waits for another connection
    """

    model = "threads"
    one_cpu = True
    daemon_threads = True
    block_on_close = False
    spare_timeout = 1.0

    def __init__(self, *args: Any, **options: Any) -> None:
        # One permit for each thread that waits for a connection: who takes
        # one puts a connection, or None to end the thread.  (A Semaphore,
        # which is written in Python, costs 9 % of the connections a second.)
        self._permits: Deque[None] = collections.deque()
        self._connections: "queue.Queue[Any]" = queue.Queue()
        super().__init__(*args, **options)

    def process_request(self, request: Any, client_address: Any) -> None:
        connection = request, client_address
        if self._take_permit():
            self._connections.put(connection)
        else:
            start_thread(self._work, connection)

    def _take_permit(self) -> bool:
        try:
            self._permits.pop()
            return True
        except IndexError:
            return False

    def process_request_thread(self, request: Any,
                               client_address: Any) -> None:
        serve(self, request, client_address)

    def _work(self, connection: Any) -> None:
        while connection is not None:
            self.process_request_thread(*connection)
            self._permits.append(None)
            try:
                connection = self._connections.get(
                    timeout=0 if self.is_ending() else self.spare_timeout)
            except queue.Empty:
                if self._take_permit():
                    return
                connection = self._connections.get()  # one is about to come

    def server_close(self) -> None:
        super().server_close()
        while self._take_permit():
            self._connections.put(None)
