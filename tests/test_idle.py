"""The idle timeout: who moves no byte, either way, is ended; nobody else.
And the decisions of it and of the drain, with the time passed in."""

import select
import socket
import threading
import unittest

from echoserver import BlockingEchoServer, EchoHandler
from echoserver.server.connections import Connections
from echoserver.server.drain import Drain
from echoserver.server.handler import Buffer, Peer
from echoserver.server.idle import IdleTimeout
from echoserver.server.loop import Loop

from .models import PATIENCE, ModelTestCase, every_model, until

# A larger one opens in steps that take a slow reader long.
SMALL_WINDOW = 1 << 14


@every_model
class Idle:

    def test_idle_timeout(self):
        """Who moves no byte is ended, and nobody else; one with a reply due
        is reset."""
        self.needs(3)
        server = self.serve(idle_timeout=0.15)
        silent, talker, mute = [
            self.connect(server.server_address, SMALL_WINDOW)
            for _ in range(3)]
        total = self.fill(mute)
        self.asks(talker)
        self.asks(silent)
        ended = set()
        while len(ended) < 2:
            if select.select([silent], [], [], 0.02)[0]:
                ended.add(silent)
            self.asks(talker)
            try:
                total = self.fill(mute, total)
            except ConnectionError:
                ended.add(mute)
        self.ends(silent)
        for s in silent, mute:
            line = self.logged_end(s)
            self.assertRegex(line, "^INFO .* idle after")
            self.assertGreater(float(line.split(" after ")[1].split()[0]), 0.1)
        self.asks(talker)


class IdleHandlerTest(ModelTestCase):

    def test_slow_reader(self):
        """What the kernel still sends is progress, without the handler."""
        server = self.make(idle_timeout=0.1)
        server.idle.tick = 0.02
        server = self.in_background(server)
        s = self.connect(server.server_address, SMALL_WINDOW)
        s.sendall(bytes(300000))
        until(lambda: self.peer(server).bytes_out == 300000, "the handler")
        got, pause = 0, threading.Event()
        for _ in range(25):
            got += len(s.recv(4000))
            pause.wait(0.01)
        s.sendall(b"more")
        self.assertEqual(self.receive(s, 300004 - got)[-4:], b"MORE")

    def test_unread_input(self):
        """Who has sent what is not read yet is not idle: we are slow."""
        go = threading.Event()

        class Handler(EchoHandler):
            def handle(self):
                go.wait(PATIENCE)
                self.request.sendall(self.request.recv(5).upper())

        server = self.serve(Handler, idle_timeout=0.05)
        self.addCleanup(go.set)
        s = self.asking(server)
        peer = self.peer(server)
        looks = []
        real = server.idle.end_idle
        server.idle.end_idle = lambda now: looks.append(now) or real(now)
        until(lambda: len(looks) > 2, "the sweep")
        self.assertEqual(peer.reason, "")
        go.set()
        self.ends(s, data=b"HELLO")

    def test_one_at_a_time(self):
        """The loop stands still meanwhile, and yet the time is kept."""
        server = self.serve(cls=BlockingEchoServer, idle_timeout=0.05)
        self.ends(self.connect(server.server_address))
        self.gone(server)
        self.assertEqual(dict(server.peers.ended), {"idle": 1})
        self.answers(server)


class ClockTest(unittest.TestCase):
    """The decisions, with the time passed in."""

    def setUp(self):
        self.loop = Loop()
        self.addCleanup(self.loop.close)
        self.ours, self.theirs = socket.socketpair()
        self.addCleanup(self.ours.close)
        self.addCleanup(self.theirs.close)
        self.peers = Connections(Peer, id, True)
        self.idle = IdleTimeout(self.loop, self.peers, 10)
        self.peers.add(self.ours, ("192.0.2.1", 1))
        self.made = self.peers[self.ours]

    def state(self):
        return self.made.reason, self.made.whole, self.made.cut

    def test_idle(self):
        """A connection is judged at the end of its timeout, and its queue is
        looked at ten times in one; one that was told to leave and is still
        here is cut."""
        now = self.made.progress
        self.assertEqual(self.idle.end_idle(now), now + 1)
        self.assertAlmostEqual(self.idle.end_idle(now + 9.5), now + 10)
        self.assertEqual(self.state(), ("", True, False))
        self.idle.end_idle(now + 10)
        self.assertEqual(self.state(), ("idle", True, False))
        self.idle.end_idle(now + 11)
        self.assertEqual(self.state(), ("idle", False, True))

    def test_idle_with_a_reply_due(self):
        """Silence is no end of stream then, but a cut."""
        self.made.bytes_in = 5
        self.idle.end_idle(self.made.progress + 10)
        self.assertEqual(self.state(), ("idle", False, True))

    def test_reason_comes_first(self):
        """A handler that sees that it is cut finds why."""
        seen = []

        class Watched(Peer):
            cut = property(lambda self: False,
                           lambda self, value: seen.append(self.reason))

        self.peers[self.ours] = Watched(self.ours, ("127.0.0.1", 1))
        self.peers.cut(self.peers[self.ours], "idle")
        self.assertEqual(seen, ["", "idle"])

    def test_bytes_after_the_end_was_decided(self):
        """More may be on their way: the reply is no longer whole."""
        self.peers.end(self.made, "drain", at_rest=True)
        self.assertTrue(self.made.whole)
        self.made.bytes_in = self.made.bytes_out = 4
        self.assertFalse(self.made.whole)

    def test_turn_of_one_that_was_told_to_leave(self):
        """It reads no more, whatever has come."""
        self.theirs.send(b"more")
        self.peers.end(self.made, "drain")
        self.assertIs(self.made.turn(Buffer()), False)

    def drain(self, began):
        drain = Drain(self.loop, self.peers, None, lambda: 5)
        drain.began = began
        return drain

    def test_drain(self):
        """One that goes on asking is ended at half of the grace."""
        began = self.made.progress + 0.2
        drain = self.drain(began)
        drain.step(began + 0.01)
        self.assertEqual(self.made.reason, "")
        self.theirs.send(b"more")
        drain.step(began + 2.4)
        self.assertEqual(self.made.reason, "")
        drain.step(began + 2.5)
        self.assertEqual(self.state(), ("drain", False, False))

    def test_drain_at_rest(self):
        """At rest means: no byte for the quiet period."""
        began = self.made.progress
        drain = self.drain(began)
        drain.step(began + 0.24)
        self.assertEqual(self.made.reason, "")
        drain.step(began + 0.25)
        self.assertEqual(self.state(), ("drain", True, False))
