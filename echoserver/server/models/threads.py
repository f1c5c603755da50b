"""--model threads: a thread for each connection."""

import socketserver
from typing import Any

from ..base import EchoServer
from ..threads import Handover, start_thread

__all__ = ["ThreadingEchoServer"]


class ThreadingEchoServer(socketserver.ThreadingTCPServer, EchoServer):

    """A thread for each connection: blocking code, and no peer blocks another.

    A thread whose connection has ended takes another if one comes soon, since
    to start a thread takes longer than a short exchange.  (Connections a
    second, with one exchange each: 8,500 with spare threads, 4,800 without.)

    Thread.start() waits until the new thread has run, behind all busy ones.
    So these wait at the gate meanwhile.

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
        self._connections = Handover()
        super().__init__(*args, **options)

    def process_request(self, request: Any, client_address: Any) -> None:
        connection = request, client_address
        if self._connections.put(connection):
            return
        self.gate.close()   # the acceptor opens it when all are accepted
        try:
            start_thread(self._work)
        except (OSError, MemoryError):
            if self._connections.take_back(connection):
                raise

    def process_request_thread(self, request: Any,
                               client_address: Any) -> None:
        self.serve(request, client_address)

    def _work(self) -> None:
        for connection in iter(self._next_connection, None):
            self.process_request_thread(*connection)

    def _next_connection(self) -> Any:
        try:
            return self._connections.get(
                0 if self.is_ending() else self.spare_timeout)
        except IndexError:
            return None

    def end_handlers(self) -> None:
        while self._connections.put(None):
            pass    # until no thread waits
