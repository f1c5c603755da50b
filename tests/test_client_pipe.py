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
        """Every byte value comes through, more than all buffers hold, and
        what a server says when it learns of the end; the exit code is 0."""
        def tail(connection):
            connection.sendall(peers.take(connection, 1 << 20).upper())
        for script, data in ((peers.echo, bytes(range(256)) * (1 << 15)),
                             (tail, b"abc"), (peers.echo, b"")):
            code, out, err = self.pipe(data, *self.play(script))
            self.assertEqual((code, err), (0, []))
            self.assertTrue(out == data.upper())

    def test_process(self):
        """A reply is written when it is there, not at the end, also where
        somebody has set the input to O_NONBLOCK; then Ctrl-C ends it, quietly:
        130, also where it was ignored, as in the background job of a
        script."""
        stdin, writer = os.pipe()
        self.addCleanup(os.close, writer)
        os.set_blocking(stdin, False)
        process = self.client(*self.play(peers.echo), stdin=stdin, preexec_fn=(
            lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)))
        os.close(stdin)
        for word in b"one\n", b"two\n":
            os.write(writer, word)
            self.assertEqual(self.read_line(process.stdout), word.upper())
        process.send_signal(signal.SIGINT)
        self.assertEqual(self.outcome(process), (130, b"", []))

    def test_cut_while_sending(self):
        """RESET or CLOSED, 1: what was answered before is not lost."""
        def script(connection):
            connection.sendall(peers.take(connection, 4).upper())
        code, out, err = self.pipe(b"one\n" + bytes(1 << 23),
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

class RelayTests(TestCase):
    """The filter without its process and its clock."""

    def relay(self, script, write, timeout=PATIENCE):
        """Return a Relay to a peer that plays script, with entrance at the
        other end of its source."""
        source, self.entrance = socket.socketpair()
        self.connection = Connection(peers.play(self, script).address)
        self.connection.timeout = timeout
        for one in source, self.entrance, self.connection:
            self.addCleanup(one.close)
        return Relay(self.connection, source, lambda: source.recv(BLOCK),
                     write)

    def clock(self):
        """Return a list of the time that it shall be."""
        now = [perf_counter()]
        for module in "connection", "pipe":
            self.enter(mock.patch("echoserver.client.%s.perf_counter" % module,
                                  lambda: now[0]))
        return now

    def feed(self, data):
        """Let data be all that source has to say, from another thread."""
        def feed():
            with contextlib.suppress(OSError):      # nobody wanted all of it
                self.entrance.sendall(data)
                self.entrance.shutdown(socket.SHUT_WR)
        thread = threading.Thread(target=feed)
        self.addCleanup(thread.join, PATIENCE)
        self.addCleanup(self.entrance.shutdown, socket.SHUT_RDWR)
        thread.start()

    def test_loss_while_the_source_is_open(self):
        """It is noticed at once, in silence too, and what was answered is
        written."""
        for then, kind in (peers.end, ConnectionError), (
                peers.cut, ConnectionResetError):
            for data in b"one two six", b"":
                written, go = [], threading.Event()
                relay = self.relay(peers.after(
                    len(data) // 3, then, go, request=len(data)),
                    lambda data: (written.append(data), go.set()))
                self.entrance.sendall(data)
                if not data:
                    go.set()
                with self.assertRaises(kind) as caught:
                    relay.run()
                self.assertIs(type(caught.exception), kind)
                self.assertEqual(b"".join(written), data[:3].upper())

    def test_idleness_is_not_silence(self):
        """While nothing is owed, the source may take its time."""
        now, written = self.clock(), []

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
        now, written = self.clock(), []

        def write(data):
            written.append(len(data))
            now[0] += 1000
        relay = self.relay(peers.echo, write, 10)
        self.feed(bytes(1 << 22))
        relay.run()
        self.assertEqual(sum(written), 1 << 22)

    def test_silence(self):
        """More input does not prolong that of a server, and the end of the
        stream is owed, too."""
        def busy(connection):
            while connection.recv(1 << 16):
                self.entrance.sendall(b"more")
        for script, write in ((busy, self.fail), (
                peers.after(3, peers.hold),
                lambda data: self.entrance.shutdown(socket.SHUT_WR))):
            relay = self.relay(script, write, timeout=0.05)
            self.entrance.sendall(b"abc")
            with self.assertRaises(TimeoutError):
                relay.run()

    def test_half_close_lets_an_answer_arrive(self):
        """A server that forgets its reply at the end of ours (ncat -e) is
        not told of it before; one that waits for the end of ours has half of
        the timeout left to answer it."""
        for timeout, end in (PATIENCE, None), (0.4, b""):
            def script(connection):
                data = peers.take(connection, 3)
                connection.settimeout(PATIENCE if timeout < 1 else 0.05)
                ends.append(None)
                with contextlib.suppress(socket.timeout):
                    ends[0] = connection.recv(1)
                connection.sendall(data.upper())
            written, ends = [], []
            relay = self.relay(script, written.append, timeout)
            relay.linger = PATIENCE
            self.feed(b"abc")
            relay.run()
            self.assertEqual((ends, written), ([end], [b"ABC"]))

    def test_window(self):
        """What a mute server is sent is bounded, whatever the source has."""
        relay = self.relay(peers.mute, self.fail, timeout=0.05)
        relay.window = 1 << 20
        self.feed(bytes(1 << 23))
        with self.assertRaises(TimeoutError):
            relay.run()
        self.assertGreaterEqual(self.connection.in_flight, 1 << 20)
        self.assertLess(self.connection.in_flight, (1 << 20) + 2 * BLOCK)
