"""Round trips, counted and measured: the --count of the client program.

Each connection of the run has a task, in one thread, that makes one round trip
after the other.  A connection is kept for as long as it lasts, and between two
messages too: which link cuts idle connections is one of the questions that
this program is asked.  A failure is counted and told, and the next message
connects again, after the name was looked up anew.  With --reconnect each
message has a connection of its own.

No two messages are alike, so that a reply that is stale, or meant for another
connection, is a wrong echo.
"""

import argparse
import functools
import math
from typing import Any, Dict, List, Optional

from .connecting import Place, connect, describe, lookup
from .connection import Connection
from .diagnosis import Failures
from .errors import WrongEcho
from .figures import Tally
from .output import now
from .report import Report
from .waiting import Task, Tasks

__all__ = ["Count", "message", "run"]

_LETTERS = bytes.maketrans(b"0123456789", b"abcdefghij")


def message(number: int, size: int) -> bytes:
    """Return the message of that number, size bytes long.

    It begins with the number in letters, the lowest digit first: messages of
    one byte differ from their neighbours, those of seven from ten million
    others.  Then come all byte values in their order, from another one each
    time, so that even short messages send every value before long.
    """
    start = number * 37 % 256       # 37 is odd: reaches them all
    return ((b" %d" % number)[::-1].translate(_LETTERS)
            + _values(size)[start:start + size])[:size]


