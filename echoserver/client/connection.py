"""A connection to an uppercase echo, with every byte of the reply compared.

The protocol is a byte stream without frames: what comes back is what was sent
with the ASCII letters in upper case, so a reply is exactly as long as its
request and can be verified without the server's help.

What was sent is held against what comes back by a Verifier (verifier.py); a
Connection is the socket above it, dialled, waited for and closed.

Connection.echo() is all that most callers want.  The pipe and the prompt of
the client program use the four steps it is made of: send(), receive(),
half_close() and the descriptor, which can be selected on.

The socket never blocks.  A client that sends everything before it reads locks
up with any echo as soon as the message outgrows the buffers of both kernels
(somewhere between 4 and 16 MB), so a message is sent as far as it goes, and
then both directions are waited for at once.  A small message always goes at
once; it costs one send, one poll and one recv.
"""

import math
import os
import select
import socket
import time
from types import TracebackType
from typing import List, Optional, Tuple, Type, Union

from ..address import show_address
from .verifier import EXCERPT, Verifier

__all__ = ["Address", "BLOCK", "Connection", "LONGEST_WAIT", "checked_limit"]

# What socket calls an address: two fields for IPv4 and names, four for IPv6.
Address = Union[Tuple[str, int], Tuple[str, int, int, int]]

# Bytes moved by one call.  Larger blocks gain nothing measurable, and a
# Windows kernel would otherwise take a message of any size into its own
# memory in one go.
BLOCK = 1 << 18

# Seconds.  On Windows nothing that waits is interrupted by Ctrl-C (gh-74157),
# so there nothing waits longer at a time.
LONGEST_WAIT = 0.5 if os.name == "nt" else 1e6

# Seconds, eleven days: poll() counts milliseconds in an int.
_LONGEST_LIMIT = 1e6


def checked_limit(name: str, seconds: Optional[float]) -> Optional[float]:
    """Return seconds, or a million if that is less: long enough for all, and
    for no system too long.  Raise ValueError for what is no limit.
    """
    if seconds is None:
        return None
    if not seconds >= 0:        # nan, too
        raise ValueError("%s must be a number of seconds, or None or 0 for "
                         "no limit, not %r" % (name, seconds))
    return min(seconds, _LONGEST_LIMIT)


class Connection:
    """A connection to an uppercase echo server.

        with Connection(("127.0.0.1", 8080), timeout=10) as connection:
            connection.echo(b"hello")       # returns b"HELLO"

    address is what socket.create_connection takes.  All addresses of a name
    are tried in the system's order, so localhost works whatever it means.

    timeout, in seconds, limits the dialling of all of them together, and then
    every silence: a wait in which no byte moves.  It does not limit the whole
    of a long transfer.  None or 0 is no limit, a million is the longest, and
    what is less than 0 a ValueError.  Only the resolver takes no timeout; its
    own limit is in the system's hands.

    Raises, here and in every method, the exceptions of the standard library,
    all of them OSErrors: socket.gaierror for a name, ConnectionRefusedError
    and its like for a connection, ConnectionResetError for a cut one,
    ConnectionError itself where the server ended the stream before its reply,
    and TimeoutError for both timeouts (socket.timeout is not one before
    Python 3.10 and is never raised).  WrongEcho is the ValueError beside them.

    A connection serves one thread at a time.

    Methods for the caller:

    - echo(data) -> the reply
    - close(), also at the end of a with block
    - is_stale() -> whether it is fit for another echo()

    Methods for a caller that waits by itself:

    - send(data) -> the number of bytes taken
    - receive() -> the bytes that have come, None for none, b"" at the end
    - half_close()
    - finish() -> the rest of the reply
    - fileno() -> int, for a selector

    Attributes: address, timeout (may be changed at any time), owed, closed.
    """

    def __init__(self, address: Address,
                 timeout: Optional[float] = None) -> None:
        self.address = address
        self.timeout = timeout
        self._verifier = Verifier()
        self._socket = _dial(address, self._timeout)

    @property
    def timeout(self) -> Optional[float]:
        """The limit of each silence, in seconds."""
        return self._timeout

    @timeout.setter
    def timeout(self, seconds: Optional[float]) -> None:
        self._timeout = checked_limit("timeout", seconds)

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, kind: Optional[Type[BaseException]],
                 value: Optional[BaseException],
                 traceback: Optional[TracebackType]) -> None:
        self.close()

    def echo(self, data: bytes) -> bytes:
        """Send data and return its reply, which has been compared with it.

        After an exception, any at all, the connection is closed: what is
        still under way would be taken for the reply to the next call.
        """
        if self.closed:
            raise ValueError("this connection to %s is closed; make another"
                             % show_address(self.address))
        rest = memoryview(data).cast("B")
        try:
            return self._exchange(rest)
        except BaseException:
            self.close()
            raise

    def _exchange(self, rest: memoryview) -> bytes:
        parts: List[bytes] = []
        while rest or self.owed:
            if rest:
                rest = rest[self.send(rest):]
            self._wait(sending=bool(rest))
            parts.append(self.receive() or b"")
        return b"".join(parts)

    def finish(self) -> bytes:
        """Say that no more will be sent; return the reply up to its end.

        The connection is closed afterwards, whatever happens.
        """
        with self:
            self.half_close()
            parts: List[bytes] = []
            while True:
                self._wait(sending=False)
                data = self.receive()
                if data == b"":
                    return b"".join(parts)
                parts.append(data or b"")

    @property
    def owed(self) -> int:
        """The number of bytes that were sent and have not come back."""
        return self._verifier.owed

    @property
    def closed(self) -> bool:
        """Whether this side has closed the connection."""
        return self._socket.fileno() < 0

    def fileno(self) -> int:
        """Return the descriptor of the socket, which never blocks."""
        return self._socket.fileno()

    def send(self, data: Union[bytes, memoryview]) -> int:
        """Send as much of data as goes without waiting; return how much."""
        try:
            count = self._socket.send(data[:BLOCK])
        except BlockingIOError:
            return 0
        self._verifier.sent(data[:count])
        return count

    def receive(self) -> Optional[bytes]:
        """Return what has come, compared; None for nothing yet, b"" at the
        end of the stream.

        The answer is RawIOBase.read's.  An end with bytes still owed raises
        ConnectionError.  A little more than is owed is asked for, so that a
        server that says too much is caught at once where that came along.
        """
        try:
            data = self._socket.recv(min(self.owed, BLOCK) + EXCERPT)
        except BlockingIOError:
            return None
        if data:
            self._verifier.got(data)
        elif self.owed:
            raise ConnectionError(
                "%s ended the stream with %d bytes unanswered; look into its "
                "log for the reason" % (show_address(self.address), self.owed))
        return data

    def half_close(self) -> None:
        """Tell the server that no more will be sent (a FIN)."""
        self._socket.shutdown(socket.SHUT_WR)

    def is_stale(self) -> bool:
        """Return whether another echo() would fail or be misled.

        True if it is closed, if bytes are owed, or if there is anything to
        read: the end of the stream, an error, or bytes nobody asked for.
        """
        return (self.closed or self.owed > 0
                or _ready(self._socket, False, 0))

    def close(self) -> None:
        """Close this side at once.  Closing again does nothing."""
        self._socket.close()

    def _wait(self, sending: bool) -> None:
        if not _ready(self._socket, sending, self._timeout or None):
            raise TimeoutError(
                "%s was silent for %g s with %d bytes unanswered; if it is "
                "only slow, allow a longer timeout"
                % (show_address(self.address), self.timeout or 0, self.owed))


