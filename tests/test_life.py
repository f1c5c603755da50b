"""The life of a server in other people's tests: interrupted calls, forks,
handlers of every kind, strict loggers."""

import functools
import itertools
import logging
import os
import signal
import socket
import threading
import unittest
from unittest import mock

from echoserver import (EchoHandler, EchoServer, ForkingEchoServer,
                        SelectorEchoServer, ThreadingEchoServer)
from echoserver.server.models import MODELS

from .models import (ModelTestCase, dies, every_model, logger, needs_fork,
                     posix_only, replying)
from .support import PATIENCE, python, until


class Lower(EchoHandler):
    reply = staticmethod(bytes.lower)


class Interrupted(Exception):
    """What a signal handler raises."""


def interrupt(number, frame):
    raise Interrupted


@every_model
class Closing:

    @posix_only
    def test_interrupted_again_and_again(self):
        """Whatever is interrupted: another call finishes, nothing is left."""
        self.only_here()
        self.addCleanup(signal.setitimer, signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, interrupt)
        logger.setLevel(logging.CRITICAL)   # what it swallows is printed
        # From the first steps of a call to the last, and beyond.
        for microseconds in range(10, 4000, 200):
            server = self.serve(grace=0.5)
            s = self.client(server)
            delay = microseconds / 1e6
            while not server.loop.closed:
                try:
                    signal.setitimer(signal.ITIMER_REAL, delay)
                    server.server_close()
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except Interrupted:
                    delay *= 2
            signal.setitimer(signal.ITIMER_REAL, 0)
            server.server_close()
            self.rest(s)        # it has ended, one way or the other
            self.assertEqual((server.socket.fileno(), dict(server.peers)),
                             (-1, {}))

    @needs_fork
    def test_in_a_forked_child(self):
        """It closes the child's copies, and the parent serves on."""
        self.only_here()
        server = self.serve()
        s = self.client(server)
        pid = os.fork()
        if not pid:
            try:
                server.server_close()
            finally:
                os._exit(server.socket.fileno() + 1)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        pid = os.fork()
        if not pid:
            server.shutdown()
            os._exit(0)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        self.asks(s)
        s.close()
        self.answers(server)

    def test_in_a_handler(self):
        """It waits neither for that connection nor for its thread, and the
        client has its reply and a clean end."""
        self.only_here()

        class Quits(EchoHandler):
            def handle(self):
                if self.rfile.readline() == b"QUIT\n":
                    self.server.server_close()
                    self.wfile.write(b"BYE")

        def reply(data):
            if data == b"QUIT\n":
                servers[-1].server_close()
                return b"BYE\r\n"
            return data

        for handler, bye in (Quits, b"BYE"), (replying(reply), b"BYE\r\n"):
            if self.turns_only and handler is Quits:
                continue
            with self.subTest(bye=bye):
                servers = [self.make(handler, grace=10 * PATIENCE)]
                server = servers[0].in_background()
                if self.server_class.model != "blocking":
                    self.connect(server.server_address)     # is at rest
                s = self.connect(server.server_address)
                s.sendall(b"QUIT\n")
                self.ends(s, data=bye)
                self.assertEqual(server.socket.fileno(), -1)
                self.assertEqual(self.log("ERROR"), [])

    @posix_only
    def test_in_a_signal_handler(self):
        """With the main thread in serve_forever(), or in server_close()."""
        server = self.make(grace=10 * PATIENCE)
        pid = os.getpid()
        alarm = signal.signal(signal.SIGALRM,
                              lambda *args: server.server_close())
        self.addCleanup(signal.signal, signal.SIGALRM, alarm)
        threading.Timer(0.01, os.kill, (pid, signal.SIGALRM)).start()
        server.serve_forever()
        self.assertTrue(server.loop.closed)
        if not self.here:
            return
        server = self.serve(grace=10 * PATIENCE)
        self.client(server)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        try:
            server.server_close()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        self.assertTrue(server.loop.closed)

    def test_handler_that_raises_what_is_no_exception(self):
        """That connection is reset and told; the others go on."""
        self.only_here()

        class Failed(BaseException):
            """As pytest.fail() raises it."""

        server = self.serve(replying(dies(Failed("no"))))
        self.breaks(server, b"die")
        self.answers(server)
        self.assertEqual(len(self.log("unexpected error")), 1)

    def test_hook_that_raises_what_is_no_exception(self):
        """Where a connection is accepted, too: the next one is served."""
        class Server(self.server_class):
            failures = [GeneratorExit("no")]

            def get_request(self):
                if self.failures:
                    raise self.failures.pop()
                return super().get_request()

        self.answers(self.serve(cls=Server))

    def test_strict_logger(self):
        """A logging handler that raises unwinds neither accepting nor
        closing."""
        self.only_here()

        class Strict(logging.Handler):
            def emit(self, record):
                raise AssertionError("no line is expected")

        strict = Strict()
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
        self.assertEqual(len(self.log("WARNING .*reply.. returned 4 bytes for 2")),
                         1)

    def test_default_timeout(self):
        """socket.setdefaulttimeout() is not for the sockets of a server."""
        self.addCleanup(socket.setdefaulttimeout, socket.getdefaulttimeout())
        socket.setdefaulttimeout(0.02)
        server = self.serve()
        s = self.connect(server.server_address)
        socket.setdefaulttimeout(None)
        s.settimeout(PATIENCE)
        self.asks(s)
        self.assertFalse(threading.Event().wait(0.05))  # the time is over
        self.asks(s)

    def test_handler_that_is_made_elsewhere(self):
        """A handler's own reply is used, whatever makes the handler."""
        class Server(self.server_class):
            def finish_request(self, request, client_address):
                Lower(request, client_address, self)

        for cls, handler in (
                (self.server_class, functools.partial(Lower)),
                (self.server_class, lambda *args: Lower(*args)),
                (Server, EchoHandler)):
            if self.turns_only:
                with self.assertRaises(TypeError):
                    self.make(handler, cls)
                continue
            server = self.serve(handler, cls)
            with self.connect(server.server_address) as s:
                s.sendall(b"HELLO")
                self.assertEqual(self.receive(s, 5), b"hello")

    def test_out_of_band_data(self):
        """It comes back, too: every byte does."""
        server = self.serve()
        s = self.connect(server.server_address)
        s.sendall(b"one")
        s.send(b"two", socket.MSG_OOB)
        self.assertEqual(self.receive(s, 6), b"ONETWO")


