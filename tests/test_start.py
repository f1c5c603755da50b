"""The programs, however they are started: by their path, copied, or packed by
scripts/make_pyz.py."""

import contextlib
import hashlib
import io
import os
import shutil
import stat
import tempfile
import unittest
from unittest import mock

from .support import PATIENCE, ROOT, TestCase, python, scripts_importable

with scripts_importable():
    import make_pyz


class StartTest(TestCase):

    def setUp(self):
        super().setUp()
        self.folder = self.enter(tempfile.TemporaryDirectory())
        self.path = os.path.join(self.folder, "echoserver.pyz")

    def begin(self, *args):
        """Start a program away from the sources, with pipes."""
        return self.run_command(python("-W", "error", *args), cwd=self.folder)

    def says(self, *args):
        """Return the exit code and all that a program has said."""
        process = self.begin(*args)
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, (out + err).decode()

    def test_by_path(self):
        """The folder of a program is a program, wherever it stands."""
        copy = os.path.join(self.folder, "uppercase")
        shutil.copytree(os.path.join(ROOT, "echoserver"), copy)
        for folder in copy, os.path.join(copy, "client"):
            with self.subTest(folder=folder):
                self.assertRegex(self.says(folder, "--version")[1],
                                 r"^echoserver [0-9.]+\n$")

    def test_client_alone(self):
        """A copy of client/ says in one line what is missing."""
        shutil.copytree(os.path.join(ROOT, "echoserver", "client"),
                        os.path.join(self.folder, "client"))
        for args in ["client"], ["-m", "client"]:
            code, line = self.says(*args)
            self.assertRegex(line, r"^the folder client/ .*\n$")
            self.assertEqual(code, 1)

    def main(self, path):
        """Return what make_pyz returns, prints, and says of an error."""
        with contextlib.redirect_stdout(io.StringIO()) as out, \
                contextlib.redirect_stderr(io.StringIO()) as err:
            status = make_pyz.main(["-o", path])
        return status, out.getvalue(), err.getvalue()

    def pack(self, path=None):
        """Return the bytes of a new file, whose sum is printed."""
        path = path or self.path
        outcome = self.main(path)
        with open(path, "rb") as f:
            data = f.read()
        self.assertEqual(outcome, (0, "%s  %s\n" % (
            hashlib.sha256(data).hexdigest(), path), ""))
        return data

    def test_pack_twice(self):
        """The bytes are the same, whenever the sources were written."""
        written = []
        for date in 1e9, 1.5e9:
            with mock.patch("time.time", return_value=date):
                written.append(self.pack())
        self.assertEqual(*written)

    def test_pack_where_it_cannot_be(self):
        """One sentence says so, and nothing stays beside it."""
        os.mkdir(self.path)
        self.assertEqual(self.main(self.path)[0], 1)
        self.assertEqual(os.listdir(self.folder), ["echoserver.pyz"])
        status, _, err = self.main(os.path.join(self.folder, "missing", "it"))
        self.assertRegex(err, "^cannot write .*missing.*\n$")

    @unittest.skipUnless(hasattr(os, "mkfifo"), "needs POSIX")
    def test_pack_over_what_is_no_file(self):
        """It stays what it is, also behind a symbolic link."""
        link = os.path.join(self.folder, "link")
        os.symlink(self.path, link)
        os.mkfifo(self.path)
        for path in self.path, link:
            self.assertEqual(self.main(path), (
                1, "", "cannot write %s: it is not a regular file\n" % path))
            self.assertTrue(stat.S_ISFIFO(os.stat(self.path).st_mode))
        self.assertEqual(len(os.listdir(self.folder)), 2)

    @unittest.skipUnless(hasattr(os, "mkfifo"), "needs POSIX")
    def test_pack_through_links(self):
        """The link that is named leads to the new file; no other link is
        followed, and no other file is left."""
        link, victim = (os.path.join(self.folder, name)
                        for name in ("link", "victim"))
        os.symlink(self.path, link)
        os.symlink(victim, self.path + ".new")
        data = self.pack(link)
        with open(self.path, "rb") as f:
            self.assertEqual(f.read(), data)
        self.assertTrue(os.access(self.path, os.X_OK))
        self.assertEqual(sorted(os.listdir(self.folder)), [
            "echoserver.pyz", "echoserver.pyz.new", "link"])

    def test_packed_programs(self):
        """The file is the server, and with the word client the client."""
        self.pack()
        server = self.begin(self.path, "0")
        line = self.read_line(server.stdout, "the ready line").decode()
        client = self.begin(self.path, "client", *line.split()[4:7:2])
        self.assertEqual(client.communicate(b"hello", PATIENCE),
                         (b"HELLO", b""))
        self.assertEqual(client.returncode, 0)
