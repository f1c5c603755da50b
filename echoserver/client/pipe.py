"""A filter: standard input to the server, its replies to standard output.

Bytes in, bytes out, both directions at once, in bounded memory, in one thread:
a Relay waits with poll(), which takes every file there is.
"""

import contextlib
import math
import os
from time import perf_counter
from typing import Any, Callable, Optional

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
        # Of the input; when it has ended, all of it has been sent.
        self._unsent, self._has_ended = memoryview(b""), False

    def run(self) -> None:
        """Return when everything is sent, answered and ended on both sides.

        Raise what Connection raises, and ConnectionError also where the
        server ends its stream while there is more to send.
        """
        try:
            while self._turn() != b"":
                pass
        except OSError:
            # What the server had answered by then has come.
            with contextlib.suppress(OSError):
                while self._pass_on():
                    pass
            raise

    def _turn(self) -> Optional[bytes]:
        """Send what goes at once, wait, and take what has come, once."""
        connection = self._connection
        timeout = connection.timeout or math.inf
        if self._unsent:
            self._unsent = self._unsent[connection.send(self._unsent):]
        files = [(connection, READ | WRITE if self._unsent else READ)]
        left = linger = math.inf
        if connection.in_flight or connection.half_closed:
            left = timeout - connection.silence
        if self._has_ended and not connection.half_closed:
            linger = connection.in_flight and min(self.linger, timeout / 2)
        elif not (self._has_ended or self._unsent) and (
                connection.in_flight < self.window):
            files.append((self._source, READ))
        ready = wait(tuple(files), min(left, linger))
        if not ready and left <= linger:
            raise connection.fell_silent()
        if not ready:
            connection.half_close()
        if self._source in ready:
            data = self._read()
            self._unsent = memoryview(data or b"")
            self._has_ended = data == b""
        return self._pass_on() if connection in ready else None

    def _pass_on(self) -> Optional[bytes]:
        """Write what has come; return it as receive() does."""
        data = self._connection.receive()
        if data:
            self._write(data)
            self._connection.asked_at = perf_counter()  # a slow reader's time
        elif data == b"" and not self._has_ended:
            raise self._connection.ended_early()
        return data


def run(args: Any) -> int:
    """Relay standard input to standard output; return the exit code."""
    address = args.host, args.port
    try:
        with Connection(address, args.timeout) as connection:
            Relay(connection, 0, _read, write).run()
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
