"""Connection."""

import errno
import math
import os
import socket
import threading
from unittest import mock

from echoserver import Connection, ConnectionPool, WrongEcho
from echoserver.client.connecting import Link, connect, lookup
from echoserver.client.connection import BLOCK
from echoserver.client.waiting import READ, block, wait

from . import peers
from .support import PATIENCE, TestCase, resolving


class VerifyingTests(TestCase):
    """What comes back is held against what was sent."""

    def pair(self, timeout=None):
        """Return a connection, which has seen three bytes, and the server's
        end."""
        ours, server = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(server.close)
        ours.setblocking(False)
        connection = Connection(("name", 1), timeout, Link(ours, "name", 0))
        connection.send(b"xyz")
        server.sendall(server.recv(3).upper())
        connection.receive()
        return connection, server

    def test_reply(self):
        """It may be cut anywhere, whatever the requests were; only a to z
        change, not other letters of some character set."""
        connection, server = self.pair()
        every = bytes(range(256))
        connection.send(b"abc")
        connection.send(b"def" + every)
        for piece in b"A", b"BCD", b"EF", bytes(
                c - 32 if 97 <= c <= 122 else c for c in every):
            server.sendall(piece)
            self.assertEqual(connection.receive(), piece)
        self.assertEqual(connection.in_flight, 0)

    def test_wrong_reply(self):
        """The error says where in the stream the difference is, what was sent
        and what came there, 16 bytes at most, and what was right before."""
        for sent, reply, offset, wanted, got, right in (
                (b"defg", b"DEFx", 6, b"g", b"x", b"DEF"),
                (b"a" * 99, b"a" * 99, 3, b"a" * 16, b"a" * 16, b""),
                (b"abc", b"ABC\n", 6, b"", b"\n", b"ABC"),
                (b"http and", b"HTTP/1.1", 7, b" and", b"/1.1", b"HTTP"),
                (b"a", b"\x1b\xff", 3, b"a", b"\x1b\xff", b"")):
            with self.subTest(reply):
                connection, server = self.pair()
                connection.send(sent)
                server.sendall(reply)
                with self.assertRaises(WrongEcho) as caught:
                    connection.receive()
                error, text = caught.exception, str(caught.exception)
                self.assertEqual((error.offset, error.sent, error.got,
                                  error.right), (offset, wanted, got, right))
                self.assertIn("sent %s, got %r" % (
                    repr(wanted) if wanted else "nothing", got), text)
                self.assertIn(repr(right + got), text)
                self.assertTrue(text.isprintable() and max(text) < "\x7f")

    def test_timeout_of_each_silence(self):
        """timeout limits each silence and not their sum."""
        connection, server = self.pair(7)
        task = connection.exchange(b"abc")
        waits = [task.send(None)]
        for byte in b"A", b"B":
            server.sendall(byte)
            waits.append(task.send(True))
        self.assertEqual([seconds for _, seconds in waits], [7, 7, 7])
        with self.assertRaisesRegex(TimeoutError, "name:1 did not answer, after"
                                    " .* with 1 bytes unanswered; .* longer"):
            task.send(False)
        now = connection.asked_at
        with mock.patch("echoserver.client.connection.perf_counter",
                        lambda: now + 5):
            server.sendall(b"C")
            connection.receive()
            self.assertEqual(connection.silence, 0)

    def test_single_steps(self):
        """send() takes what goes, and 0 is an answer; receive() returns None
        for nothing yet, and b"" at the end."""
        connection, server = self.pair()
        self.assertIsNone(connection.receive())
        counts = [connection.send(bytes(BLOCK * 2))]
        while counts[-1]:
            counts.append(connection.send(bytes(BLOCK * 2)))
        self.assertLessEqual(max(counts), BLOCK)
        self.assertEqual(connection.in_flight, sum(counts))
        self.assertEqual(repr(connection), "<Connection to name:1, %d bytes "
                         "unanswered>" % sum(counts))
        connection, server = self.pair()
        server.close()
        self.assertEqual(connection.receive(), b"")
        connection.close()
        self.assertIn(", closed", repr(connection))


