"""A short run of scripts/rolling.py, and the configuration that the README
shows."""

import os
import re
import shutil
import unittest

from tests.support import PATIENCE, ROOT, TestCase, python

SCRIPT = os.path.join(ROOT, "scripts", "rolling.py")
PATH = os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin"


class RollingTest(TestCase):

    @unittest.skipUnless(shutil.which("haproxy", path=PATH), "needs haproxy")
    def test_restarts_lose_nothing(self):
        """Each server is restarted twice, and every exchange is whole."""
        process = self.run_command(python(SCRIPT, "--restarts", "4",
                                          "--seconds", "2"))
        # which ends its servers and HAProxy, too, if it still runs
        self.addCleanup(process.terminate)
        output = process.communicate(timeout=5 * PATIENCE)[0].decode()
        self.assertEqual(process.returncode, 0, output)
        for line in "restarts +4", "exchanges +[1-9].*", "failed +0":
            self.assertRegex(output, "(?m)^%s$" % line)

    def test_configuration_in_the_readme(self):
        """Each of its lines is one that is run here, but for addresses."""
        with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
            block, = re.findall("```\n(defaults\n.*?)```", f.read(), re.S)
        with open(os.path.join(ROOT, "scripts", "lab", "haproxy.cfg")) as f:
            run = {line.strip() for line in f}
        shown = {line.split("#")[0].strip() for line in block.splitlines()}
        self.assertGreater(len(shown), 12)
        self.assertEqual([line for line in shown - run
                          if not re.match("bind|server ", line)], [])


if __name__ == "__main__":
    unittest.main()
