"""scripts/make_pyz.py: what it replaces, and what not."""

import contextlib
import io
import os
import stat
import sys
import tempfile
import unittest

from tests.support import ROOT, TestCase

SCRIPTS = os.path.join(ROOT, "scripts")
sys.path.insert(0, SCRIPTS)
try:
    import make_pyz
finally:
    sys.path.remove(SCRIPTS)


@unittest.skipUnless(hasattr(os, "mkfifo"), "needs POSIX")
class OutputTest(TestCase):

    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "it")
        self.link = os.path.join(folder.name, "link")
        os.symlink(self.path, self.link)

    def write(self, path):
        """Return the exit status of make_pyz, and what it complains of."""
        with contextlib.redirect_stdout(io.StringIO()), \
                contextlib.redirect_stderr(io.StringIO()) as err:
            return make_pyz.main(["-o", path]), err.getvalue()

    def test_what_is_no_file(self):
        """It stays what it is, also behind a symbolic link."""
        os.mkfifo(self.path)
        for path in self.path, self.link:
            self.assertEqual(self.write(path), (
                1, "cannot write %s: it is not a regular file\n" % path))
            self.assertTrue(stat.S_ISFIFO(os.stat(self.path).st_mode))

    def test_symbolic_link(self):
        """It leads to the new file."""
        self.assertEqual(self.write(self.link), (0, ""))
        self.assertTrue(os.path.islink(self.link))
        self.assertTrue(os.path.isfile(self.path))


if __name__ == "__main__":
    unittest.main()
