"""The scripts that pack and check: one file that is all, and no false "OK"."""

import contextlib
import hashlib
import importlib
import io
import os
import subprocess
import sys
import tempfile
import textwrap
import unittest
from unittest import mock

from .support import PATIENCE, ROOT, TestCase, python
from .models import posix_only

sys.path.insert(0, os.path.join(ROOT, "scripts"))
try:
    check = importlib.import_module("check")
    conformance = importlib.import_module("conformance")
    make_pyz = importlib.import_module("make_pyz")
finally:
    sys.path.pop(0)

PASSES = """
import unittest
class Tests(unittest.TestCase):
    def test_one(self): pass
    def test_two(self): pass
"""


class ScriptTestCase(TestCase):

    def folder(self):
        """Return a folder that goes when the test ends."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return folder.name

    def main(self, script, *args):
        """Return the exit status of a script, and what it prints."""
        with contextlib.redirect_stdout(io.StringIO()) as out:
            return script.main(list(args)), out.getvalue()


class PackTests(ScriptTestCase):

    def pack(self):
        """Return the path of a new echoserver.pyz."""
        path = os.path.join(self.folder(), "echoserver.pyz")
        status, out = self.main(make_pyz, "-o", path)
        with open(path, "rb") as f:
            self.assertEqual(out, "%s  %s\n" % (
                hashlib.sha256(f.read()).hexdigest(), path))
        self.assertEqual(status, 0)
        return path

    def begin(self, *command):
        """Start a Python away from the sources, with pipes."""
        process = subprocess.Popen(
            python(*command), cwd=self.folder(), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(self._end, process)
        return process

    def test_pack_twice(self):
        """The bytes are the same, whenever the sources were written."""
        written = []
        for date in 1e9, 1.5e9:
            with mock.patch("time.time", return_value=date):
                with open(self.pack(), "rb") as f:
                    written.append(f.read())
        self.assertEqual(*written)
        self.assertIn(b"EchoServer", written[0])

    def test_pack_where_it_cannot_be(self):
        """One sentence says so."""
        path = os.path.join(self.folder(), "missing", "echoserver.pyz")
        with contextlib.redirect_stderr(io.StringIO()) as err:
            self.assertEqual(self.main(make_pyz, "-o", path), (1, ""))
        self.assertRegex(err.getvalue(), "^cannot write .*missing.*\n$")

    def test_pack_over_a_folder(self):
        """What cannot be put in its place does not stay beside it."""
        folder = self.folder()
        path = os.path.join(folder, "echoserver.pyz")
        os.mkdir(path)
        with contextlib.redirect_stderr(io.StringIO()):
            self.assertEqual(self.main(make_pyz, "-o", path), (1, ""))
        self.assertEqual(os.listdir(folder), ["echoserver.pyz"])

    def test_packed_programs(self):
        """The file is the server, and with the word client the client."""
        path = self.pack()
        server = self.begin(path, "0")
        line = self.read_line(server.stdout, "the ready line").decode()
        client = self.begin(path, "client", *line.split()[4:7:2])
        self.assertEqual(client.communicate(b"hello", PATIENCE),
                         (b"HELLO", b""))
        self.assertEqual(client.returncode, 0)

    def test_packed_help(self):
        """Each program's usage shows how it is run from the file; that of the
        server leads to the client."""
        path = self.pack()
        begun = self.begin(path, "--help"), self.begin(path, "client", "-h")
        texts = [process.communicate(timeout=PATIENCE)[0].decode()
                 for process in begun]
        for text, usage in zip(texts, ("", " client")):
            self.assertRegex(
                text, r"^usage: (python3 )?echoserver\.pyz%s \[-h\]" % usage)
        self.assertIn("echoserver.pyz client [host] [port]", texts[0])


class CheckTests(ScriptTestCase):

    def check(self, code, least=2):
        """Return what the check of unit tests finds in these."""
        root = self.folder()
        with open(os.path.join(root, "test_it.py"), "w") as f:
            f.write(textwrap.dedent(code))
        with mock.patch.object(check, "ROOT", root), \
                mock.patch.object(check, "LEAST", least):
            return check.check_tests(sys.executable)

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
                status, out = self.main(check, *args)
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
                status, out = self.main(check, sys.executable)
            self.assertEqual(status, "0 failed" not in sum_line)
            self.assertEqual(out.splitlines()[-1], sum_line)
            self.assertIn("it isn't the day", out)
            self.assertEqual("words" in out, bad in results)

    def test_check_without_mypy(self):
        """It is skipped, and that is said."""
        with mock.patch("shutil.which", return_value=None):
            self.assertEqual(check.check_types()[:4], (
                0, 0, [], ["skipped: mypy is not installed"]))


class ConformanceTests(ScriptTestCase):

    def test_conformance_without_the_tests(self):
        """It is skipped aloud, and no failure, for check.py either."""
        with mock.patch.object(conformance, "has_tests", return_value=False), \
                contextlib.redirect_stdout(io.StringIO()) as out:
            status = conformance.main()
        self.assertRegex(out.getvalue(), "^skipped: ")
        self.assertEqual(
            check.judge_conformance(out.getvalue(), status, [])[:4],
            (0, 0, [], [out.getvalue().strip()]))

    def test_conformance_as_check_reads_it(self):
        """Its last line counts; without one it has failed."""
        for output, status, passed, failed in (
                ("OK\n8 passed, 0 failed\n", 0, 8, 0),
                ("OK\n8 passed, 0 failed, 2 skipped\n", 0, 8, 0),
                ("OK\n8 passed, 2 failed\n", 1, 8, 2),
                ("OK\n0 passed, 0 failed\n", 1, 0, 2),
                ("Traceback\n", 1, 0, 2)):
            with self.subTest(output):
                self.assertEqual(check.judge_conformance(
                    output, status, [])[:2], (passed, failed))

    def test_conformance_and_tests_that_are_not_there(self):
        """What find_spec says of a package without test is no error."""
        for answer in {"return_value": None}, {"side_effect": ImportError}:
            with mock.patch("importlib.util.find_spec", **answer):
                self.assertFalse(conformance.has_tests())


if __name__ == "__main__":
    unittest.main()
