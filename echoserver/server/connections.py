"""The open connections: their list, their log lines, and how one is ended.

This dict holds every open connection.  The connection limit is its length.
The idle timeout and the drain go through it to find the connections to end.

Only the handler of a connection closes its socket.  To end a connection from
outside, the server notes a reason and shuts down the reading side of the
socket.  The handler then reads the end of input and returns as usual.

Every accepted socket is set to end in a reset (SO_LINGER 1, 0), which is taken
back in one place, EchoServer.shutdown_request(), if the reply is whole.  So a
clean end of the stream always means a whole reply.  Whatever else ends a
connection, an error, a cut or a killed process, is a reset.
"""

import collections
import logging
import socket
import threading
from time import monotonic
from typing import Any, Callable, Counter, Dict, List, Optional

from .handler import Peer
from .log import logger
from .system import shut_down, unread, unsent
from .threads import Gate

__all__ = ["Connections"]


class Connections(Dict[Any, Peer]):

    """The open connections, a dict of accepted socket -> Peer.

    make_peer(request, address) returns a Peer.  wake(peer) makes a handler
    look up that waits for more than its input.  turns says whether handlers do
    nothing but call Peer.turn(): then a send() of theirs times out now and
    then, and they see that they are cut.

    Class variables that may be overridden, in seconds:

    - log_after: a connection without a byte is logged if it lasted so long

    Instance variables:

    - gate: closed while their handlers are to wait
    - serving: thread-local; its buffer is that of the calling thread
    - closer: the one whose handler closes the server, or None
    - ended: a Counter of the reasons for which connections ended
    - bytes_in, bytes_out: of the connections that have ended
    - cut_short: how many a drain has cut while a reply was due
    """

    # Longer than the probes of balancers and monitors last.
    log_after = 1.0

    def __init__(self, make_peer: Callable[[Any, Any], Peer],
                 wake: Callable[[Peer], Any], turns: bool) -> None:
        super().__init__()
        self.gate = Gate()
        self.serving = threading.local()
        self.closer: Optional[Peer] = None
        self.ended: Counter[str] = collections.Counter()
        self.bytes_in = self.bytes_out = self.cut_short = 0
        # Held while a connection is closed and while another thread shuts one
        # down: the number of a closed descriptor may be a new connection's.
        # Reentrant, since the loop's thread closes connections it has ended.
        self.lock = threading.RLock()
        self._make_peer = make_peer
        self._wake = wake
        self._turns = turns

    def add(self, request: Any, client_address: Any) -> None:
        """List an accepted connection."""
        self[request] = self._make_peer(request, client_address)

    def remove(self, request: Any) -> None:
        """Remove a closed connection from the list, and log its end.

        The line is written before, so that an empty list means that every
        line is written.
        """
        peer = self.get(request)
        if peer is not None:
            self._log_end(peer)
            # Without the lock, for which closing threads would wait (15,500
            # connections a second instead of 20,000).
            self.pop(request, None)

    def _log_end(self, peer: Peer) -> None:
        reason, lasted = peer.reason or "eof", monotonic() - peer.since
        with self.lock:
            self.ended[reason] += 1
            self.bytes_in += int(peer.bytes_in)
            self.bytes_out += int(peer.bytes_out)
        # A short connection without a byte is taken for a health probe.
        worth = peer.bytes_in or lasted >= self.log_after or not self._turns
        logger.log(logging.INFO if worth else logging.DEBUG,
                   "%s: %s after %.3f s, %d bytes in, %d bytes out", peer,
                   reason, lasted, peer.bytes_in, peer.bytes_out)

    def totals(self) -> str:
        """Return the sentence about all connections that have ended."""
        reasons = ", ".join("%d %s" % (count, reason) for reason, count
                            in sorted(self.ended.items())) or "none"
        return ("%d connections, %d bytes in, %d bytes out (%s)"
                % (sum(self.ended.values()), self.bytes_in, self.bytes_out,
                   reasons))

    def others(self) -> List[Peer]:
        """Return the open connections without the closer, which cannot end
        before its handler returns."""
        return [peer for peer in self.copy().values()
                if peer is not self.closer]

    # Ending a connection.

    def end(self, peer: Peer, reason: str, at_rest: bool = False) -> None:
        """Let peer's handler return when no reply is pending.  Then the
        connection is reset, unless it is at rest."""
        with self.lock:
            if at_rest and not peer.reason:
                peer.whole_at = peer.bytes_in
            peer.ends(reason)
            shut_down(peer.request, socket.SHUT_RD)

    def cut(self, peer: Peer, reason: str) -> None:
        """Let peer's handler return at once; may be called again."""
        peer.ends(reason)   # first: a handler that sees the rest returns
        peer.cut = True
        self.end(peer, reason)
        if not self._turns and unsent(peer.request):
            with self.lock:     # or it may wait in send() for ever
                shut_down(peer.request, socket.SHUT_WR)
        self._wake(peer)

    def count_lost(self, request: Any) -> None:
        """Subtract from bytes_out the bytes that a reset is about to destroy;
        called just before the connection is closed."""
        peer = self.get(request)
        if peer is not None and not peer.whole:
            lost = unsent(request)
            peer.bytes_out -= min(lost, peer.bytes_out)
            self.cut_short += peer.reason == "drain" and (
                peer.unanswered or lost + unread(request) > 0)
