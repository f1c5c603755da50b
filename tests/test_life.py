"""The life of a server: started, served, stopped and closed, in every state
and from every place; in other people's tests, too, which interrupt and fork,
and whose loggers are strict."""

import itertools
import logging
import os
import signal
import socket
import sys
import threading
import unittest
from unittest import mock

from echoserver import (BlockingEchoServer, EchoHandler, EchoServer,
                        SelectorEchoServer, ThreadingEchoServer)
import echoserver.server.base

from .models import (MODELS, PATIENCE, ModelTestCase, every_model, fork,
                     logger, needs_fork, posix_only, replying, until)

PACKAGE = os.path.dirname(echoserver.server.base.__file__)


class Interrupted(Exception):
    """What a signal handler raises."""


def interrupt_at(count):
    """Raise Interrupted in this thread when that many functions of the
    package have been called: there the interpreter looks for signals."""
    left = itertools.count(count, -1)

    def trace(frame, event, arg):
        if (frame.f_code.co_filename.startswith(PACKAGE)
                and next(left) == 0):
            sys.settrace(None)
            raise Interrupted
    sys.settrace(trace)


@every_model
class Life:

    def test_stop_before_serving(self):
        """serve_forever() returns at once, once (bpo-2302), and serves when
        called again; so it does after shutdown()."""
        server = self.make()
        for end in server.stop, server.shutdown:
            end()
            end()
            server.serve_forever()
        self.answers(self.in_background(server))

    def test_stop_twice(self):
        """The second time changes nothing, and too late is no error."""
        server = self.serve()
        self.client(server)
        for end in (server.stop, server.shutdown, server.server_close) * 2:
            end()
            end()
        self.assertEqual(len(self.log("served 1 connections")), 1)

    @posix_only
    def test_end_in_a_signal_handler(self):
        """It does not block, nor is it lost, nor does it wait for the thread
        that it interrupts (bpo-13749): neither in serve_forever(), nor in
        server_close()."""
        for name in "stop", "shutdown", "server_close":
            server = self.make(grace=10 * PATIENCE)
            signal.signal(signal.SIGALRM,
                          lambda *args: getattr(server, name)())
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            server.serve_forever()
        self.assertTrue(server.loop.closed)
        if self.here:
            server = self.serve(grace=10 * PATIENCE)
            self.client(server)
            signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
            server.server_close()
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.assertTrue(server.loop.closed)

    def test_shutdown_in_a_handler(self):
        """The reply that it is called from is sent."""
        self.only_here()
        server = self.make(replying(
            lambda data: server.shutdown() or data.upper()))
        thread = self.serve_in_thread(server)
        s = self.client(server)
        self.ended(thread)
        server.server_close()
        self.ends(s)

    def test_close_in_a_handler(self):
        """It waits neither for that connection nor for its thread, and the
        client has its reply and a clean end."""
        self.only_here()

        class Quits(EchoHandler):
            def handle(self):
                if self.rfile.readline() == b"QUIT\n":
                    self.server.server_close()
                    self.server.server_close()
                    self.wfile.write(b"BYE")

        for handler in Quits, replying(
                lambda data: data == b"QUIT\n" and (
                    servers[-1].server_close(), servers[-1].server_close(),
                    b"BYE")[-1] or data):
            if self.turns_only and handler is Quits:
                continue
            with self.subTest(handler=handler):
                servers = [self.make(handler, grace=10 * PATIENCE)]
                server = servers[0].in_background()
                if self.server_class.model != "blocking":
                    self.asking(server)     # is at rest, or has a turn, too
                self.ends(self.asking(server, b"QUIT\n"), data=b"BYE")
                self.assertEqual(server.socket.fileno(), -1)
                self.assertEqual(self.log("ERROR"), [])

    def test_close_interrupted_again_and_again(self):
        """Whatever is interrupted: another call finishes, nothing is left."""
        self.only_here()
        logger.setLevel(logging.CRITICAL)   # what it swallows is printed
        for count in range(0, 80, 8):
            with self.subTest(count):
                server = self.serve(grace=0.05)
                s = self.client(server)
                while not server.loop.closed:
                    interrupt_at(count)
                    try:
                        server.server_close()
                    except Interrupted:
                        count = 2 * count + 1
                    finally:
                        sys.settrace(None)
                server.server_close()
                self.rest(s)        # it has ended, one way or the other
                self.assertEqual((server.socket.fileno(), dict(server.peers)),
                                 (-1, {}))

    @needs_fork
    def test_close_in_a_forked_child(self):
        """It closes the child's copies, and the parent serves on."""
        self.only_here()
        server = self.serve()
        s = self.client(server)
        for end in server.shutdown, server.server_close:
            pid = fork()
            if not pid:
                try:
                    end()
                finally:
                    os._exit(end == server.server_close
                             and server.socket.fileno() + 1)
            self.assertEqual(os.waitpid(pid, 0)[1], 0)
        self.asks(s)
        s.close()
        self.answers(server)

    def test_strict_logger(self):
        """A logging handler that raises unwinds neither accepting nor
        closing."""
        self.only_here()
        strict = logging.Handler()
        strict.emit = mock.Mock(side_effect=AssertionError("no line"))
        logger.addHandler(strict)
        self.addCleanup(logger.removeHandler, strict)
        server = self.serve(max_connections=1, grace=10 * PATIENCE)
        with mock.patch("traceback.print_exc") as shown:
            for _ in range(2):
                self.answers(server)
            server.server_close()
        self.assertEqual(len(server.peers), 0)
        self.assertTrue(shown.called)

    def test_reply_of_another_length(self):
        """It is told once for each connection, and does not hold the drain."""
        server = self.serve(replying(lambda data: data * 2),
                            grace=10 * PATIENCE)
        s = self.connect(server.server_address)
        for _ in range(2):
            s.sendall(b"ab")
            self.assertEqual(self.receive(s, 4), b"abab")
        server.server_close()
        self.ends(s)
        self.assertEqual(len(self.log("WARNING .*reply.. returned 4 bytes")),
                         1)

    def test_out_of_band_data(self):
        """It comes back, too: every byte does."""
        s = self.asking(self.serve(), b"one")
        s.send(b"two", socket.MSG_OOB)
        self.assertEqual(self.receive(s, 6), b"ONETWO")


