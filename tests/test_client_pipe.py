"""The client program as a filter."""

import contextlib
import os
import signal
import socket
import threading
from time import perf_counter
from unittest import mock

from echoserver.client.connection import BLOCK, Connection
from echoserver.client.pipe import Relay

from . import peers
from .faces import ClientTestCase
from .support import PATIENCE, TestCase


class PipeTests(ClientTestCase):

    def test_bytes(self):
        """Every byte value comes through, and the exit code is 0."""
        data = bytes(range(256)) * 3
        self.assertEqual(self.pipe(data, *self.play(peers.echo)),
                         (0, data.upper(), []))

    def test_large(self):
        """More than all buffers hold passes."""
        data = os.urandom(1 << 20) * 16
        code, out, err = self.pipe(data, *self.play(peers.echo))
        self.assertEqual((code, err), (0, []))
        self.assertTrue(out == data.upper())

    def test_tail(self):
        """A server that waits for the end of input may reply then."""
        def script(connection):
            connection.sendall(peers.take(connection, 1 << 20).upper())
        self.assertEqual(self.pipe(b"abc", *self.play(script)),
                         (0, b"ABC", []))

    def test_process(self):
        """A reply is written when it is there, not at the end; then Ctrl-C
        ends it, quietly: 130, also where it was ignored, as in the background
        job of a script."""
        process = self.client(*self.play(peers.echo), preexec_fn=(
            lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)))
        for word in b"one\n", b"two\n":
            process.stdin.write(word)
            self.assertEqual(self.read_line(process.stdout), word.upper())
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(PATIENCE), 130)
        self.assertEqual(self.outcome(process), (130, b"", []))

    def test_lost_while_input_is_open(self):
        """The loss is noticed at once, and what was answered is written."""
        for then, word in (peers.end, "CLOSED"), (peers.cut, "RESET"):
            go = threading.Event()
            address = self.play(peers.after(4, then, go, request=12))
            process = self.client(*address)
            process.stdin.write(b"one\ntwo\nsix\n")
            self.assertEqual(self.read_line(process.stdout), b"ONE\n")
            go.set()
            self.assertEqual(process.wait(PATIENCE), 1)
            line = self.assertFails(self.outcome(process), 1, word, address)
            self.assertIn("8 bytes unanswered", line)

    def test_end_while_idle(self):
        """CLOSED, 1: the stream ends before our input does."""
        address = self.play(peers.end)
        process = self.client(*address)
        self.assertEqual(process.wait(PATIENCE), 1)
        self.assertFails(self.outcome(process), 1, "CLOSED", address)

    def test_cut_while_sending(self):
        """RESET or CLOSED, 1: what was answered before is not lost."""
        def script(connection):
            connection.sendall(peers.take(connection, 4).upper())
        code, out, err = self.pipe(b"one\n" + bytes(1 << 24),
                                   *self.play(script))
        self.assertEqual(code, 1)
        self.assertIn(out, (b"", b"ONE\n"))     # a reset may overtake it
        self.assertRegex(err[0], "^(RESET|CLOSED) ")

    def test_wrong_echo(self):
        """All that was right before it is written."""
        data = b"a" * 300000

        def script(connection):
            reply = bytearray(peers.take(connection, len(data)).upper())
            reply[250000] = 0
            connection.sendall(reply)
            peers.mute(connection)
        code, out, err = self.pipe(data, *self.play(script))
        self.assertEqual((code, len(err)), (3, 1))
        self.assertTrue(out == b"A" * 250000)

    def test_many_descriptors(self):
        """select() would take none above 1023."""
        with contextlib.ExitStack() as stack:
            try:
                for _ in range(1100):
                    stack.callback(os.close, os.dup(0))
            except OSError:
                self.skipTest("fewer descriptors are allowed here")
            self.assertEqual(self.pipe(b"abc", *self.play(peers.echo)),
                             (0, b"ABC", []))

    def test_closed_output(self):
        """141, quietly: nobody reads the replies any more."""
        process = self.client(*self.play(peers.echo))
        process.stdout.close()
        process.stdin.write(b"one\n")
        self.assertEqual(process.wait(PATIENCE), 141)
        self.assertEqual(process.stderr.read(), b"")

    def test_nonblocking_streams(self):
        """Descriptors that somebody has set to O_NONBLOCK work too."""
        data = os.urandom(1 << 20)
        stdin, stdout = os.pipe(), os.pipe()
        for number in stdin[0], stdout[1]:
            os.set_blocking(number, False)
        with open(stdin[1], "wb", 0) as writer, \
                open(stdout[0], "rb", 0) as reader:
            process = self.client(*self.play(peers.echo),
                                  stdin=stdin[0], stdout=stdout[1])
            os.close(stdin[0])
            os.close(stdout[1])
            writer.write(b"first\n")
            self.assertEqual(self.read_line(reader), b"FIRST\n")
            feeder = threading.Thread(target=self.feed, args=(writer, data))
            feeder.start()
            out = b"".join(iter(lambda: reader.read(1 << 16), b""))
            feeder.join(PATIENCE)
            self.assertEqual(process.wait(PATIENCE), 0)
        self.assertTrue(out == data.upper())

    @staticmethod
    def feed(writer, data):
        writer.write(data)
        writer.close()


