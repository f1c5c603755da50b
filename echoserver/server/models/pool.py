"""--model pool: a fixed number of threads, for any number of connections."""

import select
import socket
from typing import Any, Dict

from ..handler import Buffer, Peer
from ..system import limit_wait
from .pinned import PinnedEchoServer

__all__ = ["ThreadPoolEchoServer"]

# Seconds that a worker waits for a connection's next bytes before it parks
# it: some round trips on a local network.
TURN_TIMEOUT = 0.005


class ThreadPoolEchoServer(PinnedEchoServer):

    """The same workers, and no ceiling: a connection that is silent is parked
    in a poller, and no worker waits for it.

    All workers wait in the poller, which hands each connection that is ready
    to one of them, the one that has been ready for longest first.  After a
    turn it is parked again.  It keeps its worker while bytes keep coming if
    there are no more connections than workers.  So idle peers and never-ending
    streams starve nobody.

    Between two turns nothing of a connection is on any stack.  A handler class
    that overrides more than reply() has its state there, so that it is pinned
    to a worker.
    """

    model = "pool"
    # A worker keeps the one CPU for a time slice of 10 ms, so the longest wait
    # grows with the workers, and the rate does not.  A reply() that blocks, or
    # --delay, needs as many workers as replies wait at a time.
    pool_size = 4

    def make_parts(self, handler_class: Any) -> None:
        super().make_parts(handler_class)
        self._poller = select.epoll()
        # By descriptor.  The thread that removes a connection owns it:
        # a worker that finds it ready, or the loop that cuts it.
        self._parked: Dict[int, Peer] = {}
        # Readable once the workers shall end.
        self._end, self._ender = socket.socketpair()
        self._poller.register(self._end.fileno(), select.EPOLLIN)

    def release(self) -> None:
        super().release()
        self._end.close()
        self._ender.close()
        if not self.has_workers():  # which may be about to look at it
            self._poller.close()

    def end_work(self) -> None:
        super().end_work()
        self._ender.close()

    def set_up(self, request: Any) -> None:
        super().set_up(request)
        if self.turns:
            limit_wait(request, socket.SO_RCVTIMEO, TURN_TIMEOUT)
            limit_wait(request, socket.SO_SNDTIMEO, TURN_TIMEOUT)

    def process_request(self, request: Any, client_address: Any) -> None:
        peer = self.peers[request]
        if not self.turns:
            self.waiting.put(peer)
            return
        self._parked[peer.fileno()] = peer
        self._poller.register(
            peer.fileno(), select.EPOLLIN | select.EPOLLONESHOT)

    def _park(self, peer: Peer) -> None:
        number = peer.fileno()
        self._parked[number] = peer
        self._poller.modify(number, select.EPOLLONESHOT | (
            select.EPOLLOUT if peer.pending else select.EPOLLIN))

    def wake_handler(self, peer: Peer) -> None:
        """End a connection that was cut and is parked."""
        if peer.cut and self._parked.pop(peer.fileno(), None) is not None:
            self.shutdown_request(peer.request)

    def work(self) -> None:
        if not self.turns:
            super().work()
            return
        buffer, poll, parked = Buffer(), self._poller.poll, self._parked
        self.peers.serving.buffer = buffer
        while self._ender.fileno() >= 0:
            for number, _ in poll(-1, 1):
                peer = parked.pop(number, None)
                if peer is not None:
                    self._take_turns(peer, buffer)

    def _take_turns(self, peer: Peer, buffer: Buffer) -> None:
        moved = self.take(peer, peer.turn, buffer)
        while moved and len(self.peers) <= self.pool_size:
            moved = self.take(peer, peer.turn, buffer)
        if moved is not False:
            try:
                self._park(peer)
            except (OSError, ValueError, MemoryError) as error:
                if not self.loop.closed:    # no room in the poller
                    self.acceptor.complain("%s: cannot go on: %s", peer, error)
                    peer.ends("error")
                self.shutdown_request(peer.request)
