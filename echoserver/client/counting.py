"""Round trips, counted and measured: the --count of the client program.

Each of the --connections has a thread, which keeps one connection of a shared
pool for as long as it lasts, and between two messages too.  To give it back
each time would be kinder to the server; but a pool replaces what was lost in
idleness without a word, and who cuts idle connections is one of the questions
that this program is asked.  A connection that fails is counted, told, and
dialled again for the next message.

No two messages are alike, so that a reply that is stale, or meant for another
connection, is a wrong echo.  What is timed is echo() alone, without dialling.

The threads do the work, the tally (figures.py) keeps the figures and the main
thread only waits, which Ctrl-C may interrupt anywhere.
"""

import argparse
import contextlib
import json
import os
import shutil
import socket
import sys
import threading
import time
from typing import Optional, Set

from ..address import show_address
from .connection import Connection
from .pool import ConnectionPool, PoolClosed
from .diagnosis import INTERRUPTED, OK, USAGE, WRONG, diagnose, tell
from .figures import BLOCKS, Tally, milliseconds
from .verifier import WrongEcho

__all__ = ["Run", "Worker", "message", "run"]

# Seconds of silence, where -W says nothing.
DEFAULT_TIMEOUT = 10.0

# Seconds between messages from which on each has its line; with less, a
# terminal would show a blur.
LINE_INTERVAL = 0.2

# Seconds between two states of the progress line, and the time that Windows,
# where nothing interrupts a recv (gh-74157), takes to notice Ctrl-C.
TICK = 0.25

# Seconds that a thread waits after a failure, at least: a hundred calls a
# second find a server that is back soon enough, and are no storm.
FAILURE_PAUSE = 0.01

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
    return Run(args).run()


