"""The conformance suite: what every model must do alike, and what each adds.

Conformance is run for every model by a class of one line at its end.  It
looks from outside, at sockets and at the log (a file, since start() of a
model that forks serves in another process); where a test must look inside, it
is skipped for such a model.

A server starts before the first client thread does: a model may fork.
"""

import errno
import itertools
import logging
import os
import re
import select
import selectors
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from unittest import mock

from echoserver import EchoHandler
from echoserver.models import MODELS
from echoserver.models import pool as pool_module
from echoserver.models import events as events_module
from echoserver.server import loop as loop_module
from echoserver.server.acceptor import Acceptor
from echoserver.server.connections import Connections
from echoserver.server.loop import Loop

from .support import (PATIENCE, ROOT, TestCase, not_inherited, python,
                      until)

logger = logging.getLogger("echoserver")

# More than the buffers of two sockets hold.  Its length and its repetition
# share no factor with those of a buffer: a block out of place is noticed.
STREAM = (os.urandom(1000003) * 17)[:16 << 20]

SIZES = [0, 1, 31, 4 << 10, 256 << 10, 4 << 20, 64 << 20]

# A larger one opens in steps that take a slow reader long.
SMALL_WINDOW = 1 << 14

RESET_ON_CLOSE = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)


class Lines(EchoHandler):
    """A handler in the manner of socketserver, with rfile and wfile."""

    def handle(self):
        for line in self.rfile:
            self.wfile.write(b"> " + line)


class Stock(socketserver.BaseRequestHandler):
    """A handler that knows nothing of this package."""

    def handle(self):
        self.request.sendall(self.request.recv(100).swapcase())


class Swapping(EchoHandler):
    """A handler that changes the reply and nothing else."""

    reply = staticmethod(bytes.swapcase)


class Number(EchoHandler):
    """A handler that says which process it is in."""

    @staticmethod
    def reply(data):
        return b"%d" % os.getpid()


class ModelTestCase(TestCase):
    """Servers of one model, their log, and the clients to try them."""

    server_class = None

    def setUp(self):
        super().setUp()
        self.addCleanup(mock.patch.stopall)
        # most drains here have nothing to wait for
        mock.patch.object(Connections, "quiet_period", 0.03).start()
        self.record_log()
        self.limit_time()

    def record_log(self):
        """Have the log written to a file, by forked children, too."""
        handle, self.log_name = tempfile.mkstemp()
        os.close(handle)
        self.addCleanup(os.remove, self.log_name)
        handler = logging.FileHandler(self.log_name)
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        self.addCleanup(handler.close)
        self.addCleanup(logger.removeHandler, handler)
        self.addCleanup(logger.setLevel, logger.level)
        self.addCleanup(setattr, logger, "propagate", logger.propagate)
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False

    def limit_time(self):
        """Let the main thread's waits end, where the system has alarms."""
        def expire(number, frame):
            raise AssertionError("the test took more than a minute")
        if hasattr(signal, "setitimer"):
            self.addCleanup(signal.signal, signal.SIGALRM,
                            signal.signal(signal.SIGALRM, expire))
            self.addCleanup(signal.setitimer, signal.ITIMER_REAL, 0)
            signal.setitimer(signal.ITIMER_REAL, 60)

    def serve(self, *args, **options):
        """Return a server in the background, closed when the test ends."""
        cls = options.pop("cls", self.server_class)
        server = cls.start(("127.0.0.1", 0), *args, **options)
        self.addCleanup(server.server_close)
        return server

    def close(self, server):
        """Begin server_close() in a thread; return when it has been."""
        closing = threading.Thread(target=server.server_close)
        closing.start()
        self.addCleanup(closing.join, PATIENCE)
        return closing

    def log(self, pattern=""):
        """Return the lines of the log so far in which pattern is found."""
        with open(self.log_name) as f:
            return [line.rstrip("\n") for line in f
                    if re.search(pattern, line)]

    def logged(self, pattern):
        """Wait until the log has a line with pattern; return all such."""
        return until(lambda: self.log(pattern), "%r in the log" % pattern)

    def logged_end(self, s):
        """Return the log lines about the end of s, a socket or its port."""
        port = s if isinstance(s, int) else s.getsockname()[1]
        return self.logged(r"127\.0\.0\.1:%d: \w+ after" % port)

    def connect(self, address, window=0):
        """Return a socket connected to address, closed when the test ends."""
        if not window:
            return super().connect(address)
        s = socket.socket()
        self.addCleanup(s.close)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        s.settimeout(PATIENCE)
        s.connect(address)
        return s

    def asks(self, s, data=b"hello"):
        """Fail unless data comes back over s as it should."""
        s.sendall(data)
        self.assertEqual(self.receive(s, len(data)), data.upper())

    def answers(self, server):
        """Fail unless a new client is answered."""
        with self.connect(server.server_address) as s:
            self.asks(s)

    def turns_one_away(self, server):
        """Fail unless one client is reset, the next is answered, and a line
        in the log says why."""
        with self.assertRaises(ConnectionError):
            self.asks(self.connect(server.server_address))
        self.answers(server)
        self.assertEqual(len(self.log("ERROR cannot accept")), 1)
        self.assertEqual(self.log("Traceback"), [])

    def rest(self, s):
        """Return what s still receives, and how it ends."""
        parts = []
        try:
            for data in iter(lambda: s.recv(1 << 18), b""):
                parts.append(data)
        except ConnectionError:
            return b"".join(parts), "reset"
        return b"".join(parts), "eof"

    def exchange(self, server, data):
        """Send data and its end; return the reply and how it ends."""
        def send():
            try:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # what is received will show it
        with self.connect(server.server_address) as s:
            sender = threading.Thread(target=send)
            sender.start()
            try:
                return self.rest(s)
            finally:
                sender.join(PATIENCE)

    def fill(self, s, sent=0):
        """Send of STREAM, from sent on, what goes now; return sent then."""
        s.settimeout(0)
        try:
            while True:
                at = sent % len(STREAM)
                sent += s.send(STREAM[at:at + 65536])
        except BlockingIOError:
            return sent
        finally:
            s.settimeout(PATIENCE)

    def reset(self, s):
        """Close s with a reset."""
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        s.close()

    def quiet(self, s):
        """Fail if there is anything to receive from s, or its end."""
        self.assertEqual(select.select([s], [], [], 0)[0], [])