class ConnectionTestCase(TestCase):

    def play(self, script):
        return peers.play(self, script).address

    def dial(self, script, timeout=PATIENCE):
        connection = Connection(self.play(script), timeout)
        self.addCleanup(connection.close)
        return connection


class EchoTests(ConnectionTestCase):

    def test_echo_returns_the_reply(self):
        """One reply after the other, each as long as its request, of whatever
        has the buffer interface; text has not."""
        with self.dial(peers.echo) as connection:
            for data in (b"hello", b"W\xc3\xb6rld", b"", bytearray(b"a"),
                         memoryview(b"b")):
                self.assertEqual(connection.echo(data), bytes(data).upper())
            with self.assertRaises(TypeError):
                connection.echo("c")
            self.assertEqual(connection.echo(b"d"), b"D")
            self.assertEqual(connection.in_flight, 0)
        self.assertTrue(connection.closed)

    def test_timeout_of_any_length(self):
        """None and 0 are no limit, and no system is asked for more than it
        can count."""
        for timeout in None, 0, 1e7, 1e300, float("inf"):
            with self.dial(peers.echo, timeout) as connection:
                self.assertEqual(connection.echo(b"hello"), b"HELLO")

    def test_timeout_that_cannot_be(self):
        """It is a ValueError, at any time, and nobody is called."""
        for timeout in -1, float("nan"):
            with self.assertRaisesRegex(ValueError, "^timeout must be "):
                Connection(peers.nobody(), timeout)
            with self.dial(peers.echo) as connection:
                with self.assertRaisesRegex(ValueError, "^timeout must be "):
                    connection.timeout = timeout

    def test_echo_larger_than_all_buffers(self):
        """A message that no buffer holds moves both ways at once."""
        data = bytes(range(256)) * (1 << 15)
        with self.dial(peers.echo) as connection:
            self.assertTrue(connection.echo(data) == data.upper())

    def test_echo_without_delay(self):
        """Nagle's algorithm is off."""
        with self.dial(peers.echo) as connection:
            with socket.socket(fileno=os.dup(connection.fileno())) as s:
                self.assertTrue(s.getsockopt(socket.IPPROTO_TCP,
                                             socket.TCP_NODELAY))

    def test_echo_that_fails(self):
        """What the server did is an error of the standard library, and a
        sentence; the connection is closed."""
        for script, kind, text in (
                (peers.corrupt, WrongEcho, "offset 0: sent b'abc', got b'QBC"),
                (peers.after(1, peers.end, request=3), ConnectionError,
                 "ended the stream.* with 2 bytes unanswered; it may stop"),
                (peers.after(1, peers.cut, request=3), ConnectionResetError,
                 "cut the connection .* with 2 bytes unanswered; the server"),
                (peers.after(0, peers.end, request=3), ConnectionError,
                 "accepted the connection after .* expects TLS, or is a prox"),
                (peers.mute, TimeoutError,
                 "accepted the connection after .*, but did not answer")):
            connection = self.dial(script)
            if kind is TimeoutError:
                connection.timeout = 0.05
            with self.subTest(text), self.assertRaisesRegex(kind, text) as (
                    caught):
                connection.echo(b"abc")
            self.assertTrue(connection.closed)
            self.assertIs(type(caught.exception), kind)
        # The data is wrong and not the network.
        self.assertTrue(issubclass(WrongEcho, ValueError))
        self.assertFalse(issubclass(WrongEcho, OSError))

    def test_echo_interrupted(self):
        """Any exception closes the connection, KeyboardInterrupt too."""
        connection = self.dial(peers.echo)
        with mock.patch.object(connection, "receive",
                               side_effect=KeyboardInterrupt):
            with self.assertRaises(KeyboardInterrupt):
                connection.echo(b"abc")
        self.assertTrue(connection.closed)

    def test_address_that_is_none(self):
        """It must be (host, port), or a list of them, as JSON has it; and a
        port that cannot be is no other port."""
        host, port = self.play(peers.echo)
        with Connection([host, port], PATIENCE) as connection:
            self.assertEqual(connection.echo(b"abc"), b"ABC")
        for address in "localhost:8080", "127.0.0.1", 8080, (host, str(port)):
            for make in Connection, ConnectionPool:
                with self.assertRaisesRegex(
                        TypeError, r"^an address is \(host, port\), .*, not "):
                    make(address, 1)
        for port in -1, 65536, 84537:
            with self.assertRaisesRegex(OverflowError, "0-65535"):
                Connection(("127.0.0.1", port), PATIENCE)


