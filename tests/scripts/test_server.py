"""The server as the scripts start it: none is left behind."""

import os
import subprocess
import sys
import unittest
from unittest import mock

from tests.support import ROOT, TestCase

SCRIPTS = os.path.join(ROOT, "scripts")
sys.path.insert(0, SCRIPTS)
try:
    from lab.server import Server
finally:
    sys.path.remove(SCRIPTS)


class Interrupted(subprocess.Popen):
    """A process that is waited for when Ctrl-C comes."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.stdout = mock.Mock(wraps=self.stdout)
        self.stdout.readline.side_effect = KeyboardInterrupt


class ServerTest(TestCase):

    def test_interrupt_while_it_starts(self):
        """It leaves no process, no thread and no descriptor."""
        with mock.patch("subprocess.Popen", Interrupted), \
                self.assertRaises(KeyboardInterrupt):
            Server("threads")


if __name__ == "__main__":
    unittest.main()
