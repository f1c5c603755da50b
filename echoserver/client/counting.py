"""Round trips, counted and measured: the --count of the client program.

Each connection has a task, in one thread, that makes one round trip after the
other.  A connection is kept for as long as it lasts, and between two messages
too: who cuts idle connections is one of the questions that this program is
asked.  One that fails is counted and told, and the next message connects
again.  The name is looked up once.

No two messages are alike, so that a reply that is stale, or meant for another
connection, is a wrong echo.
"""

import argparse
import math
import socket
from time import perf_counter
from typing import Any, Dict, List, Optional

from .connecting import Place, connect, describe, lookup
from .connection import Connection
from .diagnosis import OK, diagnose
from .errors import WrongEcho
from .figures import Tally
from .report import Report
from .waiting import READ, Tasks, ready

__all__ = ["Count", "message", "run"]

_LETTERS = {ord("0") + digit: ord("a") + digit for digit in range(10)}
_ALL_BYTES = bytes(range(256))


def message(number: int, size: int) -> bytes:
    """Return the message of that number, size bytes long.

    It begins with the number in letters, the lowest digit first: messages of
    one byte differ from their neighbours, those of seven from ten million
    others.  Then come all byte values in their order, from another one each
    time, so that even short messages send every value before long.
    """
    head = str(number)[::-1].translate(_LETTERS).encode() + b" "
    rotated = _ALL_BYTES[number * 37 % 256:]    # 37 is odd: reaches them all
    return (head + rotated + _ALL_BYTES * (size // 256 + 1))[:size]


def run(args: argparse.Namespace) -> int:
    """Make the round trips that args ask for; return the exit code."""
    with Tasks() as tasks:
        return Count(args, tasks).run()


class Count:
    """One counting run.

    Class variables, in seconds: failure_pause, what a connection waits after a
    failure, at least: a hundred attempts a second find a server that is back
    soon enough, and are no storm; last_reply_timeout, how long replies are
    waited for after the deadline, and after a signal.
    """

    failure_pause = 0.01
    last_reply_timeout = 0.5

    def __init__(self, args: argparse.Namespace, tasks: Tasks) -> None:
        self._args = args
        self._address = args.host, args.port
        self._tasks = tasks
        self._tally = Tally()
        self._report = Report(args, self._tally)
        self._code = OK
        self._claimed = 0           # messages, by number
        self._start = tasks.now

    def run(self) -> int:
        """Return the exit code, after the summary."""
        try:
            places = lookup(self._address)
            self._start = perf_counter()
            self._deadline = self._start + (self._args.deadline or math.inf)
            for _ in range(self._args.connections):
                self._tasks.resume(self._work(places))
            self._tasks.run(self._tick, self._is_owed)
            if not (self._tally.messages or self._tasks.signal):
                raise TimeoutError("%s was asked nothing before the "
                                   "--deadline; allow it more time"
                                   % describe(self._address))
        except (socket.gaierror, TimeoutError, MemoryError) as error:
            self._note(error)
        self._report.summary(self._figures(), self._tasks.signal > 0)
        return 128 + self._tasks.signal if self._tasks.signal else self._code

    def _tick(self) -> None:
        now = perf_counter()
        self._report.progress(now - self._start)
        if self._tasks.is_asked:
            self._tasks.is_asked = False
            self._report.so_far(self._figures())
        if now >= self._deadline + self.last_reply_timeout:
            raise TimeoutError("%s did not answer before the --deadline; "
                               "allow it more time" % describe(self._address))

    def _is_owed(self) -> bool:
        """Whether to wait for replies, when a signal has come."""
        return bool(self._tally.unanswered) and perf_counter() < (
            self._tasks.stopped_at + self.last_reply_timeout)

    def _figures(self) -> Dict[str, Any]:
        return self._tally.figures(self._args.size, self._args.interval > 0,
                                   self._start, perf_counter())

    async def _work(self, places: List[Place]) -> None:
        """Make round trips, over one connection after another."""
        args, connection = self._args, None
        due, earliest = self._start, 0.0
        try:
            while self._tasks.running and (
                    not args.count or self._claimed < args.count):
                self._claimed += 1
                number, free = self._claimed, perf_counter()
                due, began = max(due, earliest), 0.0
                try:
                    await self._rest(connection, min(due, self._deadline))
                    began = perf_counter()
                    if began >= self._deadline:
                        break
                    # It has waited since then; a timer may be late, too.
                    since = due if due < free else began
                    due += args.interval
                    self._tally.unanswered[number] = since
                    if connection is None:
                        connection = await self._connect(places)
                    await connection.exchange(message(number, args.size))
                    now = self._tasks.now
                    self._succeed(number, now - connection.asked_at,
                                  now - since)
                except (OSError, WrongEcho) as error:
                    if connection is not None:
                        self._drop(connection)
                        connection = None
                    # Cut at rest, its turn is still to come.
                    self._fail(error, number, began or perf_counter())
                    earliest = perf_counter() + self.failure_pause
                self._tally.unanswered.pop(number, None)
        finally:
            if connection is not None:
                self._drop(connection)

    @staticmethod
    async def _rest(connection: Optional[Connection], end: float) -> None:
        """Wait until the end; raise what becomes of the connection by then."""
        while perf_counter() < end:
            if (await ready(connection, READ, end) and connection is not None
                    and connection.receive() is not None):
                raise connection.ended_early()

    async def _connect(self, places: List[Place]) -> Connection:
        start = perf_counter()
        connected = await connect(self._address, places, self._args.timeout)
        self._tally.connects.add(perf_counter() - start)
        return Connection(self._address, self._args.timeout, connected)

    def _succeed(self, number: int, seconds: float, waited: float) -> None:
        self._tally.succeed(self._tasks.now)
        self._tally.times.add(seconds)
        if self._args.interval:
            self._tally.waits.add(waited)
        self._report.reply(number, seconds)

    def _fail(self, error: Exception, number: int, began: float) -> None:
        """Count a message that began at that time and has no good reply."""
        self._tally.fail(isinstance(error, WrongEcho), began)
        self._note(error, " (seq=%d time=%.3f ms)" % (
            number, (perf_counter() - began) * 1e3))

    def _note(self, error: Exception, details: str = "") -> None:
        code, word, line = diagnose(error, self._address)
        self._code = max(self._code, code)
        self._tally.note(word, line)
        self._report.failure(word, line + details)

    def _drop(self, connection: Connection) -> None:
        sent_again = connection.retransmissions()
        if sent_again is not None:
            self._tally.retransmissions = sent_again + (
                self._tally.retransmissions or 0)
        connection.close()
