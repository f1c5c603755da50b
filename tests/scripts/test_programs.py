"""What the programs of scripts/ say of themselves, and how they end when it is
not their fault."""

import os
import subprocess
import tempfile
import unittest

from tests.support import PATIENCE, PLAIN, SCRIPTS, TestCase, python

NAMES = "lesson", "soak", "bench", "rolling", "make_pyz"


@unittest.skipUnless(os.name == "posix", "needs signals")
class ProgramsTest(TestCase):

    def ends(self, status, stdout, begin=(), flags=(), env=PLAIN):
        """Yield each program, and what its --help says on standard output and
        standard error; see how it ends."""
        runs = [(name, self.run_command(
            list(begin) + python(*flags, os.path.join(SCRIPTS, name + ".py"),
                                 "--help"), env=env, stdout=stdout))
                for name in NAMES]
        for name, process in runs:
            out, error = process.communicate(timeout=PATIENCE)
            self.assertEqual((name, process.returncode), (name, status), error)
            yield name, (out or b"").decode(), error.decode()

    def test_help(self):
        """It says which question the program answers, under -OO, too."""
        for _, out, error in self.ends(0, subprocess.PIPE, flags=["-OO"]):
            self.assertRegex(out, r"(?s)^usage: .*\n\n[A-Z][^.:]*\?\s")
            self.assertEqual(error, "")

    def test_isolated(self):
        """A program that does not find its folder says so."""
        for _, _, error in self.ends(1, subprocess.PIPE, flags=["-I"]):
            self.assertRegex(error, r"^no lab here: .*\.pyz\n$")

    def test_interrupt_of_an_import(self):
        """Ctrl-C is no defect, however early."""
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "signal.py"), "w") as f:
                f.write("raise KeyboardInterrupt")
            for _, _, error in self.ends(130, subprocess.DEVNULL, env=dict(
                    PLAIN, PYTHONPATH=folder)):
                self.assertEqual(error, "\ninterrupted\n")

    def test_output_that_nobody_reads(self):
        """It ends a program in silence, with the status of SIGPIPE."""
        reader, writer = os.pipe()
        os.close(reader)
        self.addCleanup(os.close, writer)
        for _, _, error in self.ends(141, writer):
            self.assertEqual(error, "")

    @unittest.skipUnless(os.path.exists("/dev/full"), "needs Linux")
    def test_output_that_is_full(self):
        """That is said in one sentence."""
        with open("/dev/full", "w") as full:
            for name, _, error in self.ends(2, full):
                self.assertEqual(error, name + ".py: [Errno 28] No space left "
                                 "on device\n")

    def test_output_that_is_closed(self):
        """Then there is none, and that is all."""
        list(self.ends(0, None, ["sh", "-c", 'exec "$@" >&-', "sh"]))