class RelayTests(TestCase):
    """The filter without its process and its clock."""

    def relay(self, script, write, timeout=PATIENCE):
        """Return a Relay to a peer that plays script, with entrance at the
        other end of its source."""
        source, self.entrance = socket.socketpair()
        self.connection = Connection(peers.play(self, script).address, timeout)
        for one in source, self.entrance, self.connection:
            self.addCleanup(one.close)
        return Relay(self.connection, source, lambda: source.recv(BLOCK),
                     write)

    def clock(self):
        """Return a list of the time that it shall be."""
        now = [perf_counter()]
        for module in "connection", "pipe":
            patch = mock.patch("echoserver.client.%s.perf_counter" % module,
                               lambda: now[0])
            patch.start()
            self.addCleanup(patch.stop)
        return now

    def feed(self, data):
        """Let data be all that source has to say, from another thread."""
        def feed():
            try:
                self.entrance.sendall(data)
                self.entrance.shutdown(socket.SHUT_WR)
            except OSError:
                pass        # nobody wanted all of it
        thread = threading.Thread(target=feed)
        self.addCleanup(thread.join, PATIENCE)
        self.addCleanup(self.entrance.shutdown, socket.SHUT_RDWR)
        thread.start()

    def test_idleness_is_not_silence(self):
        """While nothing is owed, the source may take its time."""
        now = self.clock()
        written = []

        def write(data):
            written.append(data)
            now[0] += 1000
            if len(written) == 1:
                self.entrance.sendall(b"two")
            else:
                self.entrance.shutdown(socket.SHUT_WR)
        relay = self.relay(peers.echo, write)
        self.entrance.sendall(b"one")
        relay.run()
        self.assertEqual(written, [b"ONE", b"TWO"])

    def test_slow_reader_is_not_silence(self):
        """The time that write() takes is not the server's, though it owes
        more replies."""
        now = self.clock()
        written = []

        def write(data):
            written.append(len(data))
            now[0] += 1000
        relay = self.relay(peers.echo, write, 10)
        self.feed(bytes(1 << 22))
        relay.run()
        self.assertEqual(sum(written), 1 << 22)

    def test_silence_with_a_busy_source(self):
        """More input does not prolong the silence of a server."""
        def script(connection):
            while connection.recv(1 << 16):
                self.entrance.sendall(b"more")
        relay = self.relay(script, self.fail, timeout=0.1)
        self.entrance.sendall(b"some")
        with self.assertRaises(TimeoutError):
            relay.run()

    def test_silence_instead_of_an_end(self):
        """The end of the stream is owed, too."""
        over = threading.Event()
        relay = self.relay(
            peers.after(3, lambda connection: over.wait(PATIENCE)),
            lambda data: self.entrance.shutdown(socket.SHUT_WR), timeout=0.1)
        self.addCleanup(over.set)
        self.entrance.sendall(b"abc")
        with self.assertRaises(TimeoutError):
            relay.run()
        self.assertEqual(self.connection.in_flight, 0)

    def test_half_close_lets_an_answer_arrive(self):
        """A server that forgets its reply at the end of ours (ncat -e) is
        not told of it before."""
        def script(connection):
            data = peers.take(connection, 3)
            connection.settimeout(0.05)
            with self.assertRaises(socket.timeout):
                connection.recv(1)
            connection.sendall(data.upper())
        written = []
        relay = self.relay(script, written.append)
        relay.linger = PATIENCE
        self.feed(b"abc")
        relay.run()
        self.assertEqual(written, [b"ABC"])

    def test_half_close_within_the_timeout(self):
        """A server that waits for the end of ours has half of the timeout
        left to answer it."""
        ends = []

        def script(connection):
            data = peers.take(connection, 4)
            ends.append(connection.recv(1))
            connection.sendall(data.upper())
        written = []
        relay = self.relay(script, written.append, timeout=0.6)
        relay.linger = PATIENCE
        self.feed(b"abcd")
        relay.run()
        self.assertEqual((ends, written), ([b""], [b"ABCD"]))

    def test_window(self):
        """What a mute server is sent is bounded, whatever the source has."""
        taken = []

        def script(connection):
            while True:
                data = connection.recv(1 << 20)
                if not data:
                    break
                taken.append(len(data))
        relay = self.relay(script, self.fail, timeout=0.1)
        relay.window = 1 << 20
        self.feed(bytes(1 << 23))
        with self.assertRaises(TimeoutError):
            relay.run()
        self.assertGreaterEqual(self.connection.in_flight, 1 << 20)
        self.assertLess(self.connection.in_flight, (1 << 20) + 2 * BLOCK)
