"""Who is let in: the limit, and a system that is out of something."""

import errno
import itertools
import os
import select
import socket
import socketserver
import threading
import time
from unittest import mock

from echoserver import BlockingEchoServer
from echoserver.server.handler import Peer
from echoserver.server.models import threads

from .models import (MODELS, PATIENCE, ModelTestCase, every_model, needs_fork,
                     until)

TOO_MANY = OSError(errno.EMFILE, "Too many open files")


@every_model
class Limit:

    def test_limit(self):
        """At the limit the next waits until another ends; told once each
        way."""
        self.needs(2)
        server = self.serve(max_connections=2)
        inside = [self.client(server) for _ in range(2)]
        self.logged("WARNING at the limit of 2 connections")
        for s in [self.asking(server) for _ in range(3)]:
            for other in inside:
                self.asks(other)
            self.quiet(s)
            inside.pop(0).close()
            self.assertEqual(self.receive(s, 5), b"HELLO")
            inside.append(s)
        inside.pop().close()
        self.logged("INFO below the limit of 2 connections")
        self.assertEqual(len(self.log("limit")), 2, self.log())

    def test_limit_and_a_crowd(self):
        """Of many more than it, each gets its own reply in its turn: nobody
        is let in to be thrown out, and no end is missed by the loop."""
        for limit in 1, 4:
            server = self.serve(max_connections=limit)
            clients = [self.asking(server, b"client %d" % number)
                       for number in range(12)]
            for s in clients:
                s.shutdown(socket.SHUT_WR)
            for number, s in enumerate(clients):
                self.ends(s, data=b"CLIENT %d" % number)
            server.server_close()
        self.assertEqual(len(self.log("served 12 connections")), 2)

    def test_limit_and_the_end(self):
        """Who waits in the backlog is answered by the drain, which accepts in
        portions of the limit."""
        most = []

        class Server(self.server_class):
            def process_request(self, request, client_address):
                most.append(len(self.peers))
                super().process_request(request, client_address)

        server = self.serve(cls=Server, max_connections=2, grace=PATIENCE)
        clients = [self.client(server)]
        clients += [self.asking(server) for _ in range(5)]
        server.server_close()
        self.ends(clients.pop(0))
        for s in clients:
            self.ends(s, data=b"HELLO")
        self.assertLessEqual(max(most, default=0), 2)


class LimitTest(ModelTestCase):

    def test_limit_that_is_reached_again_and_again(self):
        """It is told once in a while, the last change in the end."""
        server = self.make(max_connections=1)
        server.acceptor.limit_interval = 0.5
        self.in_background(server)
        for _ in range(9):
            self.answers(server)
        self.logged("INFO below the limit of 1 connections again")
        self.assertLess(len(self.log("limit")), 9)

    def test_no_limit(self):
        """0 is none."""
        self.answers(self.serve(max_connections=0))

    def test_end_while_the_limit_is_looked_at(self):
        """It wakes the loop, which may have counted that connection."""
        class Server(self.server_class):
            def limit(self):
                if hasattr(self, "acceptor"):
                    self.acceptor.connection_ended()
                return 1

            max_connections = property(limit, lambda self, value: None)

        server = self.make(cls=Server)
        with mock.patch.object(server.loop, "wake") as wake:
            server.acceptor.update(server.socket)
        self.assertTrue(wake.called)

    def test_newcomer_among_busy_connections(self):
        """While a thread is started for it, the others wait at the gate."""
        server = self.serve()
        busy, held = self.client(server), []

        def start(*args):
            waiting = self.in_thread(server.peers.gate.wait)
            waiting.join(0.05)
            held.append(waiting.is_alive())
            return real_start(*args)

        real_start = threads.start_thread
        with mock.patch.object(threads, "start_thread", start):
            self.answers(server)
        self.assertEqual(held, [True])
        server.peers.gate.wait()      # until the acceptor has opened it
        server.peers.gate.close()
        for turns in range(100):
            busy.sendall(b"x")
            if not select.select([busy], [], [], 0.1)[0]:
                break
            busy.recv(1)
        self.assertLess(turns, 99)
        server.peers.gate.open()
        self.assertEqual(busy.recv(1), b"X")


