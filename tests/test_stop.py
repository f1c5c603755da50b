"""Starting and stopping, in every state and from every place."""

import inspect
import itertools
import signal
import threading
import unittest
from unittest import mock

import echoserver
from echoserver import BlockingEchoServer, EchoHandler, EchoServer, ThreadingEchoServer

from .models import ModelTestCase, every_model
from .support import PATIENCE, until


@every_model
class Stop:

    def test_stop_before_serving(self):
        """serve_forever() returns at once, and serves when called again."""
        server = self.make()
        server.stop()
        server.serve_forever()
        server.shutdown()
        server.serve_forever()  # which that was for
        if self.here:
            server = self.in_background(server)
            self.answers(server)

    def test_close_while_it_begins(self):
        """It serves no more, which is no error."""
        for _ in range(10):
            errors = []

            def serve():
                try:
                    server.serve_forever()
                except BaseException as error:
                    errors.append(error)

            server = self.make()
            thread = self.in_thread(serve)
            server.server_close()
            self.ended(thread)
            self.assertEqual(errors, [])
            server.serve_forever()

    def test_stop_twice(self):
        """The second time changes nothing, and too late is no error."""
        server = self.serve()
        self.client(server)
        for end in server.stop, server.shutdown, server.server_close:
            end()
            end()
        server.stop()
        server.shutdown()
        self.assertEqual(len(self.log("served 1 connections")), 1)

    @unittest.skipUnless(hasattr(signal, "setitimer"), "needs an alarm")
    def test_stop_in_a_signal_handler(self):
        """Neither does it block, nor is it lost; shutdown() does not wait
        for the thread that it interrupts (bpo-13749)."""
        for name in "stop", "shutdown":
            server = self.make()
            alarms = itertools.count()

            def stop(number, frame):
                if next(alarms):
                    raise AssertionError("waited %g s for the loop" % PATIENCE)
                getattr(server, name)()

            signal.signal(signal.SIGALRM, stop)
            signal.setitimer(signal.ITIMER_REAL, 0.02, PATIENCE)
            server.serve_forever()
            signal.setitimer(signal.ITIMER_REAL, 0)

    def test_shutdown_in_the_loop(self):
        """It does not wait for itself."""
        class Once(self.server_class):
            def verify_request(self, request, client_address):
                self.shutdown()
                return True

        server = self.serve(cls=Once)
        s = self.connect(server.server_address)
        s.sendall(b"hello")
        server.server_close()
        self.ends(s, data=b"HELLO")

    def test_shutdown_in_a_handler(self):
        """The reply that it is called from is sent."""
        self.only_here()

        class Last(EchoHandler):
            @staticmethod
            def reply(data):
                server.shutdown()
                return data.upper()

        server = self.make(Last)
        thread = self.serve_in_thread(server)
        s = self.client(server)
        self.ended(thread)
        server.server_close()
        self.ends(s)


class ServeTest(ModelTestCase):
    """What needs no model to show."""

    server_class = BlockingEchoServer

    def test_stop_before_serve_forever(self):
        """It is not forgotten: serve_forever() returns, once (bpo-2302)."""
        server = self.make()
        server.stop()
        server.stop()
        server.serve_forever()
        thread = self.serve_in_thread(server)
        self.answers(server)
        server.shutdown()
        self.ended(thread)

    def test_shutdown_from_many_threads(self):
        """All of them return."""
        server = self.make()
        threads = [self.serve_in_thread(server)]
        self.answers(server)
        threads += [self.in_thread(server.shutdown) for _ in range(10)]
        for thread in threads:
            self.ended(thread)

    def test_shutdown_and_serve_again(self):
        """shutdown() ends the loop, not the server."""
        server = self.make()
        thread = self.serve_in_thread(server)
        self.answers(server)
        server.shutdown()
        self.ended(thread)
        with self.connect(server.server_address) as waiting:
            waiting.sendall(b"hello")
            thread = self.serve_in_thread(server)
            self.assertEqual(self.receive(waiting, 5), b"HELLO")
        server.shutdown()
        self.ended(thread)

    def test_stop_is_seen_before_the_next_accept(self):
        """Who connects after a stop is not accepted by the loop (bpo-35017).

        It waits for server_close(), which answers, or for the next
        serve_forever().
        """
        go, taken = threading.Event(), []

        class Server(self.server_class):
            def verify_request(self, request, client_address):
                taken.append(client_address)
                if len(taken) == 1:
                    go.wait(PATIENCE)
                return True

        server = self.make(cls=Server)
        thread = self.serve_in_thread(server)
        first = self.connect(server.server_address)
        until(lambda: taken, "the first connection")
        second = self.connect(server.server_address)
        server.stop()
        go.set()
        self.ended(thread)
        self.ends(first)
        self.assertEqual(taken, [first.getsockname()])
        second.sendall(b"hello")
        server.server_close()
        self.ends(second, data=b"HELLO")

    def test_server_close_in_the_loop(self):
        """In a hook, or a signal handler, it ends the loop, too."""
        class Server(ThreadingEchoServer):
            def verify_request(self, request, client_address):
                self.server_close()
                return True

        server = self.make(cls=Server, grace=0)
        with mock.patch("echoserver.server.drain.CUT_TIMEOUT", 0.05), \
                self.connect(server.server_address):
            server.serve_forever()
        self.assertEqual(server.socket.fileno(), -1)

    def test_many_wake_ups(self):
        """More than the wake-up socket holds neither block nor are lost."""
        server = self.make()
        for _ in range(5000):
            server.stop()
        server.serve_forever()


