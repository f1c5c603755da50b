"""A short version of scripts/soak.py, against every model; and faults that are
put into the server, which it has to find."""

import contextlib
import io
import os
import subprocess
import unittest

from tests.support import (PATIENCE, SCRIPTS, TestCase, python,
                           scripts_importable)

with scripts_importable():
    import soak
    from lab import report
    from lab.server import ask_models

# All is smaller.
SHORT = """\
import sys
import soak
from lab import faults
soak.Soak.crowd, soak.Soak.idle_timeout, soak.FEW = 60, 0.3, 20
faults.SECOND, faults.MUCH = 0.05, 1 << 20
sys.exit(soak.main(sys.argv[1:]))
"""

# The server program, with a fault.
CHANGED = """\
import sys
from echoserver import EchoHandler, EchoServer, __main__
%s
sys.exit(__main__.main())
"""
REPLY = "EchoHandler.reply = staticmethod(%s)"

# It ends each stream after a third of a second.
ENDS_EARLY = """
import socket, threading
accept = socket.socket.accept
def accept_and_end(self):
    request, address = accept(self)
    threading.Timer(0.3, request.shutdown, [socket.SHUT_WR]).start()
    return request, address
socket.socket.accept = accept_and_end"""


@unittest.skipUnless(os.name == "posix", "needs signals")
class SoakTest(TestCase):

    def test_no_fault_loses_a_byte(self):
        """Nor does any draw a traceback, or leave a descriptor behind."""
        for model in ask_models():
            process = self.run_command(
                python("-c", SHORT, "--model", model, "--seed", "1",
                       "--seconds", "5"), stderr=subprocess.STDOUT,
                env=dict(os.environ, PYTHONPATH=SCRIPTS))
            output = process.communicate(timeout=10 * PATIENCE)[0].decode()
            self.assertEqual(process.returncode, 0, output)
            self.assertNotIn("!", output)
            self.assertIn("\nNothing was lost, there was no tr", output)
            for name in "quiet", "fuzz", "reset at connect", "half-open":
                self.assertRegex(output, r"\n%s  .*" % name)

    def found(self, change, choose, seconds=5):
        """Return what a soak, of a server with a change, prints of the fault
        that choose(soak) returns, with its arguments."""
        short = soak.Soak("threads", seconds, 0)
        short.crowd = short.room = 30
        short.program = CHANGED % change
        fault, *args = choose(short)
        with contextlib.redirect_stdout(io.StringIO()) as out, \
                short.server("--max-connections", "10") as server:
            short.row("fault", server, fault, *args)
        self.assertRegex(report.verdict(short.rows), "^FAILED: ",
                         out.getvalue())
        return out.getvalue()

    def test_wrong_byte(self):
        """It is told by the clients that measure, and by those that fuzz."""
        change = REPLY % "lambda data: data.upper()[:-1] + b'a'"
        self.assertIn("! honest clients: WRONG", self.found(
            change, lambda soak: (soak.beside, soak.quiet), 20))
        self.assertIn("! fuzz: the reply is wrong", self.found(
            change, lambda soak: [soak.fuzz]))

    def test_lost_byte(self):
        """Its reply does not come, and the end of the stream does."""
        self.assertIn("! busy: a clean end before the reply", self.found(
            REPLY % "lambda data: data[:-1].upper() or b'A'",
            lambda soak: [soak.stops], 1))

    def test_clean_end_that_is_too_early(self):
        """It is no end that a stop allows."""
        self.assertRegex(self.found(
            ENDS_EARLY, lambda soak: [soak.stops], 3), "! (busy|stream): ("
            "the server ended the stream|a clean end) ")

    def test_connection_above_the_limit(self):
        """It is counted."""
        self.assertIn("! 11 were served at the same time, of 10, ",
                      self.found("""
def main(main=__main__.main):
    sys.argv[sys.argv.index("10")] = "11"
    return main()
__main__.main = main""", lambda soak: (soak.come, 10)))