class EndTests(ConnectionTestCase):

    def test_call_when_closed(self):
        """A closed connection, or a half-closed one, says what to do."""
        connection, half = self.dial(peers.echo), self.dial(peers.echo)
        connection.close()
        connection.close()
        half.half_close()
        for call in (lambda: connection.echo(b"abc"),
                     lambda: connection.send(b"abc"), connection.receive,
                     connection.finish, connection.half_close,
                     lambda: half.send(b"abc")):
            with self.assertRaisesRegex(ValueError, "closed; make another"):
                call()

    def test_closed_by_another_thread(self):
        """A call that waits ends at once, though it has no timeout."""
        for method in lambda: connection.echo(b"abc"), lambda: (
                connection.finish()):
            def script(server):
                server.recv(3)
                connection.close()
                peers.hold(server)
            connection = self.dial(script, None)
            connection.send(b"x")
            with self.assertRaisesRegex(ValueError, "closed; make another"):
                method()
            self.assertTrue(connection.closed and connection.fileno() < 0)

    def test_finish(self):
        """The end is told, even twice, and the rest of the reply read up to
        its end."""
        def script(connection):
            connection.sendall(peers.take(connection, 4).upper())
        for half_close in False, True:
            connection = self.dial(script)
            self.assertEqual(connection.send(b"abc"), 3)
            if half_close:
                connection.half_close()
            self.assertEqual(connection.finish(), b"ABC")
            self.assertTrue(connection.closed)

    def test_finish_that_fails(self):
        """It waits for no longer than the timeout; a reset is told, and not
        that there is no connection."""
        for then, kind, seconds in ((peers.hold, TimeoutError, 0.05),
                                    (peers.cut, ConnectionResetError, 9)):
            connection = self.dial(peers.after(3, then))
            connection.echo(b"abc")
            if then is peers.cut:
                wait(((connection, READ),), math.inf)
            connection.timeout = seconds
            with self.assertRaisesRegex(kind, "with nothing unanswered"):
                connection.finish()
            self.assertTrue(connection.closed)

    def test_retransmissions_that_are_not_told(self):
        """Some systems refuse to tell them, or tell less; None then."""
        for answer in OSError(), b"\0" * 40:
            fake = mock.Mock(**{"getsockopt.side_effect": [answer] * 2})
            connection = Connection(("name", 1), None, Link(fake, "name", 0))
            self.assertIsNone(connection.tcp_info()[0])
            self.assertIn("did not answer", str(connection.fell_silent()))

    def test_is_stale(self):
        """Owed bytes and a close make it stale."""
        with self.dial(peers.echo) as connection:
            connection.echo(b"abc")
            self.assertFalse(connection.is_stale())
            connection.send(b"abc")
            self.assertTrue(connection.is_stale())
        self.assertTrue(connection.is_stale())


