"""A short run of scripts/rolling.py, and the configuration that the README
shows."""

import contextlib
import io
import os
import re
import subprocess
import sys
import unittest
from unittest import mock

from tests.support import PATIENCE, ROOT, TestCase, python

SCRIPTS = os.path.join(ROOT, "scripts")
sys.path.insert(0, SCRIPTS)
try:
    import rolling
finally:
    sys.path.remove(SCRIPTS)


class RollingTest(TestCase):

    @unittest.skipUnless(rolling.find_haproxy(), "needs haproxy")
    def test_restarts_lose_nothing(self):
        """Each server is restarted twice, and every exchange is whole."""
        process = subprocess.Popen(
            python(os.path.join(SCRIPTS, "rolling.py"), "--restarts", "4",
                   "--seconds", "2"), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        # which ends its servers and HAProxy, too, if it still runs
        self.addCleanup(process.terminate)
        output = process.communicate(timeout=5 * PATIENCE)[0].decode()
        self.assertEqual(process.returncode, 0, output)
        for line in "restarts +4", "exchanges +[1-9].*", "failed +0":
            self.assertRegex(output, "(?m)^%s$" % line)

    def test_no_haproxy(self):
        """That is said, and the exit status is one of its own."""
        with mock.patch("shutil.which", return_value=None), \
                contextlib.redirect_stdout(io.StringIO()) as out:
            self.assertEqual(rolling.main([]), 77)
        self.assertRegex(out.getvalue(), "^SKIPPED: .*haproxy")

    def test_wrong_arguments(self):
        """A run that would show nothing is refused."""
        for words in (["--restarts", "0"], ["--restarts", "-1"],
                      ["--seconds", "nan"]):
            with contextlib.redirect_stderr(io.StringIO()) as err, \
                    self.assertRaises(SystemExit):
                rolling.main(words)
            self.assertIn(words[1] + " is not a number above 0",
                          err.getvalue())

    def test_configuration_in_the_readme(self):
        """Each of its lines is one that is run here, but for addresses."""
        with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
            block, = re.findall("```\n(defaults\n.*?)```", f.read(), re.S)
        shown = {line.split("#")[0].strip() for line in block.splitlines()}
        run = {line.strip() for line in rolling.CONFIGURATION.splitlines()}
        self.assertGreater(len(shown), 12)
        self.assertEqual([line for line in shown - run
                          if not re.match("bind|server ", line)], [])


if __name__ == "__main__":
    unittest.main()
