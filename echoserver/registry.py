"""The registry of live connections, and what is decided by reading it.

A Peer is in the registry exactly while its socket is open in this process.
The limit counts it; the idle timeout and the drain end what it lists; the log
line at a connection's end and the totals are written from it.

A connection is closed by whoever serves it.  Where policy wants one to end,
the reading side of its socket is shut, which wakes its handler, which then
leaves by its normal door.  There are three ways:

- end: the handler answers what has arrived, meets the end of input, and the
  peer sees an end of stream.
- abort: the handler leaves when no reply is pending, whatever else arrives,
  and the connection ends with a reset.
- cut: it leaves at once, though a reply is owed, and with a reset.

Shutting a reading side with unread bytes discards them on BSD and resets the
connection on Windows; on Linux they can still be read.  So only a connection
at rest is ended, and no byte is lost to that anywhere.

Every method that judges takes the time as an argument.
"""

import collections
import logging
import os
import socket
import struct
import sys
import threading
from time import monotonic
from typing import Any, Callable, Counter, Dict

from .handler import Peer

try:
    from fcntl import ioctl
    from termios import FIONREAD, TIOCOUTQ
except ImportError:  # Windows
    FIONREAD = TIOCOUTQ = 0  # type: ignore
# Linux can tell apart what is not sent and what is not acknowledged; the
# latter has as a rule arrived, and waits 40 ms for the acknowledgement.
SIOCOUTQNSD = 0x894B if sys.platform.startswith("linux") else TIOCOUTQ

__all__ = ["LAST_CALL", "Registry", "reset_on_close"]

logger = logging.getLogger("echoserver")

# Seconds without a byte after which a draining connection is at rest: longer
# than the 200 ms for which TCP waits before it sends a lost segment again, and
# than a busy host keeps a client waiting for its turn.
AT_REST = 0.25
# What a connection that was at rest already is given, to ask in the moment of
# the stop.  An idle server is to be gone within 50 ms.
LAST_CALL = 0.02
DRAIN_TICK = 0.005      # seconds between two looks at a draining registry
IDLE_TICK = 0.2         # at most so many seconds late is an idle timeout

RESET_ON_CLOSE = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)


