"""The end of a server: what has arrived is answered, what is cut is reset,
and it takes no longer than the grace."""

import os
import signal
import socket
import threading
import time
from unittest import mock

from echoserver import EchoHandler
from echoserver.server import drain
from echoserver.server.models import pinned
from echoserver.server.system import ignore_callers, resets_on_close

from .models import (MODELS, PATIENCE, ModelTestCase, every_model, linux_only,
                     needs_fork, needs_ipv6, replying, stream, until,
                     waits_for)


@every_model
class Drain:

    def slow(self, **options):
        """Return a server, to serve or not, that has much time to notice what
        was sent just before its end, as on a busy host."""
        server = self.make(**options)
        server.drain.loopback_quiet_period = 0.04
        return server

    def test_drain(self):
        """All that had arrived is answered, nobody waits for who says nothing
        (bpo-31233), however long the grace is, and all see the end of the
        stream."""
        self.needs(5)
        server = self.in_background(self.slow(
            grace=10 * PATIENCE if self.here else 1e300))
        clients = [self.client(server) for _ in range(3)]
        idle = [self.connect(server.server_address), self.client(server)]
        for s in clients:
            s.sendall(stream(10000))
        server.server_close()
        for s in clients:
            self.ends(s, data=stream(10000).upper())
            self.assertRegex(self.logged_end(s), "drain after")
        for s in idle:
            self.ends(s)
        with self.assertRaises(ConnectionRefusedError):
            self.connect(server.server_address)

    def test_server_that_has_not_accepted(self):
        """Who connected before it served, or before it could, is answered."""
        for server in self.slow(), self.in_background(self.slow()):
            clients = [self.asking(server) for _ in range(3)]
            server.server_close()
            for s in clients:
                self.ends(s, data=b"HELLO")

    def test_large_message(self):
        """A message in flight arrives whole, and so does its reply."""
        server = self.in_background(self.slow(grace=PATIENCE))
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

    def test_cut_at_the_grace(self):
        """Who does not read is reset when the grace is over, which stop()
        may change, and is counted."""
        for grace in 0.02, 0:
            server = self.serve(grace=grace or 10 * PATIENCE)
            s, _ = self.stuff(server)
            server.stop(grace)
            self.ended(self.in_thread(server.server_close))
            self.assertEqual(self.rest(s)[1], "reset")
            line = self.logged_end(s)
            self.assertRegex(line, "^INFO .* drain after")
            self.assertGreaterEqual(
                float(line.split(" after ")[1].split()[0]), grace)
            self.assertEqual(server.cut_short, 1)

    def test_rest_without_grace(self):
        """Who is at rest sees the end of the stream, however short it is, and
        is not counted as cut."""
        self.only_here()
        server = self.serve()
        s = self.client(server)
        until(lambda: not self.peer(server).unanswered
              and time.monotonic() > self.peer(server).progress
              + server.drain.loopback_quiet_period, "it to be at rest")
        server.stop(grace=0)
        server.server_close()
        self.ends(s)
        self.assertEqual(server.cut_short, 0)

    def test_whatever_becomes_of_the_process(self):
        """Every accepted socket is set to end in a reset: no clean end passes
        for that of a whole reply."""
        self.only_here()
        server = self.serve()
        self.client(server)
        self.assertTrue(resets_on_close(self.peer(server).request))

    def test_reply_that_the_kernel_still_sends(self):
        """A slow reader gets all of it before the end: what is queued is
        looked at, too."""
        server = self.serve(grace=10 * PATIENCE)
        s = self.connect(server.server_address, window=4096)
        s.sendall(stream(300000))
        self.assertEqual(s.recv(1), stream(1).upper())
        closing = self.in_thread(server.server_close)
        if self.here:
            until(server.is_ending, "the drain")
        self.ends(s, data=stream(300000)[1:].upper())
        self.ended(closing)


