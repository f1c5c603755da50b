"""How the programs of scripts/ end when it is not their fault."""

import os
import subprocess
import tempfile
import unittest

from tests.support import PATIENCE, PLAIN, ROOT, TestCase, python

SCRIPTS = os.path.join(ROOT, "scripts")

# Each with what it prints at once.
PROGRAMS = {"lesson": "--list", "soak": "--help", "bench": "--help",
            "rolling": "--help", "check": "--help", "make_pyz": "--help"}

# A load process that meets Ctrl-C before it does anything else.
EARLY = """\
import multiprocessing, os, signal
from lab import beside
def early(*args, serve=beside._serve):
    os.kill(os.getpid(), signal.SIGINT)
    serve(*args)
beside._serve = early
multiprocessing.set_start_method("fork")
with beside.Beside(("127.0.0.1", 9), []) as load:
    print(load.take_tally().replies)
"""


@unittest.skipUnless(os.name == "posix", "needs signals")
class ProgramsTest(TestCase):

    def ends(self, status, told, stdout, *begin, env=PLAIN):
        """See how each program ends, and what it says of that."""
        runs = [(name, self.run_command(
            list(begin) + python(os.path.join(SCRIPTS, name + ".py"), words),
            env=env, stdout=stdout)) for name, words in PROGRAMS.items()]
        for name, process in runs:
            error = process.communicate(timeout=PATIENCE)[1].decode()
            self.assertEqual((name, process.returncode, error),
                             (name, status, told.format(name)))

    def test_interrupt_of_an_import(self):
        """Ctrl-C is no defect, however early."""
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "signal.py"), "w") as f:
                f.write("raise KeyboardInterrupt")
            self.ends(130, "\ninterrupted\n", subprocess.DEVNULL,
                      env=dict(PLAIN, PYTHONPATH=folder))

    def test_output_that_nobody_reads(self):
        """It ends a program in silence, with the status of SIGPIPE."""
        reader, writer = os.pipe()
        os.close(reader)
        self.addCleanup(os.close, writer)
        self.ends(141, "", writer)

    @unittest.skipUnless(os.path.exists("/dev/full"), "needs Linux")
    def test_output_that_is_full(self):
        """That is said in one sentence."""
        with open("/dev/full", "w") as full:
            self.ends(2, "{}.py: [Errno 28] No space left on device\n", full)

    def test_output_that_is_closed(self):
        """Then there is none, and that is all."""
        for name, words in PROGRAMS.items():
            process = self.run_command(
                ["sh", "-c", 'exec "$@" >&-', "sh"] + python(
                    os.path.join(SCRIPTS, name + ".py"), words))
            error = process.communicate(timeout=PATIENCE)[1]
            self.assertEqual((name, process.returncode), (name, 0), error)

    def test_interrupt_of_a_load(self):
        """It is for those who have begun the load."""
        process = self.run_python("-c", EARLY,
                                  env=dict(PLAIN, PYTHONPATH=SCRIPTS))
        self.assertEqual(process.communicate(timeout=PATIENCE), (b"0\n", b""))
        self.assertEqual(process.returncode, 0)


if __name__ == "__main__":
    unittest.main()