class ConnectingTests(ConnectionTestCase):

    def test_no_such_name(self):
        """An unknown name raises gaierror, and an impossible one too."""
        for name in "nosuch.invalid", "a..b", "x" * 70, "\udcff":
            with self.assertRaisesRegex(socket.gaierror, "check the spelling"):
                Connection((name, 80), PATIENCE)

    def test_first_address_that_answers(self):
        """Where the others refuse, or are silent, it is used."""
        for others in [peers.nobody()] * 3, [peers.deaf(self)]:
            with resolving(*others, self.play(peers.echo)):
                with Connection(("name", 1), PATIENCE) as connection:
                    self.assertEqual(connection.echo(b"abc"), b"ABC")
                    self.assertEqual(connection.name, "name:1 (127.0.0.1)")
                    self.assertEqual(connection.address, ("name", 1))

    def test_all_addresses_fail(self):
        """Where all fail, what says most is raised: an answer, then silence,
        then the last of the others."""
        refused, deaf = peers.nobody(), peers.deaf(self)
        unreachable = "255.255.255.255", 1
        for kind, text, places in (
                (ConnectionRefusedError, "is the server running",
                 [refused, deaf, unreachable]),
                (TimeoutError, "the host is down", [deaf, unreachable]),
                (OSError, "cannot be reached .* check the address",
                 [unreachable])):
            with resolving(*places), self.assertRaisesRegex(kind, text):
                Connection(("name", 1), 0.1)

    def test_timeout_is_one_for_all_addresses(self):
        """The next one is tried after 250 ms beside the others (RFC 8305), and
        each has the time that is left; a lone address has all of it."""
        place = (socket.AF_INET, socket.SOCK_STREAM, 0, "", peers.deaf(self))
        now = [0.0]
        with mock.patch("echoserver.client.connecting.perf_counter",
                        lambda: now[0]):
            for places, waits in (1, [5]), (3, [0.25, 0.25, 4.5]):
                now[0] = 0
                task = connect(("name", 1), 5, [place] * places)
                with self.assertRaisesRegex(TimeoutError, "name:1.* 5.000 s"):
                    for count, seconds in enumerate(waits, 1):
                        files, wanted = task.send(None if count < 2 else False)
                        self.assertEqual((len(files), wanted),
                                         (count, seconds))
                        now[0] += seconds
                    task.send(False)

    def test_mute_resolver(self):
        """DNS is within the timeout."""
        over = threading.Event()
        self.addCleanup(over.set)

        def mute(*args):
            if args[-1] == socket.AI_NUMERICHOST:
                raise socket.gaierror
            over.wait(PATIENCE)
            return []
        with mock.patch("socket.getaddrinfo", mute), self.assertRaisesRegex(
                socket.gaierror, "resolver did not answer in time"):
            Connection(("name", 1), 0.05)

    def test_attempt_that_meets_itself(self):
        """A socket that has connected to itself counts as refused."""
        class Own(socket.socket):
            def connect_ex(self, place):
                self.bind(place)
                return super().connect_ex(place)
        with mock.patch("socket.socket", Own):
            with self.assertRaises(ConnectionRefusedError):
                Connection(peers.nobody(), PATIENCE)

    def test_attempt_that_is_cut(self):
        """It is told as such."""
        class Cut(socket.socket):
            def getsockopt(self, *args):
                return errno.ECONNRESET
        with mock.patch("socket.socket", Cut), self.assertRaisesRegex(
                ConnectionResetError, "while it was being made"):
            Connection(self.play(peers.mute), PATIENCE)

    def test_attempt_without_a_local_port(self):
        """It says what to do."""
        with mock.patch("socket.socket.connect_ex",
                        return_value=errno.EADDRNOTAVAIL):
            with self.assertRaisesRegex(OSError, "this host has no local port "
                                        "left for it; wait a minute") as error:
                Connection(peers.nobody(), PATIENCE)
        self.assertEqual(error.exception.errno, errno.EADDRNOTAVAIL)

    def test_ipv6(self):
        """Addresses of four fields are taken as socket gives them; a zone is
        not lost in the lookup, and told where it is missing."""
        with socket.socket(socket.AF_INET6) as listener:
            try:
                listener.bind(("::1", 0))
            except OSError:
                self.skipTest("no IPv6 here")
            listener.listen(1)
            Connection(listener.getsockname(), PATIENCE).close()
        places = block(lookup(("fe80::1", 80, 0, 7)))
        self.assertEqual([place[4] for place in places],
                         [("fe80::1", 80, 0, 7)])
        with mock.patch("socket.socket.connect_ex", return_value=22):
            with self.assertRaisesRegex(OSError, r"\[fe80::1\]:80 cannot be .*"
                                        "needs its interface: fe80::1%eth0"):
                Connection(("fe80::1", 80), PATIENCE)