class CutTest(ModelTestCase):
    """What cannot end by itself, in the model that shows it best."""

    def computing(self, **options):
        """Return a server with a client whose reply is being computed, the
        client, and an event that ends that."""
        go = threading.Event()
        self.addCleanup(go.set)
        server = self.serve(replying(waits_for(go)), **options)
        s = self.asking(server)
        until(lambda: self.peer(server).bytes_in, "the request")
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
        self.assertEqual(self.rest(s)[1], "reset")

    def test_queue_that_a_reset_destroys(self):
        """A stream without rest is reset after half of the grace, and what
        that was not enough for is told: as bytes that did not go out, and as
        a reply that was cut."""
        server = self.serve(grace=0.2)
        s = self.connect(server.server_address, window=4096)
        s.sendall(bytes(100000))
        peer = self.peer(server)
        until(lambda: peer.bytes_out == 100000, "the handler")
        errors = []

        def talk():     # so that it never is at rest
            try:
                while not threading.Event().wait(0.01):
                    s.send(b"x")
            except OSError as error:
                errors.append(type(error))

        talking = self.in_thread(talk)
        server.server_close()
        self.ended(talking)
        # A reset is told once, to the sender perhaps; but to one that was
        # told of the end of the stream before it is a broken pipe.
        self.assertTrue(self.rest(s)[1] == "reset"
                        or errors == [ConnectionResetError], errors)
        moved = [int(word) for word in self.logged_end(s).split()
                 if word.isdigit()]
        self.assertLess(moved[1], moved[0])
        self.assertEqual(server.cut_short, 1)

    def test_handler_that_is_stuck_in_sendall(self):
        """One with its own handle() leaves in time, too: the drain's cut is
        counted, that of the idle timeout is none of its own."""
        class Handler(EchoHandler):
            def handle(self):
                self.request.sendall(bytes(16 << 20))

        for options, reason in (({"grace": 0.05}, "drain"),
                                ({"idle_timeout": 0.05}, "idle")):
            with self.subTest(reason):
                server = self.serve(Handler, **options)
                s = self.connect(server.server_address, window=4096)
                self.assertEqual(s.recv(1), b"\0")
                if reason == "idle":
                    self.gone(server)
                server.server_close()
                self.assertEqual(dict(server.peers.ended), {reason: 1})
                self.assertEqual(server.cut_short, reason == "drain")
                self.assertEqual(self.rest(s)[1], "reset")

    def test_request_that_no_worker_has_read(self):
        """A reset destroys it, which is no clean drain."""
        go = threading.Event()
        self.addCleanup(go.set)
        server = self.serve(replying(waits_for(go)), cls=MODELS["pinned"],
                            pool_size=1, grace=0.05)
        for _ in range(2):
            self.asking(server)
        until(lambda: len(server.peers) == 2, "connections")
        with mock.patch.object(drain, "CUT_TIMEOUT", 0.05), mock.patch.object(
                pinned, "CUT_TIMEOUT", 0.05):
            server.server_close()
        self.assertEqual(server.cut_short, 2)
        go.set()

    def test_close_from_several_threads(self):
        """All return when it is done, and it is done once."""
        server = self.serve(grace=10 * PATIENCE)
        s = self.client(server)
        server.drain.loopback_quiet_period = 0.05
        left = []
        threads = [self.in_thread(lambda: [
            server.server_close(), left.append(len(server.peers))])
            for _ in range(5)]
        for thread in threads:
            self.ended(thread)
        self.assertEqual(left, [0] * 5)
        self.ends(s)
        self.assertEqual(len(self.log("served")), 1)

    @needs_ipv6
    def test_last_call(self):
        """A listener on a network is open for a moment longer: who is in the
        midst of the TCP handshake is let in."""
        server = self.make(address=("::", 0))
        server.drain.last_call = 0.05
        with mock.patch.object(server.acceptor, "accept_waiting",
                               return_value=False) as accept:
            server.server_close()
        self.assertGreater(accept.call_count, 1)


@needs_fork
class ForkedDrainTest(ModelTestCase):

    server_class = MODELS.get("processes")

    def test_close_in_a_child(self):
        """It ends that connection, and nothing of its siblings."""
        class Quits(EchoHandler):
            def handle(self):
                self.rfile.readline()
                self.server.server_close()
                self.wfile.write(b"BYE")

        server = self.serve(Quits)
        other = self.connect(server.server_address)
        for s in self.asking(server, b"QUIT\n"), other:
            s.sendall(b"QUIT\n")
            self.ends(s, data=b"BYE")
        self.assertEqual(self.log("ERROR"), [])

    def test_child_that_is_stopped(self):
        """It does not survive the drain, nor is a zombie left."""
        server = self.make(replying(
            lambda data: os.kill(os.getpid(), signal.SIGSTOP)), grace=0.05)
        s = self.asking(server)
        with mock.patch.object(drain, "CUT_TIMEOUT", 0.05):
            server.server_close()
        self.assertEqual(self.rest(s)[1], "reset")
        self.assertRegex(self.logged_end(s), "drain after")
        self.assertEqual(server.cut_short, 1)


class ListenerTest(ModelTestCase):

    @linux_only
    def test_callers_that_are_ignored(self):
        """They are neither accepted nor refused; who called before is."""
        with socket.socket() as listener, socket.socket() as late:
            listener.bind(("127.0.0.1", 0))
            listener.listen(5)
            early = self.asking(listener.getsockname())
            ignore_callers(listener)
            late.settimeout(0.1)
            with self.assertRaises(socket.timeout):
                late.connect(listener.getsockname())
            with listener.accept()[0] as accepted:
                self.assertEqual(accepted.getpeername(), early.getsockname())
                self.assertEqual(self.receive(accepted, 5), b"hello")

    def test_adopted_listener(self):
        """One that others use after the server, in every model, keeps none of
        our options and is not made deaf; who waits is left to the next
        server; and our own connections are set to end in a reset."""
        for name in set(MODELS) - {"processes"}:
            with self.subTest(name), socket.socket() as listener:
                listener.bind(("127.0.0.1", 0))
                listener.listen(5)
                listener.settimeout(PATIENCE)

                def options():
                    return [listener.getsockopt(socket.SOL_SOCKET, option, 16)
                            for option in (
                                socket.SO_LINGER, socket.SO_RCVTIMEO,
                                socket.SO_SNDTIMEO, socket.SO_KEEPALIVE)]

                before = options()
                server = self.make(cls=MODELS[name])
                server.adopt(listener.dup())
                self.in_background(server)
                self.client(server)
                self.assertEqual(options(), before)
                self.assertTrue(resets_on_close(self.peer(server).request))
                server.stop()
                until(lambda: not server.loop.is_running(), "the loop to end")
                waiting = [self.connect(listener.getsockname())]
                server.server_close()
                waiting.append(self.connect(listener.getsockname()))
                for s in waiting:
                    accepted, address = listener.accept()
                    accepted.close()
                    self.assertEqual(address, s.getsockname())
