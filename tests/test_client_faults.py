"""What each face of the client program says of each thing that goes wrong."""

import errno
import socket
import threading
from unittest import mock

from . import peers
from .faces import ClientTestCase
from .support import PATIENCE


def partly(then):
    """Return a script that answers one byte only, and plays then."""
    def script(connection):
        connection.sendall(connection.recv(1 << 16)[:1].upper())
        then(connection)
    return script


def and_more(connection):
    """Answer, and say something more."""
    connection.sendall(connection.recv(1 << 16).upper() + b"\n")
    peers.mute(connection)


def http(connection):
    """Answer as a web server does."""
    connection.recv(1 << 16)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    peers.mute(connection)


# A server that does this, exit code, word, and what the line says besides.
TABLE = [
    ("an early end", partly(peers.end), 1, "CLOSED", "bytes unanswered; it "),
    ("a cut", partly(peers.cut), 1, "RESET", "bytes unanswered; the server"),
    ("an end before any reply", peers.after(0, peers.end, request=3), 1,
     "CLOSED", "accepted the connection after .* expects TLS, or is a proxy"),
    ("an answer of HTTP", http, 3, "WRONG", r"b'HTTP/1\.1 400 Bad"),
    ("a wrong byte", peers.corrupt, 3, "WRONG", r"offset \d+: sent b"),
    ("no upper case", peers.verbatim, 3, "WRONG", r"offset \d+: sent b"),
    ("a greeting", peers.banner, 3, "WRONG", r"offset 0: .* got b'220 mail"),
    ("an addition", and_more, 3, "WRONG", "sent nothing, got b'"),
]


class FaultTests(ClientTestCase):

    def outcomes(self, *args):
        """Yield the name of each face and its outcome, with one message."""
        yield "pipe", self.pipe(b"abc", *args)
        yield "prompt", self.converse(b"abc\n", *args)
        yield "count", self.count("-c", 1, *args)

    def check(self, address, code, word, text, *args):
        """Check that each face has that exit code and that line."""
        for face, outcome in self.outcomes(*args + tuple(address)):
            with self.subTest(face):
                lines = [line for line in outcome[2] if not line.startswith(
                    ("Connected to ", "The line "))]
                self.assertEqual((outcome[0], len(lines)), (code, 1), outcome)
                self.assertRegex(lines[0], r"^%s %s:%d:? .*%s" % (
                    (word,) + tuple(address) + (text,)))

    def test_servers(self):
        """The words and codes are the same in each."""
        for what, script, code, word, text in TABLE:
            with self.subTest(what):
                self.check(self.play(script), code, word, text)

    def test_silence(self):
        """It lasts for -W, and the end of our stream changes nothing."""
        over = threading.Event()
        address = self.play(lambda connection: over.wait(PATIENCE))
        self.addCleanup(over.set)
        self.check(address, 1, "TIMEOUT", "accepted .* but did not answer.*; "
                   ".* timeout", "-W", "0.1")

    def test_refused(self):
        """Nobody listens there."""
        self.check(peers.nobody(), 1, "REFUSED", "is the server running")

    def test_no_such_name(self):
        """The name has no address, or is none."""
        for host in "nosuch.invalid", "a..b":
            self.check((host, 80), 1, "DNS", "check the spelling")

    def test_name_that_forges_a_line(self):
        """It is shown escaped."""
        for face, outcome in self.outcomes("a\r\nREFUSED 10.0.0.1\33", 80):
            with self.subTest(face):
                self.assertEqual((outcome[0], len(outcome[2])), (1, 1))
                self.assertIn("DNS a\\r\\nREFUSED 10.0.0.1\\x1b:80 ",
                              outcome[2][0])

    def test_unreachable(self):
        """The system's words for an address that it cannot reach."""
        self.check(("255.255.255.255", 80), 1, "UNREACHABLE",
                   "check the address")

    def test_no_answer_to_the_attempt(self):
        """It is a timeout, and told as one."""
        self.check(peers.deaf(self), 1, "TIMEOUT", "the host is down",
                   "-W", "0.1")

    def test_cut_of_the_attempt(self):
        """It is a cut, and told as one."""
        class Cut(socket.socket):
            def getsockopt(self, level, option, *args):
                if option == socket.SO_ERROR:
                    return errno.ECONNRESET
                return super().getsockopt(level, option, *args)

            def connect_ex(self, address):
                super().connect_ex(address)
                return errno.EINPROGRESS
        address = self.play(peers.mute)
        with mock.patch("socket.socket", Cut):
            self.check(address, 1, "RESET", "while it was being made")

    def test_shortage(self):
        """2, and a sentence about this host: no fault of the server's."""
        address = peers.nobody()
        for number, what in ((errno.EMFILE, "is out of descriptors"),
                             (errno.ENOBUFS, "is out of network buffers"),
                             (errno.EADDRNOTAVAIL, "has no local port left")):
            with mock.patch("socket.socket.connect_ex", return_value=number):
                for face, outcome in self.outcomes(*address):
                    with self.subTest(face):
                        self.assertEqual(outcome[0], 2)
                        self.assertRegex(outcome[2][0],
                                         "this host %s.*; " % what)
