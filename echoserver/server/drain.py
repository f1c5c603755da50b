"""The drain: how a server comes to its end, told from top to bottom.

It accepts the clients that the kernel has accepted, as many at a time as the
limit allows.  It closes the listener, so that new clients are refused and can
go elsewhere.  It ends each connection at rest: nothing unread, answered, and
no byte for a moment, so that a connection that was just made can still ask and
a long message can still arrive.  It ends at half of the grace a client that
goes on asking, and cuts at the end of the grace all that is left.
"""

import socket
from time import monotonic
from typing import Any, Callable

from .acceptor import Acceptor
from .connections import Connections
from .handler import Peer
from .log import logger
from .loop import Loop
from .system import ignore_callers, unread, unsent

__all__ = ["CUT_TIMEOUT", "Drain"]

TICK = 0.005            # seconds between two looks at a draining server
CUT_TIMEOUT = 1.0       # seconds for handlers to notice that they were cut


class Drain:

    """Ends all connections within grace() seconds and CUT_TIMEOUT.

    Class variables that may be overridden, in seconds:

    - quiet_period: without a byte, until a connection is at rest
    - loopback_quiet_period: the same for a peer on this host
    - last_call: what a connection at rest is given to ask when a drain begins

    Instance variables: began, the monotonic time since when the grace runs, 0
    before.
    """

    # Longer than the 200 ms for which TCP waits before it sends a lost segment
    # again.  On loopback no segment is lost, and a test suite need not wait.
    quiet_period = 0.25
    loopback_quiet_period = 0.05
    # An idle server is to be gone within 50 ms.
    last_call = 0.02

    def __init__(self, loop: Loop, peers: Connections, acceptor: Acceptor,
                 grace: Callable[[], float]) -> None:
        self.began = 0.0
        self._loop = loop
        self._peers = peers
        self._acceptor = acceptor
        self._grace = grace

    def run(self, listener: socket.socket, adopted: bool) -> None:
        """Drain; adopted says that others serve on the listener after us, and
        get the clients that it holds."""
        self.begin()
        self._acceptor.watch(None)
        self._acceptor.drains = not adopted
        if not adopted:
            ignore_callers(listener)
            while self._accept(listener) and monotonic() < self._end:
                self.step(monotonic())
                self._loop.run_once(TICK)
        listener.close()
        while self._peers.others() and monotonic() < self._end + CUT_TIMEOUT:
            self.step(monotonic())
            self._loop.run_once(TICK)
        logger.info("served %s", self._peers.totals())

    def begin(self) -> None:
        """Let the grace run from now on; calling it again does nothing."""
        self.began = self.began or monotonic()

    @property
    def _end(self) -> float:
        return self.began + self._grace()   # which stop() may change

    def _accept(self, listener: socket.socket) -> bool:
        """Accept clients that have connected; return whether there may be
        more, above the limit or in the midst of the TCP handshake."""
        listener.setblocking(False)
        return (self._acceptor.accept_waiting()
                or not is_loopback(listener.getsockname())
                and monotonic() < self.began + self.last_call)

    def step(self, now: float) -> None:
        """End the connections that can be ended at the time now.

        Handlers may be busy: without the gate, each look at a connection
        would wait for all of them.
        """
        with self._peers.gate:
            for peer in self._peers.others():
                self._judge(peer, now)

    def _judge(self, peer: Peer, now: float) -> None:
        is_late, quiet = now >= self._end, self._is_quiet(peer, now)
        if quiet and not peer.unanswered and not unsent(peer.request):
            if is_late or now >= self.began + self.last_call:
                self._peers.end(peer, "drain", at_rest=True)
        elif is_late:
            self._peers.cut(peer, "drain")
        elif (not quiet and not peer.unanswered
                and now >= (self.began + self._end) / 2):
            self._peers.end(peer, "drain")

    def _is_quiet(self, peer: Peer, now: float) -> bool:
        """Whether nothing is unread, and no byte has moved for a moment."""
        period = (self.loopback_quiet_period
                  if is_loopback(peer.client_address) else self.quiet_period)
        return now >= peer.progress + period and not unread(peer.request)


def is_loopback(address: Any) -> bool:
    return str(address[0]).startswith(("127.", "::1", "::ffff:127."))
