"""EchoServer: options, addresses, the loop, stopping, accepting, the hooks.

What all models share and what needs no model to show.  EchoServer by itself
serves one connection at a time; where a test needs several, it takes threads.
"""

import contextlib
import errno
import gc
import inspect
import os
import selectors
import signal
import socket
import socketserver
import struct
import sys
import threading
import time
import unittest
import warnings
import weakref
from unittest import mock

import echoserver
from echoserver import EchoHandler, EchoServer, ThreadingEchoServer
import logging
from echoserver.server import drain, listening, loop, system
from echoserver.server import base as module
from echoserver.server import acceptor as accepting
from echoserver.server.acceptor import Acceptor
from echoserver.server.connections import Connections
from echoserver.server.loop import Loop
from echoserver.server.handler import Peer

from .support import PATIENCE, TestCase, until


def has_ipv6():
    """Whether ::1 is an address of this host."""
    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = unittest.skipUnless(has_ipv6(), "there is no IPv6 here")
# Nobody has an address of this network (RFC 1112, section 4).
NOWHERE = "240.0.0.1"

posix_only = unittest.skipUnless(os.name == "posix", "is for POSIX systems")


class Spy(loop.Selector):
    """A poller that records the timeouts of its waits."""

    def __init__(self):
        super().__init__()
        self.timeouts = []

    def poll(self, timeout, maxevents):
        self.timeouts.append(timeout)
        return super().poll(timeout, maxevents)


class ServerTestCase(TestCase):

    def make(self, cls=EchoServer, *args, **options):
        """Return a server that listens; whether it serves is the test's."""
        server = cls(*(args or (("127.0.0.1", 0),)), **options)
        self.addCleanup(server.server_close)
        return server

    def start(self, cls=EchoServer, *args, **options):
        """Return a server that serves in the background."""
        server = cls.start(*args, **options)
        self.addCleanup(server.server_close)
        return server

    def assertEchoes(self, s, data=b"hello"):
        """Fail unless data comes back over s as it should."""
        s.sendall(data)
        self.assertEqual(self.receive(s, len(data)), data.upper())

    def assertServes(self, server):
        """Fail unless a new client is answered; its connection is closed."""
        with self.connect(server.server_address) as s:
            self.assertEchoes(s)

    def assertEnds(self, s):
        """Fail unless the stream of s ends in good order, and now."""
        self.assertEqual(s.recv(1), b"")

    def assertBreaks(self, server, data=b"hello"):
        """Fail unless a new client that sends data is reset."""
        with self.assertRaises(ConnectionError):
            with self.connect(server.server_address) as s:
                s.sendall(data)
                s.recv(1)

    def reset(self, s):
        """Close s with a reset."""
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                     struct.pack("hh" if os.name == "nt" else "ii", 1, 0))
        s.close()

    def lines(self, records, level="INFO"):
        """Return the messages of records that are of a level or above."""
        return [record.getMessage() for record in list(records)
                if record.levelno >= getattr(logging, level)]

    def gone(self, server):
        """Wait until server has no connection left."""
        until(lambda: not server.peers, "connections to end")


class OptionTests(ServerTestCase):

    OPTIONS = {"max_connections": 7, "idle_timeout": 8.5, "grace": 0.25}

    def test_option_by_class_variable(self):
        """A subclass sets what a keyword would."""
        server = self.make(type("Server", (EchoServer,), self.OPTIONS))
        for name, value in self.OPTIONS.items():
            self.assertEqual(getattr(server, name), value)

    def test_option_by_keyword(self):
        """A keyword is of the class variable's name, and wins over it."""
        server = self.make(**self.OPTIONS)
        for name, value in self.OPTIONS.items():
            self.assertEqual(getattr(server, name), value)
            self.assertNotEqual(getattr(EchoServer, name), value)

    def test_option_none_is_the_default(self):
        """None leaves the class variable as it is; 0 does not."""
        server = self.make(grace=None, idle_timeout=0)
        self.assertEqual((server.grace, server.idle_timeout),
                         (EchoServer.grace, 0))

    def test_option_without_sense(self):
        """A negative number and NaN are refused by name, and cost nothing."""
        for name in self.OPTIONS:
            for value in -1, -0.5, float("nan"):
                with self.subTest(name, value=value):
                    with self.assertRaisesRegex(ValueError, name):
                        EchoServer(("127.0.0.1", 0), **{name: value})

    def test_stop_with_a_grace_without_sense(self):
        """stop() judges as the constructor does, and has done nothing."""
        server = self.start()
        with self.assertRaisesRegex(ValueError, "grace"):
            server.stop(grace=-1)
        self.assertServes(server)

    def test_default_port(self):
        """An outgoing socket, which gets 32768 or above, cannot own it."""
        default = inspect.signature(EchoServer).parameters["server_address"]
        self.assertEqual(default.default, ("127.0.0.1", 8080))


