"""The live connections: their list, their log lines, and the ways to end one.

A Peer is listed exactly while its socket is open in this process.  The limit
counts the list; the idle timeout and the drain end what is on it; the log line
of a connection and the totals are written from it.

A connection is closed by whoever serves it.  Where the server wants one to
end, it shuts down the reading side of the socket, which wakes the handler,
which then leaves by its normal door.  There are three ways:

- end: the handler answers pending input, meets the end of its input, and the
  peer sees the end of the stream.  Only for a connection at rest: shutting
  down with unread bytes discards them on BSD, and resets on Windows.
- abort: the handler leaves when no reply is pending; then a reset.
- cut: the handler leaves at once, though a reply is pending; then a reset.

So the end of the stream always means a whole reply.
"""

import collections
import logging
import os
import socket
import threading
from time import monotonic
from typing import Any, Callable, Counter, Dict

from .handler import Peer
from .system import reset_on_close, shut_down, unread, unsent

__all__ = ["Connections"]

logger = logging.getLogger("echoserver")


class Connections(Dict[Any, Peer]):

    """The open connections, a dict of accepted socket -> Peer.

    make_peer(request, address) returns a Peer; call(peer) has one looked after
    that waits in a loop, to be writable perhaps.  turns says whether handlers
    do nothing but call Peer.turn(); if they do, send_times_out says whether
    they look up now and then when they wait in send().

    Class variables that may be overridden, in seconds:

    - quiet_period: without a byte, until a draining connection is at rest
    - last_call: what a connection at rest is given to ask when a drain begins
    - log_after: a connection without a byte is logged if it lasted so long

    Instance variables:

    - call: as above
    - ended: a Counter of the reasons for which connections ended
    - bytes_in, bytes_out: of the connections that have ended
    """

    # Longer than the 200 ms for which TCP waits before it sends a lost segment
    # again, and than a busy host keeps a client waiting for its turn.
    quiet_period = 0.25
    # An idle server is to be gone within 50 ms.
    last_call = 0.02
    # Longer than the probes of balancers and monitors last.
    log_after = 1.0

    def __init__(self, make_peer: Callable[[Any, Any], Peer],
                 call: Callable[[Peer], Any], turns: bool = True,
                 send_times_out: bool = False) -> None:
        super().__init__()
        self.ended: Counter[str] = collections.Counter()
        self.bytes_in = self.bytes_out = self._cut_short = 0
        # Held while a connection is closed and while another thread shuts one
        # down: the number of a closed descriptor may be a new connection's.
        # Reentrant, since the loop's thread closes what it has ended.
        self.lock = threading.RLock()
        self.call = call
        self._make_peer = make_peer
        self._turns = turns
        self._send_times_out = send_times_out and os.name == "posix"

    def add(self, request: Any, client_address: Any) -> None:
        """List an accepted connection."""
        self[request] = self._make_peer(request, client_address)

    def remove(self, request: Any) -> int:
        """Take a closed connection off the list, with its log line; return
        how many there were.

        The line comes first: when the list is empty, all is said.
        """
        peer = self.get(request)
        if peer is not None:
            self._log_end(peer)
        # Not with the lock, for which threads wait meanwhile that close
        # (15,500 connections a second, and not 20,000).  So it is counted
        # before: of several that leave a full list the first sees it full.
        count = len(self)
        self.pop(request, None)
        return count

    def _log_end(self, peer: Peer) -> None:
        reason, lasted = peer.reason or "eof", monotonic() - peer.since
        with self.lock:
            self.ended[reason] += 1
            self._cut_short += is_cut_short(peer)
            self.bytes_in += int(peer.bytes_in)
            self.bytes_out += int(peer.bytes_out)
        # else it is taken for a health probe
        worth = (peer.bytes_in or lasted >= self.log_after or not self._turns)
        logger.log(logging.INFO if worth else logging.DEBUG,
                   "%s: %s after %.3f s, %d bytes in, %d bytes out", peer,
                   reason, lasted, peer.bytes_in, peer.bytes_out)

    @property
    def cut_short(self) -> int:
        """How many a drain has cut while their reply was not whole; those
        whose handlers are still busy are among them."""
        return self._cut_short + sum(map(is_cut_short, self.copy().values()))

    def note_cut_short(self) -> None:
        """Count one that another process has cut."""
        self._cut_short += 1

    def totals(self) -> str:
        """Return the sentence about all connections that have ended."""
        reasons = ", ".join("%d %s" % (count, reason) for reason, count
                            in sorted(self.ended.items())) or "none"
        return ("%d connections, %d bytes in, %d bytes out (%s)"
                % (sum(self.ended.values()), self.bytes_in, self.bytes_out,
                   reasons))

    # Ending a connection.

    def end(self, peer: Peer, reason: str) -> None:
        """Let peer's handler meet the end of its input."""
        with self.lock:
            peer.ends(reason, unread(peer.request))
            shut_down(peer.request, socket.SHUT_RD)

    def abort(self, peer: Peer, reason: str) -> None:
        """Let peer's handler leave soon, and reset the connection then."""
        self.reset(peer, reason)
        self.end(peer, reason)
        self.call(peer)

    def cut(self, peer: Peer, reason: str) -> None:
        """Let peer's handler leave at once; may be called again.

        A handler that waits in send() for ever is woken by the end of the
        sending side only, though then a peer that reads just now may see the
        end of the stream before the reset.
        """
        # First: a handler that sees the rest leaves.
        peer.ends(reason, unread(peer.request))
        peer.cut = True
        self.abort(peer, reason)
        if not self._send_times_out and unsent(peer.request):
            with self.lock:
                shut_down(peer.request, socket.SHUT_WR)

    def reset(self, peer: Peer, reason: str) -> None:
        """Let peer's connection end with a reset when it is closed."""
        with self.lock:
            peer.ends(reason, unread(peer.request))
            peer.aborted = True
            reset_on_close(peer.request)

    def reset_at_exit(self) -> None:
        """Have the system reset what is open when this process ends, which
        may be stuck, and killed: no stream is to end as if it were whole."""
        for request in list(self):
            reset_on_close(request)

    def count_lost(self, request: Any) -> None:
        """Take what a reset is about to destroy off the bytes that were sent;
        called before the connection is closed."""
        peer = self.get(request)
        if peer is not None and peer.aborted:
            peer.unsent = unsent(request)
            peer.bytes_out -= min(peer.unsent, peer.bytes_out)

    # What drain.py asks for.

    def is_quiet(self, peer: Peer, now: float) -> bool:
        """Whether nothing is unread, and no byte has moved for the quiet
        period.  At rest is who is quiet, answered, and has all of it."""
        return (now >= peer.progress + self.quiet_period
                and not unread(peer.request))

    def end_resting(self, now: float, began: float, grace: float) -> None:
        """End what a drain that began at a time can.

        A connection at rest is ended: so one that was just made can still
        ask, and a long message can still arrive.  One that goes on asking is
        aborted when half of the grace is over.
        """
        if now < began + self.last_call:
            return
        for peer in self.copy().values():
            if peer.reason or peer.unanswered:
                continue
            if self.is_quiet(peer, now):
                if not unsent(peer.request):
                    self.end(peer, "drain")
            elif now >= began + grace / 2:
                self.abort(peer, "drain")

    def cut_all(self, reason: str) -> None:
        """Cut whatever is left; end what is at rest."""
        now = monotonic()
        for peer in self.copy().values():
            if (peer.aborted or peer.unanswered or unsent(peer.request)
                    or not self.is_quiet(peer, now)):
                self.cut(peer, reason)
            else:
                self.end(peer, reason)


def is_cut_short(peer: Peer) -> bool:
    return (peer.reason == "drain" and peer.aborted
            and (peer.bytes_in_then > peer.bytes_out or bool(peer.unsent)))
