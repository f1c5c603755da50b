"""A connection to an uppercase echo server, with every byte compared.

What comes back is what was sent, with the ASCII letters in upper case.  A
reply is as long as its request, so whoever remembers what is in flight can
judge each byte as it comes, however the stream was split on its way.

The socket never blocks.  A client that sends everything before it reads locks
up with any echo as soon as the message outgrows the buffers of both kernels
(somewhere between 4 and 16 MB), so a message is sent as far as it goes, and
then both directions are waited for at once.
"""

import errno
import math
import socket
import sys
from time import perf_counter
from typing import Any, Callable, List, Optional, Tuple, Union

from .connecting import Address, connect, lookup
from .errors import EXCERPT, WrongEcho
from .waiting import READ, WRITE, block, checked_limit, is_ready, ready

__all__ = ["BLOCK", "Connection"]

# Bytes moved by one call.  Larger blocks gain nothing measurable, and a
# Windows kernel would take a message of any size into its memory in one go.
BLOCK = 1 << 18


class Connection:
    """A connection to an uppercase echo server.

        with Connection(("127.0.0.1", 8080), timeout=10) as connection:
            connection.echo(b"hello")       # returns b"HELLO"

    address is what socket.create_connection takes; all addresses of a name are
    tried, so localhost works whatever it means.

    timeout, in seconds, limits the connecting to all of them together, and
    then every silence, a wait in which no byte moves; but not the whole of a
    transfer, nor the resolver.  None or 0 is no limit.

    Every method raises OSErrors of the standard library: socket.gaierror for a
    name, ConnectionRefusedError and its like, ConnectionResetError for a cut,
    ConnectionError itself where the server ended the stream before its reply,
    and TimeoutError for both timeouts.  WrongEcho is a ValueError.

    A connection serves one thread at a time.  Methods for the caller: echo(),
    finish(), is_stale() and close(), also at the end of a with block; for one
    that waits by itself send(), receive(), half_close(), fileno(), exchange().

    Attributes: address, and name, the same as text; timeout, may be changed;
    in_flight, the number of bytes without their reply; asked_at, when the
    first of those was sent; silence, the seconds since then, or since a byte
    came; is_watched, whether what happens is seen at once; half_closed and
    closed, on this side.
    """

    def __init__(
            self, address: Address, timeout: Optional[float] = None,
            connected: Optional[Tuple[socket.socket, str]] = None) -> None:
        self.address = address
        self.timeout = timeout
        self.half_closed, self.is_watched = False, True
        self._socket, self.name = connected or block(
            connect(address, lookup(address), timeout))
        # Not a list of blocks, which may have a few bytes each; and a
        # bytearray gives up its front without a move.
        self._unanswered = bytearray()
        self._verified = 0
        self.asked_at = self._heard_at = perf_counter()

    @property
    def timeout(self) -> Optional[float]:
        return self._timeout

    @timeout.setter
    def timeout(self, seconds: Optional[float]) -> None:
        self._timeout = checked_limit("timeout", seconds)

    @property
    def in_flight(self) -> int:
        return len(self._unanswered)

    @property
    def silence(self) -> float:
        return perf_counter() - max(self.asked_at, self._heard_at)

    @property
    def closed(self) -> bool:
        return self.fileno() < 0

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor of the socket, for a selector."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close this side at once.  Closing again does nothing."""
        self._socket.close()

    def echo(self, data: bytes) -> bytes:
        """Send data and return its reply, which has been compared with it.

        After an exception, any at all, the connection is closed: what is
        still under way would be taken for the reply to the next call.
        """
        if self.closed:
            raise self._is_over()
        view = memoryview(data).cast("B")
        try:
            return block(self.exchange(view))
        except BaseException:
            self.close()
            raise

    async def exchange(self, data: Union[bytes, memoryview]) -> bytes:
        """Do the same, but leave the closing to the caller."""
        rest = memoryview(data)
        parts: List[bytes] = []
        while rest or self._unanswered:
            if rest:
                rest = rest[self.send(rest):]
            if not await ready(self, READ | WRITE if rest else READ,
                               perf_counter() + (self._timeout or math.inf)):
                raise self.fell_silent()
            part = self.receive()
            if part == b"":
                raise self.ended_early()
            parts.append(part or b"")
        return b"".join(parts)

    def finish(self) -> bytes:
        """Say that no more will be sent; return the reply up to its end, and
        close the connection, whatever happens."""
        parts: List[bytes] = []
        part: Optional[bytes] = None
        with self:
            if not self.half_closed:
                self.half_close()
            while part != b"":
                if not is_ready(self, READ, perf_counter() + (
                        self._timeout or math.inf)):
                    raise self.fell_silent()
                part = self.receive()
                parts.append(part or b"")
        return b"".join(parts)

    def retransmissions(self) -> Optional[int]:
        """Return how many segments were sent again, None if unknown."""
        if sys.platform != "linux":
            return None
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        return int.from_bytes(info[100:], sys.byteorder)    # total_retrans

    def is_stale(self) -> bool:
        """Return whether another echo() would fail or be misled: the stream
        has ended, or there is anything in flight or to read."""
        return (self.closed or self.half_closed or self.in_flight > 0
                or is_ready(self, READ, 0))

    def half_close(self) -> None:
        """Tell the server that no more will be sent (a FIN)."""
        self.half_closed, self.asked_at = True, perf_counter()
        self._try(self._socket.shutdown, socket.SHUT_WR)

    def send(self, data: Union[bytes, memoryview]) -> int:
        """Send as much of data as goes without waiting; return how much."""
        data = data[:BLOCK]
        before = len(self._unanswered)
        self._unanswered += data
        if not before:
            self.asked_at = perf_counter()
        count = self._try(self._socket.send, data) or 0
        del self._unanswered[before + count:]
        return count

    def receive(self) -> Optional[bytes]:
        """Return what has come, compared; None for nothing yet, b"" at the
        end of the stream."""
        # A little more, so that a server that says too much is caught at once.
        data: Optional[bytes] = self._try(
            self._socket.recv, min(len(self._unanswered), BLOCK) + EXCERPT)
        if data:
            self._compare(data)
        elif data is not None and self._unanswered:
            raise self.ended_early()
        return data

    def _try(self, call: Callable[[Any], Any], argument: Any) -> Any:
        """Return what the socket answers, None where it would have to wait."""
        try:
            return call(argument)
        except BlockingIOError:
            return None
        except OSError as error:
            if self.closed or self.half_closed and error.errno == errno.EPIPE:
                raise self._is_over() from None
            if error.errno == errno.EPIPE:      # a cut shows as a reset
                raise self.ended_early() from None
            if error.errno == errno.ENOTCONN:   # it was cut: receive() tells
                return None
            raise type(error)(error.errno, self._sentence(
                "cut the connection (%s)" % error.strerror,
                "the server, or something in between, gave it up")) from None

    def _compare(self, data: bytes) -> None:
        size = len(data)
        due = self._unanswered[:size].upper()
        if due != data:
            # More than was sent is wrong too: an echo adds nothing.
            at = next((i for i, pair in enumerate(zip(due, data))
                       if pair[0] != pair[1]), len(due))
            raise WrongEcho(self._verified + at,
                            bytes(self._unanswered[at:at + EXCERPT]),
                            data[at:at + EXCERPT])
        del self._unanswered[:size]
        self._verified += size
        self._heard_at = perf_counter()

    def _is_over(self) -> ValueError:
        return ValueError("this connection to %s is closed; make another"
                          % self.name)

    def ended_early(self) -> ConnectionError:
        """Return the error for a server that has ended its stream."""
        return ConnectionError(self._sentence(
            "ended the stream", "it may be stopping, or have a limit on idle "
            "time"))

    def fell_silent(self) -> TimeoutError:
        """Return the error for a server that is silent for too long."""
        return TimeoutError(self._sentence(
            "did not answer", "if it is only slow, allow it a longer timeout"))

    def _sentence(self, what: str, advice: str) -> str:
        count = len(self._unanswered)
        return "%s %s, after %s%.3f s of silence, with %s unanswered; %s" % (
            self.name, what, "" if self.is_watched else "at most ",
            self.silence,
            "%d bytes" % count if count else "nothing", advice)
