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
from typing import Any, Dict, Iterable, List, Optional

from .connecting import Place, connect, describe, lookup
from .connection import Connection
from .errors import WrongEcho
from .figures import Tally
from .report import Report
from .running import Run
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


class Count(Run):
    """One counting run.

    Class variables, in seconds: failure_pause, how long a connection waits
    after a failure, at least: a hundred attempts a second find a server that
    is back soon enough, and are no storm; last_reply_timeout, how long replies
    are waited for after the deadline, and after a signal.
    """

    failure_pause = 0.01
    last_reply_timeout = 0.5

    def __init__(self, args: argparse.Namespace, tasks: Tasks) -> None:
        super().__init__(args, tasks)
        self.deadline = self.start + (args.deadline or math.inf)
        self.claimed = 0            # messages, by number
        self.places: Optional[List[Place]] = None   # until a failure
        self.tally = Tally(self.start)
        self.report = Report(args, self.tally, self.voice)

    def first_tasks(self) -> Iterable[Task]:
        """Return a task for each connection that has a message."""
        return [Worker(self).run() for _ in range(min(
            self.args.connections, self.args.count or 10 ** 9))]

    def is_owed(self) -> bool:
        """Return whether a reply may come, for a moment after the end."""
        return bool(self.tally.unanswered) and self.tasks.now < (
            self.tasks.stopped_at + self.last_reply_timeout)

    def progress(self) -> None:
        """Show how it goes; end the run after the deadline."""
        self.report.progress(self.tasks.now - self.start)
        if self.tasks.now >= self.deadline + self.last_reply_timeout:
            self.tasks.running, self.tasks.stopped_at = False, self.deadline

    def so_far(self) -> List[str]:
        """Return the summary as far as it is known."""
        return self.report.lines(self.figures())

    def summarize(self) -> None:
        """Print the summary, after a line that explains the exit code."""
        tally, due = self.tally, self.args.count or 1
        if not self.tasks.signal and not self.failures.words and (
                tally.verified < due or tally.unanswered):
            self.tell_failure(TimeoutError(
                "%s gave %d of %d replies before the --deadline; allow it more "
                "time" % (describe(self.address), tally.verified,
                          max(due, tally.messages))))
        self.report.summary(self.figures())

    def figures(self) -> Dict[str, Any]:
        """Return all figures."""
        return dict(super().figures(), **self.tally.figures(
            self.args.size, self.start, self.tasks.now))

    def tell_failure(self, error: Exception, details: str = "") -> None:
        """Count a failure, and tell it if it is news."""
        word, line = self.failures.note(error)
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
                    self._fail(error, number, since)
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
            self._count.report.reply(number, seconds,
                                     connection.connecting_time)
        if args.reconnect:
            self._drop()

    def _connect(self, number: int, since: float) -> Task:
        count, tasks, tally = self._count, self._count.tasks, self._tally
        standstill, self._connecting_at = tasks.standstill, tasks.time()
        tally.unconnected[number] = since
        left = min(count.args.timeout or math.inf,
                   max(count.deadline - tasks.now, 0.001))
        if count.places is None:
            count.places = yield from lookup(count.address, left)
        link = yield from connect(count.address, left, count.places)
        del tally.unconnected[number]
        if standstill == tasks.standstill:
            tally.connects.add([link.seconds])
        else:
            self._connecting_at = None
        tally.addresses.add(link.ip)
        self._connection = Connection(count.address, count.args.timeout, link)
        return self._connection

    def _fail(self, error: Exception, number: int,
              since: Optional[float]) -> None:
        """Count a message that has no good reply, and has waited since then if
        it had begun; the name is looked up again."""
        tally, details = self._tally, ""
        tally.unconnected.pop(number, None)
        tally.fail(number in tally.unanswered, isinstance(error, WrongEcho))
        if since is not None:
            details = " (seq=%d time=%.3f ms)" % (
                number, (self._count.tasks.time() - since) * 1e3)
        self._count.places = None
        self._count.tell_failure(error, details)
        self._drop()

    def _drop(self) -> None:
        """Close the connection, if there is one."""
        connection, tally = self._connection, self._tally
        if connection is not None:
            again = connection.retransmissions()
            if again is not None:
                tally.retransmissions = again + (tally.retransmissions or 0)
            connection.close()
            self._connection = None