class StartTests(ServerTestCase):

    def test_start_and_with(self):
        """One with block begins a server on a free port, and ends it."""
        with ThreadingEchoServer.start() as server:
            self.assertIsInstance(server, ThreadingEchoServer)
            self.assertEqual(server.server_address[0], "127.0.0.1")
            self.assertServes(server)
        with self.assertRaises(ConnectionRefusedError):
            self.connect(server.server_address)

    def test_start_passes_on_what_it_is_given(self):
        """Address, handler class and keywords are the constructor's."""
        class Handler(EchoHandler):
            reply = staticmethod(bytes.lower)

        server = self.start(EchoServer, ("127.0.0.1", 0), Handler, grace=1.5)
        self.assertEqual(server.grace, 1.5)
        with self.connect(server.server_address) as s:
            s.sendall(b"HELLO")
            self.assertEqual(self.receive(s, 5), b"hello")

    def test_start_without_a_thread(self):
        """What cannot start leaves nothing open."""
        with mock.patch.object(threading.Thread, "start",
                               side_effect=RuntimeError("no thread")):
            with self.assertRaises(RuntimeError):
                EchoServer.start()

    def test_exit_by_exception(self):
        """What the block raises comes out, and the server is gone."""
        with self.assertRaises(ZeroDivisionError):
            with EchoServer.start() as server:
                1 / 0
        self.assertEqual(server.socket.fileno(), -1)

    def test_twenty_at_once(self):
        """Servers side by side share nothing, at their ends neither."""
        with contextlib.ExitStack() as stack:
            servers = [stack.enter_context(ThreadingEchoServer.start())
                       for _ in range(20)]
            for server in servers:
                self.connect(server.server_address)
            for server in servers:
                self.assertServes(server)
            threads = [threading.Thread(target=server.server_close)
                       for server in servers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
        for server in servers:
            self.assertEqual(len(server.peers), 0)


class AddressTests(ServerTestCase):

    def test_port_0(self):
        """The address is the real one."""
        self.assertGreater(self.make().server_address[1], 0)

    def test_port_out_of_range(self):
        """A port that cannot be is an OverflowError, as bind() has it."""
        for port in -1, 65536:
            with self.assertRaises(OverflowError):
                EchoServer(("127.0.0.1", port))

    def test_port_taken(self):
        """A port has one owner, and a failed bind leaks no descriptor."""
        for address in ("127.0.0.1", 0), ("", 0):
            server = self.make(EchoServer, address)
            for _ in range(3):
                with self.assertRaises(OSError) as caught:
                    EchoServer(server.server_address)
                self.assertIn(caught.exception.errno,
                              (errno.EADDRINUSE, errno.EACCES))

    def test_port_of_a_server_that_has_just_ended(self):
        """Connections in TIME_WAIT do not keep a port."""
        server = self.start()
        with self.connect(server.server_address) as s:
            self.assertEchoes(s)
            server.server_close()
            self.assertEnds(s)
        again = self.start(EchoServer, server.server_address)
        self.assertServes(again)

    def test_reuse_of_an_address(self):
        """A port is never shared: reuse-port off, and exclusive on Windows.

        There, SO_REUSEADDR lets a second server take the port (bpo-41135).
        """
        server = self.make()
        reuse = server.socket.getsockopt(socket.SOL_SOCKET,
                                         socket.SO_REUSEADDR)
        self.assertEqual(bool(reuse), os.name == "posix"
                         and sys.platform != "cygwin")
        if hasattr(socket, "SO_REUSEPORT"):
            self.assertFalse(server.socket.getsockopt(socket.SOL_SOCKET,
                                                      socket.SO_REUSEPORT))
        with mock.patch.object(socket, "SO_EXCLUSIVEADDRUSE",
                               socket.SO_KEEPALIVE, create=True):
            server = self.make()
        self.assertTrue(server.socket.getsockopt(socket.SOL_SOCKET,
                                                 socket.SO_KEEPALIVE))

    def test_no_such_address(self):
        """An address of somebody else cannot be listened on."""
        with self.assertRaises(OSError) as caught:
            EchoServer((NOWHERE, 0))
        self.assertEqual(caught.exception.errno, errno.EADDRNOTAVAIL)

    def test_no_such_name(self):
        """A name without an address is the resolver's error."""
        with mock.patch("socket.getaddrinfo", side_effect=socket.gaierror):
            with self.assertRaises(socket.gaierror):
                EchoServer(("nowhere.invalid", 0))

    def test_localhost(self):
        """The name works on both ends, whatever it resolves to."""
        server = self.start(EchoServer, ("localhost", 0))
        self.assertServes(server)
        with self.connect(("localhost", server.server_address[1])) as s:
            self.assertEchoes(s)

    def listen_on(self, *pairs):
        return mock.patch.object(listening, "listen_addresses",
                                 lambda address: list(pairs))

    def test_name_with_several_addresses(self):
        """The first that can be listened on is taken."""
        with self.listen_on((socket.AF_INET, (NOWHERE, 0)),
                            (socket.AF_INET, ("127.0.0.1", 0)),
                            (socket.AF_INET, (NOWHERE, 0))):
            server = self.start(EchoServer, ("name", 0))
        self.assertEqual(server.server_address[0], "127.0.0.1")
        self.assertServes(server)

    def test_name_with_several_addresses_all_wrong(self):
        """The last one's error is raised, and nothing is left open."""
        with self.listen_on((socket.AF_INET, (NOWHERE, 0)),
                            (socket.AF_INET, (NOWHERE, 0))):
            with self.assertRaises(OSError) as caught:
                EchoServer(("name", 0))
        self.assertEqual(caught.exception.errno, errno.EADDRNOTAVAIL)

    def test_name_with_a_port_taken(self):
        """A port that is taken is not dodged by another address."""
        taken = self.make()
        with self.listen_on((socket.AF_INET, taken.server_address),
                            (socket.AF_INET, ("127.0.0.1", 0))):
            with self.assertRaises(OSError):
                EchoServer(("name", 0))

    @needs_ipv6
    def test_ipv6_loopback(self):
        """::1 is IPv6 without being told so (bpo-20215)."""
        server = self.start(EchoServer, ("::1", 0))
        self.assertEqual(server.address_family, socket.AF_INET6)
        self.assertServes(server)

    @needs_ipv6
    def test_every_address(self):
        """:: takes both families, and logs a mapped peer as plain IPv4."""
        log = self.capture_log()
        server = self.start(EchoServer, ("::", 0))
        port = server.server_address[1]
        for host, shown in (("::1", "[::1]:"), ("127.0.0.1", "127.0.0.1:")):
            with self.connect((host, port)) as s:
                self.assertEchoes(s)
            self.gone(server)
            self.assertTrue(self.lines(log)[-1].startswith(shown), log)

    def test_every_address_without_ipv6(self):
        """:: falls back to IPv4 where sockets of IPv6 are not made, or
        have no address to be bound to."""
        class NoSocket(socket.socket):
            def __init__(self, family=-1, *args, **kwargs):
                if family == socket.AF_INET6:
                    raise OSError(errno.EAFNOSUPPORT, "not supported")
                super().__init__(family, *args, **kwargs)

        class NoAddress(socket.socket):
            def __init__(self, family=-1, *args, **kwargs):
                self.off = family == socket.AF_INET6
                super().__init__(socket.AF_INET if self.off else family,
                                 *args, **kwargs)

            def setsockopt(self, level, *args):
                if level != socket.IPPROTO_IPV6:
                    super().setsockopt(level, *args)

            def bind(self, address):
                if self.off:
                    raise OSError(errno.EADDRNOTAVAIL, "not available")
                super().bind(address)

        six = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::", 0, 0, 0))
        for cls in NoSocket, NoAddress:
            with self.subTest(cls.__name__):
                with mock.patch("socket.socket", cls), \
                        mock.patch("socket.getaddrinfo", return_value=[six]):
                    server = self.start(EchoServer, ("::", 0))
                self.assertEqual(server.server_address[0], "0.0.0.0")
                with self.connect(("127.0.0.1",
                                   server.server_address[1])) as s:
                    self.assertEchoes(s)

    def test_constructor_out_of_descriptors(self):
        """Whatever it fails at, a constructor gives back what it opened."""
        error = OSError(errno.EMFILE, "Too many open files")
        for name in ("socket.socketpair", "echoserver.server.loop.Loop.poller_class",
                     "socketserver.TCPServer.server_bind",
                     "socketserver.TCPServer.server_activate"):
            with self.subTest(name), warnings.catch_warnings(record=True) \
                    as forgotten:
                warnings.simplefilter("always")
                with mock.patch(name, side_effect=error):
                    with self.assertRaises(OSError):
                        EchoServer(("127.0.0.1", 0))
                gc.collect()
                self.assertEqual([str(w.message) for w in forgotten], [])


class OneAtATimeTests(ServerTestCase):
    """EchoServer by itself, the blocking server that a lesson begins with."""

    def test_second_client_waits(self):
        """The next is served, in the loop's thread, when the first is done."""
        threads = []

        class Handler(EchoHandler):
            @staticmethod
            def reply(data):
                threads.append(threading.current_thread().name)
                return data.upper()

        server = self.start(EchoServer, ("127.0.0.1", 0), Handler)
        first = self.connect(server.server_address)
        second = self.connect(server.server_address)
        second.sendall(b"second")
        for _ in range(20):
            self.assertEchoes(first)
        self.assertEqual([peer.client_address for peer in
                          server.peers.copy().values()],
                         [first.getsockname()])
        first.close()
        self.assertEqual(self.receive(second, 6), b"SECOND")
        self.assertEqual(set(threads), {"echoserver"})

    def test_stop_while_serving(self):
        """The connection that is served meets its end, the loop too."""
        server = self.start()
        s = self.connect(server.server_address)
        self.assertEchoes(s)
        self.bounded(server.shutdown)
        self.assertEnds(s)
        self.assertEqual(dict(server.peers.ended), {"drain": 1})

    def test_idle_timeout(self):
        """The loop stands still meanwhile, so the socket's timeout ends it."""
        server = self.start(idle_timeout=0.05)
        idle = self.connect(server.server_address)
        self.assertEnds(idle)
        self.gone(server)
        self.assertEqual(dict(server.peers.ended), {"idle": 1})
        self.assertServes(server)

    def test_handle_request(self):
        """socketserver's call for one connection serves one."""
        server = self.make()
        with self.connect(server.server_address) as s:
            s.sendall(b"hello")
            s.shutdown(socket.SHUT_WR)
            self.bounded(server.handle_request)
            self.assertEqual(self.receive(s, 6), b"HELLO")

    def test_handle_request_without_a_client(self):
        """It gives up after server.timeout seconds and says so."""
        server = self.make()
        server.timeout = 0
        server.handle_timeout = mock.Mock()
        self.bounded(server.handle_request)
        server.handle_timeout.assert_called_once_with()


class StopTests(ServerTestCase):

    def serving(self, cls=EchoServer):
        """Return a server and the thread that is in its serve_forever()."""
        server = self.make(cls)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(thread.join, PATIENCE)
        self.addCleanup(server.stop)
        self.assertServes(server)
        return server, thread

    def test_stop_before_serve_forever(self):
        """It is not forgotten: serve_forever() returns, once."""
        server = self.make()
        server.stop()
        server.stop()
        self.bounded(server.serve_forever)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.assertServes(server)
        self.bounded(server.shutdown)
        thread.join(PATIENCE)

    def test_shutdown_before_serve_forever(self):
        """There is nothing to wait for (bpo-2302)."""
        server = self.make()
        self.bounded(server.shutdown)
        self.bounded(server.serve_forever)

    def test_shutdown_twice(self):
        """Whoever comes second finds the loop ended."""
        server, thread = self.serving()
        self.bounded(server.shutdown)
        thread.join(PATIENCE)
        self.assertFalse(thread.is_alive())
        self.bounded(server.shutdown)

    def test_shutdown_from_many_threads(self):
        """All of them return."""
        server, thread = self.serving()
        threads = [threading.Thread(target=server.shutdown, daemon=True)
                   for _ in range(10)]
        for each in threads:
            each.start()
        for each in threads + [thread]:
            each.join(PATIENCE)
            self.assertFalse(each.is_alive())

    def test_shutdown_and_serve_again(self):
        """shutdown() ends the loop, not the server."""
        server, thread = self.serving()
        self.bounded(server.shutdown)
        thread.join(PATIENCE)
        with self.connect(server.server_address) as waiting:
            waiting.sendall(b"hello")
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            self.assertEqual(self.receive(waiting, 5), b"HELLO")
        self.bounded(server.shutdown)
        thread.join(PATIENCE)

    def test_shutdown_in_the_loop(self):
        """In a handler of the loop's own thread it does not wait."""
        class Handler(EchoHandler):
            def handle(self):
                self.server.shutdown()
                self.request.sendall(b"down")

        server = self.make(EchoServer, ("127.0.0.1", 0), Handler)
        with self.connect(server.server_address) as s:
            self.bounded(server.serve_forever)
            self.assertEqual(self.receive(s, 5), b"down")

    def test_shutdown_in_a_handler_thread(self):
        """A handler may stop its server and still answer."""
        class Handler(EchoHandler):
            def handle(self):
                self.server.shutdown()
                self.request.sendall(b"down")

        server = self.make(ThreadingEchoServer, ("127.0.0.1", 0), Handler)
        with self.connect(server.server_address) as s:
            self.bounded(server.serve_forever)
            self.assertEqual(self.receive(s, 5), b"down")

    @posix_only
    def test_shutdown_in_a_signal_handler(self):
        """Of the thread that serves: no deadlock (bpo-13749)."""
        def too_late(number, frame):
            raise AssertionError("shutdown() has not returned")

        server = self.make()
        for number, handler in (
                (signal.SIGUSR1, lambda *args: server.shutdown()),
                (signal.SIGALRM, too_late)):
            self.addCleanup(signal.signal, number,
                            signal.signal(number, handler))

        def client():
            self.assertServes(server)
            os.kill(os.getpid(), signal.SIGUSR1)

        thread = threading.Thread(target=client)
        thread.start()
        self.addCleanup(thread.join, PATIENCE)
        self.addCleanup(signal.alarm, 0)
        signal.alarm(int(PATIENCE))
        server.serve_forever()

    def test_stop_is_seen_before_the_next_accept(self):
        """Who connects after a stop is not taken by the loop (bpo-35017).

        It waits for server_close(), which answers, or for the next
        serve_forever().
        """
        go, taken = threading.Event(), []

        class Server(EchoServer):
            def verify_request(self, request, client_address):
                taken.append(client_address)
                if len(taken) == 1:
                    go.wait(PATIENCE)
                return True

        server = self.make(Server)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        first = self.connect(server.server_address)
        until(lambda: taken, "the first connection")
        second = self.connect(server.server_address)
        server.stop()
        go.set()
        thread.join(PATIENCE)
        self.assertEnds(first)
        self.assertEqual(taken, [first.getsockname()])
        second.sendall(b"hello")
        self.bounded(server.server_close)
        self.assertEqual(self.receive(second, 6), b"HELLO")

    def test_server_close_twice(self):
        """The second call has nothing to do and says nothing."""
        log = self.capture_log()
        server, thread = self.serving()
        self.bounded(server.server_close)
        said = self.lines(log)
        self.bounded(server.server_close)
        self.assertEqual(self.lines(log), said)
        self.assertEqual(sum("served" in line for line in said), 1)

    def test_server_close_in_the_loop(self):
        """In a hook, or a signal handler, it ends the loop, too."""
        class Server(EchoServer):
            def verify_request(self, request, client_address):
                self.server_close()
                return True

        server = self.make(Server, grace=0)
        with mock.patch.object(drain, "CUT_TIMEOUT", 0.05), \
                self.connect(server.server_address):
            self.bounded(lambda: server.serve_forever() or True)
        self.assertEqual(server.socket.fileno(), -1)

    def test_stop_after_server_close(self):
        """Too late is no error."""
        server = self.start()
        server.server_close()
        server.stop()
        self.bounded(server.shutdown)

    def test_server_close_serves_the_backlog(self):
        """Who was connected before the end is answered, not reset."""
        for cls in EchoServer, ThreadingEchoServer:
            server = self.make(cls)
            clients = [self.connect(server.server_address) for _ in range(9)]
            for s in clients:
                s.sendall(b"hello")
            self.bounded(server.server_close)
            for s in clients:
                self.assertEqual(self.receive(s, 6), b"HELLO")

    def test_server_close_with_idle_clients(self):
        """Nobody waits for a peer that says nothing (bpo-31233)."""
        log = self.capture_log()
        server = self.start(ThreadingEchoServer, grace=10 * PATIENCE)
        idle = [self.connect(server.server_address) for _ in range(3)]
        for s in idle:
            self.assertEchoes(s)
        self.bounded(server.server_close)
        for s in idle:
            self.assertEnds(s)
        self.assertIn("3 connections", self.lines(log)[-1])
        self.assertIn("3 drain", self.lines(log)[-1])

    def test_stop_during_a_drain(self):
        """stop(grace=0) ends it: who is owed a reply is cut and counted."""
        busy, go = threading.Event(), threading.Event()

        class Handler(EchoHandler):
            @staticmethod
            def reply(data):
                busy.set()
                go.wait(PATIENCE)
                return data.upper()

        server = self.start(ThreadingEchoServer, ("127.0.0.1", 0), Handler,
                            grace=10 * PATIENCE)
        self.addCleanup(go.set)
        s = self.connect(server.server_address)
        s.sendall(b"hello")
        self.assertTrue(busy.wait(PATIENCE))
        closing = threading.Thread(target=server.server_close)
        closing.start()
        until(lambda: server.socket.fileno() < 0, "the drain")
        self.assertEqual(server.peers.cut_short, 0)
        with mock.patch.object(drain, "CUT_TIMEOUT", 0.05):
            server.stop(grace=0)
            closing.join(PATIENCE)
        self.assertEqual(server.peers.cut_short, 1)
        go.set()
        self.assertFalse(closing.is_alive())
        with self.assertRaises(ConnectionError):
            self.receive(s, 6)  # no end that could pass for a good one


class LoopTests(ServerTestCase):

    def spy_on(self, cls=ThreadingEchoServer, **options):
        """Return a server in the background and the timeouts of its loop."""
        with mock.patch.object(Loop, "poller_class", Spy):
            server = self.start(cls, **options)
        return server, server.loop.poller.timeouts

    def test_loop_sleeps_when_idle(self):
        """It is woken by what happens, not by the clock (bpo-44769)."""
        with mock.patch.object(Loop, "max_wait", 3600.0):
            server, timeouts = self.spy_on(idle_timeout=0)
            with self.connect(server.server_address) as s:
                self.assertEchoes(s)
            self.gone(server)
            self.bounded(server.shutdown)
        self.assertEqual(set(timeouts), {3600.0})
        self.assertLessEqual(len(timeouts), 5)

    def test_loop_with_an_idle_timeout(self):
        """The clock matters only while somebody is connected, and little."""
        with mock.patch.object(Loop, "max_wait", 3600.0):
            server, timeouts = self.spy_on(idle_timeout=1000)
            self.assertServes(server)
            with self.connect(server.server_address) as s:
                self.assertEchoes(s)
            self.bounded(server.shutdown)
        self.assertEqual(timeouts[0], 3600)
        self.assertGreater(min(timeouts), 90)

    def test_callback_that_ends_another(self):
        """What was ready in the same turn is not called any more."""
        server, called = self.make(), []
        pairs = [socket.socketpair() for _ in range(2)]
        for s in pairs[0] + pairs[1]:
            self.addCleanup(s.close)

        def callback(file):
            called.append(file)
            for ours, _ in pairs:
                server.loop.remove(ours)

        for ours, theirs in pairs:
            server.loop.add(ours, callback)
            theirs.send(b".")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.stop)
        self.assertServes(server)
        self.assertEqual(len(called), 1)

    def test_watch_after_the_end(self):
        """Nobody would look, so that it is refused; select() would not."""
        class Poller(selectors.SelectSelector):
            poll = loop.Selector.poll

        with mock.patch.object(Loop, "poller_class", Poller):
            server = self.make()
        s = self.connect(server.server_address)
        server.server_close()
        with self.assertRaises(ValueError):
            server.loop.add(s, print)

    def test_loop_where_waits_cannot_be_interrupted(self):
        """On Windows none is longer than half a second (gh-74157)."""
        with mock.patch.object(Loop, "max_wait", 0.5):
            server, timeouts = self.spy_on(idle_timeout=1000)
            self.assertServes(server)
            self.bounded(server.shutdown)
        for timeout in timeouts:
            self.assertTrue(0 <= timeout <= 0.5, timeouts)

    def test_service_actions(self):
        """The hook is called after what the loop has done."""
        class Server(EchoServer):
            def service_actions(self):
                calls.append(len(self.peers.ended))

        calls = []
        server = self.start(Server)
        self.assertServes(server)
        until(lambda: 1 in calls, "service_actions()")

    def test_many_wake_ups(self):
        """More than the wake-up socket holds neither block nor are lost."""
        server = self.make()
        for _ in range(5000):
            server.stop()
        self.bounded(server.serve_forever)


