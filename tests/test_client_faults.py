"""What the client program says of each thing that goes wrong."""

import errno
import socket
import unittest

from echoserver.client.diagnosis import Failures, diagnose
from echoserver.client.errors import WrongEcho

from . import peers
from .faces import ClientTestCase
from .support import PATIENCE

ADDRESS = "host", 80
# An error, its exit code, and its line, which begins with its word.
TABLE = [
    (socket.gaierror(socket.EAI_AGAIN, "x"), 1, "DNS x"),
    (socket.gaierror(errno.EMFILE, "x"), 1, "DNS x"),
    (TimeoutError("x"), 1, "TIMEOUT x"),
    (OSError(errno.ETIMEDOUT, "x"), 1, "TIMEOUT x"),
    (OSError(errno.ECONNREFUSED, "x"), 1, "REFUSED x"),
    (OSError(errno.ECONNRESET, "x"), 1, "RESET x"),
    (OSError(errno.ECONNABORTED, "x"), 1, "RESET x"),
    (ConnectionError("x"), 1, "CLOSED x"),
    (OSError(errno.ENETUNREACH, "x"), 1, "UNREACHABLE x"),
    (OSError(errno.EHOSTUNREACH, "x"), 1, "UNREACHABLE x"),
    (WrongEcho(7, b"a", b"b"), 3, "WRONG host:80: wrong echo at offset 7: "),
    (OSError(errno.EMFILE, "x"), 2, "this host is out of descriptors; "),
    (OSError(errno.ENFILE, "x"), 2, "this host is out of descriptors; "),
    (OSError(errno.ENOBUFS, "x"), 2, "this host is out of network buffers; "),
    (MemoryError(), 2, "this host is out of memory; "),
    (OSError(errno.EADDRNOTAVAIL, "x"), 2, "x"),
]


class DiagnosisTests(unittest.TestCase):

    def test_words_and_codes(self):
        """Each kind of error has its exit code and its word."""
        for error, code, line in TABLE:
            with self.subTest(line):
                found = diagnose(error, ADDRESS)
                self.assertEqual((found[0], found[2][:len(line)]),
                                 (code, line))
                self.assertEqual(found[1], "SHORTAGE" if code == 2
                                 else line.split()[0])

    def test_worst_code(self):
        """The exit code of several failures is that of the worst."""
        for codes, worst in ([0, 1], 1), ([4, 1, 0], 4), ([4, 2, 1], 2), (
                [2, 3, 4, 1], 3):
            failures = Failures(ADDRESS)
            for code in codes:
                failures.worsen(code)
            self.assertEqual(failures.code, worst)


class FaceTests(ClientTestCase):

    def outcomes(self, *args):
        """Return the exit code of each face, and what it says of an error,
        with one message."""
        return [(code, [line for line in lines if not line.startswith(
            ("Connected to ", "The line "))]) for code, _, lines in (
                self.pipe(b"abc", *args), self.converse(b"abc\n", *args),
                self.count("-c", 1, *args))]

    def test_each_face(self):
        """It says it in one line and with the same code, before a connection
        is made and after."""
        refusing, silent = peers.nobody(), self.play(peers.hold)
        for address, code, text in (
                (refusing, 1, "REFUSED %s:%d ref.*is the server running"),
                (silent, 1, "TIMEOUT %s:%d acc.*but did not answer.*; .*"),
                (self.play(peers.corrupt), 3, "WRONG %s:%d: .*sent b")):
            for outcome in self.outcomes(
                    "-W", 0.1 if address is silent else PATIENCE, *address):
                self.assertEqual((outcome[0], len(outcome[1])), (code, 1))
                self.assertRegex(outcome[1][0], "^" + text % address)

    def test_name_that_forges_a_line(self):
        """It is shown escaped."""
        code, out, err = self.pipe(b"", "a\r\nREFUSED 10.0.0.1\33", 80)
        self.assertEqual((code, len(err)), (1, 1))
        self.assertIn("DNS a\\r\\nREFUSED 10.0.0.1\\x1b:80 ", err[0])

    def test_name_that_standard_output_has_not(self):
        """It is escaped."""
        code, out, err = self.count("b\xfccher.invalid", 80, "-c", 1,
                                    encoding="ascii")
        self.assertEqual((code, len(err)), (1, 1))
        self.assertIn(b"--- b\\xfccher.invalid:80, ", out)
