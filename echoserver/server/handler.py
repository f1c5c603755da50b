"""The echo: what is read, what is answered, and how far it has got.

The protocol is a byte stream without framing, greeting or limit: the reply is
what was sent, with the ASCII letters a to z in upper case.  The length is kept
and every other byte passes untouched, so UTF-8 survives and a client can check
each byte without help.  When the input ends, the rest of the reply follows,
then the end of the stream.

All of that is one method, Peer.turn(): receive once, send once, remember what
did not fit.  On a blocking socket it waits, and a thread or a process calls it
in a loop (EchoHandler.handle).  On a non-blocking socket it returns at once,
and an event loop calls it when the socket is ready.  The models differ in who
calls it, and in nothing else.

A turn never reads while a reply is pending.  So a connection costs one buffer
at most, whatever it sends, and a peer that does not read is not read from: its
own send buffer fills, which is how TCP tells a sender to wait.
"""

import socketserver
from time import monotonic, sleep
from typing import Any, Callable, Optional

from ..address import show_address

__all__ = ["Buffer", "EchoHandler", "Peer", "delayed", "uses_turns"]

# 8 KiB is right for people and small messages; a read that fills the buffer
# says that more is coming, and doubles it.  Up to 128 KiB the C library keeps
# what is freed for the next turn; beyond, each turn gets fresh pages from the
# system, and a stream of 256 KiB messages costs twice the time (375 us a
# message instead of 195).
MIN_BUFFER = 8 << 10
MAX_BUFFER = 128 << 10


DELAY_TICK = 0.05   # seconds after which a delay looks whether it is to end


class Buffer:

    """How much a thread receives at once, and where.

    It belongs to a thread, not to a connection: between turns it is empty.
    kept says whether what is received lands in the same memory each time.

    (Without that recv() spares a copy, 3 % of the time of a small reply and 8
    % of one of 16 KiB.  But where many threads do so, the C library keeps many
    of the pieces of memory that they take: 57 MB of a pool's after a load of
    random sizes, and 16 MB with this.)
    """

    __slots__ = ("size", "view")

    def __init__(self, kept: bool = True) -> None:
        self.size = MIN_BUFFER
        self.view = memoryview(bytearray(self.size)) if kept else None

    def grow(self) -> None:
        if self.size < MAX_BUFFER:
            self.size *= 2
            if self.view is not None:
                self.view = memoryview(bytearray(self.size))


class Peer:

    """One live connection: whose it is, what it has moved, why it ends.

    - request, client_address: the accepted socket and the address it is from
    - since: when it was accepted
    - progress: when bytes last moved, either way
    - bytes_in, bytes_out
    - pending: the part of a reply that the socket has not taken yet
    - reason: why it ends; "" while nobody has decided that it should
    - bytes_in_then: how many had come when that was decided, read or not
    - aborted: it ends with a reset, once no reply is pending
    - cut: it ends with a reset at once
    - at_end: its input has ended
    - unsent: bytes in the kernel's send queue when last looked at, or None

    Times are time.monotonic() seconds.
    """

    __slots__ = ("request", "client_address", "since", "progress", "bytes_in",
                 "bytes_out", "bytes_in_then", "reason", "aborted", "cut",
                 "at_end", "pending", "unsent", "_reply")

    def __init__(self, request: Any, client_address: Any,
                 reply: Callable[[bytes], bytes] = bytes.upper) -> None:
        self.request = request
        self.client_address = client_address
        self.since = self.progress = monotonic()
        self.bytes_in = self.bytes_out = self.bytes_in_then = 0
        self.reason = ""
        self.aborted = self.cut = self.at_end = False
        self.pending: Any = b""
        self.unsent: Optional[int] = None
        self._reply = reply

    def turn(self, buffer: Buffer) -> Optional[bool]:
        """Receive once, unless a reply is pending, and send once.

        Return True if bytes moved, None if the socket was not ready, False if
        the connection is to be closed.  Raise what reply() raises, and
        OSError when the peer is gone.
        """
        pending = self.pending
        if pending or self.aborted:
            if self.cut or not pending:
                return False
        else:
            view = buffer.view
            try:
                if view is None:
                    data = self.request.recv(buffer.size)
                else:
                    data = view[:self.request.recv_into(view)].tobytes()
            except BlockingIOError:
                return None
            if not data:
                self.at_end = True
                return False
            count = len(data)
            self.bytes_in += count
            self.pending = pending = self._reply(data)
            if count == buffer.size:
                buffer.grow()
        try:
            sent = self.request.send(pending)
        except BlockingIOError:
            return None
        self.bytes_out += sent
        self.progress = monotonic()
        self.pending = (b"" if sent == len(pending)
                        else memoryview(pending)[sent:])
        return True

    def ends(self, reason: str, unread: int = 0) -> None:
        """Note that its end is decided, and why; the first reason stays."""
        if not self.reason:
            self.bytes_in_then = self.bytes_in + unread
            self.reason = reason

    @property
    def unanswered(self) -> bool:
        """Whether bytes have been received whose reply is not sent."""
        return self.bytes_in > self.bytes_out

    @property
    def incomplete(self) -> bool:
        """Whether its reply is not whole: after an error, and when bytes came
        after the end was decided, so that more may be on their way."""
        return (self.unanswered or self.reason in ("error", "reset") or
                bool(self.reason) and self.bytes_in > self.bytes_in_then)

    def fileno(self) -> int:
        """Return the socket's descriptor, for a selector."""
        number: int = self.request.fileno()
        return number

    def __str__(self) -> str:
        return show_address(self.client_address)


class EchoHandler(socketserver.StreamRequestHandler):

    """Answer one connection until its input ends.

    May be overridden:

    - reply(data) -> bytes, a static method: what is sent for what came, of
      the same length.  Works in every model.
    - setup(), handle(), finish(): as in socketserver, with self.rfile and
      self.wfile.  Such a handler moves its bytes itself, unseen by the
      server: it stores time.monotonic() in self.peer.progress, or is judged
      idle by its age.
    """

    reply: Callable[[bytes], bytes] = staticmethod(bytes.upper)

    def setup(self) -> None:
        super().setup()
        peers = getattr(self.server, "peers", {})  # a stock server has none
        self.peer = peers.get(self.request) or Peer(
            self.request, self.client_address, self.reply)

    def handle(self) -> None:
        turn, buffer = self.peer.turn, Buffer()
        while turn(buffer) is not False:
            pass  # None after send_timeout: the next turn looks at peer.cut


def uses_turns(handler_class: Any) -> bool:
    """Whether a handler does nothing but call Peer.turn() until it is False.

    So do EchoHandler, and classes that override no more than reply().
    """
    return all(getattr(handler_class, name, None) is getattr(EchoHandler, name)
               for name in ("__init__", "setup", "handle", "finish"))


def delayed(reply: Callable[[bytes], bytes], delay: float,
            is_ending: Callable[[], bool]) -> Callable[[bytes], bytes]:
    """Return reply(), or one that blocks for so many seconds before it
    answers, or until the server is ending."""
    if not delay:
        return reply

    def delayed_reply(data: bytes) -> bytes:
        end = monotonic() + delay
        while monotonic() < end and not is_ending():
            sleep(max(min(end - monotonic(), DELAY_TICK), 0))
        return reply(data)
    return delayed_reply
