"""Round trips, counted and measured: the --count of the client program.

All connections are served by one loop (loop.py), each through a caller
(caller.py) that asks its next message when that is due and the last one is
answered.  A connection is kept for as long as it lasts, and between two
messages too: who cuts idle connections is one of the questions that this
program is asked.  One that fails is counted and told, and the next message
connects again.  The name is looked up once.

No two messages are alike, so that a reply that is stale, or meant for another
connection, is a wrong echo.
"""

import argparse
import signal
import socket
from time import perf_counter
from typing import Any, List, Optional

from .connecting import Place, connect, lookup
from .connection import Connection, WrongEcho
from .diagnosis import OK, WRONG, diagnose
from .figures import Tally
from .report import Report
from .waiting import READ, Loop, ready

__all__ = ["Count", "message", "run"]

_LETTERS = b"abcdefghijklmnopqrstuvwxyz"
_ALL_BYTES = bytes(range(256))


def message(number: int, size: int) -> bytes:
    """Return the message of that number, size bytes long.

    It begins with the number in letters, the lowest digit first: messages of
    one byte differ from their neighbours, and those of seven from 300 million
    others.  Then come all byte values in their order, from another one each
    time, so that even short messages send every value before long.
    """
    head = bytearray()
    rest = number
    while rest or not head:
        rest, digit = divmod(rest, len(_LETTERS))
        head.append(_LETTERS[digit])
    head += b" "
    head += _ALL_BYTES[number * 37 % 256:]      # 37 is odd: reaches them all
    head += _ALL_BYTES * (max(size - len(head), 0) // 256 + 1)
    return bytes(head[:size])


def run(args: argparse.Namespace) -> int:
    """Make the round trips that args ask for; return the exit code."""
    with Loop() as loop:
        return Count(args, loop).run()


class Count:
    """One counting run.

    Class variables, in seconds:

    - tick: between two looks for a signal, and states of the progress line
    - failure_pause: what a connection waits after a failure, at least: a
      hundred attempts a second find a server that is back soon enough, and are
      no storm
    """

    tick = 0.25
    failure_pause = 0.01

    def __init__(self, args: argparse.Namespace, loop: Loop) -> None:
        self.tally = Tally()
        self._args = args
        self._loop = loop
        self._report = Report(args, self.tally)
        self._claimed = 0           # messages, by number
        self._working = args.connections
        self._code = OK
        self._signal = 0
        self._start = perf_counter()

    def run(self) -> int:
        """Return the exit code, after the summary."""
        old = {number: signal.signal(number, self._on_signal)
               for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._run()
            self._report.summary(perf_counter() - self._start,
                                 bool(self._signal))
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
        return 128 + self._signal if self._signal else self._code

    def _run(self) -> None:
        try:
            places = lookup((self._args.host, self._args.port))
            self._start = perf_counter()
            for _ in range(self._working):
                self._loop.resume(self._work(places))
            self._loop.resume(self._watch())
            self._loop.run()
        except (socket.gaierror, MemoryError) as error:
            self._note(error)

    def _on_signal(self, number: int, frame: Any) -> None:
        """End the run within a tick, with the summary; and the program at a
        second signal, whatever blocks it."""
        signal.signal(number, signal.SIG_DFL)
        self._signal = number
        self._loop.running = False

    async def _watch(self) -> None:
        """Show the progress, and bound the time until a signal is noticed."""
        while True:
            self._report.progress(perf_counter() - self._start)
            await ready(None, 0, perf_counter() + self.tick)

    async def _work(self, places: List[Place]) -> None:
        """Make round trips, over one connection after another."""
        args, connection, earliest = self._args, None, 0.0
        address, due = (args.host, args.port), self._start - args.interval
        try:
            while self._claimed != args.count or not args.count:
                self._claimed += 1
                number = self._claimed
                due = max(due + args.interval, earliest)
                try:
                    await self._rest(connection, due)
                    if connection is None:
                        connection = Connection(
                            address, args.timeout,
                            await connect(address, places, args.timeout))
                    await self._ask(connection, number)
                except (OSError, WrongEcho) as error:
                    if connection is not None:
                        connection.close()
                        connection = None
                    self._note(error)
                    earliest = perf_counter() + self.failure_pause
        finally:
            if connection is not None:
                connection.close()
        self._working -= 1
        self._loop.running = self._working > 0

    @staticmethod
    async def _rest(connection: Optional[Connection], due: float) -> None:
        """Wait until due; raise what befalls the connection meanwhile."""
        while perf_counter() < due:
            if (await ready(connection, READ, due) and connection is not None
                    and connection.receive() is not None):
                raise connection.ended_early()

    async def _ask(self, connection: Connection, number: int) -> None:
        data = message(number, self._args.size)
        self.tally.unanswered += 1
        try:
            await connection.exchange(data)
        finally:
            self.tally.unanswered -= 1
        seconds = self._loop.now - connection.asked_at
        self.tally.verified += 1
        self.tally.times.add(seconds)
        self._report.reply(number, seconds)

    def _note(self, error: Exception) -> None:
        """Count a message that is lost, or whose reply is wrong."""
        code, word, line = diagnose(error, (self._args.host, self._args.port))
        if code == WRONG:
            self.tally.wrong += 1
        else:
            self.tally.lost += 1
        self._code = max(self._code, code)
        self._report.failure(word, line)
