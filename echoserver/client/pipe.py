"""A filter: standard input to the server, its replies to standard output.

Bytes in, bytes out, both directions at once, in bounded memory, in one thread:
a Relay waits with select(), which on POSIX takes every file there is.  On
Windows it takes sockets only, and a thread feeds one from standard input.
"""

import argparse
import contextlib
import math
import os
import select
import socket
import threading
from time import perf_counter
from typing import Any, Callable, List, Optional

from .connection import BLOCK, Connection, WrongEcho
from .waiting import LONGEST_WAIT
from .diagnosis import OK, diagnose
from .output import StreamError, tell, write

__all__ = ["Relay", "run"]


class Relay:
    """Send what read() returns once source can be read; write() what comes.

    read() returns None for nothing yet and b"" at the end.  It and write()
    raise no OSError.

    The connection's timeout counts the server's silence while it owes
    something: part of a reply, or the end of its stream after that of ours.
    Time in which source has nothing to say, or write() waits for a slow
    reader, is not the server's.

    Class variables:

    - window: bytes in flight at most, but for one block.  More than a fast and
      long path needs to stay full (100 Mbit/s over 300 ms), and little for any
      host.
    - linger: seconds of silence after the end of the input, with replies
      outstanding, before the server is told of the end.  An echo does not wait
      for it, and some servers (ncat -e) throw away what they still have to say
      when they learn of it; those that do wait for it (tr, with its buffered
      output) are the rare ones, and lose no more than this.
    """

    window = 1 << 22
    linger = 0.2

    def __init__(self, connection: Connection, source: Any,
                 read: Callable[[], Optional[bytes]],
                 write: Callable[[bytes], Any],
                 clock: Callable[[], float] = perf_counter) -> None:
        self._connection = connection
        self._source = source
        self._read = read
        self._write = write
        self._clock = clock
        self._timeout = connection.timeout or math.inf
        self._unsent = memoryview(b"")
        self._ended = False         # the input
        # Since when the server owes something and is silent, and since when
        # neither it nor the input has moved.
        self._silent_since = math.inf
        self._still_since = clock()

    def run(self) -> None:
        """Return when everything is sent, answered and ended on both sides.

        Raise what Connection raises, and ConnectionError also where the
        server ends its stream while there is more to send.
        """
        while True:
            self._send()
            ready = self._wait()
            if self._source in ready:
                self._take()
            if self._connection in ready and not self._pass_on():
                return

    def _send(self) -> None:
        """Send what goes at once, or say that it was the last."""
        try:
            if self._unsent:
                self._unsent = self._unsent[
                    self._connection.send(self._unsent):]
            elif self._half_close_at() <= self._clock():
                self._connection.half_close()
        except OSError:
            # What the server had answered by then has come.
            with contextlib.suppress(OSError):
                data = self._connection.receive()
                while data:
                    self._write(data)
                    data = self._connection.receive()
            raise

    def _take(self) -> None:
        data = self._read()
        if data is not None:
            self._ended = not data
            self._unsent = memoryview(data)
            self._still_since = self._clock()

    def _pass_on(self) -> bool:
        """Write what has come; return whether more is to be expected."""
        data = self._connection.receive()
        if data == b"" and not self._connection.half_closed:
            raise self._connection.ended_early()
        if data:
            self._write(data)
            self._silent_since = math.inf
            self._still_since = self._clock()
        return data != b""

    def _half_close_at(self) -> float:
        """Return the time for the half-close, infinity for none."""
        if not self._ended or self._connection.half_closed:
            return math.inf
        if not self._connection.in_flight:
            return self._still_since
        return self._still_since + min(self.linger, self._timeout / 2)

    def _wait(self) -> List[Any]:
        """Return which of source and connection can be read; none when it is
        time to half-close."""
        connection, now = self._connection, self._clock()
        if not (connection.in_flight or self._unsent
                or connection.half_closed):
            self._silent_since = math.inf       # it owes nothing
        elif self._silent_since == math.inf:
            self._silent_since = now
        readers = [connection]
        if not (self._ended or self._unsent
                or connection.in_flight >= self.window):
            readers.append(self._source)
        timeout_at = self._silent_since + self._timeout
        left = min(timeout_at, self._half_close_at()) - now
        readable, writable, _ = select.select(
            readers, [connection] if self._unsent else [], [],
            max(min(left, LONGEST_WAIT), 0))
        if not readable and not writable and now >= timeout_at:
            raise connection.fell_silent()
        return readable


def run(args: argparse.Namespace) -> int:
    """Relay standard input to standard output; return the exit code."""
    address = args.host, args.port
    try:
        with Connection(address, args.timeout) as connection:
            if os.name == "nt":
                with _fed_by_thread() as source:
                    Relay(connection, source, lambda: source.recv(BLOCK),
                          write).run()
            else:
                Relay(connection, 0, _read, write).run()
    except (OSError, WrongEcho) as error:
        code, _, line = diagnose(error, address)
        tell(line)
        return code
    return OK


def _read() -> Optional[bytes]:
    try:
        return os.read(0, BLOCK)
    except BlockingIOError:
        return None     # somebody who shares the pipe has set it so, for all
    except OSError as error:
        raise StreamError("standard input cannot be read", error) from None


def _fed_by_thread() -> socket.socket:
    """Return a socket from which standard input can be received.

    The thread is a daemon, perhaps still reading when the server has ended the
    conversation.  It reads with os.read() and not from sys.stdin.buffer: an
    interpreter aborts when it exits while such a thread holds the lock of a
    standard stream.
    """
    source, entrance = socket.socketpair()

    def feed() -> None:
        with entrance, contextlib.suppress(OSError):    # nobody wants the rest
            data = os.read(0, BLOCK)
            while data:
                entrance.sendall(data)
                data = os.read(0, BLOCK)
    threading.Thread(target=feed, daemon=True).start()
    return source
