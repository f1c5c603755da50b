"""Relay, the filter inside the client program, without its process."""

import socket
import threading
from unittest import mock

from echoserver.client import pipe
from echoserver.client.connection import Connection
from echoserver.client.pipe import Relay

from . import peers
from .support import PATIENCE, TestCase


class RelayTests(TestCase):

    def relay(self, script, write, timeout=PATIENCE):
        """Return a Relay to a peer that plays script, after entrance has
        been made the other end of its source."""
        source, self.entrance = socket.socketpair()
        connection = Connection(peers.play(self, script).address, timeout)
        for one in source, self.entrance, connection:
            self.addCleanup(one.close)
        return Relay(connection, source, write)

    def test_idleness_is_not_silence(self):
        """While nothing is owed, the source may take its time."""
        now = [0.0]
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
        with mock.patch.object(pipe.time, "monotonic", lambda: now[0]):
            relay.run()
        self.assertEqual(written, [b"ONE", b"TWO"])

    def test_slow_reader_is_not_silence(self):
        """The time that write() takes is not the server's, though it owes
        more replies."""
        now = [0.0]

        def write(data):
            now[0] += 1000
        relay = self.relay(peers.echo, write)
        relay._connection.timeout = 10
        threading.Thread(target=self.feed, args=(bytes(1 << 22),)).start()
        with mock.patch.object(pipe.time, "monotonic", lambda: now[0]):
            relay.run()
        self.assertGreater(now[0], 1000)

    def feed(self, data):
        try:
            self.entrance.sendall(data)
            self.entrance.shutdown(socket.SHUT_WR)
        except OSError:
            pass        # nobody wanted all of it

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
        go = threading.Event()

        def write(data):
            relay._connection.timeout = 0.05
            self.entrance.shutdown(socket.SHUT_WR)
        relay = self.relay(peers.after(3, lambda connection: None, go), write)
        self.addCleanup(go.set)
        self.entrance.sendall(b"abc")
        with self.assertRaises(TimeoutError):
            relay.run()
        self.assertEqual(relay._connection.owed, 0)

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
        self.feed(b"abc")
        with mock.patch.object(pipe, "LINGER", PATIENCE):
            relay.run()
        self.assertEqual(written, [b"ABC"])

    def test_half_close_within_the_timeout(self):
        """A server that waits for the end of ours has half of the timeout
        left to answer it."""
        relay = self.relay(peers.echo, self.fail, timeout=0.1)
        relay._ended = True
        with mock.patch.object(pipe.time, "monotonic", lambda: 0.0):
            relay._postpone_half_close()
            self.assertEqual(relay._linger(), 0.05)
        relay._selector.close()

    def test_window(self):
        """What a mute server is sent is bounded, whatever the source has."""
        relay = self.relay(peers.mute, self.fail, timeout=0.1)
        unanswered = []

        def select_on(what, events):
            unanswered.append(relay._connection.owed + len(relay._unsent))
            real(what, events)
        real = relay._select_on
        relay._select_on = select_on
        feeder = threading.Thread(target=self.feed, args=(bytes(1 << 23),))
        feeder.start()
        with mock.patch.object(pipe, "WINDOW", 1 << 20):
            with self.assertRaises(TimeoutError):
                relay.run()
        relay._source.close()       # ends the feeder
        feeder.join(PATIENCE)
        self.assertGreater(max(unanswered), pipe.BLOCK)
        self.assertLess(max(unanswered), (1 << 20) + pipe.BLOCK)
