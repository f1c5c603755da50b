"""The echo itself: what is read, what is answered, how far it has got.

The protocol is a byte stream without framing, greeting or limit: the reply is
what was sent, with the ASCII letters a to z in upper case.  The length is kept
and every other byte passes untouched, so UTF-8 survives and a client can check
each byte without help.  When the input ends, the rest of the reply follows,
then the end of the stream.

All of that is one method, Peer.turn(): receive once, answer once, remember
what did not fit.  On a blocking socket it waits, and a thread or a process
calls it in a loop (EchoHandler.handle).  On a non-blocking socket it raises
BlockingIOError, and an event loop calls it when the socket is ready.  The
models of concurrency differ in who calls it, and in nothing else.

A turn never reads while a reply is pending.  So a connection costs one buffer
at most, whatever it sends, and a peer that does not read is not read from: its
own send buffer fills, which is how TCP tells a sender to wait.
"""

import socketserver
from time import monotonic
from typing import Any, Callable, Optional

from .address import show_address

__all__ = ["EchoHandler", "Peer", "Room", "takes_turns"]

# A first read of 8 KiB is right for people and small messages; a read that
# fills its room says that more is coming, and doubles the next.  Up to 128 KiB
# the C library keeps what is freed for the next turn; beyond, each turn gets
# fresh pages from the system, and a stream of 256 KiB messages costs twice the
# time (375 us a message instead of 195).
SMALL_ROOM = 8 << 10
LARGE_ROOM = 128 << 10


class Room:

    """Where received bytes land: a buffer that grows when a read fills it.

    It belongs to a thread, not to a connection: it is empty between turns.

    (recv() would spare a copy, and 8 % of the time of a 16 KiB message.  But
    it takes and cuts pieces of memory of which the C library then keeps many:
    57 MB of a pool's after a load of random sizes, and 16 MB with this.)
    """

    __slots__ = ("view",)

    def __init__(self, size: int = SMALL_ROOM) -> None:
        self.view = memoryview(bytearray(size))

    def grow(self) -> None:
        """Double the room, up to LARGE_ROOM."""
        if len(self.view) < LARGE_ROOM:
            self.view = memoryview(bytearray(2 * len(self.view)))


class Peer:

    """One live connection: whose it is, what it has moved, why it ended.

    Instance variables, for a server and its overridden hooks to read:

    - request, client_address: the accepted socket and the address it is from
    - since: when it was accepted
    - progress: when bytes last moved, either way
    - bytes_in, bytes_out
    - pending: the part of a reply that the socket has not taken yet
    - reason: why it is ending ("" while it is not)
    - at_end: its input has ended
    - bytes_heard: bytes_in when its end was decided
    - aborted: it is to end with a reset, once no reply is pending
    - cut: it is to end with a reset, whatever is pending

    Times are time.monotonic() seconds.
    """

    __slots__ = ("request", "client_address", "since", "progress", "bytes_in",
                 "bytes_out", "bytes_heard", "reason", "aborted", "at_end",
                 "cut", "pending", "unsent", "_reply")

    def __init__(self, request: Any, client_address: Any,
                 reply: Callable[[bytes], bytes] = bytes.upper) -> None:
        self.request = request
        self.client_address = client_address
        self.since = self.progress = monotonic()
        self.bytes_in = self.bytes_out = self.bytes_heard = 0
        self.reason = ""
        self.aborted = self.at_end = self.cut = False
        self.unsent: Optional[int] = None
        self.pending: Any = b""
        self._reply = reply

    def turn(self, room: Room) -> bool:
        """Receive once, unless a reply is pending, and send once.

        Return False at the end of input, and when the connection is not to go
        on.  Raise what the socket raises: BlockingIOError when it is not
        ready, ConnectionError when the peer has gone.
        """
        pending = self.pending
        if pending or self.aborted:
            if self.cut or not pending:
                return False
        else:
            view = room.view
            count = self.request.recv_into(view)
            if not count:
                self.at_end = True
                return False
            self.bytes_in += count
            self.pending = pending = self._reply(view[:count].tobytes())
            if count == len(view):
                room.grow()
        sent = self.request.send(pending)
        self.bytes_out += sent
        self.progress = monotonic()
        self.pending = (b"" if sent == len(pending)
                        else memoryview(pending)[sent:])
        return True

    def fileno(self) -> int:
        """Return the socket's number, so that the loop can watch a Peer."""
        number: int = self.request.fileno()
        return number

    def ends(self, reason: str) -> None:
        """Note that its end is decided, and why; the first reason stays."""
        if not self.reason:
            self.bytes_heard = self.bytes_in
            self.reason = reason

    @property
    def owed(self) -> bool:
        """Whether bytes have been received that are not answered yet."""
        return self.bytes_in > self.bytes_out

    def __str__(self) -> str:
        return show_address(self.client_address)


class EchoHandler(socketserver.StreamRequestHandler):

    """Answer one connection until its input ends.

    May be overridden:

    - reply(data) -> bytes, a static method: what is sent for what came, of
      the same length.  Works in every model.
    - setup(), handle(), finish(): as in socketserver, with self.rfile and
      self.wfile.  Such a handler moves its bytes itself, unseen by the
      server's registry: it stores time.monotonic() in self.peer.progress, or
      is judged idle by its age.
    """

    reply: Any = staticmethod(bytes.upper)

    def setup(self) -> None:
        super().setup()
        peers = getattr(self.server, "peers", {})  # a stock server has none
        self.peer = peers.get(self.request) or Peer(
            self.request, self.client_address, self.reply)

    def handle(self) -> None:
        turn, room = self.peer.turn, Room()
        going = True
        while going:
            try:
                while turn(room):
                    pass
                going = False
            except BlockingIOError:
                pass  # send() has waited long, and turn() looks why it should


def takes_turns(handler_class: Any) -> bool:
    """Whether a handler does nothing but call Peer.turn() until it is False.

    So do EchoHandler, and classes that override no more than reply().
    """
    return all(getattr(handler_class, name, None) is getattr(EchoHandler, name)
               for name in ("__init__", "setup", "handle", "finish"))
