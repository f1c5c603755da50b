"""--model pool: a fixed number of threads, for any number of connections."""

import os
import socket
from typing import Any

from ..server.handler import Buffer, Peer
from ..server.loop import READ, WRITE
from ..server.system import limit_wait
from .pinned import PinnedEchoServer
from .turns import limit_to_select, take_turn

__all__ = ["ThreadPoolEchoServer"]

# Seconds that a worker waits for a connection's next bytes before it parks
# it: some round trips on a local network.
TURN_TIMEOUT = 0.005


class ThreadPoolEchoServer(PinnedEchoServer):

    """The same workers, and no ceiling: a connection that is silent waits in
    the loop, not in a worker.

    A worker keeps its connection while bytes keep coming and nobody waits;
    when others wait for a worker, a busy one goes to the loop, too, after a
    turn.  So idle peers and never-ending streams starve nobody.

    Between two turns nothing of a connection is on any stack.  A handler class
    that overrides more than reply() has its state there, so that it is pinned
    to a worker.
    """

    model = "pool"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        limit_to_select(self)

    def set_up(self, request: Any) -> None:
        super().set_up(request)
        if self.turns:
            limit_wait(request, socket.SO_RCVTIMEO, TURN_TIMEOUT)
            limit_wait(request, socket.SO_SNDTIMEO, TURN_TIMEOUT)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hand the connection to a worker if one is free, or park it.

        Who connects is likely to speak at once, but may be one of many that
        are silent.  A handler of its own kind may be the one to speak first.
        """
        peer = self.peers[request]
        if self.turns and os.name != "posix":
            request.setblocking(False)  # where limit_wait() does nothing
        if self.waiting.unfinished_tasks < self.pool_size or not self.turns:
            self.waiting.put(peer)
        else:
            self._park(peer)

    def _park(self, peer: Peer) -> None:
        """Have the loop call when peer can go on."""
        self.loop.add(peer, self._unpark, WRITE if peer.pending else READ)

    def _unpark(self, peer: Peer) -> None:
        self.loop.remove(peer)
        self.waiting.put(peer)

    def work(self) -> None:
        buffer = Buffer()
        for peer in iter(self.waiting.get, None):
            if self.turns:
                self._take_turns(peer, buffer)
            else:
                self.serve_pinned(peer)

    def _take_turns(self, peer: Peer, buffer: Buffer) -> None:
        """Serve peer for as long as nobody waits for a worker.

        What is with a worker or waits for one is an unfinished task.
        """
        moved = take_turn(self, peer, buffer)
        while moved and self.waiting.unfinished_tasks <= self.pool_size:
            moved = take_turn(self, peer, buffer)
        self.waiting.task_done()
        if moved is not False:
            try:
                self._park(peer)
            except (OSError, ValueError, MemoryError) as error:
                # no room in the poller; or the server did not wait for this
                self.acceptor.complain("%s: cannot go on: %s", peer, error)
                self.peers.abort(peer, "drain" if self.is_ending() else
                                 "error")
                self.shutdown_request(peer.request)