class StartTest(ModelTestCase):

    def test_start_and_with(self):
        """One with block begins a server on a free port, and ends it."""
        with ThreadingEchoServer.start() as server:
            self.assertIsInstance(server, ThreadingEchoServer)
            self.assertEqual(server.server_address[0], "127.0.0.1")
            self.answers(server)
        with self.assertRaises(ConnectionRefusedError):
            self.connect(server.server_address)

    def test_start_passes_on_what_it_is_given(self):
        """Address, handler class and keywords are the constructor's."""
        class Handler(EchoHandler):
            reply = staticmethod(bytes.lower)

        with ThreadingEchoServer.start(("127.0.0.1", 0), Handler,
                              grace=1.5) as server:
            self.assertEqual(server.grace, 1.5)
            with self.connect(server.server_address) as s:
                s.sendall(b"HELLO")
                self.assertEqual(self.receive(s, 5), b"hello")

    def test_start_without_a_thread(self):
        """What cannot start leaves nothing open."""
        with mock.patch.object(threading.Thread, "start",
                               side_effect=RuntimeError("no thread")):
            with self.assertRaises(RuntimeError):
                ThreadingEchoServer.start()

    def test_exit_by_exception(self):
        """What the block raises comes out, and the server is gone."""
        with self.assertRaises(ZeroDivisionError):
            with ThreadingEchoServer.start() as server:
                1 / 0
        self.assertEqual(server.socket.fileno(), -1)


class OptionTest(ModelTestCase):

    OPTIONS = {"max_connections": 7, "idle_timeout": 8.5, "grace": 0.25,
               "delay": 0.125}

    def values(self, server):
        return {name: getattr(server, name) for name in self.OPTIONS}

    def test_documented_defaults(self):
        """They are what the README says."""
        self.assertEqual(self.values(BlockingEchoServer), {
            "max_connections": 1000, "idle_timeout": 300, "grace": 5,
            "delay": 0})
        default = inspect.signature(EchoServer).parameters["server_address"]
        self.assertEqual(default.default, ("127.0.0.1", 8080))

    def test_by_class_variable(self):
        """A subclass sets what a keyword would."""
        server = self.make(cls=type("Server", (BlockingEchoServer,), self.OPTIONS))
        self.assertEqual(self.values(server), self.OPTIONS)

    def test_by_keyword(self):
        """A keyword is of the class variable's name, and wins over it."""
        server = self.make(**self.OPTIONS)
        self.assertEqual(self.values(server), self.OPTIONS)

    def test_none_is_the_default(self):
        """None leaves the class variable as it is; 0 does not."""
        server = self.make(grace=None, idle_timeout=0)
        self.assertEqual((server.grace, server.idle_timeout),
                         (EchoServer.grace, 0))

    def test_without_sense(self):
        """A negative number and NaN are refused by name, and cost nothing."""
        for name in self.OPTIONS:
            for value in -1, -0.5, float("nan"):
                with self.subTest(name, value=value):
                    with self.assertRaisesRegex(ValueError, name):
                        ThreadingEchoServer(("127.0.0.1", 0), **{name: value})

    def test_stop_with_a_grace_without_sense(self):
        """stop() judges as the constructor does, and has done nothing."""
        server = self.serve()
        with self.assertRaisesRegex(ValueError, "grace"):
            server.stop(grace=-1)
        self.answers(server)


class PublicNamesTest(unittest.TestCase):

    def test_names(self):
        """What __all__ promises is there, and nothing is by mistake."""
        for name in echoserver.__all__:
            self.assertIn(name, dir(echoserver))
            self.assertTrue(hasattr(echoserver, name), name)
        self.assertFalse(hasattr(echoserver, "Peer"))
        self.assertRegex(echoserver.__version__, r"^\d+\.\d+\.\d+$")


if __name__ == "__main__":
    unittest.main()
