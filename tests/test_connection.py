"""Connection and Verifier."""

import os
import socket
import threading
import unittest
from unittest import mock

from echoserver.client import connection as module
from echoserver.client.connection import Connection
from echoserver.client.verifier import Verifier, WrongEcho

from . import peers
from .support import PATIENCE, TestCase


class VerifierTests(unittest.TestCase):

    def setUp(self):
        self.verifier = Verifier()

    def wrong(self, data):
        with self.assertRaises(WrongEcho) as caught:
            self.verifier.got(data)
        return caught.exception

    def test_got_in_pieces(self):
        """The reply may be cut anywhere, whatever the requests were."""
        self.verifier.sent(b"abc")
        self.verifier.sent(b"def")
        for piece in b"A", b"BCD", b"EF":
            self.verifier.got(piece)
        self.assertEqual(self.verifier.owed, 0)
        self.assertEqual(self.verifier.verified, 6)

    def test_owed_counts_what_is_in_flight(self):
        """owed is what was sent less what has come back."""
        self.verifier.sent(b"abc")
        self.verifier.got(b"A")
        self.assertEqual(self.verifier.owed, 2)

    def test_got_every_byte_value(self):
        """Only a to z change, not other letters of some character set."""
        self.verifier.sent(bytes(range(256)))
        self.verifier.got(bytes(c - 32 if 97 <= c <= 122 else c
                                for c in range(256)))

    def test_difference_is_located_in_the_stream(self):
        """offset counts from the beginning, sent and got begin there."""
        self.verifier.sent(b"abc")
        self.verifier.got(b"ABC")
        self.verifier.sent(b"defghi")
        self.verifier.got(b"DE")
        error = self.wrong(b"FxHI")
        self.assertEqual((error.offset, error.sent, error.got),
                         (6, b"ghi", b"xHI"))

    def test_difference_shows_little(self):
        """A large block is not shown in full."""
        self.verifier.sent(b"a" * 1000)
        error = self.wrong(b"a" * 1000)
        self.assertEqual((error.sent, error.got), (b"a" * 16, b"a" * 16))
        self.assertLess(len(str(error)), 200)

    def test_more_than_owed(self):
        """A byte that nobody asked for is wrong, at the end of what is."""
        self.verifier.sent(b"abc")
        error = self.wrong(b"ABC\n")
        self.assertEqual((error.offset, error.sent, error.got),
                         (3, b"", b"\n"))
        self.assertIn("sent nothing", str(error))

    def test_unchanged_lower_case(self):
        """What a plain echo sends back is wrong."""
        self.verifier.sent(b"ABc")
        self.assertEqual(self.wrong(b"ABc").offset, 2)

    def test_message_is_printable(self):
        """Control characters and bytes beyond ASCII are escaped."""
        self.verifier.sent(b"a")
        text = str(self.wrong(b"\x1b\xff"))
        self.assertTrue(text.isprintable() and max(text) < "\x7f", text)

    def test_wrong_echo_is_a_value_error(self):
        """The data is wrong and not the network."""
        self.assertTrue(issubclass(WrongEcho, ValueError))
        self.assertFalse(issubclass(WrongEcho, OSError))