class ServeTest(ModelTestCase):
    """What needs no model to show."""

    server_class = BlockingEchoServer

    def test_serving_twice(self):
        """A second serve_forever() is refused at once."""
        server = self.serve()
        with self.assertRaisesRegex(RuntimeError, "another thread serves"):
            server.serve_forever()
        self.answers(server)

    def test_shutdown(self):
        """It ends the loop, not the server, which can serve again; called in
        many threads, it returns in all of them."""
        server = self.make()
        thread = self.serve_in_thread(server)
        self.answers(server)
        server.shutdown()
        self.ended(thread)
        waiting = self.asking(server)
        threads = [self.serve_in_thread(server)]
        self.assertEqual(self.receive(waiting, 5), b"HELLO")
        waiting.close()
        threads += [self.in_thread(server.shutdown) for _ in range(5)]
        for thread in threads:
            self.ended(thread)

    def test_stop_is_seen_before_the_next_accept(self):
        """Who connects after a stop is not accepted by the loop (bpo-35017);
        server_close() answers, or the next serve_forever()."""
        go, taken = threading.Event(), []

        class Server(self.server_class):
            def verify_request(self, request, client_address):
                taken.append(client_address)
                return go.wait(PATIENCE)

        server = self.make(cls=Server)
        thread = self.serve_in_thread(server)
        first = self.connect(server.server_address)
        until(lambda: taken, "the first connection")
        second = self.asking(server)
        server.stop()
        go.set()
        self.ended(thread)
        self.ends(first)
        self.assertEqual(taken, [first.getsockname()])
        server.server_close()
        self.ends(second, data=b"HELLO")

    def test_close_in_the_loop(self):
        """In a hook it ends the loop, too."""
        class Server(ThreadingEchoServer):
            def verify_request(self, request, client_address):
                self.server_close()
                return True

        server = self.make(cls=Server, grace=0)
        with mock.patch("echoserver.server.drain.CUT_TIMEOUT", 0.05), \
                self.connect(server.server_address):
            server.serve_forever()
        self.assertEqual(server.socket.fileno(), -1)

    def test_service_actions(self):
        """Called about as often as poll_interval says, if it is overridden."""
        called = threading.Semaphore(0)

        class Server(self.server_class):
            def service_actions(self):
                called.release()

        server = self.make(cls=Server)
        thread = self.in_thread(lambda: server.serve_forever(0.001))
        for _ in range(5):
            self.assertTrue(called.acquire(timeout=PATIENCE))
        server.server_close()
        self.ended(thread)

    def test_repr(self):
        """It says where the server listens, and what it does."""
        server = self.make(cls=ThreadingEchoServer)
        where = "<ThreadingEchoServer on 127.0.0.1:%d, " % (
            server.server_address[1])
        self.assertEqual(repr(server), where + "not serving, 0 connections>")
        server.in_background()
        self.client(server)
        self.assertEqual(repr(server), where + "serving, 1 connections>")
        server.server_close()
        self.assertEqual(repr(server), where + "closed, 0 connections>")

    def test_at_the_exit_of_the_interpreter(self):
        """A __del__ that closes a server of a global hangs nowhere."""
        self.assertEqual(self.run_python("-c", """if True:
            import socket
            from echoserver.server.models import MODELS
            class Peer:
                def __init__(self, model):
                    self.server = model.start()
                    self.client = socket.create_connection(
                        self.server.server_address)
                    self.client.sendall(b"hello")
                    self.client.recv(5)
                def __del__(self):
                    self.server.server_close()
            peers = [Peer(model) for name, model in MODELS.items()
                     if name != "processes"]
            """).wait(PATIENCE), 0)


