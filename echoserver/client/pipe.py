"""A filter: standard input to the server, its replies to standard output.

Bytes in, bytes out, both directions at once, in bounded memory:

    descriptor 0 --thread--> socketpair --> Relay --> descriptor 1
                                            |   ^
                                            v   |
                                           server

The thread is there because a pipe cannot be waited for on Windows, a regular
file nowhere, and a socket everywhere.  It reads with os.read and not from
sys.stdin.buffer: it is a daemon, perhaps still in that read when the server
has ended the conversation, and an interpreter aborts when it exits while such
a thread holds the lock of a standard stream.

All else happens in the thread that calls run(), so that what befalls the
connection is seen by one place only, which can say what it means.
"""

import argparse
import math
import os
import select
import selectors
import socket
import threading
import time
from typing import Any, Callable, List, Optional

from .connection import BLOCK, LONGEST_WAIT, Connection
from .diagnosis import CLOSED_OUTPUT, OK, USAGE, diagnose, tell
from .verifier import WrongEcho

__all__ = ["Relay", "run"]

# Seconds, where -W says nothing: a script wants an answer in the end, whereas
# a person at a terminal has Ctrl-C.
DEFAULT_TIMEOUT = 10.0

# Bytes on their way at most, but for one block: more than a fast and long
# path needs to stay full (100 Mbit/s over 300 ms), and little for any host.
WINDOW = 1 << 22

# Seconds of silence after the end of the input, with replies outstanding,
# before the server is told of the end.  An echo does not wait for it, and
# some servers (ncat -e) throw away what they still have to say when they
# learn of it; those that do wait for it (tr, with its buffered output) are
# the rare ones, and lose no more than this.
LINGER = 0.2


class ClosedOutput(Exception):
    """Nobody reads standard output any more."""


class UnusableStream(Exception):
    """Standard input cannot be read, or standard output not be written."""


class Relay:
    """Send what source, a socket, has to say; write() what comes back.

    The connection's timeout counts the server's silence while it owes
    something: part of a reply, or the end of its stream after that of ours.
    Time in which source has nothing to say, or write() waits for a slow
    reader, is not the server's.
    """

    def __init__(self, connection: Connection, source: socket.socket,
                 write: Callable[[bytes], None]) -> None:
        self._connection = connection
        self._source = source
        self._write = write
        self._selector = selectors.DefaultSelector()
        self._unsent = memoryview(b"")
        self._ended = False
        self._half_closed = False
        self._half_close_at = 0.0
        self._failure: Optional[OSError] = None
        self._silent_since: Optional[float] = None

    def run(self) -> None:
        """Return when everything is sent, answered and ended on both sides.

        Raise what Connection raises, and ConnectionError also where the
        server ends its stream while there is more to send.
        """
        with self._selector:
            while True:
                self._send()
                ready = self._wait()
                if self._source in ready:
                    self._read()
                if self._connection in ready and not self._receive():
                    return

    def _read(self) -> None:
        data = self._source.recv(BLOCK)
        self._ended = not data
        self._postpone_half_close()
        self._unsent = memoryview(data)

    def _send(self) -> None:
        """Send what goes at once; after an error, send nothing more.

        The error is kept for later: what the server had answered by then is
        still to be received, and that will come to an end by itself.
        """
        try:
            if self._unsent:
                self._unsent = self._unsent[
                    self._connection.send(self._unsent):]
            elif self._ended and not self._half_closed and (
                    not self._connection.owed or self._linger() <= 0):
                self._half_closed = True
                self._connection.half_close()
        except OSError as error:
            self._failure = error
            self._unsent = memoryview(b"")

    def _receive(self) -> bool:
        """Pass on what has come; return whether more is to be expected."""
        try:
            data = self._connection.receive()
        except OSError as error:
            # A reset shows in one call only.  Where send() was the one, this
            # is no more than the silence after it.
            raise self._failure or error
        if data == b"":
            if self._failure:
                raise self._failure
            if not self._half_closed:
                raise ConnectionError("the stream has ended before ours")
            return False
        if data:
            self._write(data)
            self._silent_since = None
            self._postpone_half_close()
        return True

    def _postpone_half_close(self) -> None:
        patience = self._connection.timeout or math.inf
        self._half_close_at = time.monotonic() + min(LINGER, patience / 2)

    def _linger(self) -> float:
        """Return the seconds until the half-close is due, if one is."""
        if self._ended and not self._half_closed:
            return self._half_close_at - time.monotonic()
        return LONGEST_WAIT

    def _wait(self) -> List[Any]:
        """Return which of the source and the connection are ready, if only
        the half-close is due, neither."""
        owing = bool(self._connection.owed or self._unsent
                     or self._half_closed or self._failure)
        hungry = (not self._ended and not self._unsent and not self._failure
                  and self._connection.owed < WINDOW)
        self._select_on(self._source, selectors.EVENT_READ if hungry else 0)
        self._select_on(self._connection, selectors.EVENT_READ
                        | (selectors.EVENT_WRITE if self._unsent else 0))
        while True:
            linger = self._linger()
            ready = self._selector.select(
                max(min(self._time_left(owing), linger), 0))
            if ready or linger <= 0:
                return [key.fileobj for key, _ in ready]

    def _select_on(self, what: Any, events: int) -> None:
        known = self._selector.get_map().get(what)
        if known is None and events:
            self._selector.register(what, events)
        elif known is not None and not events:
            self._selector.unregister(what)
        elif known is not None and known.events != events:
            self._selector.modify(what, events)

    def _time_left(self, owing: bool) -> float:
        timeout = self._connection.timeout
        if not owing or not timeout:
            return LONGEST_WAIT
        now = time.monotonic()
        if self._silent_since is None:
            self._silent_since = now
        left = self._silent_since + timeout - now
        if left <= 0:
            raise TimeoutError("the server was silent for %g s" % timeout)
        return min(left, LONGEST_WAIT)


