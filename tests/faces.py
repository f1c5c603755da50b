"""The faces of the client program, to be tried on servers of peers.py: in this
process where that shows the same, and in one of its own where not.

A start of the interpreter costs as much as twenty tries in this process.
"""

import contextlib
import io
import json
import os
import signal
import sys
import tempfile
import time
from time import perf_counter
from unittest import mock

from echoserver.client.__main__ import main
from echoserver.client.counting import Count
from echoserver.client.waiting import Tasks

from . import peers
from .support import PATIENCE, TestCase

try:
    import pty
except ImportError:
    pty = None

__all__ = ["ClientTestCase", "Terminal", "at_rest", "full_pipe", "pty"]


class Terminal(io.TextIOWrapper):
    """A terminal, as standard input or output."""

    def __init__(self, buffer=None):
        super().__init__(buffer or tempfile.TemporaryFile(), "utf-8")

    def isatty(self):
        return True


def at_rest(process):
    """Return whether its main thread sleeps, or true if nobody knows."""
    try:
        with open("/proc/%d/stat" % process.pid) as f:
            return f.read().rpartition(")")[2].split()[0] == "S"
    except OSError:
        return True


def full_pipe(is_blocking):
    """Return the ends of a pipe that is full, and how many bytes that is."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    size = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            size += os.write(writer, bytes(1 << 12))
    os.set_blocking(writer, is_blocking)
    return reader, writer, size


class ClientTestCase(TestCase):
    """A TestCase with a scripted server and the program to try on it, in this
    process with short times.

    An outcome is an exit code, what is on standard output, and the lines on
    standard error.
    """

    def setUp(self):
        super().setUp()
        self.limit_time()
        # A background job of a script has it ignored.
        self.addCleanup(signal.signal, signal.SIGINT, signal.signal(
            signal.SIGINT, signal.default_int_handler))
        for where, what, seconds in ((Tasks, "tick", 0.02),
                                     (Count, "line_interval", 0.01),
                                     (Count, "last_reply_timeout", 0.05)):
            self.enter(mock.patch.object(where, what, seconds))

    def play(self, *scripts):
        """Return the host and port of a peer that plays scripts."""
        return peers.play(self, *scripts).address

    def here(self, *args, stdin=None, stdout=None, stderr=None,
             encoding="utf-8"):
        """Return the outcome of the program in this process."""
        saved = sys.stdin, sys.stdout
        err = io.StringIO()
        with stdout or tempfile.TemporaryFile("w+", encoding=encoding) as out:
            sys.stdin, sys.stdout = stdin or io.StringIO(), out
            try:
                with contextlib.redirect_stderr(stderr or err), mock.patch(
                        "echoserver.client.program.make_output_wait"):
                    code = main([str(arg) for arg in args])
            finally:
                sys.stdin, sys.stdout = saved
            out.flush()
            out.buffer.seek(0)
            return code, out.buffer.read(), err.getvalue().splitlines()

    def count(self, *args, **options):
        """Return the outcome of counting without an interval."""
        return self.here("--interval", 0, *args, **options)

    def slowly(self, *args):
        """Return the outcome at a pace that counts as slow, but is not."""
        return self.here("-i", "0.01", *args)

    def converse(self, typed, *args):
        """Return the outcome of typing at a terminal."""
        return self.here(*args, stdin=Terminal(io.BytesIO(typed)),
                         stdout=Terminal())

    def pipe(self, data, *args):
        """Return the outcome of passing data through."""
        saved = os.dup(0)
        try:
            with tempfile.TemporaryFile() as stdin:
                stdin.write(data)
                stdin.seek(0)
                os.dup2(stdin.fileno(), 0)
            return self.here(*args)
        finally:
            os.dup2(saved, 0)
            os.close(saved)

    def progress(self, *args):
        """Return the outcome where standard error is a terminal of 80
        columns, and what that has shown."""
        master, slave = pty.openpty()
        with open(slave, "w") as stderr:
            outcome = self.here(*args, stderr=stderr)
        shown = b""
        with open(master, "rb", 0) as reader, contextlib.suppress(OSError):
            for data in iter(lambda: reader.read(1 << 16), b""):
                shown += data
        return outcome, shown

    def stoppable_clock(self):
        """Return a function that makes the program believe that it was
        stopped for so many seconds, or suspended with the system."""
        late, real = [0.0, 0.0], getattr(time, "clock_gettime", perf_counter)
        self.enter(mock.patch("echoserver.client.waiting.perf_counter",
                              lambda: perf_counter() + late[0]))
        self.enter(mock.patch("time.clock_gettime", lambda clock: (
            real(clock) + late[1]), create=True))

        def stop(seconds, is_suspended=False):
            late[1] += seconds
            late[0] += 0 if is_suspended else seconds
        return stop

    def figures(self, outcome):
        """Return the one JSON object that the output must be."""
        self.assertEqual(outcome[1].count(b"\n"), 1, outcome)
        return json.loads(outcome[1].decode(), parse_constant=self.fail)

    def client(self, *args, **options):
        """Start the program in a process of its own."""
        # Unbuffered: select() knows nothing of lines in a buffer.
        options.setdefault("bufsize", 0)
        return self.run_program("echoserver.client", *args, **options)

    def outcome(self, process, data=None):
        """Return the outcome of a process, after data for its input."""
        out, err = process.communicate(data, PATIENCE)
        self.assertNotIn(b"Traceback", err)
        return process.returncode, out, err.decode().splitlines()

    def assertFails(self, outcome, code, word, address):
        """Check the exit code and the only line on standard error: word,
        host:port, a sentence; return the line."""
        self.assertEqual((outcome[0], len(outcome[2])), (code, 1), outcome)
        self.assertRegex(outcome[2][0],
                         r"^%s %s:%d:? \w.*; \w" % ((word,) + address))
        return outcome[2][0]
