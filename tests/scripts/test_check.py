"""scripts/check.py: no false "OK"."""

import contextlib
import io
import os
import sys
import tempfile
import textwrap
import unittest
from unittest import mock

from tests.support import ROOT, TestCase

SCRIPTS = os.path.join(ROOT, "scripts")
sys.path.insert(0, SCRIPTS)
try:
    import check
finally:
    sys.path.remove(SCRIPTS)

PASSES = """
import unittest
class Tests(unittest.TestCase):
    def test_one(self): pass
    def test_two(self): pass
"""

posix_only = unittest.skipUnless(os.name == "posix", "needs fork")


def main(*args):
    """Return the exit status of check.py, and what it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        return check.main(list(args)), out.getvalue()


class CheckTests(TestCase):

    def folder(self):
        """Return a folder that goes when the test ends."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return folder.name

    def check(self, code, least=2):
        """Return what the check of unit tests finds in these."""
        root = self.folder()
        with open(os.path.join(root, "test_it.py"), "w") as f:
            f.write(textwrap.dedent(code))
        with mock.patch.object(check, "ROOT", root):
            return check.check_tests(sys.executable, least, "-v")

    def test_check_of_tests_that_pass(self):
        """They are counted."""
        result = self.check(PASSES)
        self.assertEqual(result[:4], (2, 0, [], []))

    def test_check_of_few_tests(self):
        """That they pass is not enough, and none at all is no success."""
        self.assertEqual(self.check(PASSES, least=3)[:3], (
            2, 1, ["2 tests are too few: there are 3 and more"]))
        self.assertGreater(self.check("")[1], 0)

    def test_check_of_tests_that_fail(self):
        """Each counts once; what is skipped has not passed, and is told."""
        result = self.check(PASSES + """
    def test_three(self): self.fail()
    def test_four(self): 1 / 0
    def test_five(self): self.skipTest("it isn't the day")""")
        self.assertEqual(result[:4], (
            2, 2, [], ["1 skipped: it isn't the day"]))
        self.assertIn("ZeroDivisionError", result.output)

    def test_check_of_tests_that_leak(self):
        """A complaint that fails no test fails the check."""
        result = self.check(PASSES + """
    def test_three(self):
        import socket
        socket.socket()
        import gc; gc.collect()""")
        self.assertEqual((result[0], bool(result[1])), (3, True), result)
        self.assertTrue(any("ResourceWarning" in line
                            for line in result.problems), result)

    @posix_only
    def test_check_of_tests_that_leave_a_process(self):
        """It is found and ended, though it holds the output open."""
        with mock.patch.object(check, "LINGER", 0.1):
            result = self.check(PASSES + """
    def test_three(self):
        import os, signal
        if not os.fork():
            signal.pause()""")
        self.assertEqual(result[:3], (3, 1, ["processes were left behind"]))

    @posix_only
    def test_check_of_tests_that_do_not_end(self):
        """They are ended, with all that they have started."""
        with mock.patch.object(check, "PATIENCE", 0.3):
            result = self.check(PASSES + """
    def test_three(self):
        import os, signal
        os.fork()
        signal.pause()""")
        self.assertIn("no end after 0.3 seconds", result.problems)

    def test_check_of_tests_that_crash(self):
        """An end without a sum is a failure."""
        result = self.check(PASSES + """
    def test_three(self):
        import os; os._exit(3)""")
        self.assertIn("exit status 3", result.problems)
        self.assertEqual(result.passed, 0)

    def test_check_without_a_python(self):
        """To have found none is a failure, as is a named one that is not."""
        missing = os.path.join(self.folder(), "python3")
        with mock.patch.object(check, "candidates", return_value=[]), \
                mock.patch.object(check, "checks", return_value=[]):
            for args in (), (missing,), (sys.executable, missing):
                status, out = main(*args)
                self.assertEqual(status, 1)
                self.assertIn("no Python 3.6 or newer: ", out)
                self.assertTrue(out.endswith("\n0 passed, 1 failed\n"), out)

    def test_pythons_that_are_one(self):
        """What leads to the same Python counts once; what runs none, or an
        old one, not at all."""
        old = mock.Mock(stdout=b'[[3, 5, 10], "python3.5"]')
        self.assertEqual(len(check.supported([sys.executable] * 2)), 1)
        self.assertIs(check.ask(ROOT), None)
        with mock.patch("subprocess.run", return_value=old):
            self.assertEqual(check.supported(["python3.5"]), [])

    def test_sum_of_the_checks(self):
        """The last line adds up, and one failure is enough."""
        good = check.Result(5, notes=["1 skipped: it isn't the day"])
        bad = check.Result(3, 1, ["exit status 1"], output="\nwords\n")
        for results, sum_line in (([good, good], "10 passed, 0 failed"),
                                  ([good, bad], "8 passed, 1 failed")):
            todo = [("check", mock.Mock(return_value=result))
                    for result in results]
            with mock.patch.object(check, "checks", return_value=todo):
                status, out = main(sys.executable)
            self.assertEqual(status, "0 failed" not in sum_line)
            self.assertEqual(out.splitlines()[-1], sum_line)
            self.assertIn("it isn't the day", out)
            self.assertEqual("words" in out, bad in results)

    def test_tests_that_are_skipped(self):
        """Where CPython's tests are not installed, all are, which is told and
        is no failure."""
        result = self.check("""
import unittest
@unittest.skip("comes without")
class Tests(unittest.TestCase):
    def test_one(self): pass""", least=1)
        self.assertEqual(result[:4], (0, 0, [], ["1 skipped: comes without"]))

    def test_folder_without_tests(self):
        """The README's command says OK there, or nothing; the check fails."""
        with mock.patch.object(check, "ROOT", self.folder()), \
                mock.patch.object(check, "checks", lambda pythons: [
                    ("unit tests", lambda: check.check_tests(
                        sys.executable, check.LEAST, "-v"))]):
            status, out = main(sys.executable)
        self.assertEqual(status, 1)
        self.assertRegex(out, "0 tests are too few")
        self.assertRegex(out, r"\n0 passed, [1-9] failed\n$")

    def test_each_python_is_checked(self):
        """The oldest and the newest with the tests of the scripts, too."""
        titles = [title.split() for title, _ in check.checks(
            [((3, number), "python3.%d" % number) for number in (6, 9, 15)])]
        self.assertEqual(
            [" ".join(title[1:]) for title in titles if title[0] == "3.9"],
            ["unit tests", "conformance"])
        self.assertEqual([title[0] for title in titles if "scripts" in title],
                         ["3.6", "3.15"])

    def test_no_mypy(self):
        """It is skipped, and that is said."""
        with mock.patch("shutil.which", return_value=None):
            self.assertEqual(check.check_types()[:4], (
                0, 0, [], ["skipped: mypy is not installed"]))


    def readme(self, text, *run):
        """Return what is found in such a README, and the calls of run()."""
        root = self.folder()
        with open(os.path.join(root, "README.md"), "w") as f:
            f.write(text)
        with mock.patch.object(check, "ROOT", root), \
                mock.patch("shutil.which", return_value="mypy"), \
                mock.patch.object(check, "run", side_effect=run) as runs:
            return check.check_readme(), runs.call_args_list

    def test_readme_that_does_not_tell_how_to_test(self):
        """Others look for the command there."""
        result, _ = self.readme("```\npython3 -m unittest2\n```\n")
        self.assertEqual(result[:3], (
            0, 1, ["no line is python3 -m unittest"]))

    def test_readme_that_shows_python(self):
        """All of it is read by mypy, and nothing else."""
        text = ("```\npython3 -m unittest  # tests\n```\n```python\na = 1\n"
                "```\n```\nb\n```\n```python\nc = 2\n```\n")
        for output, status, passed in ("fine", 0, 2), ("error", 1, 1):
            result, calls = self.readme(text, (output, status, []))
            self.assertEqual(result[:2], (passed, status))
            self.assertEqual(calls[0][0][-2:], ("-c", "a = 1\n\nc = 2\n"))


if __name__ == "__main__":
    unittest.main()