if hasattr(select, "poll"):
    def _ready(s: socket.socket, sending: bool,
               timeout: Optional[float]) -> bool:
        poll = select.poll()
        poll.register(s, select.POLLIN | (select.POLLOUT if sending else 0))
        return bool(poll.poll(None if timeout is None else timeout * 1000))
else:
    def _ready(s: socket.socket, sending: bool,
               timeout: Optional[float]) -> bool:
        deadline = time.monotonic() + (math.inf if timeout is None
                                       else timeout)
        while True:
            left = max(deadline - time.monotonic(), 0)
            found = select.select([s], [s] if sending else [], [],
                                  min(left, LONGEST_WAIT))
            if found[0] or found[1] or not left:
                return bool(found[0] or found[1])


def _dial(address: Address, timeout: Optional[float]) -> socket.socket:
    """Return a socket connected to the first address that answers.

    Like socket.create_connection, whose timeout however is for each address:
    a name with four of them would take four times as long.  Here each has an
    equal share of what is left.
    """
    host, port = address[:2]
    try:
        found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    except UnicodeError:
        # The idna codec's way to say that no such name can exist.
        raise socket.gaierror(socket.EAI_NONAME,
                              "Not a host name") from None
    start = time.monotonic()
    failure: OSError = socket.gaierror(socket.EAI_NONAME, "No address")
    for tried, (family, kind, proto, _, place) in enumerate(found):
        share = None
        if timeout:
            left = timeout - (time.monotonic() - start)
            share = max(left / (len(found) - tried), 0.001)
        try:
            return _connect(socket.socket(family, kind, proto), place, share)
        except socket.timeout:
            failure = TimeoutError(
                "%s did not answer within %g s; something may be dropping "
                "its packets" % (show_address(address), timeout or 0))
        except OSError as error:
            failure = error
    try:
        raise failure
    finally:
        # The traceback holds this frame: without this it would hold itself.
        del failure


def _connect(s: socket.socket, place: Tuple[object, ...],
             timeout: Optional[float]) -> socket.socket:
    try:
        s.settimeout(timeout)
        s.connect(place)
        if s.getsockname() == place:
            # With no listener, a loopback port that the system hands out to
            # callers can be met by the caller itself (RFC 793, simultaneous
            # open), whose echo would then be its own words.
            raise ConnectionRefusedError("the socket has met itself")
        s.setblocking(False)
        # Or a message of two segments waits 40 ms for a delayed ACK.
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        s.close()
        raise
    return s
