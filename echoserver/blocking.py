"""The models in which a connection has a thread or a process to itself.

Their handlers may block: the code is the lesson's, from top to bottom.
"""

import collections
import contextlib
import itertools
import queue
import signal
import socket
import socketserver
import sys
from typing import Any, Callable, Deque, Dict, Iterator, Optional, Tuple

from .child import GRACE, Child, ChildRegistry, SharedPeer
from .server import EchoServer
from .threads import learn_to_end, start_thread

__all__ = ["ForkingEchoServer", "ThreadingEchoServer", "serve_as_child",
           "start_child", "stop_on"]

# Seconds for which a thread without a connection waits for another.
SPARE = 1.0


class ThreadingEchoServer(socketserver.ThreadingTCPServer, EchoServer):

    """A thread for each connection: blocking code, and no peer blocks another.

    The threads are daemons that nobody joins, since the drain sees to their
    end with a deadline.  (Joined, an idle peer holds the server for ever,
    bpo-31233; unjoined and without a drain, replies are cut at exit.)
    """

    model = "threads"
    daemon_threads = True
    block_on_close = False

    def __init__(self, *args: Any, **options: Any) -> None:
        # One queue for each thread that has no connection; it waits there.
        self._spare: Deque[queue.Queue[Any]] = collections.deque()
        super().__init__(*args, **options)

    def server_activate(self) -> None:
        learn_to_end()
        super().server_activate()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give the connection to a spare thread, or else to a new one.

        A thread that has lost its connection waits a moment for another: to
        start one takes longer than a short exchange.  (Connections a second,
        with one exchange each: 8,500 with spare threads, 4,800 without.)
        """
        try:
            work = self._spare.pop()
        except IndexError:
            start_thread(self.process_request_thread, request, client_address)
        else:
            work.put((request, client_address))

    def process_request_thread(self, request: Any,
                               client_address: Any) -> None:
        work: queue.Queue[Any] = queue.Queue()
        connection: Any = (request, client_address)
        while connection is not None:
            super().process_request_thread(*connection)
            self._spare.append(work)
            try:
                connection = work.get(timeout=0 if self._closed else SPARE)
            except queue.Empty:
                try:
                    self._spare.remove(work)
                    return
                except ValueError:  # somebody has just taken it
                    connection = work.get()

    def server_close(self) -> None:
        super().server_close()
        while self._spare:
            self._spare.pop().put(None)


class ForkingEchoServer(EchoServer):

    """A forked child process for each connection, on systems with fork().

    The child serves its connection and ends.  The parent keeps its own copy
    of the socket, so that it can end the connection as in any model, and
    learns of the child's end from the loop's selector: it waits for nobody,
    and reaps its own children only (gh-111872).

    No thread is started here, not by start() either, which forks once more:
    a fork copies one thread and the locks that the others held.  So with
    start() the registry and the hooks are in that process, not in the
    caller's; and Python 3.12 and newer warn of start() where the caller has
    other threads.
    """

    model = "processes"
    peer_class = SharedPeer

    def __init__(self, *args: Any, **options: Any) -> None:
        self._children: Dict[Child, Any] = {}
        self._server: Optional[Child] = None
        self._ties: Optional[Tuple[socket.socket, socket.socket]] = None
        super().__init__(*args, **options)

    def server_activate(self) -> None:
        super().server_activate()
        self._ties = socket.socketpair()

    def get_request(self) -> Tuple[Any, Any]:
        # What else it takes comes first: if there are too few descriptors,
        # the client waits in the backlog and is not turned away.
        self._ties = self._ties or socket.socketpair()
        return super().get_request()

    def process_request(self, request: Any, client_address: Any) -> None:
        ties, self._ties = self._ties, None
        child = start_child(
            self, lambda tie: self._serve_one(request, client_address),
            self._child_ended, ties)
        self._children[child] = request
        with contextlib.suppress(OSError):  # get_request() will tell
            self._ties = socket.socketpair()

    def _serve_one(self, request: Any, client_address: Any) -> int:
        """Serve a connection, in the child; the parent closes the books."""
        peer = self.peers[request]
        self.let_go(request)
        self.peers = ChildRegistry()
        self.peers[request] = peer
        try:
            self.finish_request(request, client_address)
        except Exception:
            self.handle_error(request, client_address)
        peer.at_end = False  # the parent's copy: close() would end nothing
        self.shutdown_request(request)
        return 0

    def _child_ended(self, child: Child) -> None:
        status = child.poll()
        if status is None:
            return  # about to: its files close first, and this is called again
        self.ignore(child)
        child.close()
        request = self._children.pop(child)
        if status:
            peer = self.peers[request]
            self.peers.cut_short += peer.owed
            self.peers.reset(peer, "error")
        self.close_request(request)

    def shutdown(self) -> None:
        """Stop the loop and wait until it has ended.

        With start() that is the end of the process, and thus of its drain.
        """
        super().shutdown()
        server, self._server = self._server, None
        if server is not None:
            self.peers.cut_short += bool(server.wait(self.grace + 2))

    def run_in_background(self) -> None:
        self._server = Child(self._serve_all)
        self.socket.close()  # the child listens
        self._close_ties()

    def _serve_all(self, tie: socket.socket) -> int:
        """Be the server that start() has forked."""
        self._server = None
        self.renew_poller()
        return serve_as_child(self, tie)

    def stop(self, grace: Optional[float] = None) -> None:
        super().stop(grace)
        if self._server is not None:
            self._server.stop(self.grace)

    def server_close(self) -> None:
        super().server_close()
        self._close_ties()

    def _close_ties(self) -> None:
        for tie in self._ties or ():
            tie.close()
        self._ties = None


def start_child(server: EchoServer, run: Callable[[socket.socket], int],
                ended: Callable[[Child], None],
                ties: Optional[Tuple[socket.socket, socket.socket]] = None
                ) -> Child:
    """Start a Child, and have the server's loop call ended(child) at its end.

    OSError is raised when the system has not the means.
    """
    child = Child(run, ties)
    try:
        server.watch(child, ended)
    except BaseException:
        child.wait(0)
        raise
    return child


def serve_as_child(server: EchoServer, tie: socket.socket) -> int:
    """Serve in a child until its parent says so or ends; then drain.

    Return 1 if replies were cut.
    """
    def told(tie: socket.socket) -> None:
        word = tie.recv(GRACE.size)
        if word:
            server.stop(*GRACE.unpack(word))
        else:
            server.ignore(tie)
            server.stop()

    with server, stop_on(server, signal.SIGTERM):
        server.watch(tie, told)
        server.serve_forever()
        server.drain()
    return 1 if server.peers.cut_short else 0


@contextlib.contextmanager
def stop_on(server: EchoServer, *signals: int) -> Iterator[None]:
    """Drain server on the first of signals, end the drain on the second.

    The handler does no more than stop() does, a flag and a byte: a log line
    or an exception in a signal handler could land anywhere (bpo-24283).  The
    interpreter itself wakes the loop, for when another thread takes the
    signal, or it comes just before the loop waits.

    Afterwards the signals are ignored: the program is about to exit, with a
    status that tells of the drain.
    """
    seen = itertools.count()
    for number in signals:
        signal.signal(number, lambda number, frame:
                      server.stop(0 if next(seen) else None))
    # a full buffer wakes as well as a byte more; 3.6 cannot be told so
    quiet: Any = ({} if sys.version_info < (3, 7)
                  else {"warn_on_full_buffer": False})
    signal.set_wakeup_fd(server.wakeup_fd(), **quiet)
    try:
        yield
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
