"""--model processes: a forked child process for each connection (POSIX)."""

import mmap
import socket
from typing import Any, Dict, Optional, Tuple

from ..base import EchoServer
from ..child import Child, serve_in_child
from ..connections import Connections
from ..drain import CUT_TIMEOUT
from ..handler import Peer
from ..idle import IdleTimeout
from ..serving import serve
from ..timekeeper import keep_time_in_child

__all__ = ["ForkingEchoServer"]


def shared(index: int) -> Any:
    """Return a property that lives in a SharedPeer's memory."""
    def get(self: Any) -> float:
        return float(self.cells[index])

    def put(self: Any, value: float) -> None:
        self.cells[index] = value

    return property(get, put)


class SharedPeer(Peer):

    """A Peer whose figures a child process writes and its parent reads."""

    __slots__ = "cells",

    REASONS = ["", "reset", "idle", "drain", "error"]
    CELLS = 8

    # Memory that stays shared over a fork, and is zero: what is left of a page
    # from which each takes its part.  (With a page for each, a fork takes
    # twice as long where there are 1,000 connections.)
    page: Any = memoryview(b"")

    bytes_in = shared(0)
    bytes_out = shared(1)
    bytes_in_then = shared(2)
    progress = shared(3)
    aborted = shared(4)
    cut = shared(5)
    reason_number = shared(6)
    finished = shared(7)    # whether the child has come to its end

    def __init__(self, *args: Any, **options: Any) -> None:
        if len(SharedPeer.page) < self.CELLS:
            SharedPeer.page = memoryview(mmap.mmap(-1, mmap.PAGESIZE)
                                         ).cast("d")
        self.cells = SharedPeer.page[:self.CELLS]
        SharedPeer.page = SharedPeer.page[self.CELLS:]
        super().__init__(*args, **options)

    @property
    def reason(self) -> str:
        return self.REASONS[int(self.reason_number)]

    @reason.setter
    def reason(self, value: str) -> None:
        self.reason_number = self.REASONS.index(value)

    @property
    def at_end(self) -> bool:
        """Never: since the parent has the socket, too, a close() in the child
        does not end the stream."""
        return False

    @at_end.setter
    def at_end(self, value: bool) -> None:
        pass


class ForkingEchoServer(EchoServer):

    """A forked child process for each connection, on systems with fork().

    The child serves its connection and ends.  The parent keeps its own copy
    of the socket, so that it can end the connection as in any model, and
    learns of the child's end from the loop: it waits for nobody, and reaps
    its own children only.

    No thread is started here, not by start() either, which forks once more: a
    child would inherit the caller's own sockets, clients among them.  So with
    start() the connections are listed in that process, not in the caller's;
    and Python 3.12 and newer warn of it where the caller has other threads.
    """

    model = "processes"
    descriptors = 2
    peer_class = SharedPeer

    def __init__(self, *args: Any, **options: Any) -> None:
        self._children: Dict[Child, Any] = {}
        # The control sockets of the next child, made before it is accepted.
        self._controls: Optional[Tuple[socket.socket, socket.socket]] = None
        self._server: Optional[Child] = None    # what start() has forked
        super().__init__(*args, **options)

    # Serving one connection.

    def get_request(self) -> Tuple[Any, Any]:
        # What else a child needs comes first: where there are too few
        # descriptors, the client waits in the backlog and is not turned away.
        self._controls = self._controls or socket.socketpair()
        try:
            return super().get_request()
        except BaseException:
            self._close_controls()
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        controls, self._controls = self._controls, None
        child = Child(lambda control: self._serve(request, client_address,
                                                  control), controls)
        try:
            self.loop.add(child, self._child_ended)
        except BaseException:
            child.wait(0)
            raise
        self._children[child] = request

    def _serve(self, request: Any, client_address: Any,
               control: socket.socket) -> int:
        """Serve a connection, in the child; its parent logs the end."""
        peer: Any = self.peers.pop(request)
        # What is the parent's is closed: the port would stay bound, and the
        # other connections open, for as long as this child lives.
        self.loop.close()   # first: a kqueue's number may be used again
        for other in [*self.peers, *self._children, self.socket]:
            other.close()
        self._children.clear()
        self.peers = ChildConnections(self.peer_class, self.loop.call,
                                      self.turns)
        self.peers[request] = peer
        self.idle = IdleTimeout(self.loop, self.peers, self.idle.timeout)
        keep_time_in_child(self, control)
        serve(self, request, client_address)
        peer.finished = True
        return 0

    def _child_ended(self, child: Child) -> None:
        if child.poll() is None:
            return  # about to: its files close first, and this is called again
        self.loop.remove(child)
        child.close()
        request = self._children.pop(child)
        peer: Any = self.peers[request]
        if not peer.finished:   # it was killed, or called os._exit()
            self.peers.abort(peer, "error")
        self.close_request(request)

    def kill_handlers(self) -> None:
        for child, request in self._children.items():
            child.wait(0)
            self.close_request(request)
        self._children.clear()

    def _close_controls(self) -> None:
        controls, self._controls = self._controls, None
        for control in controls or ():
            control.close()

    def server_close(self) -> None:
        super().server_close()
        self._close_controls()

    # Serving in the background.

    def run_in_background(self) -> None:
        self._server = Child(self._serve_all)
        self.socket.close()  # the child listens

    def _serve_all(self, control: socket.socket) -> int:
        """Be the server that start() has forked."""
        self._server = None
        SharedPeer.page = memoryview(b"")   # the rest is the caller's, too
        self.loop.reopen()
        return serve_in_child(self, control)

    def stop(self, grace: Optional[float] = None) -> None:
        super().stop(grace)
        for child in [*self._children, self._server]:
            if child is not None:
                child.stop(self.grace)

    def shutdown(self) -> None:
        super().shutdown()
        with self.closing:      # others wait, too
            server, self._server = self._server, None
            if server is not None:
                self.listening = False      # that process has drained
                if server.wait(self.grace + 2 * CUT_TIMEOUT):
                    self.peers.note_cut_short()


class ChildConnections(Connections):

    """The list in a child, whose parent logs and counts."""

    def remove(self, request: Any) -> int:
        self.pop(request, None)
        return len(self)
