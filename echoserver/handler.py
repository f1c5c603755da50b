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

__all__ = ["EchoHandler", "Peer", "takes_turns"]

# How much to receive at once.  Room that is not filled costs nothing; but from
# 128 KiB on, the C library may ask the system for each piece of memory, which
# is three calls a turn (30,000 small replies a second instead of 124,000).
RECEIVE = 124 << 10


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

    def turn(self) -> bool:
        """Receive once, unless a reply is pending, and send once.

        Return False at the end of input, and when the connection is not to go
        on.  Raise what the socket raises: BlockingIOError when it is not
        ready, ConnectionError when the peer has gone.
        """
        data = self.pending
        if data or self.aborted:
            if self.cut or not data:
                return False
        else:
            data = self.request.recv(RECEIVE)
            if not data:
                self.at_end = True
                return False
            self.bytes_in += len(data)
            self.pending = data = self._reply(data)
        sent = self.request.send(data)
        self.bytes_out += sent
        self.progress = monotonic()
        self.pending = b"" if sent == len(data) else memoryview(data)[sent:]
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
        turn = self.peer.turn
        going = True
        while going:
            try:
                while turn():
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
