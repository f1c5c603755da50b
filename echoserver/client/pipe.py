"""A filter: standard input to the server, its replies to standard output.

Bytes in, bytes out, both directions at once, in bounded memory, in one thread:
a Relay waits with poll(), which on POSIX takes every file there is.  On
Windows select() takes sockets only, and a thread feeds one from standard
input.
"""

import contextlib
import math
import os
import socket
import threading
from time import perf_counter
from typing import Any, Callable, List, Optional

from .connection import BLOCK, Connection
from .diagnosis import OK, diagnose
from .errors import WrongEcho
from .output import StreamError, tell, write
from .waiting import READ, WRITE, wait

__all__ = ["Relay", "run"]


class Relay:
    """Send what read() returns once source can be read; write() what comes.

    read() returns None for nothing yet and b"" at the end.  It and write()
    raise no OSError.

    The connection's timeout limits the server's silence while it owes a reply,
    or the end of its stream after that of ours.

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
                 write: Callable[[bytes], Any]) -> None:
        self._connection, self._source = connection, source
        self._read, self._write = read, write
        self._unsent, self._ended_at = memoryview(b""), math.inf    # the input

    def run(self) -> None:
        """Return when everything is sent, answered and ended on both sides.

        Raise what Connection raises, and ConnectionError also where the
        server ends its stream while there is more to send.
        """
        while True:
            self._send()
            ready = self._wait()
            if self._source in ready:
                data = self._read()
                self._unsent = memoryview(data or b"")
                if data == b"":
                    self._ended_at = perf_counter()
            if self._connection in ready and self._pass_on() == b"":
                return

    def _send(self) -> None:
        """Send what goes at once, or say that it was the last."""
        try:
            if self._unsent:
                self._unsent = self._unsent[
                    self._connection.send(self._unsent):]
            elif self._time_to_half_close() <= 0:
                self._connection.half_close()
        except OSError:
            # What the server had answered by then has come.
            with contextlib.suppress(OSError):
                while self._pass_on():
                    pass
            raise

    def _pass_on(self) -> Optional[bytes]:
        """Write what has come; return it as receive() does."""
        data = self._connection.receive()
        if data:
            self._write(data)
            self._connection.asked_at = perf_counter()  # a slow reader's time
        elif data == b"" and not self._connection.half_closed:
            raise self._connection.ended_early()
        return data

    def _time_to_half_close(self) -> float:
        connection = self._connection
        if self._ended_at == math.inf or connection.half_closed:
            return math.inf
        linger = min(self.linger, (connection.timeout or math.inf) / 2)
        return (linger if connection.in_flight else 0) - min(
            connection.silence, perf_counter() - self._ended_at)

    def _wait(self) -> List[Any]:
        """Return which of source and connection are ready; none when it is
        time to half-close."""
        connection, left = self._connection, math.inf
        if connection.in_flight or connection.half_closed:
            left = (connection.timeout or math.inf) - connection.silence
        files = [(connection, READ | WRITE if self._unsent else READ)]
        if not self._unsent and self._ended_at == math.inf and (
                connection.in_flight < self.window):
            files.append((self._source, READ))
        ready = wait(tuple(files), min(left, self._time_to_half_close()))
        if not ready and left <= 0:
            raise connection.fell_silent()
        return ready


def run(args: Any) -> int:
    """Relay standard input to standard output; return the exit code."""
    address = args.host, args.port
    try:
        with Connection(address, args.timeout) as connection:
            source: Any = _fed_by_thread() if os.name == "nt" else 0
            Relay(connection, source, (lambda: source.recv(BLOCK)) if source
                  else _read, write).run()
    except (OSError, WrongEcho) as error:
        write(getattr(error, "right", b""))
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
            for data in iter(lambda: os.read(0, BLOCK), b""):
                entrance.sendall(data)
    threading.Thread(target=feed, daemon=True).start()
    return source