class Conformance:
    """What is true of every model.  A model may set:

    - few: the options that leave it the fewest threads
    - here: whether start() serves in the process of its caller
    - turns: whether it refuses a handler class that overrides handle()
    - crowd: how many connections are many to it
    """

    few = {}
    here = True
    turns = False
    crowd = 200

    def only_here(self):
        """Skip the test where the server is in another process."""
        if not self.here:
            self.skipTest("looks inside a server that is in another process")

    # The echo.

    def test_half_close_at_all_sizes(self):
        """All of the reply comes, then the end, whatever the size is."""
        server = self.serve()
        for size in SIZES:
            with self.subTest(size):
                data = (STREAM * (size // len(STREAM) + 1))[:size]
                reply, end = self.exchange(server, data)
                self.assertEqual((len(reply), end), (size, "eof"))
                self.assertTrue(reply == data.upper(), "a wrong echo")

    def test_every_byte_value(self):
        """Only the letters a to z change."""
        s = self.connect(self.serve().server_address)
        s.sendall(bytes(range(256)))
        self.assertEqual(self.receive(s, 256), bytes(
            c - 32 if 97 <= c <= 122 else c for c in range(256)))

    def test_one_byte_at_a_time(self):
        """Bytes that come one by one are answered one by one."""
        s = self.connect(self.serve().server_address)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for c in b"one byte at a time":
            self.asks(s, bytes([c]))
        for c in STREAM[:500]:
            s.sendall(bytes([c]))
        reply = b"".join(s.recv(1) for _ in range(500))
        self.assertEqual(reply, STREAM[:500].upper())

    def test_pipelining(self):
        """Messages sent before the first is answered come back in order."""
        s = self.connect(self.serve().server_address)
        messages = [b"message %d;" % number for number in range(1000)]
        for message in messages:
            s.sendall(message)
        sent = b"".join(messages)
        self.assertEqual(self.receive(s, len(sent)), sent.upper())

    def test_100_clients_at_once(self):
        """All are connected, then all ask, then each gets its own reply."""
        server = self.serve()
        clients = [self.connect(server.server_address) for _ in range(100)]
        for number, s in enumerate(clients):
            s.sendall(b"client %d" % number)
            s.shutdown(socket.SHUT_WR)
        for number, s in enumerate(clients):
            self.assertEqual(self.rest(s), (b"CLIENT %d" % number, "eof"))

    # Peers that hold up others, or would.

    def test_peers_that_do_not_read(self):
        """They delay nobody, though they send all that goes."""
        server = self.serve(**self.few)
        mute = [self.connect(server.server_address) for _ in range(4)]
        sent = [0] * len(mute)
        s = self.connect(server.server_address)
        for _ in range(20):
            sent = list(map(self.fill, mute, sent))
            self.asks(s)
        self.answers(server)
        for total in sent:
            self.assertGreater(total, 1 << 16)

    def test_streams_without_rest(self):
        """All progress, also when they are more than the workers."""
        server = self.serve(**self.few)
        rounds = [0] * 6
        deadline = time.monotonic() + PATIENCE

        def stream(index):
            s = self.connect(server.server_address)
            s.sendall(bytes(4096) * 4)
            while min(rounds) < 20 and time.monotonic() < deadline:
                s.sendall(bytes(4096))
                self.receive(s, 4096)
                rounds[index] += 1
            s.close()

        threads = [threading.Thread(target=stream, args=(index,))
                   for index in range(len(rounds))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * PATIENCE)
        self.assertGreaterEqual(min(rounds), 20, rounds)

    def test_idle_crowd(self):
        """Among many who have nothing to say the next is answered."""
        server = self.serve(**self.few)
        crowd = [self.connect(server.server_address)
                 for _ in range(self.crowd)]
        began = time.monotonic()
        self.answers(server)
        self.asks(crowd[0])
        self.asks(crowd[-1])
        # five milliseconds for each of 500 would be more
        self.assertLess(time.monotonic() - began, 2)

    # The limit.

    def test_limit(self):
        """At the limit the next waits until another ends."""
        server = self.serve(max_connections=2)
        inside = [self.connect(server.server_address) for _ in range(2)]
        for s in inside:
            self.asks(s)
        self.logged("WARNING at the limit of 2 connections")
        waiting = [self.connect(server.server_address) for _ in range(5)]
        for s in waiting:
            s.sendall(b"let me in")
        waits = []
        for s in waiting:
            for other in inside:
                self.asks(other)
            self.quiet(s)
            began = time.monotonic()
            inside.pop(0).close()
            self.assertEqual(self.receive(s, 9), b"LET ME IN")
            waits.append(time.monotonic() - began)
            inside.append(s)
        # The shortest of them: a busy machine is not to blame for that.
        self.assertLess(min(waits), 0.1)
        inside.pop().close()
        self.logged("INFO below the limit of 2 connections")
        self.assertEqual(len(self.log("limit")), 2, self.log())

    def test_limit_of_one_that_everybody_wants(self):
        """Nobody is taken in to be thrown out."""
        server = self.serve(max_connections=1)
        clients = [self.connect(server.server_address) for _ in range(20)]
        for s in clients:
            s.sendall(b"hello")
            s.shutdown(socket.SHUT_WR)
        for s in clients:
            self.assertEqual(self.rest(s), (b"HELLO", "eof"))

    def test_out_of_descriptors_at_the_limit(self):
        """The loop does not spin, and says why nobody is taken in."""
        class Short(self.server_class):
            lacking = False

            def get_request(self):
                if self.peers.ended and not self.lacking:
                    self.lacking = time.monotonic()
                if self.lacking and time.monotonic() < self.lacking + 0.1:
                    raise OSError(errno.EMFILE, "Too many open files")
                return super().get_request()

            def service_actions(self):
                if self.lacking:
                    logger.debug("turn")

        mock.patch.object(Acceptor, "pause", 0.05).start()
        server = self.serve(cls=Short, max_connections=1)
        s = self.connect(server.server_address)
        self.asks(s)
        self.logged("at the limit")
        waiting = self.connect(server.server_address)
        s.close()
        self.asks(waiting)
        self.assertEqual(len(self.log("ERROR cannot accept")), 1)
        self.assertLess(len(self.log("DEBUG turn")), 50)

    # The idle timeout.

    def test_idle_timeout(self):
        """Who moves no byte is ended, and nobody else; a debtor is reset."""
        mock.patch.object(Connections, "idle_tick", 0.05).start()
        server = self.serve(idle_timeout=0.15)
        silent, talker, mute, slow = [
            self.connect(server.server_address, SMALL_WINDOW)
            for _ in range(4)]
        total, sent, got = self.fill(mute), self.fill(slow), []
        self.asks(talker)
        self.asks(silent)
        began, ended = time.monotonic(), {}
        while len(ended) < 2:
            self.assertLess(time.monotonic(), began + PATIENCE)
            # what talks and reads keeps its own pace meanwhile
            ready = select.select([silent, slow], [], [], 0.02)[0]
            if silent in ready:
                ended.setdefault(silent, time.monotonic() - began)
            if slow in ready:
                got.append(slow.recv(1 << 14))
            self.asks(talker)
            if mute not in ended:
                try:
                    total = self.fill(mute, total)
                except ConnectionError:
                    ended[mute] = time.monotonic() - began
        self.assertEqual(self.rest(silent), (b"", "eof"))
        for s in silent, mute:
            self.assertRegex(self.logged_end(s)[0], "^INFO .* idle after")
            self.assertGreater(ended[s], 0.1)
            self.assertLess(ended[s], 0.15 + 0.5 + 0.3)  # for a busy machine
        self.asks(talker)
        slow.shutdown(socket.SHUT_WR)
        data, end = self.rest(slow)
        got.append(data)
        self.assertEqual((sum(map(len, got)), end), (sent, "eof"))
        self.assertTrue(b"".join(got) == STREAM[:sent].upper())

    def test_idle_timeout_beyond_measure(self):
        """It is as good as never."""
        self.answers(self.serve(idle_timeout=1e9))

    # The drain.

    def test_drain(self):
        """All that had arrived is answered, and the stream ends."""
        server = self.serve()
        clients = [self.connect(server.server_address) for _ in range(5)]
        for s in clients:
            self.asks(s)
            s.sendall(STREAM[:10000])
        server.server_close()
        for s in clients:
            self.assertEqual(self.rest(s), (STREAM[:10000].upper(), "eof"))
            self.assertRegex(self.logged_end(s)[0], "drain after")
        with self.assertRaises(ConnectionRefusedError):
            self.connect(server.server_address)

    def test_drain_when_idle(self):
        """It takes a moment, not the grace."""
        server = self.serve()
        self.asks(self.connect(server.server_address))
        began = time.monotonic()
        server.server_close()
        self.assertLess(time.monotonic() - began, 0.5)

    def test_drain_of_a_large_message(self):
        """A message in flight arrives whole."""
        Connections.quiet_period = 0.15  # until the mock ends
        server = self.serve(grace=PATIENCE)
        s = self.connect(server.server_address)
        sent = self.fill(s)
        reply = [s.recv(1000)]
        server.stop()
        closing = self.close(server)
        data, end = self.rest(s)
        reply.append(data)
        closing.join(PATIENCE)
        self.assertEqual((end, sum(map(len, reply))), ("eof", sent))
        self.assertTrue(b"".join(reply) == STREAM[:sent].upper())

    def test_drain_of_a_stream_without_rest(self):
        """It is reset, so that nobody takes a part for the whole."""
        server = self.serve(grace=0.1)
        s = self.connect(server.server_address)
        ends = []

        def stream():
            try:
                while True:
                    s.sendall(bytes(1 << 14))
            except OSError as error:
                ends.append(error.errno)

        streaming = threading.Thread(target=stream)
        streaming.start()
        self.addCleanup(streaming.join, PATIENCE)
        self.receive(s, 1 << 20)
        closing = self.close(server)
        # A reset is told once, to the sender perhaps; but to one that was
        # told of the end of the stream before it is EPIPE.
        told = self.rest(s)[1] == "reset"
        closing.join(PATIENCE)
        streaming.join(PATIENCE)
        self.assertTrue(told or ends == [errno.ECONNRESET], ends)
        self.assertRegex(self.logged_end(s)[0], "drain after")

    def test_drain_cuts_at_the_grace(self):
        """Who does not read is reset when the grace is over."""
        server = self.serve(grace=0.1)
        s = self.connect(server.server_address)
        self.asks(s)
        sent = self.fill(s)
        began = time.monotonic()
        closing = self.close(server)
        with self.assertRaises(ConnectionResetError):
            while closing.is_alive() or select.select([], [s], [], 0)[1]:
                select.select([], [s], [], 0.05)
                sent = self.fill(s, sent)
        closing.join(PATIENCE)
        took = time.monotonic() - began
        self.assertGreaterEqual(took, 0.1)
        self.assertLess(took, 1)
        self.assertRegex(self.logged_end(s)[0], "^INFO .* drain after")

    def test_stop_with_another_grace(self):
        """stop(0) leaves no time, and no connection."""
        server = self.serve(grace=PATIENCE)
        s = self.connect(server.server_address)
        self.asks(s)
        sent = self.fill(s)
        while select.select([], [s], [], 0.05)[1]:
            sent = self.fill(s, sent)
        server.stop(grace=0)
        began = time.monotonic()
        self.close(server).join(PATIENCE)
        self.assertLess(time.monotonic() - began, 1)
        self.assertEqual(self.rest(s)[1], "reset")
        self.assertRegex(self.logged_end(s)[0], "^INFO .* drain after")

    def test_stop_at_once_with_nothing_owed(self):
        """What has arrived was not cut."""
        self.only_here()
        server = self.serve()
        self.asks(self.connect(server.server_address))
        server.stop(grace=0)
        server.server_close()
        self.assertEqual(server.peers.cut_short, 0)

    def test_drain_cuts_a_handler_that_computes(self):
        """A reply that is not ready in time is no end of stream."""
        self.only_here()
        if self.turns:
            self.skipTest("a loop that computes cannot do anything else")
        computed = threading.Event()

        class Slow(EchoHandler):
            @staticmethod
            def reply(data):
                computed.wait(PATIENCE)
                return data

        server = self.serve(Slow, grace=0.05)
        self.addCleanup(computed.set)
        s = self.connect(server.server_address)
        s.sendall(b"hello")
        until(lambda: [peer for peer in server.peers.copy().values()
                       if peer.bytes_in])
        self.close(server)
        until(lambda: [peer for peer in server.peers.copy().values()
                       if peer.aborted], "the cut")
        computed.set()
        self.assertEqual(self.rest(s)[1], "reset")

    def test_drain_of_a_server_that_never_served(self):
        """Who was in the backlog is answered."""
        server = self.server_class(("127.0.0.1", 0))
        self.addCleanup(server.server_close)
        clients = [self.connect(server.server_address) for _ in range(3)]
        for s in clients:
            s.sendall(b"hello")
        server.server_close()
        for s in clients:
            self.assertEqual(self.rest(s), (b"HELLO", "eof"))

    def test_drain_at_the_limit(self):
        """Who waits in the backlog is answered, though it is the end."""
        server = self.serve(max_connections=1)
        self.asks(self.connect(server.server_address))
        clients = [self.connect(server.server_address) for _ in range(5)]
        for s in clients:
            s.sendall(b"hello")
        server.server_close()
        for s in clients:
            self.assertEqual(self.rest(s), (b"HELLO", "eof"))

    def test_close_at_once(self):
        """Who connected before serving could begin is answered."""
        server = self.serve()
        s = self.connect(server.server_address)
        s.sendall(b"hello")
        server.server_close()
        self.assertEqual(self.rest(s), (b"HELLO", "eof"))

    # Peers that reset.

    def test_peers_that_reset(self):
        """At no stage does that harm the server, nor look like a bug."""
        server = self.serve(**self.few)
        for _ in range(5):
            self.reset(self.connect(server.server_address))
            s = self.connect(server.server_address)
            s.sendall(b"hello")
            self.reset(s)
            s = self.connect(server.server_address)
            self.fill(s)
            self.reset(s)
            s = self.connect(server.server_address)
            self.asks(s)
            port = s.getsockname()[1]
            self.reset(s)
            self.assertRegex(self.logged_end(port)[0], "INFO .* reset after "
                             ".* 5 bytes in, 5 bytes out")
        self.answers(server)
        server.server_close()
        self.assertEqual(self.log("ERROR|Traceback"), [])
        self.assertTrue(self.log("served 21 connections"), self.log("served"))

    # Stopping, in every state.

    def test_stop_before_serving(self):
        """serve_forever() returns at once, and serves when called again."""
        server = self.server_class(("127.0.0.1", 0))
        self.addCleanup(server.server_close)
        server.stop()
        server.serve_forever()
        server.shutdown()

    def test_stop_twice(self):
        """The second time changes nothing."""
        server = self.serve()
        self.asks(self.connect(server.server_address))
        for end in server.stop, server.shutdown, server.server_close:
            end()
            end()
        server.stop()
        self.assertEqual(len(self.log("served 1 connections")), 1)

    @unittest.skipUnless(hasattr(signal, "setitimer"), "needs an alarm")
    def test_stop_in_a_signal_handler(self):
        """It neither blocks nor is lost."""
        server = self.server_class(("127.0.0.1", 0))
        self.addCleanup(server.server_close)
        alarms = itertools.count()

        def stop(number, frame):
            if next(alarms):
                raise AssertionError("waited %g s for the loop" % PATIENCE)
            server.stop()

        signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, 0.02, PATIENCE)
        server.serve_forever()

    def test_shutdown_in_the_loop(self):
        """It does not wait for itself."""
        class Once(self.server_class):
            def verify_request(self, request, client_address):
                self.shutdown()
                return True

        server = self.serve(cls=Once)
        s = self.connect(server.server_address)
        s.sendall(b"hello")
        if self.here:
            server._background.join(PATIENCE)
            self.assertFalse(server._background.is_alive())
        server.server_close()
        self.assertEqual(self.rest(s), (b"HELLO", "eof"))

    def test_shutdown_in_a_handler(self):
        """The reply that it is called from is sent."""
        self.only_here()

        class Last(EchoHandler):
            @staticmethod
            def reply(data):
                server.shutdown()
                return data.upper()

        server = self.serve(Last)
        s = self.connect(server.server_address)
        self.asks(s)
        server._background.join(PATIENCE)
        self.assertFalse(server._background.is_alive())
        server.server_close()
        self.assertEqual(self.rest(s), (b"", "eof"))

    # Handlers and hooks.

    def test_handler_with_another_reply(self):
        """reply() may be overridden in every model."""
        server = self.serve(Swapping)
        self.assertEqual(self.exchange(server, b"Hello"), (b"hELLO", "eof"))

    def test_handler_with_its_own_handle(self):
        """handle() may be overridden, or is refused with a reason."""
        if self.turns:
            with self.assertRaisesRegex(TypeError, "reply"):
                self.serve(Lines)
            return
        server = self.serve(Lines)
        clients = [self.connect(server.server_address) for _ in range(3)]
        for s in clients:
            s.sendall(b"a\nb\n")
            self.assertEqual(self.receive(s, 8), b"> a\n> b\n")
        began = time.monotonic()
        server.server_close()
        self.assertLess(time.monotonic() - began, 2)
        for s in clients:
            self.assertEqual(self.rest(s), (b"", "eof"))

    def test_handler_of_another_kind(self):
        """A stock handler runs, or is refused with a reason."""
        if self.turns:
            with self.assertRaisesRegex(TypeError, "Stock"):
                self.serve(Stock)
            return
        server = self.serve(Stock)
        self.assertEqual(self.exchange(server, b"Hello"), (b"hELLO", "eof"))

    def test_handler_with_a_timeout(self):
        """The timeout of a StreamRequestHandler does not hold up a drain."""
        handler = type("Timed", (EchoHandler,), {"timeout": 3.0})
        server = self.serve(handler)
        s = self.connect(server.server_address)
        self.asks(s)
        began = time.monotonic()
        server.server_close()
        self.assertLess(time.monotonic() - began, 2)
        self.assertEqual(self.rest(s), (b"", "eof"))

    def test_handler_with_a_bug(self):
        """It costs a traceback and its own connection, no other."""
        class Buggy(EchoHandler):
            @staticmethod
            def reply(data):
                return data.upper() if data != b"die" else 1 / 0

        server = self.serve(Buggy, **self.few)
        other = self.connect(server.server_address)
        for _ in range(3):
            s = self.connect(server.server_address)
            s.sendall(b"die")
            self.asks(other)
            self.assertEqual(self.rest(s)[0], b"")
            port = s.getsockname()[1]
            s.close()
            self.assertRegex(self.logged_end(port)[0], "error after")
        self.assertEqual(len(self.log("^ZeroDivisionError")), 3)

    def test_handler_that_exits(self):
        """SystemExit ends its own connection, no worker and no loop."""
        class Exiting(EchoHandler):
            @staticmethod
            def reply(data):
                return data.upper() if data != b"die" else sys.exit()

        server = self.serve(Exiting, **self.few)
        for _ in range(2):
            s = self.connect(server.server_address)
            s.sendall(b"die")
            self.assertEqual(self.rest(s), (b"", "reset"))
        self.answers(server)

    def test_handler_that_answers_in_part(self):
        """Its reply arrives whole, though much of its input is unread."""
        if self.turns:
            self.skipTest("it takes turns only")

        class Early(EchoHandler):
            def handle(self):
                self.request.recv(10)
                self.request.sendall(bytes(100000))

        server = self.serve(Early)
        s = self.connect(server.server_address, 1 << 12)
        s.sendall(bytes(50000))
        s.shutdown(socket.SHUT_WR)
        self.assertEqual(self.rest(s), (bytes(100000), "eof"))

    def test_hook_finish_request(self):
        """It is called with each connection, or is refused with a reason."""
        class Watching(self.server_class):
            def finish_request(self, request, client_address):
                logger.info("finish: %s", client_address[1])
                super().finish_request(request, client_address)

        if self.turns:
            with self.assertRaisesRegex(TypeError, "reply"):
                self.serve(cls=Watching)
            return
        self.answers(self.serve(cls=Watching))
        self.logged("finish: ")

    def test_hook_verify_request(self):
        """Who is turned away gets no reply, and others do."""
        class Choosy(self.server_class):
            def verify_request(self, request, client_address):
                return client_address[1] in ports

        # a port that is known beforehand
        s = socket.socket()
        self.addCleanup(s.close)
        s.bind(("127.0.0.1", 0))
        s.settimeout(PATIENCE)
        ports = [s.getsockname()[1]]
        server = self.serve(cls=Choosy)
        self.assertEqual(self.rest(self.connect(server.server_address)),
                         (b"", "eof"))
        s.connect(server.server_address)
        self.asks(s)

    def test_hook_process_request(self):
        """It is called with each connection, and may call the model's."""
        class Watching(self.server_class):
            def process_request(self, request, client_address):
                logger.info("taken: %s", client_address[1])
                super().process_request(request, client_address)

        server = self.serve(cls=Watching)
        s = self.connect(server.server_address)
        self.asks(s)
        self.logged("taken: %d$" % s.getsockname()[1])

    def test_hook_handle_error(self):
        """It is told of a bug, in place of the log."""
        class Caring(self.server_class):
            def handle_error(self, request, client_address):
                logger.info("care: %s", sys.exc_info()[0].__name__)

        class Buggy(EchoHandler):
            @staticmethod
            def reply(data):
                return {}[data]

        server = self.serve(Buggy, cls=Caring)
        s = self.connect(server.server_address)
        s.sendall(b"hello")
        self.assertEqual(self.rest(s)[0], b"")
        self.logged("care: KeyError")
        self.assertEqual(self.log("Traceback"), [])

    def test_hook_service_actions(self):
        """It is called by the loop."""
        class Serving(self.server_class):
            def service_actions(self):
                logger.info("service")

        server = self.serve(cls=Serving)
        self.asks(self.connect(server.server_address))
        self.logged("service")

    # The log.

    def test_log(self):
        """A connection has one line, with what it was and how it ended."""
        server = self.serve()
        s = self.connect(server.server_address)
        self.asks(s)
        s.shutdown(socket.SHUT_WR)
        self.assertEqual(self.rest(s), (b"", "eof"))
        lines = self.logged_end(s)
        self.assertEqual(len(lines), 1)
        self.assertRegex(lines[0], r"^INFO 127\.0\.0\.1:\d+: eof after "
                         r"\d+\.\d{3} s, 5 bytes in, 5 bytes out$")
        server.server_close()
        self.assertTrue(self.log(
            r"INFO served 1 connections, 5 bytes in, 5 bytes out \(1 eof\)$"))

    def test_log_of_connections_without_a_byte(self):
        """They are those of health probes: shown on demand."""
        server = self.serve()
        s = self.connect(server.server_address)
        s.shutdown(socket.SHUT_WR)
        self.assertEqual(self.rest(s), (b"", "eof"))
        self.assertRegex(self.logged_end(s)[0], "^DEBUG .* 0 bytes in")

    def test_log_without_payload(self):
        """Nothing of what peers send is in the log."""
        server = self.serve()
        self.exchange(server, b"SECRET\x1b[2J\n" * 1000)
        s = self.connect(server.server_address)
        self.asks(s, b"SECRET\r\nERROR")
        self.reset(s)
        server.server_close()
        self.assertEqual(len(self.log(" after ")), 2)
        self.assertEqual(self.log("SECRET|ERROR|\x1b"), [])

    def test_log_of_a_mapped_peer(self):
        """On "::" an IPv4 peer is shown as one."""
        try:
            server = self.server_class.start(("::", 0))
        except OSError as error:
            self.skipTest("no IPv6 here: %s" % error)
        self.addCleanup(server.server_close)
        s = self.connect(("127.0.0.1", server.server_address[1]))
        self.asks(s)
        s.close()
        self.logged(r"^INFO 127\.0\.0\.1:\d+: eof after")

    # What it leaves behind.

    @unittest.skipUnless(hasattr(os, "fork"), "is about processes")
    def test_nothing_survives(self):
        """No process of its own is left when a server is closed."""
        ours, theirs = os.pipe()
        self.addCleanup(os.close, ours)
        try:
            server = self.serve(grace=0.05)
        finally:
            os.close(theirs)
        self.fill(self.connect(server.server_address))
        self.asks(self.connect(server.server_address))
        server.server_close()
        # a forked process would have the other end still
        self.readable(ours, "other processes to end")
        self.assertEqual(os.read(ours, 1), b"")


class ThreadsTest(Conformance, ModelTestCase):
    server_class = MODELS["threads"]


class PoolTest(Conformance, ModelTestCase):
    server_class, few, crowd = MODELS["pool"], {"pool_size": 1}, 500


class EventsTest(Conformance, ModelTestCase):
    server_class, turns = MODELS["events"], True


@unittest.skipUnless("processes" in MODELS, "there is no fork() here")
class ProcessesTest(Conformance, ModelTestCase):
    server_class, here, crowd = MODELS.get("processes"), False, 50


class EveryModelTest(unittest.TestCase):

    def test_every_model_is_tested(self):
        """A model costs its class and a line above."""
        tested = {cls.server_class for cls in Conformance.__subclasses__()}
        self.assertEqual(tested - {None}, set(MODELS.values()))


# What one model has and the others have not.

class ThreadStartTest(ModelTestCase):
    server_class = MODELS["threads"]

    def test_thread_that_cannot_start(self):
        """It costs one line, and the server lives on."""
        starts = itertools.count()
        real = threading.Thread.start

        def start(thread):
            if next(starts) == 0:
                raise RuntimeError("can't start new thread")
            real(thread)

        server = self.serve()
        mock.patch.object(Acceptor, "pause", 0.05).start()
        mock.patch.object(threading.Thread, "start", start).start()
        self.turns_one_away(server)



class PoolSizeTest(ModelTestCase):
    server_class = MODELS["pool"]

    def test_pool_size(self):
        """It is the number of threads, whatever the connections are."""
        before = threading.active_count()
        server = self.serve(pool_size=3)
        for _ in range(10):
            self.asks(self.connect(server.server_address))
        self.assertEqual(threading.active_count(), before + 3 + 1)

    def test_pool_size_without_sense(self):
        """A pool without workers is refused."""
        for size in 0, -1:
            with self.assertRaisesRegex(ValueError, "pool_size"):
                self.serve(pool_size=size)


class ParkTest(ModelTestCase):
    """What can happen while a worker gives a connection to the loop."""

    server_class = MODELS["pool"]

    def setUp(self):
        class Poller(loop_module.Selector):
            def register(poller, number, events):
                if threading.current_thread().name != "echoserver":
                    while self.happens:  # in a worker, not in the loop
                        self.happens.pop()()
                return super().register(number, events)

        super().setUp()
        self.happens = []
        mock.patch.object(Loop, "poller_class", Poller).start()
        [mock.patch.object(m, "WRITE", selectors.EVENT_WRITE).start()
         for m in (pool_module, events_module)]
        [mock.patch.object(m, "READ", selectors.EVENT_READ).start()
         for m in (pool_module, events_module)]
        self.server = self.serve(pool_size=1)

    def test_abort(self):
        """It is not taken out of the loop before it is in."""
        self.happens.append(lambda: [
            self.server.peers.abort(peer, "drain")
            for peer in self.server.peers.copy().values()])
        s = self.connect(self.server.server_address)
        self.asks(s)
        self.assertEqual(self.rest(s), (b"", "reset"))
        self.answers(self.server)

    def test_no_means(self):
        """The connection is reset, and the worker lives on."""
        def fail():
            raise OSError(errno.ENOSPC, "No space left on device")

        self.happens.append(fail)
        s = self.connect(self.server.server_address)
        self.asks(s)
        self.assertEqual(self.rest(s), (b"", "reset"))
        self.assertRegex(self.logged_end(s)[0], "error after")
        self.assertEqual(len(self.log("ERROR .*cannot go on: .*No space")), 1)
        self.answers(self.server)


class SelectTest(ModelTestCase):
    """What is different where select() is all there is."""

    def setUp(self):
        class Poller(selectors.SelectSelector):
            poll = loop_module.Selector.poll

        super().setUp()
        mock.patch.object(Loop, "poller_class", Poller).start()
        [mock.patch.object(m, "WRITE", selectors.EVENT_WRITE).start()
         for m in (pool_module, events_module)]
        [mock.patch.object(m, "READ", selectors.EVENT_READ).start()
         for m in (pool_module, events_module)]

    def test_slow_reader(self):
        """A reply that does not fit is finished when it does."""
        for name in "pool", "events":
            server = self.serve(cls=MODELS[name])
            s = self.connect(server.server_address, window=4096)
            sent = self.fill(s)
            self.answers(server)
            self.assertTrue(self.receive(s, sent) == STREAM[:sent].upper())

    def test_cap(self):
        """Models that wait in it say how much it holds, and hold to that."""
        for name in "pool", "events":
            for limit in 0, 1000:
                server = self.serve(cls=MODELS[name], max_connections=limit)
                self.assertEqual(server.max_connections, 500)
                self.answers(server)
        self.assertEqual(len(self.log("WARNING select")), 4)


class EventsOnlyTest(ModelTestCase):
    server_class = MODELS["events"]

    def program(self, *command):
        """Start a program from the project's root, without the flags that
        cost memory; the test's end kills what is left of it."""
        process = subprocess.Popen(
            [sys.executable, "-S"] + list(command), cwd=ROOT, bufsize=0,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE)
        self.addCleanup(self._end, process)
        return process

    def address(self, process):
        """Return the address that a server program announces."""
        line = self.read_line(process.stdout)
        found = re.search(br"on (\S+) port (\d+)", line)
        self.assertTrue(found, line)
        return found.group(1).decode(), int(found.group(2))

    def proc(self, process, name):
        """Return a text of the /proc system about process."""
        try:
            with open("/proc/%d/%s" % (process.pid, name)) as f:
                return f.read()
        except OSError as error:
            self.skipTest("needs /proc: %s" % error)

    def test_no_thread(self):
        """The loop's own is the only one."""
        before = threading.active_count()
        server = self.serve()
        for _ in range(10):
            self.asks(self.connect(server.server_address))
        self.assertEqual(threading.active_count(), before + 1)

    def test_memory(self):
        """An idle connection costs less than 3 KiB."""
        server = self.program("-m", "echoserver", "0", "-m", "events")
        address = self.address(server)

        def resident():
            return int(re.search(r"VmRSS:\s+(\d+)",
                                 self.proc(server, "status")).group(1))

        for _ in range(100):
            self.asks(self.connect(address))
        before = resident()
        crowd = [self.connect(address) for _ in range(500)]
        for s in crowd:
            self.asks(s)
        self.assertLess((resident() - before) / len(crowd), 3)

    def test_out_of_descriptors(self):
        """The rest waits, without a spin, and is served when it can be."""
        server = self.program("-c", """if 1:
            import resource, runpy, sys
            from echoserver.server.acceptor import Acceptor
            Acceptor.pause = 0.1
            resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
            sys.argv[1:] = ["0", "--model", "events", "--idle-timeout", "0"]
            runpy.run_module("echoserver", run_name="__main__")
            """)

        def used():
            return sum(map(int, self.proc(server, "stat").split()[13:15]))

        address = self.address(server)
        crowd = [self.connect(address) for _ in range(30)]
        for s in crowd:
            s.sendall(b"hello")
        while b"cannot accept" not in self.read_line(server.stderr):
            pass
        began, before = time.monotonic(), used()
        for s in crowd:
            self.assertEqual(self.receive(s, 5), b"HELLO")
            s.close()
        took = time.monotonic() - began
        ticks = used() - before
        self.assertLess(ticks / os.sysconf("SC_CLK_TCK"), 0.2 + took / 5)
        server.terminate()
        lines = server.communicate(timeout=PATIENCE)[1].splitlines()
        again = [line for line in lines if b"cannot accept" in line]
        self.assertLessEqual(len(again), took + 1)


@unittest.skipUnless("processes" in MODELS, "there is no fork() here")
class ChildrenTest(ModelTestCase):
    server_class = MODELS.get("processes")

    def child(self, server):
        """Return a connection and the number of the process that serves it."""
        s = self.connect(server.server_address)
        s.sendall(b"hello")
        return s, int(s.recv(100))

    def test_process_of_its_own(self):
        """Every connection has one."""
        server = self.serve(Number)
        numbers = {self.child(server)[1] for _ in range(5)}
        self.assertEqual(len(numbers - {os.getpid()}), 5)

    def test_children_ignore_the_terminal(self):
        """Ctrl-C reaches all processes; the parent decides."""
        server = self.serve(Number)
        s, number = self.child(server)
        os.kill(number, signal.SIGINT)
        s.sendall(b"hello")
        self.assertEqual(int(s.recv(100)), number)

    def test_child_that_is_killed(self):
        """Its connection ends with an error, and the server lives on."""
        server = self.serve(Number)
        s, number = self.child(server)
        os.kill(number, signal.SIGKILL)
        self.assertEqual(self.rest(s)[0], b"")
        self.assertRegex(self.logged_end(s)[0], "error after")
        self.child(server)

    def test_shutdown_in_a_child(self):
        """It does not hang, since that loop is not in this process."""
        class Last(EchoHandler):
            def handle(self):
                data = self.request.recv(5)
                call = threading.Thread(target=self.server.shutdown,
                                        daemon=True)
                call.start()
                call.join(PATIENCE)
                if not call.is_alive():
                    self.request.sendall(data.upper())

        self.asks(self.connect(self.serve(Last).server_address))

    def test_child_that_cannot_be_watched(self):
        """It is ended, and its client turned away."""
        server = self.server_class(("127.0.0.1", 0))
        self.addCleanup(server.server_close)
        s = self.connect(server.server_address)
        error = OSError(errno.ENOSPC, "No space left on device")
        with mock.patch.object(server.loop, "add", side_effect=error):
            server.handle_request()
        self.assertEqual(self.rest(s), (b"", "reset"))
        self.assertEqual(len(self.log("ERROR cannot accept")), 1)

    def test_poller_that_is_not_inherited(self):
        """A kqueue is not, and its number may be another file's."""
        Poller, fork = not_inherited()
        mock.patch.object(Loop, "poller_class", Poller).start()
        mock.patch("os.fork", fork).start()
        server = self.serve()
        self.answers(server)
        self.answers(server)

    def test_process_that_cannot_start(self):
        """It costs one line, and the server lives on."""
        forks = itertools.count()
        real = os.fork

        def fork():
            if next(forks) == 1:  # the server itself is the first
                raise BlockingIOError(errno.EAGAIN, "no more processes")
            return real()

        mock.patch.object(Acceptor, "pause", 0.05).start()
        mock.patch.object(os, "fork", fork).start()
        server = self.serve()
        self.turns_one_away(server)

    def test_children_of_others_are_not_reaped(self):
        """Their exit status stays for who started them."""
        number = os.fork()
        if not number:
            os._exit(7)
        # ended, and not reaped by this look
        os.waitid(os.P_PID, number, os.WEXITED | os.WNOWAIT)
        server = self.server_class(("127.0.0.1", 0))
        self.addCleanup(server.server_close)
        s = self.connect(server.server_address)
        s.sendall(b"hello")
        server.server_close()
        self.assertEqual(self.rest(s), (b"HELLO", "eof"))
        self.assertEqual(os.waitpid(number, 0)[1], 7 << 8)

    def test_signal_to_all_processes(self):
        """Children leave their end to the parent, which drains."""
        server = self.run_program("echoserver", "0", "-m", "processes",
                                  start_new_session=True)
        line = self.read_line(server.stdout).decode()
        address = "127.0.0.1", int(re.search(r"port (\d+)", line).group(1))
        s = self.connect(address)
        self.asks(s)
        os.killpg(server.pid, signal.SIGTERM)
        self.assertEqual(self.rest(s), (b"", "eof"))
        self.assertEqual(server.wait(PATIENCE), 0)

    def test_port_of_a_server_that_was_killed(self):
        """Its children hold no listener, and end with their peers."""
        old = self.run_program("echoserver", "0", "--model", "processes")
        line = self.read_line(old.stdout).decode()
        address = "127.0.0.1", int(re.search(r"port (\d+)", line).group(1))
        s = self.connect(address)
        self.asks(s)
        old.kill()
        old.wait(PATIENCE)
        server = self.server_class.start(address)
        self.addCleanup(server.server_close)
        self.asks(s)
        self.answers(server)
        s.shutdown(socket.SHUT_WR)
        self.assertEqual(self.rest(s), (b"", "eof"))
        # its last process to end closes it
        self.assertEqual(self.read_line(old.stdout), b"")
