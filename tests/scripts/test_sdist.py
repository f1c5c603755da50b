"""The source distribution: all of the project is in it."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest

from tests.support import PATIENCE, ROOT, TestCase

BUILD = "import setuptools; setuptools.setup()"


def git_files():
    """Return the names of the project's files, or None without git."""
    if shutil.which("git") is None:
        return None
    listed = subprocess.run(["git", "ls-files", "-co",
                             "--exclude-standard"], cwd=ROOT,
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return set(listed.stdout.decode().split()) or None


class SdistTest(TestCase):

    @unittest.skipUnless(importlib.util.find_spec("setuptools"),
                         "needs setuptools")
    @unittest.skipUnless(git_files(), "needs a git checkout")
    def test_every_file_is_in_it(self):
        """Tests, scripts and what else there is; so its suite is ours."""
        with tempfile.TemporaryDirectory() as folder:
            # in its own process, and without -W error: setuptools warns
            subprocess.run(
                [sys.executable, "-c", BUILD, "-q", "egg_info", "-e", folder,
                 "sdist", "-d", folder, "--formats=tar"], cwd=ROOT,
                check=True, timeout=5 * PATIENCE, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL)
            name, = (each for each in os.listdir(folder)
                     if each.endswith(".tar"))
            with tarfile.open(os.path.join(folder, name)) as archive:
                held = {member.name.partition("/")[2]
                        for member in archive if member.isfile()}
        self.assertEqual(git_files() - held, set())
        self.assertEqual([each for each in held - git_files()
                          if each != "PKG-INFO"
                          and not each.startswith("echoserver.egg-info")], [])
