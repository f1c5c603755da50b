"""A short run of scripts/rolling.py."""

import os
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
