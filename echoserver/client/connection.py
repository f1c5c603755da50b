"""A connection to an uppercase echo server, with every byte compared.

A reply is as long as its request, so a client that remembers what is in flight
can judge each byte as it comes, however the stream was split on its way.

The socket never blocks.  A client that sends everything before it reads locks
up with any echo as soon as the message outgrows the buffers of both kernels
(between 4 and 16 MB), so both directions are waited for at once.
"""

import contextlib
import errno
import math
import socket
import sys
from time import perf_counter
from typing import List, Optional, Tuple, Union

from ..address import checked_address
from .connecting import Address, Link, connect, describe
from .errors import EXCERPT, WrongEcho
from .waiting import READ, WRITE, Files, Task, Tasks, block, checked_limit

__all__ = ["BLOCK", "Connection"]

# Bytes moved by one call: more gain nothing.
BLOCK = 1 << 18


class Connection:
    """A connection to an uppercase echo server.

        with Connection(("127.0.0.1", 8080), timeout=10) as connection:
            connection.echo(b"hello")       # returns b"HELLO"

    address is (host, port).  All addresses of a name are tried, so localhost
    works whatever it means.

    timeout, in seconds, limits looking up the name and connecting together,
    and then every silence, a wait in which no byte moves; but not the whole of
    a transfer.  None or 0 is no limit.

    Methods raise OSErrors of the standard library: socket.gaierror for a name,
    ConnectionRefusedError and its like, ConnectionResetError for a cut,
    ConnectionError itself where the server ended the stream before its reply,
    and TimeoutError for both timeouts.  WrongEcho is a ValueError.

    A connection serves one thread at a time; only close() may be called by
    another, or by a signal handler.  Methods for the caller: echo(), finish(),
    is_stale(), close() and the with statement; for a caller that waits by
    itself send(), receive(), half_close() and fileno().

    Attributes: address; ip, the one that answered, and name, both as text;
    timeout, may be changed; connecting_time, in seconds; in_flight, the number
    of bytes without their reply; asked_at, when the first of those was sent;
    silence, the seconds since then, or since a byte came; is_watched, whether
    what happens is seen at once; half_closed and closed, on this side.
    """

    def __init__(self, address: Address, timeout: Optional[float] = None,
                 link: Optional[Link] = None) -> None:
        self.address = checked_address(address)
        self.timeout = timeout
        self.half_closed, self.is_watched, self.closed = False, True, False
        made: Link = link or block(connect(self.address, timeout))
        self._socket, self.ip, self.connecting_time = made
        self.name = describe(self.address, self.ip)
        self._is_waiting = False
        # A bytearray gives up its front without a move.
        self._unanswered, self._verified = bytearray(), 0
        self.asked_at = self._heard_at = perf_counter()
        # What to wait for: always the same objects, which Tasks notices.
        self.reading: Files = ((self._socket, READ),)
        self._both: Files = ((self._socket, READ | WRITE),)

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

    def __repr__(self) -> str:
        return "<Connection to %s, %s%d bytes unanswered>" % (
            self.name, "closed, " * self.closed, self.in_flight)

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor of the socket, for a selector."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close this side at once.  Closing again does nothing.

        A call of echo() or finish() that waits raises ValueError then.
        """
        self.closed = True
        if not self._is_waiting:
            self._socket.close()
            return
        # That call closes: its poll() has a number, soon perhaps another's.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def echo(self, data: bytes) -> bytes:
        """Send data and return its reply, which has been compared with it.

        After an exception, any at all, the connection is closed: late bytes
        would be taken for the reply to the next call."""
        return self._block(self.exchange(memoryview(data).cast("B")))

    def finish(self) -> bytes:
        """Say that no more will be sent; return the reply up to its end, and
        close the connection, whatever happens."""
        with self:
            if not self.half_closed:
                self.half_close()
            return self._block(self.exchange(b"", to_end=True))

    def _block(self, task: Task) -> bytes:
        """Run task to its end, unless the connection is closed meanwhile;
        close it after an exception."""
        self._is_waiting = True
        try:
            if self.closed:
                raise self._is_over()
            return bytes(block(task))
        except BaseException:
            self.closed = True
            raise
        finally:
            self._is_waiting = False
            if self.closed:
                self._socket.close()

    def exchange(self, data: Union[bytes, memoryview],
                 to_end: bool = False) -> Task:
        """Send data and return its reply, or all up to the end of the stream;
        for waiting.block() and Tasks, not for asyncio.  After an exception the
        caller must close()."""
        rest = data[self.send(data):] if data else data
        parts: List[bytes] = []
        while self._unanswered or rest or to_end:
            if not (yield (self._both if rest else self.reading,
                           self._timeout or math.inf)):
                raise self.fell_silent()
            if rest:
                rest = rest[self.send(rest):]
            part = self.receive()
            if part == b"" and to_end:
                break
            if part == b"":
                raise self.ended_early()
            parts.append(part or b"")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def rest(self, tasks: Tasks, end: float) -> Task:
        """Wait until the end, by the clock of tasks; raise what becomes of the
        connection by then."""
        while tasks.now < end:
            if ((yield self.reading, end - tasks.now)
                    and self.receive() is not None):
                raise self.ended_early()

    def is_stale(self) -> bool:
        """Return whether another echo() would fail or be misled: the stream
        has ended, or there is anything in flight or to read."""
        try:
            return (self.closed or self.half_closed or self.in_flight > 0
                    or self._socket.recv(1, socket.MSG_PEEK) is not None)
        except OSError as error:
            return not isinstance(error, BlockingIOError)

    def half_close(self) -> None:
        """Tell the server that no more will be sent (a FIN)."""
        self.half_closed, self.asked_at = True, perf_counter()
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._fail(error)

    def send(self, data: Union[bytes, memoryview]) -> int:
        """Send as much of data as goes without waiting; return how much."""
        if len(data) > BLOCK:
            data = data[:BLOCK]
        if not self._unanswered:
            self.asked_at = perf_counter()
        try:
            count = self._socket.send(data)
        except OSError as error:
            self._fail(error)
            return 0
        self._unanswered += data if count == len(data) else data[:count]
        return count

    def receive(self) -> Optional[bytes]:
        """Return verified bytes; None for nothing yet, b"" at the end."""
        unanswered = self._unanswered
        due = len(unanswered)
        try:
            # A little more, to catch a server that says too much at once.
            data = self._socket.recv((due if due < BLOCK else BLOCK) + EXCERPT)
        except OSError as error:
            self._fail(error)
            return None
        size = len(data)
        if (unanswered if size == due else unanswered[:size]).upper() != data:
            raise self._difference(data)
        if size:
            del unanswered[:size]
            self._verified += size
            self._heard_at = perf_counter()
        elif self.closed:
            raise self._is_over()       # by close() in another thread
        elif due:
            raise self.ended_early()
        return data

    def _fail(self, error: OSError) -> None:
        """Raise what an error means; return if it is for receive() to say."""
        if isinstance(error, BlockingIOError):
            return
        if self.closed or self.half_closed and error.errno == errno.EPIPE:
            raise self._is_over() from None
        if error.errno == errno.EPIPE:      # a cut shows as a reset
            raise self.ended_early() from None
        if error.errno != errno.ENOTCONN:   # it was cut: receive() tells
            raise type(error)(error.errno, self._sentence(
                "cut the connection (%s)" % error.strerror, "the server, or "
                "something in between, gave it up")) from None

    def _difference(self, data: bytes) -> WrongEcho:
        """Return the error for data that is not what is due."""
        due = self._unanswered[:len(data)].upper()
        # More than was sent is wrong too: an echo adds nothing.
        at = next((i for i, pair in enumerate(zip(due, data))
                   if pair[0] != pair[1]), len(due))
        return WrongEcho(self._verified + at,
                         bytes(self._unanswered[at:at + EXCERPT]),
                         data[at:at + EXCERPT], data[:at])

    def _is_over(self) -> ValueError:
        return ValueError("this connection to %s is closed; make another"
                          % self.name)

    def ended_early(self) -> ConnectionError:
        """Return the error for a server that has ended its stream."""
        return ConnectionError(self._sentence(
            "ended the stream", "it may stop, or have a limit on idle time"))

    def fell_silent(self) -> TimeoutError:
        """Return the error for a server that says nothing."""
        advice, (again, segment) = "", self.tcp_info()
        if again and self.in_flight > segment:
            advice = ("%d segments were sent again: a link on the way may "
                      "drop large packets (MTU); send less at a time" % again)
        return TimeoutError(self._sentence(
            "did not answer", "if it is only slow, allow it a longer timeout",
            advice))

    def _sentence(self, what: str, advice: str, better: str = "") -> str:
        """Return what the server did, and what to do."""
        count = self.in_flight
        if count and not self._verified:    # nothing ever came from it
            what = "accepted the connection after %.3f ms, but %s" % (
                self.connecting_time * 1e3, what)
            advice = ("perhaps it is another service, expects TLS, or is a "
                      "proxy without a server; " + advice)
        return "%s %s, after %s%.3f s of silence, with %s unanswered; %s" % (
            self.name, what, "" if self.is_watched else "at most ",
            self.silence, "%d bytes" % count if count else "nothing",
            better or advice)

    def tcp_info(self) -> Tuple[Optional[int], int]:
        """Return how many segments were sent again, None where the system does
        not tell (gVisor, WSL 1), and the size of one."""
        with contextlib.suppress(AttributeError, OSError):
            info = self._socket.getsockopt(
                socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            if sys.platform == "linux" and len(info) == 104:
                # tcpi_total_retrans and tcpi_snd_mss
                return (int.from_bytes(info[100:], sys.byteorder),
                        int.from_bytes(info[16:20], sys.byteorder))
        return None, 0