class Run:
    """One counting run: what its threads share, and what is shown of it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.address = args.host, args.port
        self.pool = ConnectionPool(
            self.address, args.connections,
            DEFAULT_TIMEOUT if args.timeout is None else args.timeout,
            max_idle=None)
        # Waited on by the threads until their next message is due; set once
        # there shall be no more of them.
        self.stopping = threading.Event()
        self.tally = Tally()
        # The numbers of the messages that are on their way.
        self.unanswered: Set[int] = set()
        # Guards all that is counted, and the order of the output.  Reentrant,
        # as Ctrl-C may keep the main thread from giving it back (bpo-29988).
        self._lock = threading.RLock()
        self._claimed = 0
        self._worst = OK
        # The first words of the failures that have been told.
        self._told: Set[str] = set()
        self._working = args.connections
        self._workers = [Worker(self) for _ in range(args.connections)]
        # A byte comes through here when the last thread ends.
        self._end_receiver, self._end_sender = socket.socketpair()
        # A line for each message, or else, on a terminal, one of progress,
        # which takes so many columns at present.
        slow = args.interval >= LINE_INTERVAL
        self._lines = slow and not args.quiet
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._progress = self._terminal and not slow and not args.quiet
        self._shown = 0

    def run(self) -> int:
        """Return the exit code, after the summary."""
        start = time.perf_counter()
        interrupted = False
        with self._end_receiver, self._end_sender:
            try:
                self._start()
                while not self._has_ended():
                    self._show_progress(time.perf_counter() - start)
            except KeyboardInterrupt:
                interrupted = True
                if self._terminal:
                    tell("")    # leaves the line where it says ^C
            seconds = time.perf_counter() - start
            # A thread that dials or waits for a reply is left alone: it will
            # not be heard of any more.
            self.stopping.set()
            self.pool.close()
        with self._lock:
            self._erase_progress()
            self.tally.unanswered = len(self.unanswered)
            self._summarize(seconds)
            return INTERRUPTED if interrupted else self._worst

    def _start(self) -> None:
        for started, worker in enumerate(self._workers):
            try:
                worker.start()
            except RuntimeError:
                # The system has no more threads for us.
                tell("this host is out of threads: %d of %d --connections "
                     "could be started" % (started, len(self._workers)))
                self._worst = USAGE
                for _ in self._workers[started:]:
                    self.done()
                break

    def _has_ended(self) -> bool:
        """Wait a moment for the end of the last thread."""
        self._end_receiver.settimeout(TICK)
        try:
            return bool(self._end_receiver.recv(1))
        except socket.timeout:
            return False

    # For the threads.

    def claim(self) -> Optional[int]:
        """Return the number of another message, None for no more."""
        with self._lock:
            if self.stopping.is_set() or (
                    self.args.count and self._claimed == self.args.count):
                return None
            self._claimed += 1
            return self._claimed

    def verified(self, number: int, ns: int) -> None:
        """Count a reply that came after ns nanoseconds."""
        with self._lock:
            self.unanswered.discard(number)
            self.tally.add_verified(self.args.size, ns)
            if (self._lines and not self.args.json
                    and not self.stopping.is_set()):
                self._print("%d bytes from %s: seq=%d time=%s ms" % (
                    self.args.size, show_address(self.address), number,
                    milliseconds(ns)))

    def failed(self, number: int, error: Exception,
               connection: Optional[Connection]) -> None:
        """Count a message without its reply."""
        code, line = diagnose(error, self.address, connection)
        with self._lock:
            if self.stopping.is_set():
                return
            self.unanswered.discard(number)
            self._worst = max(self._worst, code)
            if code == WRONG:
                self.tally.wrong += 1
            else:
                self.tally.lost += 1
            word = line.split()[0]
            if self._lines or word not in self._told:
                self._told.add(word)
                self._erase_progress()
                tell(line)

    def done(self) -> None:
        """Take note that a thread has ended."""
        with self._lock:
            self._working -= 1
            if not self._working:
                with contextlib.suppress(OSError):  # it had been left alone
                    self._end_sender.send(b"\0")

    # What is shown.

    def _print(self, line: str) -> None:
        try:
            print(line, flush=True)
        except OSError:
            # Not the connection's: the main thread will meet it, too, and
            # tell of it.
            self.stopping.set()

    def _show_progress(self, seconds: float) -> None:
        if self._progress:
            # A terminal that is gone has no size.
            with self._lock, contextlib.suppress(OSError):
                columns = os.get_terminal_size(sys.stderr.fileno()).columns
                # Not the last three: room for ^C and the cursor behind it.
                self._shown = max((columns or 80) - 3, 0)
                line = "%d verified, %d lost, %d wrong, %.0f replies/s" % (
                    self.tally.verified, self.tally.lost, self.tally.wrong,
                    self.tally.verified / seconds)
                tell("\r" + line[:self._shown].ljust(self._shown), end="")

    def _erase_progress(self) -> None:
        if self._shown:
            tell("\r%*s\r" % (self._shown, ""), end="")
            self._shown = 0

    def _summarize(self, seconds: float) -> None:
        args = self.args
        if args.json:
            figures = {"host": args.host, "port": args.port,
                       "connections": args.connections,
                       "size_bytes": args.size,
                       "interval_seconds": args.interval}
            figures.update(self.tally.figures(seconds))
            print(json.dumps(figures, allow_nan=False))
            return
        print("--- %s, %d bytes a message, %d connection%s" % (
            show_address(self.address), args.size, args.connections,
            "" if args.connections == 1 else "s"))
        for line in self.tally.summary(seconds):
            print(line)
        if args.histogram:
            columns, lines = shutil.get_terminal_size()
            for line in self.tally.times.chart(columns - 1, max(lines - 6, 8),
                                               _has_blocks()):
                print(line)


class Worker(threading.Thread):
    """A thread that makes round trips over one connection at a time."""

    def __init__(self, run: Run) -> None:
        super().__init__(daemon=True)
        self._run = run
        self._due = 0.0

    def run(self) -> None:
        try:
            self._due = time.monotonic()
            number = self._run.claim()
            while number is not None:
                number = self._use_a_connection(number)
        finally:
            self._run.done()

    def _use_a_connection(self, number: int) -> Optional[int]:
        """Make round trips from number on until one fails.

        Return the number that follows then, or None for the end.
        """
        connection = None
        try:
            with self._run.pool.connection() as connection:
                while True:
                    self._make(connection, number)
                    after = self._next(0.0)
                    if after is None:
                        return None
                    number = after
        except (OSError, WrongEcho, PoolClosed) as error:
            self._run.failed(number, error, connection)
            return self._next(FAILURE_PAUSE)

    def _make(self, connection: Connection, number: int) -> None:
        data = message(number, self._run.args.size)
        self._run.unanswered.add(number)
        start = time.perf_counter()
        connection.echo(data)
        ns = int((time.perf_counter() - start) * 1e9)
        self._run.verified(number, ns)

    def _next(self, pause: float) -> Optional[int]:
        """Claim a number and wait until it is due, pause seconds at least."""
        number = self._run.claim()
        if number is not None:
            now = time.monotonic()
            self._due = max(self._due + self._run.args.interval, now + pause)
            if (self._due > now
                    and self._run.stopping.wait(self._due - now)):
                return None
        return number


def _has_blocks() -> bool:
    """Return whether standard output can show the bars of a chart."""
    try:
        BLOCKS.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return False
    return True