class ConnectionTests(TestCase):

    def play(self, script):
        return peers.play(self, script).address

    def dial(self, script, timeout=PATIENCE):
        connection = Connection(self.play(script), timeout)
        self.addCleanup(connection.close)
        return connection

    def test_echo_returns_the_reply(self):
        """One reply after the other, each as long as its request."""
        with self.dial(peers.echo) as connection:
            self.assertEqual(connection.echo(b"hello"), b"HELLO")
            self.assertEqual(connection.echo(b"W\xc3\xb6rld"), b"W\xc3\xb6RLD")
            self.assertEqual(connection.echo(b""), b"")
            self.assertEqual(connection.owed, 0)
        self.assertTrue(connection.closed)

    def test_echo_without_timeout(self):
        """None and 0 wait as long as it takes."""
        for none in None, 0:
            with self.dial(peers.echo, none) as connection:
                self.assertEqual(connection.echo(b"hello"), b"HELLO")

    def test_echo_bytes_like(self):
        """Whatever has the buffer interface can be sent, text cannot."""
        with self.dial(peers.echo) as connection:
            self.assertEqual(connection.echo(bytearray(b"a")), b"A")
            self.assertEqual(connection.echo(memoryview(b"b")), b"B")
            with self.assertRaises(TypeError):
                connection.echo("c")
            self.assertEqual(connection.echo(b"d"), b"D")

    def test_echo_larger_than_all_buffers(self):
        """A message that no buffer holds moves both ways at once."""
        data = os.urandom(1 << 20) * 32
        with self.dial(peers.echo) as connection:
            self.assertTrue(connection.echo(data) == data.upper())

    def test_echo_of_a_dribbling_server(self):
        """A reply in pieces of one byte is put together."""
        def script(connection):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in peers.take(connection, 50).upper():
                connection.sendall(bytes([byte]))
            peers.mute(connection)
        with self.dial(script) as connection:
            self.assertEqual(connection.echo(b"ab" * 25), b"AB" * 25)

    def test_echo_without_delay(self):
        """Nagle's algorithm is off."""
        with self.dial(peers.echo) as connection:
            self.assertTrue(connection._socket.getsockopt(
                socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def fails(self, script, kind, timeout=PATIENCE):
        """Check that echo(b"abc") raises kind and leaves it closed."""
        connection = self.dial(script, timeout)
        with self.assertRaises(kind) as caught:
            connection.echo(b"abc")
        self.assertTrue(connection.closed)
        return caught.exception

    def test_echo_wrong(self):
        """A wrong byte raises WrongEcho."""
        error = self.fails(peers.corrupt, WrongEcho)
        self.assertEqual((error.offset, error.sent, error.got),
                         (0, b"abc", b"QBC"))

    def test_echo_with_an_addition(self):
        """A reply that is longer than its request raises WrongEcho."""
        def script(connection):
            connection.sendall(peers.take(connection, 3).upper() + b"\n")
            peers.mute(connection)
        error = self.fails(script, WrongEcho)
        self.assertEqual((error.offset, error.sent, error.got),
                         (3, b"", b"\n"))

    def test_echo_after_a_banner(self):
        """A server that speaks first is no echo."""
        self.assertEqual(self.fails(peers.banner, WrongEcho).offset, 0)

    def test_echo_ended(self):
        """An early end of the stream raises ConnectionError itself."""
        error = self.fails(peers.after(1, peers.end, request=3),
                           ConnectionError)
        self.assertIs(type(error), ConnectionError)
        self.assertIn("2 bytes unanswered", str(error))

    def test_echo_cut(self):
        """A reset raises ConnectionResetError."""
        self.fails(peers.after(0, peers.cut, request=3), ConnectionResetError)

    def test_echo_silence(self):
        """Silence for longer than timeout raises TimeoutError."""
        error = self.fails(peers.mute, TimeoutError, timeout=0.05)
        self.assertIn("silent for 0.05 s with 3 bytes", str(error))

    def test_echo_slow_but_not_silent(self):
        """timeout limits each silence and not their sum."""
        waits = []

        def ready(s, sending, timeout):
            waits.append(timeout)
            return real(s, sending, timeout)
        real = module._ready
        with mock.patch.object(module, "_ready", ready):
            self.test_echo_of_a_dribbling_server()
        self.assertGreater(len(waits), 1)
        self.assertEqual(set(waits), {PATIENCE})

    def test_echo_interrupted(self):
        """Any exception closes the connection, KeyboardInterrupt too."""
        connection = self.dial(peers.echo)
        with mock.patch.object(module, "_ready",
                               side_effect=KeyboardInterrupt):
            with self.assertRaises(KeyboardInterrupt):
                connection.echo(b"abc")
        self.assertTrue(connection.closed)

    def test_echo_when_closed(self):
        """A closed connection says what to do."""
        connection = self.dial(peers.echo)
        connection.close()
        connection.close()
        with self.assertRaisesRegex(ValueError, "make another"):
            connection.echo(b"abc")

    def test_finish(self):
        """The rest of the reply is read up to the end of the stream."""
        connection = self.dial(peers.echo)
        self.assertEqual(connection.send(b"abc"), 3)
        self.assertEqual(connection.finish(), b"ABC")
        self.assertTrue(connection.closed)

    def test_receive_nothing_yet(self):
        """Nothing to read is None, and the end of the stream b""."""
        connection = self.dial(peers.end)
        self.assertIn(connection.receive(), (None, b""))
        connection._wait(sending=False)
        self.assertEqual(connection.receive(), b"")
        with self.dial(peers.mute) as connection:
            self.assertIsNone(connection.receive())

    def test_send_until_full(self):
        """send() takes what goes, and 0 is an answer."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            with Connection(listener.getsockname(), PATIENCE) as connection:
                block = bytes(module.BLOCK * 2)
                total, count = 0, connection.send(block)
                self.assertLessEqual(count, module.BLOCK)
                while count:
                    total += count
                    count = connection.send(block)
                self.assertEqual(connection.owed, total)

    def test_is_stale(self):
        """The end, a cut, stray bytes and owed bytes make it stale."""
        with self.dial(peers.echo) as connection:
            connection.echo(b"abc")
            self.assertFalse(connection.is_stale())
            connection.send(b"abc")
            self.assertTrue(connection.is_stale())
        self.assertTrue(connection.is_stale())
        for script in peers.end, peers.cut, peers.banner:
            # Not before the dialling is over, which could else be cut.
            go = threading.Event()
            with self.dial(peers.after(0, script, go)) as connection:
                go.set()
                connection._wait(sending=False)
                self.assertTrue(connection.is_stale())

    def test_timeout_that_cannot_be(self):
        """It is a ValueError, at any time, and nobody is called."""
        for timeout in -1, float("nan"):
            with self.assertRaisesRegex(ValueError, "^timeout must be "):
                Connection(peers.nobody(), timeout)
            with self.dial(peers.echo) as connection:
                with self.assertRaisesRegex(ValueError, "^timeout must be "):
                    connection.timeout = timeout

    def test_timeout_that_is_very_long(self):
        """No system is asked for more than it can count."""
        for timeout in 1e7, 1e300, float("inf"):
            with self.dial(peers.echo, timeout) as connection:
                self.assertEqual(connection.echo(b"abc"), b"ABC")

    def test_dial_refused(self):
        """Nobody there raises ConnectionRefusedError."""
        with self.assertRaises(ConnectionRefusedError):
            Connection(peers.nobody(), PATIENCE)

    def test_dial_no_such_name(self):
        """An unknown name raises gaierror, and an impossible one too."""
        for name in "nosuch.invalid", "a..b", "x" * 70, "\udcff":
            with self.assertRaises(socket.gaierror):
                Connection((name, 80), PATIENCE)

    def answering(self, *places):
        """Let every name resolve to places, 127.0.0.1 and a port each."""
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", place)
                 for place in places]
        return mock.patch.object(module.socket, "getaddrinfo",
                                 return_value=found)

    def test_dial_every_address(self):
        """Where the first address refuses, the second is tried."""
        with self.answering(peers.nobody(), self.play(peers.echo)):
            with Connection(("name", 1), PATIENCE) as connection:
                self.assertEqual(connection.echo(b"abc"), b"ABC")

    def test_dial_all_addresses_fail(self):
        """Where all fail, the last one's error is raised."""
        with self.answering(peers.nobody(), peers.nobody()):
            with self.assertRaises(ConnectionRefusedError):
                Connection(("name", 1))

    def test_dial_timeout_is_one_for_all_addresses(self):
        """Addresses share the timeout, and TimeoutError is what is raised."""
        shares = []

        def connect(s, place, timeout):
            s.close()
            shares.append(timeout)
            raise socket.timeout("timed out")
        with self.answering(("192.0.2.1", 1), ("192.0.2.2", 1)), \
                mock.patch.object(module, "_connect", connect), \
                mock.patch.object(module.time, "monotonic",
                                  side_effect=[0.0, 0.0, 2.0]):
            with self.assertRaisesRegex(TimeoutError, "name:1.* 5 s"):
                Connection(("name", 1), 5)
        self.assertEqual(shares, [2.5, 3.0])

    def test_dial_does_not_meet_itself(self):
        """A socket that has connected to itself counts as refused."""
        class Own(socket.socket):
            def connect(self, place):
                self.bind(place)
                super().connect(place)
        with mock.patch.object(module.socket, "socket", Own):
            with self.assertRaises(ConnectionRefusedError):
                Connection(peers.nobody(), PATIENCE)

    def test_dial_ipv6(self):
        """Addresses of four fields are taken as socket gives them."""
        try:
            listener = socket.socket(socket.AF_INET6)
            self.addCleanup(listener.close)
            listener.bind(("::1", 0))
        except OSError:
            self.skipTest("no IPv6 here")
        listener.listen(1)
        Connection(listener.getsockname(), PATIENCE).close()