@functools.lru_cache(1)
def _values(size: int) -> bytes:
    return bytes(range(256)) * (size // 256 + 2)


def run(args: argparse.Namespace) -> int:
    """Make the round trips that args ask for; return the exit code."""
    with Tasks() as tasks:
        return Count(args, tasks).run()


class Count:
    """One counting run.

    Class variables, in seconds: failure_pause, how long a connection waits
    after a failure, at least: a hundred attempts a second find a server that
    is back soon enough, and are no storm; last_reply_timeout, how long replies
    are waited for after the deadline, and after a signal.
    """

    failure_pause = 0.01
    last_reply_timeout = 0.5

    def __init__(self, args: argparse.Namespace, tasks: Tasks) -> None:
        self.args, self.tasks = args, tasks
        self.address = args.host, args.port
        self.start = tasks.now
        self.deadline = self.start + (args.deadline or math.inf)
        self.claimed = 0            # messages, by number
        self.tally = Tally(self.start)
        self.report = Report(args, self.tally)
        self._failures = Failures(self.address)
        self._places: Optional[List[Place]] = None
        self._told = 0.0            # of the standstill
        self._started = now()

    def run(self) -> int:
        """Return the exit code, after the summary."""
        args, tally, tasks = self.args, self.tally, self.tasks
        try:
            for _ in range(min(args.connections, args.count or 10 ** 9)):
                tasks.start(Worker(self).run())
            tasks.run(self._tick, self._is_owed)
            if not tasks.signal and not self._failures.words and (
                    tally.verified < (args.count or 1)):
                raise self._too_late()
        except (TimeoutError, MemoryError) as error:
            self.note(error)
        self.report.summary(self._figures(), tasks.signal > 0)
        return 128 + tasks.signal if tasks.signal else self._failures.code

    def _tick(self) -> None:
        now, standstill = self.tasks.now, self.tasks.standstill
        if standstill > self._told:
            self.report.standstill(standstill - self._told)
            self._told = standstill
        self.report.progress(now - self.start)
        if self.tasks.is_asked:
            self.tasks.is_asked = False
            self.report.so_far(self._figures())
        if now >= self.deadline + self.last_reply_timeout:
            raise self._too_late()

    def _too_late(self) -> TimeoutError:
        return TimeoutError(
            "%s gave %d of %s replies before the --deadline; allow it more "
            "time" % (describe(self.address), self.tally.verified,
                      self.args.count or "any"))

    def _is_owed(self) -> bool:
        """Return whether to wait for replies, when a signal has come."""
        return bool(self.tally.unanswered) and self.tasks.now < (
            self.tasks.stopped_at + self.last_reply_timeout)

    def _figures(self) -> Dict[str, Any]:
        return dict(
            self.tally.figures(self.args.size, self.start, self.tasks.now),
            started=self._started, failures=self._failures.words,
            first_failure=self._failures.first,
            stopped_seconds=round(self.tasks.standstill, 6))

    def connect(self) -> Task:
        """Return a Connection; a name is looked up again after a failure."""
        left = min(self.args.timeout or math.inf,
                   max(self.deadline - self.tasks.now, 0.001))
        if self._places is None:
            self._places = yield from lookup(self.address, left)
        link = yield from connect(self.address, left, self._places)
        self.tally.connects.add([link.seconds])
        self.tally.addresses.add(link.ip)
        return Connection(self.address, self.args.timeout, link)

    def fail(self, error: Exception, number: int, since: Optional[float],
             is_sent: bool) -> None:
        """Count a message that has no good reply, and has waited since then if
        it had begun."""
        self._places = None
        self.tally.fail(is_sent, isinstance(error, WrongEcho))
        self.note(error, "" if since is None else " (seq=%d time=%.3f ms)" % (
            number, (self.tasks.time() - since) * 1e3))

    def note(self, error: Exception, details: str = "") -> None:
        """Count and tell a failure."""
        word, line = self._failures.note(error)
        self.report.failure(word, line + details)


class Worker:
    """A connection of the run, or one after another."""

    def __init__(self, count: Count) -> None:
        self._count, self._tally = count, count.tally
        self._connection: Optional[Connection] = None
        self._connecting_at: Optional[float] = None     # before a first reply
        self._number = len(self._tally.replies)
        self._tally.replies.append(0)

    def run(self) -> Task:
        """Make round trips for as long as the run has any."""
        count, tasks, args = self._count, self._count.tasks, self._count.args
        due = tasks.now
        try:
            while tasks.running and (
                    not args.count or count.claimed < args.count):
                count.claimed += 1
                number, since = count.claimed, None
                try:
                    if due > tasks.now:
                        yield from self._rest(min(due, count.deadline))
                        since = tasks.now
                    else:
                        # Without an interval it is due when the one before it
                        # has its reply.
                        since = due if args.interval else tasks.now
                    if tasks.now >= count.deadline:
                        break
                    due += args.interval
                    yield from self._ask(number, since)
                except (OSError, WrongEcho) as error:
                    self._drop()
                    self._tally.unconnected.pop(number, None)
                    count.fail(error, number, since,
                               number in self._tally.unanswered)
                    due = max(due, tasks.now + count.failure_pause)
                self._tally.unanswered.pop(number, None)
        finally:
            self._drop()

    def _rest(self, end: float) -> Task:
        """Wait until the end; raise what becomes of the connection by then."""
        connection, tasks = self._connection, self._count.tasks
        while tasks.now < end:
            files = () if connection is None else connection.reading
            if ((yield files, end - tasks.now) and connection is not None
                    and connection.receive() is not None):
                raise connection.ended_early()

    def _ask(self, number: int, since: float) -> Task:
        """Make one round trip, with a message that was due then.

        Most need one send() and one receive(), and have no other generator.
        """
        tasks, tally, args = self._count.tasks, self._tally, self._count.args
        connection = self._connection or (
            yield from self._connect(number, since))
        data = message(number, args.size)
        tally.unanswered[number] = since
        standstill, asked = tasks.standstill, tasks.time()
        rest = connection.send(data)
        if rest < len(data):
            yield from connection.exchange(memoryview(data)[rest:])
        while connection.in_flight:
            if not (yield connection.reading, args.timeout or math.inf):
                raise connection.fell_silent()
            connection.receive()
        now, seconds = tasks.now, None
        if standstill == tasks.standstill:
            seconds = now - asked
            if self._connecting_at is not None:
                tally.firsts.add([now - self._connecting_at])
        self._connecting_at = None
        tally.replies[self._number] += 1
        tally.succeed(now, seconds, now - since)
        if self._count.report.has_lines:
            self._count.report.reply(number, seconds, connection)
        if args.reconnect:
            self._drop()

    def _connect(self, number: int, since: float) -> Task:
        self._connecting_at = self._count.tasks.time()
        self._tally.unconnected[number] = since
        self._connection = yield from self._count.connect()
        del self._tally.unconnected[number]
        return self._connection

    def _drop(self) -> None:
        """Close the connection, if there is one."""
        connection, tally = self._connection, self._tally
        if connection is not None:
            again = connection.retransmissions()
            if again is not None:
                tally.retransmissions = again + (tally.retransmissions or 0)
            connection.close()
            self._connection = None
