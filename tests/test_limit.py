"""Who is let in: the limit, and a system that is out of something."""

import errno
import itertools
import os
import select
import socket
import socketserver
import threading
import time
import unittest
from unittest import mock

from echoserver import BlockingEchoServer, EchoHandler
from echoserver.server.handler import Peer
from echoserver.server.models import MODELS, threads

from .models import ModelTestCase, every_model, needs_fork
from .support import PATIENCE, until

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
        waiting = [self.connect(server.server_address) for _ in range(5)]
        for s in waiting:
            s.sendall(b"let me in")
        for s in waiting:
            for other in inside:
                self.asks(other)
            self.quiet(s)
            inside.pop(0).close()
            self.assertEqual(self.receive(s, 9), b"LET ME IN")
            inside.append(s)
        inside.pop().close()
        self.logged("INFO below the limit of 2 connections")
        self.assertEqual(len(self.log("limit")), 2, self.log())

    def test_limit_of_one_that_everybody_wants(self):
        """Nobody is let in to be thrown out."""
        server = self.serve(max_connections=1)
        clients = [self.connect(server.server_address) for _ in range(20)]
        for s in clients:
            s.sendall(b"hello")
            s.shutdown(socket.SHUT_WR)
        for s in clients:
            self.ends(s, data=b"HELLO")

    def test_limit_and_a_crowd(self):
        """Of many more than it, each is served in its turn: no end of a
        connection is missed by the loop."""
        server = self.serve(max_connections=20)
        clients = [self.connect(server.server_address) for _ in range(100)]

        def ask(some):
            for s in some:
                s.sendall(b"hello")
                s.shutdown(socket.SHUT_WR)
            for s in some:
                self.ends(s, data=b"HELLO")
                s.close()

        threads = [self.in_thread(lambda some=clients[first::4]: ask(some))
                   for first in range(4)]
        for thread in threads:
            self.ended(thread)
        server.server_close()
        self.assertTrue(self.log("served 100 connections"), self.log("served"))

    def test_limit_and_the_end(self):
        """Who waits in the backlog is answered by the drain."""
        server = self.serve(max_connections=1)
        self.client(server)
        clients = [self.connect(server.server_address) for _ in range(5)]
        for s in clients:
            s.sendall(b"hello")
        server.server_close()
        for s in clients:
            self.ends(s, data=b"HELLO")

    def test_backlog_at_the_end(self):
        """The drain accepts it in portions of the limit."""
        most = []

        class Server(self.server_class):
            def process_request(self, request, client_address):
                most.append(len(self.peers))
                super().process_request(request, client_address)

        server = self.make(cls=Server, max_connections=2, grace=PATIENCE)
        clients = [self.connect(server.server_address) for _ in range(7)]
        for s in clients:
            s.sendall(b"hello")
        self.in_background(server).server_close()
        for s in clients:
            self.ends(s, data=b"HELLO")
        if self.here:
            self.assertLessEqual(max(most), 2)

    def test_out_of_descriptors_at_the_limit(self):
        """The loop does not spin, and says why nobody is let in."""
        self.needs(2)
        class Short(self.server_class):
            lacking = turns = 0

            def get_request(self):
                if self.peers.ended and self.lacking < 3:
                    self.lacking += 1
                    raise TOO_MANY
                return super().get_request()

            def service_actions(self):
                Short.turns += 1
                if self.turns > 200:
                    raise AssertionError("the loop spins")

        server = self.serve(cls=Short, max_connections=1)
        s = self.client(server)
        self.logged("at the limit")
        waiting = self.connect(server.server_address)
        s.close()
        self.asks(waiting)
        self.assertEqual(len(self.log("ERROR cannot accept")), 1)


class LimitLineTest(ModelTestCase):

    def test_limit_that_is_reached_again_and_again(self):
        """It is told once in a while, with how often."""
        server = self.make(max_connections=1)
        server.acceptor.limit_interval = 0.05
        server.in_background()
        until(lambda: self.answers(server) or self.log("changed [0-9]+ times"),
              "a line")
        server.acceptor.limit_interval = 10 * PATIENCE
        self.answers(server)
        lines = len(self.log("limit"))
        for _ in range(5):
            self.answers(server)
        self.assertLessEqual(len(self.log("limit")), lines + 1)


