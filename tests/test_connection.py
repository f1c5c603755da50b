"""Connection."""

import math
import os
import signal
import socket
import threading
from unittest import mock

from echoserver import Connection, ConnectionPool, WrongEcho
from echoserver.client.connecting import Link, connect, lookup
from echoserver.client.connection import BLOCK
from echoserver.client.waiting import READ, block, wait

from . import peers
from .support import PATIENCE, TestCase


class VerifyingTests(TestCase):
    """What comes back is held against what was sent."""

    def setUp(self):
        super().setUp()
        ours, self.server = socket.socketpair()
        ours.setblocking(False)
        self.connection = Connection(("name", 1), None, Link(ours, "name", 0))
        self.addCleanup(ours.close)
        self.addCleanup(self.server.close)

    def got(self, data):
        self.server.sendall(data)
        return self.connection.receive()

    def wrong(self, data):
        with self.assertRaises(WrongEcho) as caught:
            self.got(data)
        return caught.exception

    def test_got_in_pieces(self):
        """The reply may be cut anywhere, whatever the requests were."""
        self.connection.send(b"abc")
        self.connection.send(b"def")
        for piece in b"A", b"BCD", b"EF":
            self.assertEqual(self.got(piece), piece)
        self.assertEqual(self.connection.in_flight, 0)

    def test_got_every_byte_value(self):
        """Only a to z change, not other letters of some character set."""
        self.connection.send(bytes(range(256)))
        self.got(bytes(c - 32 if 97 <= c <= 122 else c for c in range(256)))

    def test_difference_is_located_in_the_stream(self):
        """offset counts from the beginning, sent and got begin there."""
        self.connection.send(b"abc")
        self.got(b"ABC")
        self.connection.send(b"defghi")
        self.got(b"DE")
        error = self.wrong(b"FxHI")
        self.assertEqual((error.offset, error.sent, error.got),
                         (6, b"ghi", b"xHI"))

    def test_difference_shows_little(self):
        """A large block is not shown in full."""
        self.connection.send(b"a" * 1000)
        error = self.wrong(b"a" * 1000)
        self.assertEqual((error.sent, error.got), (b"a" * 16, b"a" * 16))
        self.assertLess(len(str(error)), 200)

    def test_more_than_was_sent(self):
        """A byte that nobody asked for is wrong, at the end of what is."""
        self.connection.send(b"abc")
        error = self.wrong(b"ABC\n")
        self.assertEqual((error.offset, error.sent, error.got),
                         (3, b"", b"\n"))
        self.assertIn("sent nothing", str(error))

    def test_right_bytes_before_a_difference(self):
        """They are not lost, and some are shown."""
        self.connection.send(b"http and so on")
        error = self.wrong(b"HTTP/1.1 400")
        self.assertEqual((error.offset, error.right), (4, b"HTTP"))
        self.assertIn("got b'/1.1 400' in b'HTTP/1.1 400'", str(error))

    def test_message_is_printable(self):
        """Control characters and bytes beyond ASCII are escaped."""
        self.connection.send(b"a")
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
            self.assertEqual(connection.in_flight, 0)
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

    def test_echo_without_delay(self):
        """Nagle's algorithm is off."""
        with self.dial(peers.echo) as connection:
            with socket.socket(fileno=os.dup(connection.fileno())) as s:
                self.assertTrue(s.getsockopt(socket.IPPROTO_TCP,
                                             socket.TCP_NODELAY))

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

    def test_echo_ended(self):
        """An early end of the stream raises ConnectionError itself."""
        error = self.fails(peers.after(1, peers.end, request=3),
                           ConnectionError)
        self.assertIs(type(error), ConnectionError)
        self.assertIn("2 bytes unanswered", str(error))

    def test_echo_cut(self):
        """A reset raises ConnectionResetError."""
        self.fails(peers.after(0, peers.cut, request=3), ConnectionResetError)

    def test_echo_slow_but_not_silent(self):
        """timeout limits each silence and not their sum."""
        go = threading.Semaphore(0)

        def script(connection):
            for byte in peers.take(connection, 6).upper():
                go.acquire(timeout=PATIENCE)
                connection.sendall(bytes([byte]))
        waits, answer = [], None
        with self.dial(script) as connection:
            task = connection.exchange(b"abcabc")
            with self.assertRaises(StopIteration):
                while True:
                    waits.append(task.send(answer))
                    go.release()
                    answer = bool(wait(*waits[-1]))
        self.assertEqual([seconds for _, seconds in waits], [PATIENCE] * 6)

    def test_echo_interrupted(self):
        """Any exception closes the connection, KeyboardInterrupt too."""
        self.addCleanup(signal.signal, signal.SIGINT, signal.signal(
            signal.SIGINT, signal.default_int_handler))

        def script(connection):
            connection.recv(1)
            os.kill(os.getpid(), signal.SIGINT)
            peers.mute(connection)
        self.fails(script, KeyboardInterrupt)

    def test_echo_when_closed(self):
        """A closed connection says what to do."""
        connection = self.dial(peers.echo)
        connection.close()
        connection.close()
        for call in (lambda: connection.echo(b"abc"),
                     lambda: connection.send(b"abc"), connection.receive,
                     connection.finish, connection.half_close):
            with self.assertRaisesRegex(ValueError, "closed; make another"):
                call()

    def test_echo_when_half_closed(self):
        """That is not the server's doing; finish() finishes."""
        connection = self.dial(peers.echo)
        connection.half_close()
        with self.assertRaisesRegex(ValueError, "closed; make another"):
            connection.send(b"abc")
        connection = self.dial(peers.echo)
        connection.half_close()
        self.assertEqual(connection.finish(), b"")

    def test_closed_by_another_thread(self):
        """A call that waits ends at once, though it has no timeout."""
        for method in lambda: connection.echo(b"abc"), lambda: (
                connection.finish()):
            taken, over = threading.Event(), threading.Event()

            def script(server):
                server.recv(3)
                taken.set()
                over.wait(PATIENCE)
            connection = self.dial(script, None)

            def close():
                taken.wait(PATIENCE)
                connection.close()
            thread = threading.Thread(target=close)
            thread.start()
            connection.send(b"x")
            with self.assertRaisesRegex(ValueError, "closed; make another"):
                method()
            self.assertTrue(connection.closed and connection.fileno() < 0)
            over.set()
            thread.join(PATIENCE)

    def test_repr(self):
        """It shows the address and what the connection does."""
        connection = self.dial(peers.mute)
        connection.send(b"abc")
        self.assertEqual(repr(connection), "<Connection to %s:%d, 3 bytes "
                         "unanswered>" % connection.address)
        connection.close()
        self.assertIn(", closed", repr(connection))

    def test_retransmissions_that_are_not_told(self):
        """Some systems refuse to tell them, or tell less; None then."""
        for answer in OSError(), b"\0" * 40:
            class Socket(socket.socket):
                def getsockopt(self, level, option, *args):
                    if option != getattr(socket, "TCP_INFO", None):
                        return super().getsockopt(level, option, *args)
                    if isinstance(answer, OSError):
                        raise answer
                    return answer
            with mock.patch("socket.socket", Socket):
                connection = self.dial(peers.echo)
            connection.echo(b"abc")
            self.assertIsNone(connection.tcp_info()[0])
            self.assertIn("did not answer", str(connection.fell_silent()))

    def test_half_close_after_a_reset(self):
        """The reset is told, and not that there is no connection."""
        connection = self.dial(peers.after(3, peers.cut))
        connection.echo(b"abc")
        wait(((connection, READ),), math.inf)
        with self.assertRaises(ConnectionResetError):
            connection.finish()

    def test_address(self):
        """It is (host, port), or a list of them, as JSON has it."""
        host, port = self.play(peers.echo)
        with Connection([host, port], PATIENCE) as connection:
            self.assertEqual(connection.echo(b"abc"), b"ABC")
        for address in "localhost:8080", "127.0.0.1", 8080, (host, str(port)):
            for make in Connection, ConnectionPool:
                with self.assertRaisesRegex(
                        TypeError, r"^an address is \(host, port\), .*, not "):
                    make(address, 1)

    def test_finish(self):
        """The end is told, and the rest of the reply read up to its end."""
        connection = self.dial(lambda connection: connection.sendall(
            peers.take(connection, 4).upper()))
        self.assertEqual(connection.send(b"abc"), 3)
        self.assertEqual(connection.finish(), b"ABC")
        self.assertTrue(connection.closed)

    def test_receive_nothing_yet(self):
        """Nothing to read is None, and the end of the stream b""."""
        connection = self.dial(peers.end)
        self.assertIn(connection.receive(), (None, b""))
        wait(((connection, READ),), math.inf)
        self.assertEqual(connection.receive(), b"")
        with self.dial(peers.mute) as connection:
            self.assertIsNone(connection.receive())

    def test_send_until_full(self):
        """send() takes what goes, and 0 is an answer."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            with Connection(listener.getsockname(), PATIENCE) as connection:
                block = bytes(BLOCK * 2)
                total, count = 0, connection.send(block)
                self.assertLessEqual(count, BLOCK)
                while count:
                    total += count
                    count = connection.send(block)
                self.assertEqual(connection.in_flight, total)

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
                wait(((connection, READ),), math.inf)
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

    def test_dial_no_such_name(self):
        """An unknown name raises gaierror, and an impossible one too."""
        for name in "nosuch.invalid", "a..b", "x" * 70, "\udcff":
            with self.assertRaises(socket.gaierror):
                Connection((name, 80), PATIENCE)

    def answering(self, *places):
        """Let every name resolve to places, 127.0.0.1 and a port each."""
        return mock.patch("socket.getaddrinfo", return_value=[
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", place)
            for place in places])

    def test_dial_every_address(self):
        """Where the first address refuses, the second is tried."""
        with self.answering(peers.nobody(), self.play(peers.echo)):
            with Connection(("name", 1), PATIENCE) as connection:
                self.assertEqual(connection.echo(b"abc"), b"ABC")
                self.assertEqual(connection.name, "name:1 (127.0.0.1)")
                self.assertEqual(connection.address, ("name", 1))

    def test_dial_all_addresses_fail(self):
        """Where all fail, what says most is raised: an answer, then silence,
        then the last of the others."""
        refused = peers.nobody()
        deaf = peers.deaf(self)
        unreachable = "255.255.255.255", 1
        for kind, places in (
                (ConnectionRefusedError, [refused, refused]),
                (ConnectionRefusedError, [refused, deaf, unreachable]),
                (TimeoutError, [deaf, unreachable])):
            with self.answering(*places), self.assertRaises(kind):
                Connection(("name", 1), 0.1)

    def test_dial_timeout_is_one_for_all_addresses(self):
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

    def test_dial_silent_addresses(self):
        """One that answers is found behind eleven that say nothing."""
        with self.answering(*[peers.deaf(self)] * 11, self.play(peers.echo)), \
                mock.patch("echoserver.client.connecting._STAGGER", 0.001):
            Connection(("name", 1), PATIENCE).close()

    def test_dial_mute_resolver(self):
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

    def test_dial_does_not_meet_itself(self):
        """A socket that has connected to itself counts as refused."""
        class Own(socket.socket):
            def connect_ex(self, place):
                self.bind(place)
                return super().connect_ex(place)
        with mock.patch("socket.socket", Own):
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

    def test_zone_of_an_address(self):
        """It is not lost in the lookup."""
        places = block(lookup(("fe80::1", 80, 0, 7)))
        self.assertEqual([place[4] for place in places],
                         [("fe80::1", 80, 0, 7)])

    def test_link_local_address_without_zone(self):
        """It says what is missing."""
        with mock.patch("socket.socket.connect_ex", return_value=22):
            with self.assertRaisesRegex(OSError, r"\[fe80::1\]:80 cannot be .*"
                                        "needs its interface: fe80::1%eth0"):
                Connection(("fe80::1", 80), PATIENCE)

    def test_port_that_cannot_be(self):
        """It is the OverflowError of socket.connect(), not another port."""
        for port in -1, 65536, 84537:
            with self.assertRaisesRegex(OverflowError, "0-65535"):
                Connection(("127.0.0.1", port), PATIENCE)
