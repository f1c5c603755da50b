"""--model threads: a thread for each connection."""

import collections
import contextlib
import queue
import socketserver
from typing import Any, Deque

from ..base import EchoServer
from ..threads import start_thread

__all__ = ["ThreadingEchoServer"]


class ThreadingEchoServer(socketserver.ThreadingTCPServer, EchoServer):

    """A thread for each connection: blocking code, and no peer blocks another.

    A thread whose connection has ended takes another if one comes soon, since
    to start a thread takes longer than a short exchange.  (Connections a
    second, with one exchange each: 8,500 with spare threads, 4,800 without.)

    Thread.start() waits until the new thread has run, behind all busy ones.
    So these wait at the gate meanwhile.

    The threads are daemons and are not joined, since the drain ends them with
    a deadline.  (Joined, an idle peer holds the server for ever,
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
        # A queue for each thread that waits for a connection.  The thread that
        # became idle last gets the next one: it is the fastest to wake (13,500
        # connections a second; with one queue for all, 12,500).
        self._spare: "Deque[queue.Queue[Any]]" = collections.deque()
        super().__init__(*args, **options)

    def process_request(self, request: Any, client_address: Any) -> None:
        connection = request, client_address
        try:
            self._spare.pop().put(connection)
        except IndexError:
            # The acceptor opens it when all are accepted.
            self.peers.gate.close()
            start_thread(self._work, connection)

    def process_request_thread(self, request: Any,
                               client_address: Any) -> None:
        self.serve(request, client_address)

    def _work(self, connection: Any) -> None:
        own: "queue.Queue[Any]" = queue.Queue()
        while connection is not None:
            self.process_request_thread(*connection)
            self._spare.append(own)
            try:
                connection = own.get(
                    timeout=0 if self.is_ending() else self.spare_timeout)
            except queue.Empty:
                try:
                    self._spare.remove(own)
                    return
                except ValueError:      # it has just been taken
                    connection = own.get()

    def end_handlers(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._spare.pop().put(None)