class Registry(Dict[Any, Peer]):

    """The open connections, a dict of accepted socket -> Peer.

    turns: whether handlers do nothing but call Peer.turn().

    Instance variables:

    - ended: a Counter of the reasons for which connections ended
    - bytes_in, bytes_out: of the connections that have ended
    - cut_short: how many were cut while a part of their reply was owed
    """

    def __init__(self, turns: bool = True) -> None:
        super().__init__()
        self.turns = turns
        # whether no handler waits in send() for ever (SO_SNDTIMEO)
        self.patient = turns and os.name == "posix"
        # Called when peer's handler is to leave, and is perhaps parked.
        self.rouse: Callable[[Peer], None] = lambda peer: None
        self.ended: Counter[str] = collections.Counter()
        self.bytes_in = self.bytes_out = self.cut_short = 0
        # Held while a connection is closed and while another thread shuts one
        # down: the number of a closed descriptor may be a new connection's.
        # Reentrant, since stop() may interrupt it as a signal handler.
        self.closing = threading.RLock()

    def leave(self, request: Any) -> None:
        """Take a closed connection out, with its log line; once.

        The line comes first: when the registry is empty, all is said.
        """
        peer = self.get(request)
        if peer is None:
            return
        reason = peer.reason or "eof"
        with self.closing:
            self.ended[reason] += 1
            # judged now: a handler may have sent what it had not yet counted
            self.cut_short += peer.cut and (peer.owed or bool(peer.unsent))
            self.bytes_in += int(peer.bytes_in)
            self.bytes_out += int(peer.bytes_out)
        worth = peer.bytes_in or not self.turns  # or else a health probe
        logger.log(logging.INFO if worth else logging.DEBUG,
                   "%s: %s after %.3f s, %d bytes in, %d bytes out", peer,
                   reason, monotonic() - peer.since, peer.bytes_in,
                   peer.bytes_out)
        self.pop(request, None)

    def end(self, peer: Peer, reason: str) -> None:
        """Let peer's handler meet the end of its input."""
        with self.closing:
            peer.ends(reason)
            shut(peer.request, socket.SHUT_RD)

    def abort(self, peer: Peer, reason: str) -> None:
        """Let peer's handler leave soon, and reset the connection then."""
        self.reset(peer, reason)
        self.end(peer, reason)
        self.rouse(peer)

    def cut(self, peer: Peer, reason: str) -> None:
        """Let peer's handler leave at once; may be called again.

        One that waits in send() is not woken by that; a patient one gives up
        soon.  Otherwise the sending side must be shut, too, though then a
        peer that reads just now sees the end of a stream.
        """
        if not peer.cut:
            peer.cut = True
            peer.unsent = unsent(peer.request)
        self.abort(peer, reason)
        if peer.unsent and not self.patient:
            with self.closing:
                shut(peer.request, socket.SHUT_WR)

    def reset(self, peer: Peer, reason: str) -> None:
        """Let peer's connection end with a reset when it is closed."""
        with self.closing:
            peer.ends(reason)
            peer.aborted = True
            reset_on_close(peer.request)

    def sweep_idle(self, now: float, idle_timeout: float) -> float:
        """End what has been idle too long; return when to look again.

        A reply that the kernel is still delivering is progress, though the
        handler has nothing to do or waits in send(): the queue is looked at
        ten times in a timeout, where the system tells its length.
        """
        due = float("inf")
        for peer in self.copy().values():
            if peer.reason:
                if peer.aborted:  # and perhaps blocked in send() only now
                    self.cut(peer, peer.reason)
                continue
            queued = unsent(peer.request)
            if queued != peer.unsent and peer.unsent is not None:
                peer.progress = now
            peer.unsent = queued
            if now < peer.progress + idle_timeout:
                due = min(due, peer.progress + idle_timeout)
            elif peer.owed:
                self.cut(peer, "idle")
            elif not unread(peer.request):  # or we are what is slow
                self.end(peer, "idle")
        if self:
            due = min(due, now + idle_timeout / 10)
        return max(due, now + IDLE_TICK)

    def sweep_drain(self, now: float, since: float, grace: float) -> float:
        """End what a drain that began at since can; when to look again.

        A connection at rest (nothing owed, unsent or unread, and no byte moved
        for AT_REST seconds) is ended: the patience lets one that was just made
        still ask, and a long message in flight still arrive.  One that goes on
        talking when half of the grace is over is aborted, so that a clean end
        of stream always means a whole reply.
        """
        if now < since + LAST_CALL:
            return since + LAST_CALL
        for peer in self.copy().values():
            if peer.reason or peer.owed:
                continue
            elif now >= peer.progress + AT_REST and not unread(peer.request):
                if not unsent(peer.request):
                    self.end(peer, "drain")
            elif now >= since + grace / 2:
                self.abort(peer, "drain")
        return now + DRAIN_TICK

    def totals(self) -> str:
        """Return the sentence about all connections that have ended."""
        reasons = ", ".join("%d %s" % (count, reason) for reason, count
                            in sorted(self.ended.items())) or "none"
        return ("%d connections, %d bytes in, %d bytes out (%s)"
                % (sum(self.ended.values()), self.bytes_in, self.bytes_out,
                   reasons))


def reset_on_close(request: Any) -> None:
    try:
        request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                           RESET_ON_CLOSE)
    except OSError:
        pass  # it is closed


def shut(request: Any, how: int) -> None:
    try:
        request.shutdown(how)
    except OSError:
        pass  # it is closed, or the peer is gone: its handler knows


def unsent(request: Any) -> int:
    """Return how many bytes the kernel has still to send; 0 if untold."""
    return ask_kernel(request, SIOCOUTQNSD)


def unread(request: Any) -> int:
    """Return how many bytes wait to be read; 0 if untold (Windows).

    Not recv(MSG_PEEK), which waits when a handler has set a timeout.
    """
    return ask_kernel(request, FIONREAD)


def ask_kernel(request: Any, question: int) -> int:
    try:
        return int.from_bytes(ioctl(request, question, bytes(4)),
                              sys.byteorder)
    except (NameError, OSError, ValueError):
        return 0