class ShortageTest(ModelTestCase):
    """Where the system is out of something, clients wait in the backlog."""

    def accepting(self, *outcomes, hook="get_request"):
        """Return a server class whose hook raises each of the outcomes, or
        goes on where that is None, and then always goes on."""
        left = list(outcomes)
        self.times = []

        def call(server, *args):
            outcome = left.pop(0) if left else None
            self.times.append(time.monotonic())
            if outcome is not None:
                raise outcome
            return getattr(self.server_class, hook)(server, *args)

        return type("Server", (self.server_class,), {hook: call})

    def test_client_that_has_gone_before_accept(self):
        """The listener was ready and is not: the loop goes on (bpo-7995)."""
        server = self.serve(cls=self.accepting(
            BlockingIOError(errno.EAGAIN, "again"),
            ConnectionAbortedError(errno.ECONNABORTED, "gone")))
        for _ in range(3):
            self.answers(server)
        self.assertEqual(self.log("WARNING|ERROR"), [])

    def test_out_of_descriptors(self):
        """The listener rests, then accepts again; nobody inside notices."""
        server = self.serve(cls=self.accepting(None, *[TOO_MANY] * 4))
        inside = self.client(server)
        s = self.connect(server.server_address)
        self.asks(inside)
        self.asks(s)
        waits = [later - earlier for earlier, later
                 in zip(self.times[1:], self.times[2:5])]
        self.assertEqual([wait for wait in waits if wait < 0.019], [])
        self.assertRegex(self.log("ERROR")[0], "Too many open files")

    def test_out_of_descriptors_at_the_limit(self):
        """The loop does not spin, and says why nobody is let in."""
        server = self.make(cls=self.accepting(None, *[TOO_MANY] * 3),
                           max_connections=1)
        with mock.patch.object(server.acceptor, "update",
                               wraps=server.acceptor.update) as turns:
            server.in_background()
            s = self.client(server)
            self.logged("at the limit")
            waiting = self.connect(server.server_address)
            s.close()
            self.asks(waiting)
        self.assertLess(turns.call_count, 50)
        self.assertEqual(len(self.log("ERROR cannot accept")), 1)

    def test_out_of_descriptors_without_end(self):
        """One line a second is said, however often accepting fails."""
        for minute, number in enumerate((errno.EMFILE, errno.ENFILE,
                                         errno.ENOBUFS, errno.ENOMEM)):
            server = self.make(cls=self.accepting(
                *[OSError(number, "none left")] * 5))
            with mock.patch("echoserver.server.acceptor.monotonic") as clock:
                for second in 0.0, 0.5, 0.9, 1.0, 1.5:
                    clock.return_value = 60 * minute + second
                    server.acceptor.accept()
            self.assertEqual(len(self.log("ERROR")), 2 * minute + 2)

    def test_out_of_something_for_a_client(self):
        """It was accepted, waits, and is answered: without memory for what is
        known of it, or for a thread (gh-140746), or with no thread left."""
        memory = OSError(errno.ENOMEM, "Cannot allocate memory")
        starts = itertools.count()
        real = threading.Thread.start

        def start(thread):
            if next(starts) == 0:
                raise RuntimeError("can't start new thread")
            real(thread)

        failures = [memory]

        def peer_class(server, *args, **options):
            if failures:
                raise failures.pop()
            return Peer(*args, **options)

        for what in (mock.patch.object(self.server_class, "peer_class",
                                       peer_class),
                     mock.patch.object(threading.Thread, "start", start),
                     mock.patch("mmap.mmap", side_effect=[
                         memory, mock.Mock()])):
            self.record_log()
            server = self.serve(max_connections=1)
            with what:
                self.keeps_waiting(server)

    def test_error_of_a_hook(self):
        """It costs its own connection, and is no shortage: the next client
        is accepted at once."""
        for hook, failures in (
                ("verify_request", [OSError(errno.EAGAIN, "again"), TOO_MANY,
                                    FileNotFoundError(errno.ENOENT, "none")]),
                ("process_request", [ZeroDivisionError("not again")]),
                ("get_request", [OSError(1, "handshake failed")]),
                ("get_request", [GeneratorExit("no, either")])):
            server = self.serve(cls=self.accepting(*failures, hook=hook))
            server.acceptor.pause = 10 * PATIENCE
            for _ in failures if hook != "get_request" else ():
                self.breaks(server)
            self.answers(server)
        self.assertEqual(len(self.log("^Traceback")), 4)
        self.assertRegex("".join(self.log("cannot accept")),
                         "handshake failed.*no, either")