class AcceptTests(ServerTestCase):

    def accepting(self, *outcomes):
        """Patch accepting: each call raises the next outcome, or accepts
        where that is None, and after the last one always accepts."""
        real = socketserver.TCPServer.get_request
        left = list(outcomes)
        self.times = []

        def get_request(server):
            outcome = left.pop(0) if left else None
            self.times.append(time.monotonic())
            if outcome is not None:
                raise outcome
            return real(server)

        return mock.patch.object(socketserver.TCPServer, "get_request",
                                 get_request)

    def accepted(self, server):
        """Return the one socket that server has accepted."""
        (request,) = server.peers.copy()
        return request

    def test_accepted_socket(self):
        """It blocks, and does not wait with small replies (gh-108736)."""
        server = self.start(ThreadingEchoServer)
        s = self.connect(server.server_address)
        self.assertEchoes(s)
        request = self.accepted(server)
        self.assertIs(request.gettimeout(), None)
        self.assertTrue(request.getsockopt(socket.IPPROTO_TCP,
                                           socket.TCP_NODELAY))

    def test_accepted_socket_where_it_inherits_little(self):
        """The same on BSD: blocking mode is all it inherits (bpo-7995)."""
        real = socketserver.TCPServer.get_request

        def get_request(server):
            request, client_address = real(server)
            request.setblocking(False)
            return request, client_address

        with mock.patch.object(listening, "ACCEPTED_INHERIT", False), mock.patch.object(module, "ACCEPTED_INHERIT", False), \
                mock.patch.object(socketserver.TCPServer, "get_request",
                                  get_request):
            self.test_accepted_socket()

    def test_accepted_socket_with_a_default_timeout(self):
        """socket.setdefaulttimeout() is not meant for its connections."""
        self.addCleanup(socket.setdefaulttimeout, socket.getdefaulttimeout())
        socket.setdefaulttimeout(0.001)
        server = self.start(ThreadingEchoServer)
        with self.connect(server.server_address) as s:
            self.assertEchoes(s)
            self.assertIsNone(self.accepted(server).gettimeout())
            self.assertEchoes(s)

    def test_accepted_socket_without_nodelay(self):
        """macOS refuses options of a connection that has gone already."""
        class Refusing(socket.socket):
            def setsockopt(self, *args):
                raise OSError(errno.EINVAL, "invalid argument")

        def get_request(server):
            request, client_address = real(server)
            return Refusing(fileno=request.detach()), client_address

        real = socketserver.TCPServer.get_request
        with mock.patch.object(listening, "ACCEPTED_INHERIT", False), mock.patch.object(module, "ACCEPTED_INHERIT", False), \
                mock.patch.object(socketserver.TCPServer, "get_request",
                                  get_request):
            server = self.start()
            self.assertServes(server)

    def test_backlog(self):
        """Clients that come at once find room, with nobody accepting yet.

        With socketserver's backlog of 5, most would wait (bpo-38699).
        """
        server = self.make()
        for _ in range(100):
            s = socket.socket()
            self.addCleanup(s.close)
            s.settimeout(PATIENCE / 4)
            s.connect(server.server_address)

    def test_client_that_has_gone_before_accept(self):
        """The listener was ready and is not: the loop goes on (bpo-7995)."""
        log = self.capture_log()
        with self.accepting(BlockingIOError(errno.EAGAIN, "again"),
                            ConnectionAbortedError(errno.ECONNABORTED, "gone"),
                            InterruptedError(errno.EINTR, "interrupted")):
            server = self.start()
            for _ in range(3):
                self.assertServes(server)
            self.gone(server)
        self.assertEqual(self.lines(log, "WARNING"), [])

    def test_listener_that_is_not_ready(self):
        """accept() never blocks the loop, whatever the poller has said."""
        class Hasty(loop.Selector):
            said = False

            def poll(self, timeout, maxevents):
                if not self.said:
                    self.said = True
                    return [(server.fileno(), loop.READ)]
                return super().poll(timeout, maxevents)

        with mock.patch.object(Loop, "poller_class", Hasty):
            server = self.make()
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        until(lambda: server.loop.poller.said, "the loop")
        server.stop()
        thread.join(PATIENCE / 4)
        blocked = thread.is_alive()
        if blocked:
            self.connect(server.server_address).close()
            thread.join(PATIENCE)
        self.assertFalse(blocked)

    def test_out_of_descriptors(self):
        """The listener rests, then accepts again; nobody inside notices."""
        log = self.capture_log()
        server = self.start(ThreadingEchoServer)
        inside = self.connect(server.server_address)
        self.assertEchoes(inside)
        error = OSError(errno.EMFILE, "Too many open files")
        with mock.patch.object(Acceptor, "pause", 0.05), \
                self.accepting(*[error] * 4):
            with self.connect(server.server_address) as s:
                self.assertEchoes(inside)
                self.assertEchoes(s)
        waits = [later - earlier for earlier, later
                 in zip(self.times, self.times[1:4])]
        self.assertEqual([wait for wait in waits if wait < 0.049], [])
        line = self.lines(log, "ERROR")[0]
        self.assertIn("Too many open files", line)
        self.assertFalse(log[0].exc_info)

    def test_out_of_descriptors_without_end(self):
        """One line a second is said, however often accepting fails."""
        log = self.capture_log()
        server = self.make()
        for minute, number in enumerate((errno.EMFILE, errno.ENFILE,
                                         errno.ENOBUFS, errno.ENOMEM)):
            with self.accepting(*[OSError(number, "none left")] * 5), \
                    mock.patch.object(accepting, "monotonic") as clock:
                log.clear()
                for second in 0.0, 0.5, 0.9, 1.0, 1.5:
                    clock.return_value = 60 * minute + second
                    server._handle_request_noblock()
            self.assertEqual(len(self.lines(log, "ERROR")), 2)

    def test_out_of_descriptors_and_stop(self):
        """A resting listener does not keep the server."""
        log = self.capture_log()
        server = self.start()
        error = OSError(errno.EMFILE, "Too many open files")
        with mock.patch.object(Acceptor, "pause", 10 * PATIENCE), \
                self.accepting(*[error] * 10):
            with self.connect(server.server_address):
                until(lambda: self.lines(log, "ERROR"), "the complaint")
                self.bounded(server.shutdown)

    def test_out_of_memory_for_a_peer(self):
        """It costs that connection, one line, and no more."""
        failures = [OSError(errno.ENOMEM, "Cannot allocate memory")]

        def peer_class(server, *args):
            if failures:
                raise failures.pop()
            return Peer(*args)

        log = self.capture_log()
        server = self.start(type("Server", (ThreadingEchoServer,),
                                 {"peer_class": peer_class}))
        with mock.patch.object(Acceptor, "pause", 0.01):
            self.assertBreaks(server)
            self.assertServes(server)
        self.assertEqual(len(self.lines(log, "WARNING")), 1)

    def test_thread_that_has_ended(self):
        """It is kept by nobody (bpo-37193)."""
        threads = []

        class Handler(EchoHandler):
            def setup(self):
                super().setup()
                threads.append(weakref.ref(threading.current_thread()))

        with mock.patch.object(ThreadingEchoServer, "spare_timeout", 0.01):
            server = self.start(ThreadingEchoServer, ("127.0.0.1", 0),
                                Handler)
            for _ in range(5):
                self.assertServes(server)
            until(lambda: not any(thread() for thread in threads),
                  "threads to be freed")
        self.assertEqual(len(threads), 5)


