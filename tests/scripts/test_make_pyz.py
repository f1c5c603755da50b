"""scripts/make_pyz.py: what it replaces, and what not."""

import hashlib
import os
import stat
import subprocess
import tempfile
import unittest

from tests.support import PATIENCE, ROOT, TestCase, python


@unittest.skipUnless(hasattr(os, "mkfifo"), "needs POSIX")
class OutputTest(TestCase):

    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.path = os.path.join(folder.name, "it")
        self.link = os.path.join(folder.name, "link")
        os.symlink(self.path, self.link)

    def write(self, path):
        """Return the exit status of make_pyz, and what it says."""
        run = subprocess.run(
            python(os.path.join(ROOT, "scripts", "make_pyz.py"), "-o", path),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE)
        return run.returncode, run.stdout.decode()

    def test_what_is_no_file(self):
        """It stays what it is, also behind a symbolic link."""
        os.mkfifo(self.path)
        for path in self.path, self.link:
            self.assertEqual(self.write(path), (
                1, "cannot write %s: it is not a regular file\n" % path))
            self.assertTrue(stat.S_ISFIFO(os.stat(self.path).st_mode))
        self.assertEqual(sorted(os.listdir(self.folder)), ["it", "link"])

    def test_links_of_others(self):
        """The link that is named leads to the new file, whose sum is printed;
        no other link is followed, and no other file is left."""
        victim = os.path.join(self.folder, "victim")
        os.symlink(victim, self.path + ".new")
        status, said = self.write(self.link)
        self.assertEqual(status, 0, said)
        with open(self.path, "rb") as f:
            self.assertEqual(said, "%s  %s\n" % (
                hashlib.sha256(f.read()).hexdigest(), self.link))
        self.assertTrue(os.access(self.path, os.X_OK))
        self.assertEqual(sorted(os.listdir(self.folder)),
                         ["it", "it.new", "link"])


if __name__ == "__main__":
    unittest.main()
