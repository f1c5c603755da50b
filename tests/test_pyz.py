"""scripts/make_pyz.py: one file that is all."""

import contextlib
import hashlib
import importlib
import io
import os
import subprocess
import sys
import tempfile
from unittest import mock

from .support import PATIENCE, ROOT, TestCase, python

sys.path.insert(0, os.path.join(ROOT, "scripts"))
try:
    make_pyz = importlib.import_module("make_pyz")
finally:
    sys.path.pop(0)


class PackTest(TestCase):

    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.path = os.path.join(self.folder, "echoserver.pyz")

    def main(self):
        """Return what make_pyz returns, prints, and says of an error."""
        with contextlib.redirect_stdout(io.StringIO()) as out, \
                contextlib.redirect_stderr(io.StringIO()) as err:
            status = make_pyz.main(["-o", self.path])
        return status, out.getvalue(), err.getvalue()

    def pack(self):
        """Return the bytes of a new file, whose sum is printed."""
        outcome = self.main()
        with open(self.path, "rb") as f:
            data = f.read()
        self.assertEqual(outcome, (0, "%s  %s\n" % (
            hashlib.sha256(data).hexdigest(), self.path), ""))
        return data

    def begin(self, *command):
        """Start the file away from the sources, with pipes."""
        process = subprocess.Popen(
            python(self.path, *command), cwd=self.folder,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE)
        self.addCleanup(self._end, process)
        return process

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
        self.assertEqual(self.main()[0], 1)
        self.assertEqual(os.listdir(self.folder), ["echoserver.pyz"])
        self.path = os.path.join(self.folder, "missing", "echoserver.pyz")
        status, _, err = self.main()
        self.assertRegex(err, "^cannot write .*missing.*\n$")

    def test_packed_programs(self):
        """The file is the server, and with the word client the client."""
        self.pack()
        server = self.begin("0")
        line = self.read_line(server.stdout, "the ready line").decode()
        client = self.begin("client", *line.split()[4:7:2])
        self.assertEqual(client.communicate(b"hello", PATIENCE),
                         (b"HELLO", b""))
        self.assertEqual(client.returncode, 0)