class RegistryTests(ServerTestCase):

    def test_idle_timeout_and_a_slow_reader(self):
        """What the kernel still sends is progress, without the handler."""
        with mock.patch.object(Connections, "idle_tick", 0.02):
            server = self.start(ThreadingEchoServer, idle_timeout=0.1)
            s = socket.socket()
            self.addCleanup(s.close)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
            s.connect(server.server_address)
            s.settimeout(PATIENCE)
            s.sendall(bytes(300000))
            until(lambda: [peer for peer in server.peers.copy().values()
                           if peer.bytes_out == 300000], "the handler")
            got, pause = 0, threading.Event()
            for _ in range(25):
                got += len(s.recv(4000))
                pause.wait(0.01)
            s.sendall(b"more")
            self.assertEqual(self.receive(s, 300004 - got)[-4:], b"MORE")


class HookTests(ServerTestCase):
    """What socketserver lets a subclass override, and what ends a request."""

    HOOKS = ["get_request", "verify_request", "process_request",
             "finish_request", "shutdown_request", "close_request"]

    def test_hooks_in_their_order(self):
        """Each is called once for a connection, as in socketserver."""
        for base in EchoServer, ThreadingEchoServer:
            with self.subTest(base.__name__):
                calls = []

                def recording(name):
                    def hook(server, *args):
                        if name != "get_request":
                            calls.append(name)
                        result = getattr(base, name)(server, *args)
                        if name == "get_request":  # raises if nobody waits
                            calls.append(name)
                        return result
                    return hook

                server = self.start(type("Server", (base,), {
                    name: recording(name) for name in self.HOOKS}))
                self.assertServes(server)
                self.gone(server)
                self.assertEqual(calls, self.HOOKS)

    def test_verify_request_refuses(self):
        """The connection is closed, and the next is judged anew."""
        class Server(EchoServer):
            answers = [False, True]

            def verify_request(self, request, client_address):
                return self.answers.pop(0)

        server = self.start(Server)
        self.assertEnds(self.connect(server.server_address))
        self.assertServes(server)

    def test_verify_request_raises(self):
        """The connection is closed, with a traceback in the log."""
        class Server(ThreadingEchoServer):
            failures = [ZeroDivisionError("not again")]

            def verify_request(self, request, client_address):
                if self.failures:
                    raise self.failures.pop()
                return True

        log = self.capture_log()
        server = self.start(Server)
        self.assertBreaks(server)
        self.assertServes(server)
        self.gone(server)
        self.assertEqual([r.exc_info[0] for r in log if r.exc_info],
                         [ZeroDivisionError])

    def test_verify_request_raises_what_is_no_exception(self):
        """SystemExit ends the loop as it should, and leaks nothing."""
        class Server(EchoServer):
            def verify_request(self, request, client_address):
                raise SystemExit(3)

        server = self.make(Server)
        with self.connect(server.server_address) as s:
            with self.assertRaises(SystemExit):
                server.serve_forever()
            with self.assertRaises(ConnectionResetError):
                s.recv(1)
        self.assertEqual(len(server.peers), 0)

    def test_process_request_raises(self):
        """A hook that fails before it serves costs its own connection."""
        class Server(ThreadingEchoServer):
            failures = [ZeroDivisionError("not again")]

            def process_request(self, request, client_address):
                if self.failures:
                    raise self.failures.pop()
                super().process_request(request, client_address)

        log = self.capture_log()
        server = self.start(Server)
        self.assertBreaks(server)
        self.assertServes(server)
        self.assertEqual([r.exc_info[0] for r in log if r.exc_info],
                         [ZeroDivisionError])

    def test_handler_with_a_bug(self):
        """One traceback, one line; its connection ends, the server lives."""
        class Handler(EchoHandler):
            @staticmethod
            def reply(data):
                return data.upper() if data != b"bug" else 1 / 0

        for cls in EchoServer, ThreadingEchoServer:
            with self.subTest(cls.__name__):
                log = self.capture_log()
                server = self.start(cls, ("127.0.0.1", 0), Handler)
                self.assertBreaks(server, b"bug")
                self.assertServes(server)
                self.gone(server)
                (bug,) = [r for r in log if r.exc_info]
                self.assertIs(bug.exc_info[0], ZeroDivisionError)
                self.assertEqual(server.peers.ended["error"], 1)
                self.assertEqual(len(self.lines(log)), 3)

    def test_handler_whose_peer_has_gone(self):
        """Rudeness is one line, without a traceback."""
        for number in (errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT,
                       errno.EHOSTUNREACH, errno.ENOTCONN):
            with self.subTest(errno.errorcode[number]):
                class Handler(EchoHandler):
                    @staticmethod
                    def reply(data):
                        raise OSError(number, os.strerror(number))

                log = self.capture_log()
                server = self.start(ThreadingEchoServer, ("127.0.0.1", 0),
                                    Handler)
                self.assertBreaks(server)
                self.gone(server)
                self.assertEqual(len(self.lines(log)), 1)
                self.assertEqual([r for r in log if r.exc_info], [])

    def test_reply_in_part_of_a_handler_that_returns_early(self):
        """Its reply arrives whole, though its input was not read.

        Closing with unread input resets the connection, and the reset can
        overtake the reply (RFC 2525, section 2.17).
        """
        class Handler(EchoHandler):
            def handle(self):
                self.request.recv(1)
                self.request.sendall(b"x" * 100000)

        server = self.start(ThreadingEchoServer, ("127.0.0.1", 0), Handler)
        with self.connect(server.server_address) as s:
            s.sendall(bytes(1 << 20))
            self.assertEqual(len(self.receive(s, 100001)), 100000)

    def test_reply_of_a_handler_that_writes_to_wfile(self):
        """It leaves when it is written: nothing fails in a late flush."""
        go = threading.Event()

        class Handler(EchoHandler):
            def handle(self):
                self.wfile.write(self.rfile.readline().upper())
                go.wait(PATIENCE)

        server = self.start(ThreadingEchoServer, ("127.0.0.1", 0), Handler)
        self.addCleanup(go.set)
        with self.connect(server.server_address) as s:
            self.assertEchoes(s, b"hello\n")
            go.set()

    def test_classes_of_socketserver(self):
        """Whoever knows that module knows these."""
        self.assertTrue(issubclass(EchoServer, socketserver.TCPServer))
        self.assertTrue(issubclass(ThreadingEchoServer,
                                   socketserver.ThreadingTCPServer))
        self.assertTrue(issubclass(EchoHandler,
                                   socketserver.StreamRequestHandler))


class PublicNamesTests(unittest.TestCase):

    def test_names(self):
        """What __all__ promises is there."""
        for name in echoserver.__all__:
            self.assertTrue(hasattr(echoserver, name), name)
        self.assertLessEqual({"EchoServer", "ThreadingEchoServer",
                              "EchoHandler"}, set(echoserver.__all__))
        self.assertRegex(echoserver.__version__, r"^\d+\.\d+\.\d+$")


if __name__ == "__main__":
    unittest.main()
