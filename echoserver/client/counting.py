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

import functools
import math
import shutil
import sys
from collections import deque
from typing import Any, Deque, Dict, List, Optional

from .connecting import Place, connect, describe, lookup
from .connection import Connection
from .errors import WrongEcho
from .figures import Tally, bars, is_utf8, ms, summary
from .running import Run
from .waiting import Task

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


def run(args: Any) -> int:
    """Make the round trips that args ask for; return the exit code."""
    count = Count(args)
    return count.run(Worker(count).run() for _ in range(min(
        args.connections, args.count or args.connections)))


class Count(Run):
    """One counting run.

    Class variables, in seconds: failure_pause, how long a connection waits
    after a failure, at least: a hundred attempts a second find a server that
    is back soon enough, and are no storm; last_reply_timeout, how long replies
    are waited for after the deadline, and after a signal; line_interval,
    between messages from which on each has its line; progress_interval,
    between two lines of progress that are there otherwise, but for a terminal,
    where one changes all the time.
    """

    failure_pause = 0.01
    last_reply_timeout = 0.5
    line_interval = 0.2
    progress_interval = 1.0

    def __init__(self, args: Any) -> None:
        super().__init__(args)
        self.deadline = self.start + (args.deadline or math.inf)
        self.claimed, self.tally = 0, Tally(self.start)     # by number
        self.places: Optional[List[Place]] = None   # until a failure
        self.has_lines = args.interval >= self.line_interval and not args.quiet
        # Seconds between two lines of progress.
        self._pause = (math.inf if args.quiet or self.has_lines else
                       0.0 if self.is_shown else self.progress_interval)
        # When the last one was, how many replies there were, the longest round
        # trip since, and those of the lines before.
        self._then, self._before, self._worst = self.start, 0, 0.0
        self._row: Deque[float] = deque(maxlen=20)

    def is_owed(self) -> bool:
        """Return whether a reply may come, for a moment after the end."""
        return bool(self.tally.unanswered) and self.tasks.now < (
            self.tasks.stopped_at + self.last_reply_timeout)

    def progress(self) -> None:
        """Show how it goes; end the run after the deadline."""
        now, tally = self.tasks.now, self.tally
        self._worst = max(self._worst, tally.settle())
        passed, replies = now - self._then, tally.verified - self._before
        if passed >= max(self._pause, 1e-9):
            line = ("%.0f replies/s, max %s ms, %d verified, %d lost, %d wrong"
                    % (replies / passed, ms(self._worst if replies else None),
                       tally.verified, tally.lost, tally.wrong))
            self._row.append(self._worst)
            self._then, self._before, self._worst = now, tally.verified, 0.0
            if self.is_shown:
                self.show(line + " " + bars(self._row, is_utf8(sys.stderr)))
            else:
                self.say(line)
        if now >= self.deadline + self.last_reply_timeout:
            self.tasks.running, self.tasks.stopped_at = False, self.deadline

    def so_far(self) -> List[str]:
        """Return the summary as far as it is known."""
        return summary(self.figures())

    def summarize(self) -> None:
        """Print the summary, after a line that explains the exit code."""
        tally, due = self.tally, self.args.count or 1
        if not self.tasks.signal and not self.failures.words and (
                tally.verified < due or tally.unanswered):
            self.tell_failure(TimeoutError(
                "%s answered too few messages (%d) before the --deadline; "
                "give it longer" % (describe(self.address), tally.verified)))
        super().summarize()

    def conclusion(self) -> List[str]:
        """Return the whole summary."""
        args, ips = self.args, ", ".join(
            sorted(self.tally.addresses - {self.args.host}))
        columns, rows = shutil.get_terminal_size()
        return ["--- %s%s, %d bytes a message, %d connection%s" % (
            describe(self.address), ips and " (%s)" % ips, args.size,
            args.connections, "s" * (args.connections > 1)),
            *self.so_far(), *(args.histogram and self.tally.times.chart(
                columns - 1, max(rows - 9, 8), is_utf8(sys.stdout)) or ())]

    def figures(self) -> Dict[str, Any]:
        """Return all figures."""
        args = self.args
        return dict(super().figures(), **dict(self.tally.figures(
            args.size, self.start, self.tasks.now), size_bytes=args.size,
            connections=args.connections, interval_seconds=args.interval,
            reconnect=args.reconnect))

    def tell_failure(self, error: Exception, details: str = "") -> None:
        """Count a failure; tell it, or only the first one with its word."""
        word, line = self.failures.note(error)
        if self.has_lines or self.failures.words[word] == 1:
            self.tell(line + details)


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
                        end = min(due, count.deadline)
                        if self._connection:
                            yield from self._connection.rest(tasks, end)
                        else:
                            yield (), end - tasks.now
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
        if self._count.has_lines:
            self._count.say("%d bytes from %s: seq=%d %stime=%s ms" % (
                args.size, describe(connection.address), number, "connect=%s "
                "ms " % ms(connection.connecting_time) if args.reconnect
                else "", ms(seconds)))
        if args.reconnect:
            self._drop()

    def _connect(self, number: int, since: float) -> Task:
        count, tasks, tally = self._count, self._count.tasks, self._tally
        standstill, start = tasks.standstill, tasks.time()
        tally.unconnected[number] = since
        left = min(count.args.timeout or math.inf,
                   max(count.deadline - tasks.now, 0.001))
        if count.places is None:
            count.places = yield from lookup(count.address, left)
        link = yield from connect(count.address, left, count.places)
        del tally.unconnected[number]
        if standstill == tasks.standstill:
            tally.connects.add([link.seconds])
            self._connecting_at = start
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
            again = connection.tcp_info()[0]
            if again is not None:
                tally.retransmissions = again + (tally.retransmissions or 0)
            connection.close()
            self._connection = None
