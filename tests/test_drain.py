"""The end of a server: what has arrived is answered, what is cut is reset,
and it takes no longer than the grace."""

import errno
import math
import os
import select
import signal
import socket
import threading
import time
import unittest
from unittest import mock

from echoserver import EchoHandler
from echoserver.server.models import MODELS, pinned
from echoserver.server import drain

from .models import (ModelTestCase, every_model, needs_fork, needs_ipv6,
                     replying, stream, waits_for)
from .support import PATIENCE, until


@every_model
class Drain:

    def test_drain(self):
        """All that had arrived is answered, and the stream ends."""
        self.needs(5)
        server = self.serve()
        clients = [self.client(server) for _ in range(5)]
        for s in clients:
            s.sendall(stream(10000))
        server.server_close()
        for s in clients:
            self.ends(s, data=stream(10000).upper())
            self.assertRegex(self.logged_end(s), "drain after")
        with self.assertRaises(ConnectionRefusedError):
            self.connect(server.server_address)

    def test_idle_clients(self):
        """Nobody waits for peers that say nothing (bpo-31233)."""
        self.needs(2)
        server = self.serve(grace=10 * PATIENCE)
        idle = [self.connect(server.server_address), self.client(server)]
        server.server_close()
        for s in idle:
            self.ends(s)

    def test_large_message(self):
        """A message in flight arrives whole."""
        server = self.make(grace=PATIENCE)
        server.drain.loopback_quiet_period = 0.06
        server = self.in_background(server)
        s = self.connect(server.server_address)
        sent = self.fill(s)
        reply = [s.recv(1000)]
        server.stop()
        closing = self.in_thread(server.server_close)
        data, end = self.rest(s)
        reply.append(data)
        self.ended(closing)
        self.assertEqual((end, sum(map(len, reply))), ("eof", sent))
        self.assertTrue(b"".join(reply) == stream(sent).upper())

    def test_stream_without_rest(self):
        """It is reset, so that nobody takes a part for the whole."""
        server = self.make(grace=0.04)
        server.drain.loopback_quiet_period = PATIENCE    # it may stand still for long
        server = self.in_background(server)
        s = self.connect(server.server_address)
        ends = []

        def stream():
            try:
                while True:
                    s.sendall(bytes(1 << 14))
            except OSError as error:
                ends.append(error.errno)

        streaming = self.in_thread(stream)
        self.receive(s, 1 << 20)
        closing = self.in_thread(server.server_close)
        # A reset is told once, to the sender perhaps; but to one that was
        # told of the end of the stream before it is EPIPE.
        told = self.rest(s)[1] == "reset"
        self.ended(closing)
        self.ended(streaming)
        self.assertTrue(told or ends == [errno.ECONNRESET], ends)
        self.assertRegex(self.logged_end(s), "drain after")

    def test_cut_at_the_grace(self):
        """Who does not read is reset when the grace is over, and counted."""
        server = self.serve(grace=0.05)
        s, sent = self.stuff(server)
        closing = self.in_thread(server.server_close)
        with self.assertRaises(ConnectionResetError):
            while closing.is_alive() or select.select([], [s], [], 0)[1]:
                select.select([], [s], [], 0.02)
                sent = self.fill(s, sent)
        self.ended(closing)
        line = self.logged_end(s)
        self.assertRegex(line, "^INFO .* drain after")
        self.assertGreaterEqual(float(line.split(" after ")[1].split()[0]),
                                0.05)
        self.assertEqual(server.cut_short, 1)

    def test_stop_with_another_grace(self):
        """stop(0) leaves no time, and no connection."""
        server = self.serve(grace=10 * PATIENCE)
        s, _ = self.stuff(server)
        server.stop(grace=0)
        self.ended(self.in_thread(server.server_close))
        self.assertEqual(self.rest(s)[1], "reset")
        self.assertRegex(self.logged_end(s), "^INFO .* drain after")

    def test_stop_at_once_with_nothing_due(self):
        """A connection whose replies were sent is not counted as cut."""
        self.only_here()
        server = self.serve()
        self.client(server)
        server.stop(grace=0)
        server.server_close()
        self.assertEqual(server.cut_short, 0)

    def test_rest_without_grace(self):
        """Who is at rest sees the end of the stream, however short it is."""
        self.only_here()
        server = self.serve(grace=0)
        s = self.client(server)
        until(lambda: not self.peer(server).unanswered
              and time.monotonic() > self.peer(server).progress
              + server.drain.loopback_quiet_period,
              "it to be at rest")
        server.server_close()
        self.ends(s)

    def test_reply_that_the_kernel_still_sends(self):
        """A slow reader gets all of it before the end: what is queued is
        looked at, too."""
        server = self.serve(grace=10 * PATIENCE)
        s = self.connect(server.server_address, window=4096)
        s.sendall(stream(300000))
        self.assertEqual(s.recv(1), stream(1).upper())
        closing = self.in_thread(server.server_close)
        until(server.is_ending, "the drain")
        self.ends(s, data=stream(300000)[1:].upper())
        self.ended(closing)

    def test_server_that_never_served(self):
        """Who was in the backlog is answered."""
        server = self.make()
        clients = [self.connect(server.server_address) for _ in range(3)]
        for s in clients:
            s.sendall(b"hello")
        server.server_close()
        for s in clients:
            self.ends(s, data=b"HELLO")

    def test_close_at_once(self):
        """Who connected before serving could begin is answered."""
        server = self.serve()
        s = self.connect(server.server_address)
        s.sendall(b"hello")
        server.server_close()
        self.ends(s, data=b"HELLO")