class LifeTest(ModelTestCase):

    def test_serving_twice(self):
        """A second serve_forever() is refused at once."""
        server = self.serve()
        with self.assertRaisesRegex(RuntimeError, "another thread serves"):
            server.serve_forever()
        self.answers(server)

    def test_service_actions(self):
        """Called about as often as poll_interval says where it is overridden;
        elsewhere nothing wakes the loop."""
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
        server = self.make()
        waits = []
        with mock.patch.object(
                server.loop, "run_once",
                lambda wait: waits.append(wait) or server.stop()):
            server.serve_forever(0.001)
        self.assertEqual(waits, [server.loop.max_wait])

    def test_refused_in_one_sentence(self):
        """What makes little sense is a sentence that says what does."""
        taken = self.make().server_address
        timed = type("Timed", (EchoHandler,), {"timeout": 5})
        for error, sentence, call in (
                (TypeError, "an address is .host, port.",
                 lambda: ThreadingEchoServer.start("127.0.0.1:0")),
                (TypeError, "an address is .host, port.",
                 lambda: ThreadingEchoServer.start(8080)),
                (TypeError, "an address is .host, port.",
                 lambda: ThreadingEchoServer.start(("127.0.0.1", "0"))),
                (OSError, "cannot listen on 127.0.0.1:%d: " % taken[1],
                 lambda: ThreadingEchoServer.start(taken)),
                (TypeError, "is the base of the models",
                 lambda: EchoServer(("127.0.0.1", 0))),
                (RuntimeError, "serve_forever.. or start",
                 self.make(cls=SelectorEchoServer).handle_request),
                (TypeError, "use another server",
                 lambda: SelectorEchoServer.start(RequestHandlerClass=timed)),
                ):
            with self.subTest(sentence=sentence):
                with self.assertRaisesRegex(error, sentence):
                    call()
        with ThreadingEchoServer.start(["127.0.0.1", 0]):   # as JSON has it
            pass

    @needs_fork
    def test_start_of_a_model_that_forks(self):
        """Its children would inherit the sockets of its caller."""
        with self.assertRaisesRegex(RuntimeError, "a process of its own"):
            ForkingEchoServer.start()

    def test_repr(self):
        """It says where the server listens, and what it does."""
        server = self.make()
        where = "<ThreadingEchoServer on 127.0.0.1:%d, " % (
            server.server_address[1])
        self.assertEqual(repr(server), where + "not serving, 0 connections>")
        server.in_background()
        self.client(server)
        self.assertEqual(repr(server), where + "serving, 1 connections>")
        server.server_close()
        self.assertEqual(repr(server), where + "closed, 0 connections>")

    def test_own_timeout_of_a_handler(self):
        """StreamRequestHandler's timeout is honoured in a pool."""
        server = self.serve(type("Timed", (EchoHandler,), {"timeout": 0.05}),
                            cls=MODELS["pool"])
        s = self.client(server)
        self.ends(s)
        s.close()
        self.logged("idle after")

    def test_at_the_exit_of_the_interpreter(self):
        """A __del__ that closes a server of a global hangs nowhere."""
        for name in MODELS:
            if name == "processes":
                continue
            self.run_python("-c", """if True:
                import socket
                from echoserver.server.models import MODELS
                class Peer:
                    def __init__(self):
                        self.server = MODELS[%r].start()
                        self.client = socket.create_connection(
                            self.server.server_address)
                        self.client.sendall(b"hello")
                        assert self.client.recv(5)
                    def __del__(self):
                        self.server.server_close()
                peer = Peer()
                """ % name).wait(PATIENCE)


if __name__ == "__main__":
    unittest.main()