class StartTest(ModelTestCase):

    OPTIONS = {"max_connections": 7, "idle_timeout": 8.5, "grace": 0.25,
               "delay": 0.125}

    def values(self, server):
        return {name: getattr(server, name) for name in self.OPTIONS}

    def test_start_and_with(self):
        """One with block begins a server, and ends it, also by an exception,
        which comes out; what start() is given is the constructor's."""
        with self.assertRaises(ZeroDivisionError), ThreadingEchoServer.start(
                ["127.0.0.1", 0], replying(bytes.lower),    # as JSON has it
                **self.OPTIONS) as server:
            self.assertEqual(self.values(server), self.OPTIONS)
            s = self.asking(server, b"HELLO")
            self.assertEqual(self.receive(s, 5), b"hello")
            1 / 0
        self.assertEqual(server.socket.fileno(), -1)
        with ThreadingEchoServer.start() as server:
            self.assertEqual(server.server_address[0], "127.0.0.1")

    def test_start_without_a_thread(self):
        """What cannot start leaves nothing open."""
        with mock.patch.object(threading.Thread, "start",
                               side_effect=RuntimeError("no thread")):
            with self.assertRaises(OSError):
                ThreadingEchoServer.start()

    def test_options(self):
        """The defaults are those of the README; a class variable or a keyword
        of the same name sets another, None leaves it, and 0 does not."""
        defaults = {"max_connections": 1000, "idle_timeout": 300, "grace": 5,
                    "delay": 0}
        self.assertEqual(EchoServer.__init__.__defaults__[0],
                         ("127.0.0.1", 8080))
        cls = type("Server", (ThreadingEchoServer,), self.OPTIONS)
        for server, options in (
                (EchoServer, defaults),
                (self.make(grace=None), defaults),
                (self.make(cls=cls), self.OPTIONS),
                (self.make(**self.OPTIONS), self.OPTIONS),
                (self.make(grace=0), dict(defaults, grace=0))):
            self.assertEqual(self.values(server), options)

    def test_refused_in_one_sentence(self):
        """What makes little sense is a sentence that says what does."""
        taken = self.make().server_address
        start = ThreadingEchoServer.start
        address = "an address is .host, port."
        for error, sentence, call in [
                (TypeError, address, lambda: start("127.0.0.1:0")),
                (TypeError, address, lambda: start(("127.0.0.1", "0"))),
                (OSError, "cannot listen on 127.0.0.1:%d: " % taken[1],
                 lambda: start(taken)),
                (TypeError, "is the base of the models",
                 lambda: EchoServer(("127.0.0.1", 0))),
                (RuntimeError, "serve_forever.. or start",
                 self.make(cls=SelectorEchoServer).handle_request),
                (ValueError, "grace", lambda: self.make().stop(grace=-1)),
                (ValueError, "pool_size",
                 lambda: MODELS["pinned"].start(pool_size=0))] + [
                (ValueError, name, lambda name=name, value=value: start(
                    **{name: value})) for name in self.OPTIONS
                for value in (-1, -0.5, float("nan"))] + [
                (RuntimeError, "a process of its own", cls.start)
                for name, cls in MODELS.items() if name == "processes"]:
            with self.subTest(sentence), \
                    self.assertRaisesRegex(error, sentence):
                call()


class PublicNamesTest(unittest.TestCase):

    def test_names(self):
        """What __all__ promises is there."""
        for name in echoserver.__all__:
            self.assertIn(name, dir(echoserver))
            self.assertTrue(hasattr(echoserver, name), name)
