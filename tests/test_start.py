"""The programs, however they are started or copied."""

import os
import shutil
import subprocess
import tempfile

from .support import PATIENCE, ROOT, TestCase, python


class StartTest(TestCase):

    def says(self, *args, **options):
        """Return the exit code and all that a program has said."""
        process = subprocess.run(
            python("-W", "error", *args), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=PATIENCE, **options)
        return process.returncode, process.stdout.decode()

    def test_by_path(self):
        """The folder of a program is a program, wherever it stands."""
        with tempfile.TemporaryDirectory() as elsewhere:
            copy = os.path.join(elsewhere, "uppercase")
            shutil.copytree(os.path.join(ROOT, "echoserver"), copy)
            for folder in copy, os.path.join(copy, "client"):
                with self.subTest(folder=folder):
                    self.assertRegex(
                        self.says(folder, "--version", cwd=elsewhere)[1],
                        r"^echoserver [0-9.]+\n$")

    def test_client_alone(self):
        """A copy of client/ says in one line what is missing."""
        with tempfile.TemporaryDirectory() as elsewhere:
            shutil.copytree(os.path.join(ROOT, "echoserver", "client"),
                            os.path.join(elsewhere, "client"))
            for args in ["client"], ["-m", "client"]:
                code, line = self.says(*args, cwd=elsewhere)
                self.assertRegex(line, r"^the folder client/ .*\n$")
                self.assertEqual(code, 1)
