"""The idle timeout: ends connections on which no byte moves."""

import math
from time import monotonic

from .connections import Connections
from .handler import Peer
from .loop import Loop
from .system import unread, unsent

__all__ = ["IdleTimeout"]


class IdleTimeout:

    """Ends connections that have been idle for timeout seconds; 0 is never.

    It looks ten times in a timeout, while the loop runs.  So an end comes late
    by a tenth of the timeout, or by a tick, if that is longer.

    Class variables that may be overridden:

    - tick: seconds between two looks at least
    """

    tick = 0.2

    def __init__(self, loop: Loop, peers: Connections, timeout: float) -> None:
        self.timeout = timeout
        self._loop = loop
        self._peers = peers
        if timeout:
            self._look()

    def _look(self) -> None:
        self._loop.call_at(self.end_idle(monotonic()), self._look)

    def end_idle(self, now: float) -> float:
        """End the connections that are idle at the time now; return when to
        look again.

        A reply that the kernel is still delivering is progress, though the
        handler has nothing to do or waits in send().  So the send queue is
        looked at ten times in a timeout.
        """
        due = now + self.timeout / 10
        with self._peers.gate:
            for peer in self._peers.others():
                due = min(due, self._judge(peer, now))
        return max(due, now + self.tick)

    def _judge(self, peer: Peer, now: float) -> float:
        """End peer if it is idle; return when it may be."""
        if peer.reason:     # its handler was told to return, and may be stuck
            self._peers.cut(peer, peer.reason)
            return math.inf
        queued = unsent(peer.request)
        if queued != peer.queued and peer.queued is not None:
            peer.progress = now
        peer.queued = queued
        due = peer.progress + self.timeout
        if now >= due:
            if peer.unanswered:
                self._peers.cut(peer, "idle")
            elif not unread(peer.request):  # or the handler is slow, not it
                self._peers.end(peer, "idle", at_rest=True)
            return math.inf
        return due
