"""The echo: reading, answering, and how far a connection has got.

The protocol is a byte stream without framing, greeting or limit.  The reply is
what was sent, with the ASCII letters a to z in upper case.  The length is kept
and every other byte passes untouched, so UTF-8 survives and a client can check
each byte without help.  When the input ends, the rest of the reply follows,
then the end of the stream.

All of that is one method, Peer.turn(): receive once, send once, remember the
part that did not fit.  On a blocking socket it waits, and a thread or a
process calls it in a loop (EchoHandler.handle).  On a non-blocking socket it
returns at once, and an event loop calls it when the socket is ready.  The
models differ in the caller, and in nothing else.

A turn never reads while a reply is pending.  So a connection costs one buffer
at most, whatever it sends.  A peer that does not read is not read from: its
own send buffer fills, which is how TCP tells a sender to wait.
"""

import socketserver
from time import monotonic
from typing import Any, Callable, Optional

from ..address import show_address
from .log import logger

__all__ = ["Buffer", "EchoHandler", "Peer", "uses_turns"]

# 8 KiB is right for people and small messages; a read that fills the buffer
# says that more is coming, and doubles it.  Up to 128 KiB the C library keeps
# what is freed for the next turn; beyond, each turn gets fresh pages from the
# system, and a stream of 256 KiB messages costs twice the time (375 us a
# message instead of 195).
MIN_BUFFER = 8 << 10
MAX_BUFFER = 128 << 10

# Turns after which a busy handler looks at the gate, and the bytes that they
# may move.  (A look at each turn takes away 45 % of the short connections.)
TURNS = 8
TURNS_BYTES = TURNS * MIN_BUFFER


class Buffer:

    """How much a thread receives at once, and where.

    It belongs to a thread, not to a connection: between turns it is empty.
    kept says whether received bytes land in the same memory each time.
    peer is the connection that the thread serves with it at the moment.

    (Without that recv() spares a copy, 3 % of the time of a small reply and 8
    % of one of 16 KiB.  But where many threads do so, the C library keeps many
    of the pieces of memory that they take: 57 MB of a pool's after a load of
    random sizes, and 16 MB with this.)
    """

    __slots__ = ("peer", "size", "view")

    def __init__(self, kept: bool = True) -> None:
        self.peer: Optional[Peer] = None
        self.size = MIN_BUFFER
        self.view = memoryview(bytearray(self.size)) if kept else None

    def grow(self) -> None:
        if self.size < MAX_BUFFER:
            self.size *= 2
            if self.view is not None:
                self.view = memoryview(bytearray(self.size))


class Peer:

    """One live connection: its socket, its figures, and why it ends.

    - request, client_address: the accepted socket and the address it is from
    - reply: the function that makes a reply from received bytes
    - since: when it was accepted
    - progress: when bytes last moved, either way
    - bytes_in, bytes_out
    - surplus: bytes that reply() has returned beyond those it was given
    - pending: the part of a reply that the socket has not taken yet
    - reason: why the server ends it; "" while it has not decided to
    - whole_at: bytes_in when the server ended it at rest, else -1
    - cut: its handler leaves at once, though a reply is pending
    - queued: bytes in the kernel's send queue at the last look, or None

    Times are time.monotonic() seconds.
    """

    def __init__(self, request: Any, client_address: Any,
                 reply: Callable[[bytes], bytes] = bytes.upper) -> None:
        self.request = request
        self.client_address = client_address
        self.reply = reply
        self.since = self.progress = monotonic()
        self.bytes_in = self.bytes_out = self.surplus = 0
        self.pending: Any = b""
        self.reason = ""
        self.whole_at = -1
        self.cut = False
        self.queued: Optional[int] = None

    def turn(self, buffer: Buffer) -> Optional[bool]:
        """Receive once, unless a reply is pending, and send once.

        Return True if bytes moved, None if the socket was not ready, False if
        the connection is to be closed.  Raise what reply() raises, and
        OSError when the peer is gone.
        """
        pending = self.pending
        if not pending:
            if self.reason:
                return False
            view = buffer.view
            try:
                data = (self.request.recv(buffer.size) if view is None else
                        view[:self.request.recv_into(view)].tobytes())
            except BlockingIOError:
                return None
            if not data:
                return False
            count = len(data)
            self.bytes_in += count
            self.pending = pending = self.reply(data)
            if len(pending) != count:
                self._count_surplus(len(pending), count)
            if count == buffer.size:
                buffer.grow()
        elif self.cut:
            return False
        try:
            sent = self.request.send(pending)
        except BlockingIOError:
            return None
        self.bytes_out += sent
        self.progress = monotonic()
        self.pending = (b"" if sent == len(pending)
                        else memoryview(pending)[sent:])
        return True

    def _count_surplus(self, returned: int, given: int) -> None:
        if not self.surplus:
            logger.warning("%s: reply() returned %d bytes for %d; a client "
                           "that compares sees a wrong echo",
                           self, returned, given)
        self.surplus += returned - given

    def ends(self, reason: str) -> None:
        """Note that the server ends it, and why; the first reason stays."""
        self.reason = self.reason or reason

    @property
    def unanswered(self) -> bool:
        """Whether bytes have been received whose reply is not sent."""
        return self.bytes_in + self.surplus > self.bytes_out

    @property
    def whole(self) -> bool:
        """Whether its reply is whole: the handler came to its own end, or the
        server ended it at rest and nothing has come since."""
        return not self.reason or (
            self.whole_at == self.bytes_in and not self.unanswered
            and not self.cut)

    def fileno(self) -> int:
        """Return the socket's descriptor, for a selector."""
        number: int = self.request.fileno()
        return number

    def __str__(self) -> str:
        return show_address(self.client_address)


class EchoHandler(socketserver.StreamRequestHandler):

    """Answer one connection until its input ends.

    May be overridden:

    - reply(data) -> bytes, a static method: the reply to received bytes, of
      the same length.  Works in every model.
    - setup(), handle(), finish(), timeout: as in socketserver, with self.rfile
      and self.wfile; not with SelectorEchoServer.  A handle() of its own moves
      its bytes unseen by the server: it stores time.monotonic() in
      self.peer.progress, or is judged idle by its age.
    """

    reply: Callable[[bytes], bytes] = staticmethod(bytes.upper)

    def setup(self) -> None:
        super().setup()
        server: Any = self.server
        self.peer: Peer = server.peers[self.request]
        self.peer.reply = server.delayed(self.reply)

    def handle(self) -> None:
        server: Any = self.server
        turn, buffer, wait = self.peer.turn, Buffer(), server.peers.gate.wait
        while True:
            for _ in range(max(TURNS_BYTES // buffer.size, 1)):
                if turn(buffer) is False:
                    return
            wait()


def uses_turns(handler_class: Any) -> bool:
    """Whether a handler does nothing but call Peer.turn() until it is False.

    So do EchoHandler, and classes that override no more than reply().
    """
    return all(getattr(handler_class, name, None) is getattr(EchoHandler, name)
               for name in ("__init__", "setup", "handle", "finish",
                            "timeout"))
