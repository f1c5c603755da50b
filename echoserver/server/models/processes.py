"""--model processes: a forked child process for each connection (POSIX)."""

import mmap
import socket
from time import monotonic
from typing import Any, Dict, Optional

from ..base import EchoServer
from ..child import Child, hear_parent
from ..connections import Connections
from ..handler import Peer
from ..life import Life
from ..log import logger
from ..system import resets_on_close

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

    REASONS = ["", "reset", "idle", "drain", "error"]
    CELLS = 8

    # Memory that stays shared over a fork, and is zero: the rest of a page, of
    # which each connection takes a part.  (With a page for each, a fork takes
    # twice as long with 1,000 connections.)
    page: Any = memoryview(b"")

    (bytes_in, bytes_out, surplus, progress, whole_at, cut,
     reason_number) = map(shared, range(7))

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


class ForkingEchoServer(EchoServer):

    """A forked child process for each connection, on systems with fork().

    The child serves its connection and ends.  The parent keeps its own copy
    of the socket, so that it can end the connection as in any model, and
    learns of the child's end from the loop: it waits for no child, and reaps
    its own children only.  When the parent ends, the children end with it.

    It serves in a process of its own, where serve_forever() is called.  Beside
    other code, as start() would have it, each child would inherit the sockets
    of that code, clients among them, and keep them open.
    """

    model = "processes"
    descriptors = 2
    owns_sockets = False
    peer_class = SharedPeer

    def __init__(self, *args: Any, **options: Any) -> None:
        self._children: Dict[Child, Peer] = {}
        # The rest of an older page may be shared with another process.
        SharedPeer.page = memoryview(b"")
        super().__init__(*args, **options)

    def in_background(self) -> Any:
        self.server_close()
        raise RuntimeError(
            "ForkingEchoServer cannot serve in the background, since its "
            "children would inherit your sockets: call serve_forever() in a "
            "process of its own, such as python -m echoserver -m processes")

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._has_ended(request):
            self.shutdown_request(request)
            return
        child = Child(lambda control: self._serve(request, client_address,
                                                  control))
        try:
            self.loop.add(child, self._child_ended)
        except BaseException:
            self.peers[request].ends("error")
            child.wait(0)
            raise
        self._children[child] = self.peers[request]

    def _has_ended(self, request: socket.socket) -> bool:
        """Whether the client has left already: no child is forked for it."""
        try:
            return not request.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            self.peers[request].ends("reset")
            return True

    def _serve(self, request: Any, client_address: Any,
               control: socket.socket) -> int:
        """Serve a connection, in the child; its parent logs the end."""
        peer = self.peers.pop(request)
        # The port would stay bound, and the other connections open, for as
        # long as this child lives.
        self.release()
        for other in self.peers:
            other.close()
        self._children.clear()
        self.peers = ChildConnections(SharedPeer, self.wake_handler,
                                      self.turns)
        self.peers[request] = peer
        self.life = Life(self.loop)     # of this process
        peer.progress = monotonic()     # the fork has taken its time
        hear_parent(control, lambda grace: self.loop.stop())
        self.serve(request, client_address)
        return 0

    def _child_ended(self, child: Child) -> None:
        self.loop.remove(child)
        child.wait()
        peer = self._children.pop(child)
        if resets_on_close(peer.request):   # it was killed, or os._exit()
            peer.ends("error")
        self.close_request(peer.request)

    def end_handlers(self) -> None:
        for child, peer in list(self._children.items()):
            logger.error("%s: its process %d did not end in time, and is "
                         "killed", peer, child.pid)
            child.wait(0)
            self._children.pop(child)

    def release(self) -> None:
        super().release()
        for child in self._children:    # in a child that is a copy
            child.close()

    def stop(self, grace: Optional[float] = None) -> None:
        super().stop(grace)
        for child in list(self._children):
            child.stop(self.grace)


class ChildConnections(Connections):

    """The list in a child, whose parent logs and counts."""

    def count_lost(self, request: Any) -> None:
        pass

    def remove(self, request: Any) -> None:
        self.pop(request, None)