@needs_fork
class ForkShortageTest(ModelTestCase):

    server_class = MODELS.get("processes")

    def test_process_that_cannot_start(self):
        """The client that was accepted waits, and is answered."""
        forks = itertools.count()
        real = os.fork

        def fork():
            if next(forks) == 1:  # the first is the server
                raise BlockingIOError(errno.EAGAIN, "no more processes")
            return real()

        with mock.patch.object(os, "fork", fork):
            server = self.serve()
        self.keeps_waiting(server)

    def test_client_that_has_left(self):
        """No process is forked for it, only its end is logged."""
        for end in "eof", "reset":
            with self.subTest(end=end):
                server = self.make()
                s = self.connect(server.server_address)
                port = s.getsockname()[1]
                s.close() if end == "eof" else self.reset(s)
                with mock.patch("os.fork", side_effect=AssertionError):
                    until(lambda: server.acceptor.accept() or self.log(
                        ":%d" % port), "the client")
                self.assertRegex(self.logged_end(port), end + " after")

    def test_child_that_cannot_be_watched(self):
        """It is ended, and its client turned away."""
        server = self.make()
        s = self.connect(server.server_address)
        error = OSError(errno.ENOSPC, "No space left on device")
        with mock.patch.object(server.loop, "add", side_effect=error):
            server.handle_request()
        self.ends(s, "reset")
        self.assertEqual(len(self.log("ERROR cannot accept")), 1)


class AcceptedSocketTest(ModelTestCase):

    def check(self):
        """Fail unless a connection blocks, and sends small replies at once
        (gh-108736)."""
        server = self.serve()
        s = self.connect(server.server_address)
        request = self.peer(server).request
        socket.setdefaulttimeout(None)
        self.asks(s)
        self.assertIs(request.gettimeout(), None)
        self.assertTrue(request.getsockopt(socket.IPPROTO_TCP,
                                           socket.TCP_NODELAY))

    def test_accepted_socket(self):
        """So it is; on BSD, too, where blocking mode is all it inherits
        (bpo-7995), and whatever socket.setdefaulttimeout() says."""
        real = socketserver.TCPServer.get_request

        def get_request(server):
            request, client_address = real(server)
            request.setblocking(False)
            return request, client_address

        self.check()
        with mock.patch("echoserver.server.base.ACCEPTED_INHERIT", False), \
                mock.patch.object(socketserver.TCPServer, "get_request",
                                  get_request):
            self.check()
        self.addCleanup(socket.setdefaulttimeout, socket.getdefaulttimeout())
        socket.setdefaulttimeout(0.001)
        self.check()

    def test_backlog(self):
        """Clients that come at once find room, with nobody accepting yet.

        With socketserver's backlog of 5, most would wait (bpo-38699).
        """
        server = self.make(cls=BlockingEchoServer, grace=0)
        for _ in range(100):
            self.connect(server.server_address)
