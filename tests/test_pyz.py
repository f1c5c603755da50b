"""scripts/make_pyz.py: one file that is all."""

import contextlib
import hashlib
import importlib
import io
import os
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

from .support import PATIENCE, ROOT, TestCase, python

sys.path.insert(0, os.path.join(ROOT, "scripts"))
try:
    make_pyz = importlib.import_module("make_pyz")
finally:
    sys.path.pop(0)


class PackTests(TestCase):

    def folder(self):
        """Return a folder that goes when the test ends."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return folder.name

    def main(self, *args):
        """Return the exit status of make_pyz, and what it prints."""
        with contextlib.redirect_stdout(io.StringIO()) as out:
            return make_pyz.main(list(args)), out.getvalue()

    def pack(self):
        """Return the path of a new echoserver.pyz."""
        path = os.path.join(self.folder(), "echoserver.pyz")
        status, out = self.main("-o", path)
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
            self.assertEqual(self.main("-o", path), (1, ""))
        self.assertRegex(err.getvalue(), "^cannot write .*missing.*\n$")

    def test_pack_over_a_folder(self):
        """What cannot be put in its place does not stay beside it."""
        folder = self.folder()
        path = os.path.join(folder, "echoserver.pyz")
        os.mkdir(path)
        with contextlib.redirect_stderr(io.StringIO()):
            self.assertEqual(self.main("-o", path), (1, ""))
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
                text, r"^usage: (python\S* )?echoserver\.pyz%s \[-h\]" % usage)
        self.assertIn("echoserver.pyz client [host] [port]", texts[0])


if __name__ == "__main__":
    unittest.main()
