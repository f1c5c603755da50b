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
from unittest import mock

from echoserver.client.__main__ import main
from echoserver.client.counting import Count
from echoserver.client.waiting import Tasks

from . import peers
from .support import PATIENCE, TestCase

__all__ = ["ClientTestCase", "CountTestCase", "ENVIRONMENT", "Terminal", "at_rest"]

# What the tests are run with must not decide what they see.
ENVIRONMENT = {name: value for name, value in os.environ.items()
               if name not in ("COLUMNS", "PYTHONUNBUFFERED")}


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


class ClientTestCase(TestCase):
    """A TestCase with a scripted server and the program to try on it.

    An outcome is an exit code, what is on standard output, and the lines on
    standard error.
    """

    def setUp(self):
        super().setUp()
        # A background job of a script has it ignored.
        self.addCleanup(signal.signal, signal.SIGINT, signal.signal(
            signal.SIGINT, signal.default_int_handler))

    def play(self, script):
        """Return the host and port of a peer that plays script."""
        return peers.play(self, script).address

    def here(self, *args, stdin=None, stdout=None, encoding="utf-8"):
        """Return the outcome of the program in this process."""
        saved = sys.stdin, sys.stdout
        with stdout or tempfile.TemporaryFile("w+", encoding=encoding) as out:
            sys.stdin, sys.stdout = stdin or io.StringIO(), out
            try:
                with contextlib.redirect_stderr(io.StringIO()) as err, \
                        mock.patch("echoserver.client.program."
                                   "make_output_wait"):
                    code = main([str(arg) for arg in args])
            finally:
                sys.stdin, sys.stdout = saved
            out.flush()
            out.buffer.seek(0)
            return code, out.buffer.read(), err.getvalue().splitlines()

    def count(self, *args, **options):
        """Return the outcome of counting without an interval."""
        return self.here("--interval", 0, *args, **options)

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

    def client(self, *args, **options):
        """Start the program in a process of its own."""
        # Unbuffered: select() knows nothing of lines in a buffer.
        options.setdefault("bufsize", 0)
        options.setdefault("env", ENVIRONMENT)
        return self.run_program("echoserver.client", *args, **options)

    def outcome(self, process, data=None):
        """Return the outcome of a process, after data for its input."""
        out, err = process.communicate(data, PATIENCE)
        self.assertNotIn(b"Traceback", err)
        return process.returncode, out, err.decode().splitlines()

    def assertFails(self, outcome, code, word, address, out=b""):
        """Check an outcome with one line: word, host:port, a sentence."""
        self.assertEqual(outcome[:2], (code, out), outcome)
        self.assertEqual(len(outcome[2]), 1, outcome)
        self.assertRegex(outcome[2][0],
                         r"^%s %s:%d:? \w.*; \w" % ((word,) + address))
        return outcome[2][0]


class CountTestCase(ClientTestCase):
    """What counts with short times."""

    def setUp(self):
        super().setUp()
        for where, what, seconds in ((Tasks, "tick", 0.02),
                                     (Count, "line_interval", 0.01),
                                     (Count, "last_reply_timeout", 0.05)):
            patch = mock.patch.object(where, what, seconds)
            patch.start()
            self.addCleanup(patch.stop)

    def slowly(self, *args):
        """Return the outcome at a pace that counts as slow, but is not."""
        return self.here("-i", "0.01", *args)

    def figures(self, out):
        """Return the one JSON object that out must be."""
        self.assertEqual(out.count(b"\n"), 1, out)

        def refuse(name):
            self.fail("%s is not JSON" % name)
        return json.loads(out.decode(), parse_constant=refuse)