class NewcomerTest(ModelTestCase):

    def test_newcomer_among_busy_connections(self):
        """While a thread is started for it, the others wait at the gate."""
        server, waits = self.make(), threading.Event()
        real_wait = server.gate.wait

        def wait():
            waits.set()
            real_wait()

        server.gate.wait = wait
        server.in_background()
        busy = self.client(server)

        def is_readable(timeout=0):
            return bool(select.select([busy], [], [], timeout)[0])

        def start(*args):
            waits.clear()
            due = 0
            while not waits.is_set():
                busy.sendall(b"x")
                due += 1
                until(lambda: waits.is_set() or is_readable(), "a turn")
                due -= is_readable() and len(busy.recv(1))
            self.receive(busy, due if is_readable() else 0)
            busy.sendall(b"late")
            held.append(not is_readable(0.05))
            return real_start(*args)

        real_start, held = threads.start_thread, []
        with mock.patch.object(threads, "start_thread", start):
            self.answers(server)
        self.assertEqual(held, [True])
        data = b""
        while not data.endswith(b"LATE"):   # in the end it goes on
            data += self.receive(busy, 1)


class ShortageTest(ModelTestCase):
    """Where the system is out of something, clients wait in the backlog."""

    def accepting(self, *outcomes):
        """Return a server class whose accepting raises each of the outcomes,
        or accepts where that is None, and then always accepts."""
        left = list(outcomes)
        times = self.times = []

        class Server(self.server_class):
            def get_request(self):
                outcome = left.pop(0) if left else None
                times.append(time.monotonic())
                if outcome is not None:
                    raise outcome
                return super().get_request()

        return Server

    def test_client_that_has_gone_before_accept(self):
        """The listener was ready and is not: the loop goes on (bpo-7995)."""
        server = self.serve(cls=self.accepting(
            BlockingIOError(errno.EAGAIN, "again"),
            ConnectionAbortedError(errno.ECONNABORTED, "gone"),
            InterruptedError(errno.EINTR, "interrupted")))
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
        self.assertEqual([wait for wait in waits if wait < 0.049], [])
        self.assertRegex(self.log("ERROR")[0], "Too many open files")
        self.assertEqual(self.log("Traceback"), [])

    def test_out_of_descriptors_without_end(self):
        """One line a second is said, however often accepting fails."""
        for minute, number in enumerate((errno.EMFILE, errno.ENFILE,
                                         errno.ENOBUFS, errno.ENOMEM)):
            server = self.make(cls=self.accepting(
                *[OSError(number, "none left")] * 5))
            with mock.patch("echoserver.server.log.monotonic") as clock:
                for second in 0.0, 0.5, 0.9, 1.0, 1.5:
                    clock.return_value = 60 * minute + second
                    server.acceptor.accept()
            self.assertEqual(len(self.log("ERROR")), 2 * minute + 2)

    def test_out_of_descriptors_and_stop(self):
        """A resting listener does not keep the server."""
        server = self.serve(cls=self.accepting(*[TOO_MANY] * 10))
        server.acceptor.pause = 10 * PATIENCE
        self.connect(server.server_address)
        self.logged("ERROR")
        self.ended(self.in_thread(server.shutdown))

    def test_out_of_memory_for_a_peer(self):
        """Its client waits, and is answered."""
        failures = [OSError(errno.ENOMEM, "Cannot allocate memory")]

        def peer_class(server, *args, **options):
            if failures:
                raise failures.pop()
            return Peer(*args, **options)

        server = self.serve(cls=type("Server", (self.server_class,),
                                     {"peer_class": peer_class}))
        self.keeps_waiting(server)

    def test_thread_that_cannot_start(self):
        """The client that was accepted waits, and is answered."""
        starts = itertools.count()
        real = threading.Thread.start

        def start(thread):
            if next(starts) == 0:
                raise RuntimeError("can't start new thread")
            real(thread)

        server = self.serve(max_connections=1)
        with mock.patch.object(threading.Thread, "start", start):
            self.keeps_waiting(server)

    def test_thread_without_memory(self):
        """It is not begun where it could not begin (gh-140746)."""
        server = self.serve()
        error = OSError(errno.ENOMEM, "Cannot allocate memory")
        with mock.patch("mmap.mmap", side_effect=[error, mock.Mock()]):
            self.keeps_waiting(server)

    def test_error_of_verify_request(self):
        """An OSError of the hook is its own, and no shortage: the next is
        accepted at once."""
        class Server(self.server_class):
            failures = [OSError(errno.EAGAIN, "again"), TOO_MANY,
                        FileNotFoundError(errno.ENOENT, "no such list")]

            def verify_request(self, request, client_address):
                if self.failures:
                    raise self.failures.pop()
                return True

        server = self.serve(cls=Server)
        server.acceptor.pause = 10 * PATIENCE
        for _ in range(3):
            self.breaks(server)
        self.answers(server)
        self.assertEqual(self.log("cannot accept"), [])
        self.assertEqual(len(self.log("^Traceback")), 3)

    def test_error_of_get_request(self):
        """A handshake that fails, say, is no shortage either."""
        class Server(self.server_class):
            failures = [OSError(1, "handshake failed")]

            def get_request(self):
                request, client_address = super().get_request()
                if self.failures:
                    request.close()
                    raise self.failures.pop()
                return request, client_address

        server = self.serve(cls=Server)
        server.acceptor.pause = 10 * PATIENCE
        self.breaks(server)
        self.answers(server)
        self.assertEqual(len(self.log("ERROR cannot accept .* handshake")), 1)


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
                    until(lambda: server.acceptor.accept() or self.log(":%d" % port),
                          "the client")
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

    def accepted(self, **options):
        """Return the socket that a new server has for a client of it."""
        server = self.serve(**options)
        self.client(server)
        return self.peer(server).request

    def check(self, request):
        self.assertIs(request.gettimeout(), None)
        self.assertTrue(request.getsockopt(socket.IPPROTO_TCP,
                                           socket.TCP_NODELAY))

    def test_accepted_socket(self):
        """It blocks, and does not wait with small replies (gh-108736)."""
        self.check(self.accepted())

    def test_accepted_socket_where_it_inherits_little(self):
        """The same on BSD: blocking mode is all it inherits (bpo-7995)."""
        real = socketserver.TCPServer.get_request

        def get_request(server):
            request, client_address = real(server)
            request.setblocking(False)
            return request, client_address

        with mock.patch("echoserver.server.base.ACCEPTED_INHERIT", False), \
                mock.patch.object(socketserver.TCPServer, "get_request",
                                  get_request):
            self.check(self.accepted())

    def test_accepted_socket_with_a_default_timeout(self):
        """socket.setdefaulttimeout() is not meant for its connections."""
        self.addCleanup(socket.setdefaulttimeout, socket.getdefaulttimeout())
        socket.setdefaulttimeout(0.001)
        server = self.serve()
        socket.setdefaulttimeout(None)
        self.client(server)
        self.check(self.peer(server).request)

    def test_accepted_socket_without_nodelay(self):
        """macOS refuses options of a connection that has gone already."""
        class Refusing(socket.socket):
            def setsockopt(self, *args):
                raise OSError(errno.EINVAL, "invalid argument")

        def get_request(server):
            request, client_address = real(server)
            return Refusing(fileno=request.detach()), client_address

        real = socketserver.TCPServer.get_request
        with mock.patch("echoserver.server.base.ACCEPTED_INHERIT", False), \
                mock.patch.object(socketserver.TCPServer, "get_request",
                                  get_request):
            self.answers(self.serve())

    def test_backlog(self):
        """Clients that come at once find room, with nobody accepting yet.

        With socketserver's backlog of 5, most would wait (bpo-38699).
        """
        server = self.make(cls=BlockingEchoServer, grace=0)
        for _ in range(100):
            s = socket.socket()
            self.addCleanup(s.close)
            s.settimeout(PATIENCE / 4)
            s.connect(server.server_address)


class OutOfMemoryTest(ModelTestCase):

    def test_handler_out_of_memory(self):
        """It costs its connection, and one line a second at most."""
        class Handler(EchoHandler):
            @staticmethod
            def reply(data):
                raise MemoryError

        server = self.serve(Handler)
        for _ in range(3):
            self.breaks(server)
        self.assertEqual(len(self.log("ERROR .*: out of memory$")), 1)
        self.assertEqual(self.log("Traceback"), [])


if __name__ == "__main__":
    unittest.main()