def run(args: argparse.Namespace) -> int:
    """Relay standard input to standard output; return the exit code."""
    address = args.host, args.port
    connection: Optional[Connection] = None
    try:
        connection = Connection(address, DEFAULT_TIMEOUT
                                if args.timeout is None else args.timeout)
        with connection:
            _relay(connection)
    except (OSError, WrongEcho) as error:
        code, line = diagnose(error, address, connection)
        tell(line)
        return code
    except ClosedOutput:
        return CLOSED_OUTPUT
    except UnusableStream as error:
        tell(str(error))
        return USAGE
    return OK


def _relay(connection: Connection) -> None:
    source, entrance = socket.socketpair()
    failures: List[OSError] = []
    pump = threading.Thread(target=_pump, args=(entrance, failures),
                            daemon=True)
    with source:
        try:
            pump.start()
        except RuntimeError:
            entrance.close()
            raise UnusableStream("this host is out of threads; raise its "
                                 "limits (ulimit -u)") from None
        Relay(connection, source, _write).run()
    if failures:
        raise UnusableStream("standard input cannot be read: %s"
                             % failures[0].strerror)


def _pump(entrance: socket.socket, failures: List[OSError]) -> None:
    """Copy descriptor 0 into entrance until the end of either."""
    with entrance:
        try:
            data = _read()
            while data:
                try:
                    entrance.sendall(data)
                except OSError:
                    return      # run() has ended
                data = _read()
        except OSError as error:
            failures.append(error)


def _read() -> bytes:
    while True:
        try:
            return os.read(0, BLOCK)
        except BlockingIOError:
            # Somebody who shares the pipe has set it so, for all.
            select.select([0], [], [])


def _write(data: bytes) -> None:
    """Write all of data to descriptor 1."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(1, rest):]
        except BrokenPipeError:
            raise ClosedOutput() from None
        except BlockingIOError:
            select.select([], [1], [])
        except OSError as error:
            raise UnusableStream("standard output cannot be written: %s"
                                 % error.strerror) from None