class CutTest(ModelTestCase):
    """What cannot end by itself, in the model that shows it best."""

    def computing(self, **options):
        """Return a server with a client whose reply is being computed, the
        client, and an event that ends that."""
        busy, go = threading.Event(), threading.Event()
        self.addCleanup(go.set)

        class Handler(EchoHandler):
            @staticmethod
            def reply(data):
                busy.set()
                go.wait(PATIENCE)
                return data.upper()

        server = self.serve(Handler, **options)
        s = self.connect(server.server_address)
        s.sendall(b"hello")
        self.assertTrue(busy.wait(PATIENCE))
        return server, s, go

    def test_handler_that_computes(self):
        """A reply that is not ready in time is no end of stream."""
        server, s, go = self.computing(grace=0.05)
        peer = self.peer(server)
        closing = self.in_thread(server.server_close)
        until(lambda: peer.cut, "the cut")
        go.set()
        self.assertEqual(self.rest(s)[1], "reset")
        self.ended(closing)

    def test_stop_during_a_drain(self):
        """stop(grace=0) ends it: whose reply is due is cut and counted."""
        server, s, go = self.computing(grace=10 * PATIENCE)
        with mock.patch.object(drain, "CUT_TIMEOUT", 0.05):
            closing = self.in_thread(server.server_close)
            until(lambda: server.socket.fileno() < 0, "the drain")
            self.assertEqual(server.cut_short, 0)
            server.stop(grace=0)
            self.ended(closing)
        self.assertEqual(server.cut_short, 1)
        go.set()
        with self.assertRaises(ConnectionError):
            self.receive(s, 6)  # no end that could pass for a good one

    def test_queue_that_a_reset_destroys(self):
        """What half of the grace was not enough for is told: as bytes that
        did not go out, and as a reply that was cut."""
        server = self.serve(grace=0.2)
        s = self.connect(server.server_address, window=4096)
        s.sendall(bytes(100000))
        peer = self.peer(server)
        until(lambda: peer.bytes_out == 100000, "the handler")
        talking = threading.Event()

        def talk():     # so that it never is at rest
            try:
                while not talking.is_set():
                    s.send(b"x")
                    talking.wait(0.01)
            except OSError:
                pass

        self.addCleanup(talking.set)
        self.in_thread(talk)
        server.server_close()
        self.assertRegex(self.logged_end(s), "drain after")
        moved = [int(word) for word in self.logged_end(s).split()
                 if word.isdigit()]
        self.assertLess(moved[1], moved[0])
        self.assertEqual(server.cut_short, 1)

    def test_handler_that_is_stuck_in_sendall(self):
        """One with its own handle() leaves in time, too, and is counted."""
        class Handler(EchoHandler):
            def handle(self):
                self.request.sendall(bytes(64 << 20))

        server = self.serve(Handler, grace=0.05)
        s = self.connect(server.server_address, window=4096)
        self.assertEqual(s.recv(1), b"\0")
        server.server_close()
        self.assertEqual(len(server.peers), 0)
        self.assertEqual(server.cut_short, 1)
        self.assertEqual(self.rest(s)[1], "reset")

    def test_connection_that_was_cut_as_idle(self):
        """Its reply was not cut by the drain, which is clean."""
        server = self.serve(idle_timeout=0.05)
        s, _ = self.stuff(server)
        self.assertRegex(self.logged_end(s), "idle after")
        server.server_close()
        self.assertEqual(server.cut_short, 0)

    def test_close_from_several_threads(self):
        """All return when it is done, and it is done once."""
        server = self.serve(grace=10 * PATIENCE)
        s = self.client(server)
        server.drain.loopback_quiet_period = 0.05
        threads = [self.in_thread(lambda: [
            server.server_close(), self.assertEqual(len(server.peers), 0)])
            for _ in range(5)]
        for thread in threads:
            self.ended(thread)
        self.ends(s)
        self.assertEqual(len(self.log("served")), 1)


