"""The idle timeout: who is ended because no byte moves."""

from time import monotonic

from .connections import Connections
from .loop import Loop
from .system import unread, unsent

__all__ = ["IdleTimeout"]


class IdleTimeout:

    """Ends who has been idle for timeout seconds; 0 is never.

    It looks while anybody is connected: watch() begins it, in the loop.

    Class variables that may be overridden:

    - tick: seconds between two looks at least; an end is at most so late
    """

    tick = 0.2

    def __init__(self, loop: Loop, peers: Connections,
                 timeout: float) -> None:
        self.timeout = timeout
        self._loop = loop
        self._peers = peers
        self._watching = False  # whether a timer is set

    def watch(self) -> None:
        """Look from time to time, now that somebody is connected."""
        if self.timeout and not self._watching:
            self._watching = True
            self._loop.call_at(monotonic() + self.timeout / 10, self._look)

    def _look(self) -> None:
        self._watching = bool(self._peers and self.timeout)
        if self._watching:
            self._loop.call_at(self.end_idle(monotonic()), self._look)

    def end_idle(self, now: float) -> float:
        """End who is idle at the time now; return when to look again.

        A reply that the kernel is still delivering is progress, though the
        handler has nothing to do or waits in send(): so the send queue is
        looked at ten times in a timeout.
        """
        due = now + self.timeout / 10
        for peer in self._peers.copy().values():
            if peer.reason:     # it was told to leave, and may be stuck
                self._peers.cut(peer, peer.reason)
                continue
            left = unsent(peer.request)
            if left != peer.unsent and peer.unsent is not None:
                peer.progress = now
            peer.unsent = left
            if now < peer.progress + self.timeout:
                due = min(due, peer.progress + self.timeout)
            elif peer.unanswered:
                self._peers.cut(peer, "idle")
            elif not unread(peer.request):  # or we are what is slow
                self._peers.end(peer, "idle")
        return max(due, now + self.tick)
