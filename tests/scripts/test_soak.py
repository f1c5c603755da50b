"""A short version of scripts/soak.py, against every model, and its verdict."""

import contextlib
import io
import os
import subprocess
import sys
import unittest
from unittest import mock

from tests.support import PATIENCE, ROOT, TestCase, python

SCRIPTS = os.path.join(ROOT, "scripts")
sys.path.insert(0, SCRIPTS)
try:
    import soak
    from lab import report
    from lab.server import ask_models
finally:
    sys.path.remove(SCRIPTS)

# All is smaller.
SHORT = """\
import sys
import soak
from lab import faults
soak.Soak.crowd, soak.Soak.idle_timeout = 80, 0.3
faults.SECOND, faults.MUCH = 0.05, 1 << 20
sys.exit(soak.main(sys.argv[1:]))
"""

# The server program, with another reply.
CHANGED = """\
import sys
from echoserver import EchoHandler, __main__
EchoHandler.reply = staticmethod(%s)
sys.exit(__main__.main())
"""

PING = soak.PING._replace(messages=2)


@unittest.skipUnless(os.name == "posix", "needs signals")
class SoakTest(TestCase):

    def start(self, model):
        process = subprocess.Popen(
            python("-c", SHORT, "--model", model, "--seed", "1",
                   "--seconds", "8"), cwd=SCRIPTS,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.addCleanup(self._end, process)
        return process

    def test_no_fault_loses_a_byte(self):
        """Nor does any draw a traceback, or leave a descriptor behind."""
        for process in [self.start(model) for model in ask_models()]:
            output = process.communicate(timeout=10 * PATIENCE)[0].decode()
            self.assertEqual(process.returncode, 0, output)
            self.assertNotIn("!", output)
            self.assertIn("\nNothing was lost, there was no tr", output)
            for name in "quiet", "fuzz", "reset at connect", "half-open":
                self.assertRegex(output, r"\n%s  .*" % name)

    def visit(self, reply, kind=PING):
        """Return the row of ten clients of a server with such a reply."""
        row = report.Row("visit")
        short = soak.Soak("threads", 1, 0)
        short.crowd = 10
        with short.server(program=CHANGED % reply) as server:
            short.come(row, server, kind, 10)
            row.read_log(server.log())
        return row

    def test_wrong_byte_fails(self):
        """It is a loss, is shown, and is the last word."""
        row = self.visit("lambda data: data.upper()[:-1] + b'a'")
        self.assertIn("  ! ping 1 after ", str(row))
        self.assertIn(": the reply is wrong", str(row))
        words, status = report.verdict([report.Row("quiet"), row])
        self.assertRegex(words, "^FAILED: [1-9][0-9]* bytes lost, 0 traceb")
        self.assertEqual(status, 1)

    def test_traceback_fails(self):
        """The first is shown, and what clients miss is a loss."""
        row = self.visit("lambda data: 1 / 0")
        self.assertIn("ZeroDivisionError", str(row))
        self.assertRegex(report.verdict([row])[0],
                         "^FAILED: [0-9]+ bytes lost, 10 tracebacks, ")

    def test_crowd_that_leaves(self):
        """Those who leave at once are not counted at the same time."""
        for messages, counted in (1, False), (2, True):
            row = self.visit("bytes.upper", PING._replace(messages=messages))
            self.assertEqual("same time" in str(row), counted)

    def stop(self, status=None):
        """Return the row of a server that is stopped under load, and that
        ends with another status, if one is given."""
        row = report.Row("stop")
        short = soak.Soak("threads", 0, 0)
        wait = {"side_effect": lambda: status} if status is not None else {
            "autospec": True, "side_effect": soak.Server.wait}
        with mock.patch.object(soak.Server, "wait", **wait):
            short.stops(row, None)
        return row

    def test_exit_status_is_explained(self):
        """What it means stands beside it."""
        self.assertRegex(str(self.stop()), "exit status (0 after 1 stop: no "
                         "reply was cut|1 after 1 stop: replies were cut)")

    def test_exit_status_that_should_not_be(self):
        """It is a problem."""
        row = self.stop(7)
        self.assertIn("exit status 7 after 1 stop: it should be", str(row))
        self.assertEqual(report.verdict([row])[1], 1)


    def test_room_is_found(self):
        """A model that lets others wait meets no more clients than fit."""
        for model, room, fits in ("blocking", 1, [1, 0]), (
                "threads", soak.Soak.crowd, [10, 5]):
            short = soak.Soak(model, 1, 0)
            with contextlib.redirect_stdout(io.StringIO()) as out:
                short.find_room()
            self.assertEqual(short.room, room)
            self.assertEqual(out.getvalue().count("same time: 1\n"), room == 1)
            self.assertEqual([count for _, count in short.fitting(
                [(PING, 10), (PING, 5)])], fits)


class TimeTest(unittest.TestCase):
    """A soak keeps to its time."""

    def test_what_there_is_no_time_for(self):
        """It is left out, and told so."""
        short = soak.Soak("threads", -1, 0)
        fault = mock.Mock()
        short.row("late", None, fault)
        self.assertEqual((short.left_out, short.rows), (["late"], []))
        fault.assert_not_called()

    def test_what_needs_more_time_than_there_is(self):
        """It is left out before it begins."""
        short = soak.Soak("threads", 10, 0)
        with contextlib.redirect_stdout(io.StringIO()):
            for needs in 1, 100:
                short.row("in %d s" % needs, None, mock.Mock(), needs=needs)
        self.assertEqual(short.left_out, ["in 100 s"])

    def test_time_of_a_crowd(self):
        """It follows from how long a few take."""
        short = soak.Soak("threads", 10, 0)
        with contextlib.redirect_stdout(io.StringIO()), \
                mock.patch.object(soak, "Load") as load:
            load.return_value.__enter__.return_value.tally.first = [0.1, 0.2]
            short.find_room()
        self.assertAlmostEqual(short.crowd_time,
                               4 * 0.2 * short.crowd / soak.FEW)

    def test_share_of_the_faults(self):
        """The verdict says how many were tried; none is no success."""
        rows = [report.Row("quiet"), report.Row("fuzz")]
        self.assertEqual(report.verdict(rows, ["silent", "quiet again"]), (
            "Nothing was lost, there was no traceback and no problem. 1 of 2 "
            "faults tried.", 0))
        self.assertEqual(report.verdict(rows[:1], ["fuzz"]), (
            "FAILED: no fault was tried.", 1))

    def test_wrong_times(self):
        """They are refused."""
        for text in "0", "-5", "nan", "inf":
            with contextlib.redirect_stderr(io.StringIO()) as err, \
                    self.assertRaises(SystemExit):
                soak.main(["--seconds", text])
            self.assertIn(text + " is not a number above 0, at most 1,000,000",
                          err.getvalue())

    def test_share_of_the_time(self):
        """Faults that last take a part of what there is."""
        self.assertEqual(soak.Soak("threads", 30, 0).share(3), 1.5)


if __name__ == "__main__":
    unittest.main()