class PinnedDrainTest(ModelTestCase):

    server_class = MODELS["pinned"]

    def test_request_that_is_not_read(self):
        """A reset destroys it, which is no clean drain."""
        go = threading.Event()
        self.addCleanup(go.set)
        server = self.serve(replying(waits_for(go)), pool_size=1, grace=0.05)
        for _ in range(2):
            self.connect(server.server_address).sendall(b"hello")
        until(lambda: len(server.peers) == 2, "connections")
        with mock.patch.object(drain, "CUT_TIMEOUT", 0.05), mock.patch.object(
                pinned, "CUT_TIMEOUT", 0.05):
            server.server_close()
        self.assertEqual(server.cut_short, 2)


class NetworkTest(ModelTestCase):
    """What is different where clients are not on the same host."""

    @needs_ipv6
    def test_last_call(self):
        """A listener on a network is open for a moment longer: who is in the
        midst of the TCP handshake is let in."""
        accepts = []

        class Server(self.server_class):
            def get_request(self):
                accepts.append(self.socket.fileno())
                return super().get_request()

        server = self.make(cls=Server, address=("::", 0))
        server.drain.last_call = 0.05
        server.server_close()
        self.assertGreater(len(accepts), 1)

    def test_listener_that_others_use(self):
        """It is not made deaf: who calls after the drain is not ignored."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(5)
            server = self.server_class(("127.0.0.1", 0),
                                       bind_and_activate=False)
            server.adopt(listener.dup())
            server.server_close()
            self.connect(listener.getsockname())
            listener.accept()[0].close()


@needs_fork
class ForkedDrainTest(ModelTestCase):

    server_class = MODELS.get("processes")

    def test_child_that_is_stopped(self):
        """It does not survive the drain, nor is a zombie left."""
        class Handler(EchoHandler):
            @staticmethod
            def reply(data):
                os.kill(os.getpid(), signal.SIGSTOP)
                return data

        server = self.make(Handler, grace=0.05)
        s = self.connect(server.server_address)
        s.sendall(b"hello")
        with mock.patch.object(drain, "CUT_TIMEOUT", 0.05):
            server.server_close()
        self.assertEqual(self.rest(s)[1], "reset")
        self.assertRegex(self.logged_end(s), "drain after")
        self.assertEqual(server.cut_short, 1)

    def test_close_from_several_threads(self):
        """All wait for the process that start() has forked."""
        server = self.serve(grace=0.2)
        s, _ = self.stuff(server)
        threads = [self.in_thread(lambda: [
            server.server_close(), self.assertEqual(server.cut_short, 1)])
            for _ in range(3)]
        for thread in threads:
            self.ended(thread)
        self.assertEqual(server.cut_short, 1)
        self.assertEqual(self.rest(s)[1], "reset")

    def test_grace_without_end(self):
        """Infinity is a grace, for a server in another process, too."""
        server = self.serve(grace=math.inf)
        self.client(server)
        server.server_close()


if __name__ == "__main__":
    unittest.main()
