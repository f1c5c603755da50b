"""A run of scripts/check.sh on a small project."""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest

from tests.support import PATIENCE, PLAIN, ROOT, TestCase

PASSES = """
import unittest
class Tests(unittest.TestCase):
    pass
for number in range(300):
    setattr(Tests, "test_%d" % number, lambda self: None)
"""
FAILS = PASSES + """
def test_fails(self): self.fail()
def test_day(self): self.skipTest("it isn't the day")
def test_leaks(self): open(__file__)
Tests.test_fails, Tests.test_day, Tests.test_leaks = (
    test_fails, test_day, test_leaks)
"""


@unittest.skipUnless(shutil.which("bash"), "needs bash")
class CheckTest(TestCase):

    def check(self, tests, python=sys.executable):
        """Return the exit status and the lines, for such a suite."""
        with tempfile.TemporaryDirectory() as folder:
            os.makedirs(os.path.join(folder, "tests", "scripts"))
            os.mkdir(os.path.join(folder, "scripts"))
            shutil.copy(os.path.join(ROOT, "scripts", "check.sh"),
                        os.path.join(folder, "scripts"))
            for name, text in (("__init__.py", ""), ("test_it.py", tests),
                               ("conformance.py", PASSES),
                               ("scripts/test_it.py", PASSES)):
                with open(os.path.join(folder, "tests", name), "w") as f:
                    f.write(text)
            process = self.run_command(
                ["bash", os.path.join(folder, "scripts", "check.sh"), python],
                stderr=subprocess.STDOUT,
                env=dict(PLAIN, PATH="/usr/bin:/bin"))
            said = process.communicate(timeout=5 * PATIENCE)[0].decode()
        return process.returncode, said

    def test_failures(self):
        """What fails and what leaks is counted and shown, and why a test was
        skipped; all runs of the suite and others are added up."""
        status, said = self.check(FAILS)
        self.assertEqual(status, 1, said)
        self.assertRegex(said, r" suite +301 passed +2 failed\n")
        self.assertRegex(said, r" 1 skipped: it isn't the day\n")
        self.assertIn("FAIL: test_fails", said)
        self.assertRegex(said, r"\n120[0-9] passed, [34] failed\n$")

    def test_no_python(self):
        """That is no success."""
        status, said = self.check(PASSES, "/bin/false")
        self.assertEqual(status, 1)
        self.assertRegex(said, r"\n0 passed, 1 failed\n$")
