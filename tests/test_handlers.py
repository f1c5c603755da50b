"""Handlers and hooks: what socketserver lets a subclass override, in every
model; and what their errors cost."""

import errno
import os
import socket
import socketserver
import sys
import threading
import unittest

from echoserver import (BlockingEchoServer, EchoHandler, EchoServer,
                        ThreadingEchoServer)
from echoserver.server.models import MODELS

from .models import ModelTestCase, dies, every_model, logger, replying
from .support import PATIENCE


class Lines(EchoHandler):
    """A handler in the manner of socketserver, with rfile and wfile."""

    def handle(self):
        for line in self.rfile:
            self.wfile.write(b"> " + line)


class Stock(socketserver.BaseRequestHandler):
    """A handler that knows nothing of this package."""

    timeout = None

    def handle(self):
        self.request.sendall(self.request.recv(100).swapcase())


@every_model
class Handlers:

    def test_another_reply(self):
        """reply() may be overridden in every model."""
        server = self.serve(replying(bytes.swapcase))
        self.assertEqual(self.exchange(server, b"Hello"), (b"hELLO", "eof"))

    def refused(self, handler=EchoHandler, cls=None):
        """Return whether the model refuses a handler, with a reason."""
        if self.turns_only:
            with self.assertRaisesRegex(TypeError, "reply"):
                self.serve(handler, cls)
        return self.turns_only

    def test_its_own_handle(self):
        """handle() may be overridden, or is refused with a reason."""
        self.needs(3)
        if self.refused(Lines):
            return
        server = self.serve(Lines, grace=PATIENCE)
        clients = [self.connect(server.server_address) for _ in range(3)]
        for s in clients:
            s.sendall(b"a\nb\n")
            self.assertEqual(self.receive(s, 8), b"> a\n> b\n")
        server.server_close()
        for s in clients:
            self.ends(s)

    def test_its_own_setup_or_finish(self):
        """Each is called, though handle() is EchoHandler's."""
        for name in "setup", "finish":
            def hook(handler, name=name):
                logger.info("%s of a handler", name)
                getattr(EchoHandler, name)(handler)

            handler = type("Handler", (EchoHandler,), {name: hook})
            if self.refused(handler):
                return
            self.answers(self.serve(handler))
            self.logged("%s of a handler" % name)

    def test_another_kind(self):
        """A stock handler runs, or is refused with a reason."""
        if not self.refused(Stock):
            server = self.serve(Stock)
            self.assertEqual(self.exchange(server, b"Hello"),
                             (b"hELLO", "eof"))

    def test_timeout(self):
        """The timeout of a StreamRequestHandler does not hold up a drain."""
        handler = type("Timed", (EchoHandler,), {"timeout": 10 * PATIENCE})
        if self.refused(handler):
            return
        server = self.serve(handler, grace=10 * PATIENCE)
        s = self.client(server)
        server.server_close()
        self.ends(s)

    def test_answer_in_part(self):
        """A reply arrives whole, though much of the input is unread."""
        class Early(EchoHandler):
            def handle(self):
                self.request.recv(10)
                self.request.sendall(bytes(100000))

        if self.refused(Early):
            return
        server = self.serve(Early)
        s = self.connect(server.server_address, 1 << 12)
        s.sendall(bytes(50000))
        s.shutdown(socket.SHUT_WR)
        self.ends(s, data=bytes(100000))

    # Errors.

    def test_bug(self):
        """It costs a traceback and its own connection, no other: whatever it
        is that reply() raises."""
        self.needs(2)
        errors = [ZeroDivisionError(), BlockingIOError(), TimeoutError()]

        def reply(data):
            if data.isdigit():
                raise errors[int(data)]
            return data.upper()

        server = self.serve(replying(reply), **self.few)
        other = self.connect(server.server_address)
        for number, error in enumerate(errors):
            s = self.connect(server.server_address)
            s.sendall(b"%d" % number)
            self.asks(other)
            self.ends(s, "reset")
            self.assertRegex(self.logged_end(s), "error after")
            self.assertEqual(len(self.log("^" + type(error).__name__)), 1)

    def test_exit(self):
        """SystemExit ends its own connection with a reset, without a
        traceback; no worker and no loop."""
        for few in self.few, {}:
            server = self.serve(replying(dies(SystemExit())), **few)
            for _ in range(2):
                s = self.connect(server.server_address)
                s.sendall(b"die")
                self.ends(s, "reset")
                self.assertRegex(self.logged_end(s), "error after")
            self.answers(server)
        self.assertEqual(self.log("Traceback"), [])

    def test_exit_of_its_own_handle(self):
        """The same of a handler that has a worker for itself."""
        class Exiting(EchoHandler):
            def handle(self):
                if self.request.recv(10) == b"die":
                    sys.exit()
                self.request.sendall(b"HELLO")

        if self.refused(Exiting):
            return
        server = self.serve(Exiting, **self.few)
        for _ in range(2):
            s = self.connect(server.server_address)
            s.sendall(b"die")
            self.ends(s, "reset")
        self.answers(server)

    def test_exit_of_handle_error(self):
        """The hook may fail in that way, too."""
        server = self.serve(replying(dies(ZeroDivisionError())), cls=type(
            "Server", (self.server_class,), {"handle_error": lambda *args:
                                             sys.exit()}), **self.few)
        for _ in range(2):
            s = self.connect(server.server_address)
            s.sendall(b"die")
            self.ends(s, "reset")
        self.answers(server)

    def test_refusal_of_another(self):
        """A handler that cannot connect elsewhere has failed, not its
        peer."""
        server = self.serve(replying(dies(ConnectionRefusedError())))
        s = self.connect(server.server_address)
        s.sendall(b"die")
        self.ends(s, "reset")
        self.assertRegex(self.logged_end(s), "error after")

    def test_dead_network(self):
        """The kernel's ETIMEDOUT is the network's doing: reset, not idle."""
        def receive(request, *args):
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

        class Dead(socket.socket):
            recv = recv_into = receive

        class Server(self.server_class):
            def get_request(self):
                request, client_address = super().get_request()
                return Dead(fileno=request.detach()), client_address

        server = self.serve(cls=Server)
        self.breaks(server)
        self.logged("reset after")
        self.assertEqual(self.log("Traceback"), [])

    # Hooks.

    def test_finish_request(self):
        """It is called with each connection, or is refused with a reason."""
        class Watching(self.server_class):
            def finish_request(self, request, client_address):
                logger.info("finish: %s", client_address[1])
                super().finish_request(request, client_address)

        if not self.refused(cls=Watching):
            self.answers(self.serve(cls=Watching))
            self.logged("finish: ")

    def test_verify_request(self):
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
        self.ends(self.connect(server.server_address))
        s.connect(server.server_address)
        self.asks(s)

    def test_process_request(self):
        """It is called with each connection, and may call the model's."""
        class Watching(self.server_class):
            def process_request(self, request, client_address):
                logger.info("taken: %s", client_address[1])
                super().process_request(request, client_address)

        server = self.serve(cls=Watching)
        s = self.client(server)
        self.logged("taken: %d$" % s.getsockname()[1])

    def test_handle_error(self):
        """It is told of a bug, in place of the log."""
        class Caring(self.server_class):
            def handle_error(self, request, client_address):
                logger.info("care: %s", sys.exc_info()[0].__name__)

        server = self.serve(replying(dies(KeyError())), cls=Caring)
        s = self.connect(server.server_address)
        s.sendall(b"die")
        self.ends(s, "reset")
        self.logged("care: KeyError")
        self.assertEqual(self.log("Traceback"), [])

    def test_handle_error_that_raises(self):
        """It ends no worker and no loop."""
        class Careless(self.server_class):
            def handle_error(self, request, client_address):
                raise KeyError("who cares")

        server = self.serve(replying(dies(ZeroDivisionError())), cls=Careless,
                            **self.few)
        for _ in range(2):
            s = self.connect(server.server_address)
            s.sendall(b"die")
            self.ends(s, "reset")
        self.answers(server)
        self.assertEqual(len(self.log("^ERROR handle_error")), 2)

    def test_service_actions(self):
        """It is called by the loop."""
        class Serving(self.server_class):
            def service_actions(self):
                logger.info("service")

        server = self.serve(cls=Serving)
        self.answers(server)
        self.logged("service")


class HookTest(ModelTestCase):

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

                server = self.serve(cls=type("Server", (base,), {
                    name: recording(name) for name in self.HOOKS}))
                self.answers(server)
                self.gone(server)
                self.assertEqual(calls, self.HOOKS)

    def test_hook_that_raises(self):
        """It costs its own connection, and a traceback."""
        for name in "verify_request", "process_request":
            failures = [ZeroDivisionError("not again")]

            def hook(server, *args, name=name):
                if failures:
                    raise failures.pop()
                return getattr(ThreadingEchoServer, name)(server, *args)

            server = self.serve(cls=type("Server", (ThreadingEchoServer,),
                                         {name: hook}))
            self.breaks(server)
            self.answers(server)
        self.assertEqual(len(self.log("^ZeroDivisionError")), 2)

    def test_hook_that_raises_what_is_no_exception(self):
        """SystemExit ends the loop as it should, and leaks nothing."""
        class Server(BlockingEchoServer):
            def verify_request(self, request, client_address):
                raise SystemExit(3)

        server = self.make(cls=Server)
        s = self.connect(server.server_address)
        with self.assertRaises(SystemExit):
            server.serve_forever()
        self.ends(s, "reset")
        self.assertEqual(len(server.peers), 0)

    def test_peer_that_has_gone(self):
        """Rudeness is one line, without a traceback."""
        for number in (errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT,
                       errno.EHOSTUNREACH, errno.ENOTCONN):
            server = self.serve(replying(dies(
                OSError(number, os.strerror(number)))))
            self.breaks(server, b"die")
            self.gone(server)
            self.assertEqual(dict(server.peers.ended), {"reset": 1})
        self.assertEqual(self.log("ERROR|Traceback"), [])

    def test_reply_through_wfile(self):
        """It leaves when it is written: nothing fails in a late flush."""
        go = threading.Event()

        class Handler(EchoHandler):
            def handle(self):
                self.wfile.write(self.rfile.readline().upper())
                go.wait(PATIENCE)

        server = self.serve(Handler)
        self.addCleanup(go.set)
        s = self.connect(server.server_address)
        self.asks(s, b"hello\n")

    def test_classes_of_socketserver(self):
        """Whoever knows that module knows these."""
        self.assertTrue(issubclass(EchoServer, socketserver.TCPServer))
        self.assertTrue(issubclass(ThreadingEchoServer,
                                   socketserver.ThreadingTCPServer))
        self.assertTrue(issubclass(EchoHandler,
                                   socketserver.StreamRequestHandler))
        for cls in MODELS.values():
            self.assertTrue(issubclass(cls, EchoServer))


@every_model
class Log:

    def test_log(self):
        """A connection has one line, with what it was and how it ended."""
        server = self.serve()
        s = self.client(server)
        s.shutdown(socket.SHUT_WR)
        self.ends(s)
        self.assertRegex(self.logged_end(s), r"^INFO 127\.0\.0\.1:\d+: eof "
                         r"after \d+\.\d{3} s, 5 bytes in, 5 bytes out$")
        server.server_close()
        self.assertEqual(len(self.log(" after ")), 1)
        self.assertTrue(self.log(
            r"INFO served 1 connections, 5 bytes in, 5 bytes out \(1 eof\)$"))

    def test_connections_without_a_byte(self):
        """Short ones are those of health probes, and shown on demand."""
        server = self.make()
        short = self.connect(server.server_address)
        short.shutdown(socket.SHUT_WR)
        server = self.in_background(server)
        self.ends(short)
        self.assertRegex(self.logged_end(short), "^DEBUG .* 0 bytes in")

    def test_long_connections_without_a_byte(self):
        """One that lasted is worth a line."""
        self.needs(2)
        server = self.make()
        server.peers.log_after = 0.001
        server = self.in_background(server)
        s = self.connect(server.server_address)
        self.answers(server)
        self.assertEqual(s.send(b""), 0)
        threading.Event().wait(0.002)
        s.shutdown(socket.SHUT_WR)
        self.ends(s)
        self.assertRegex(self.logged_end(s), "^INFO .* eof after .* 0 bytes")

    def test_no_payload(self):
        """Nothing of what peers send is in the log."""
        server = self.serve()
        self.exchange(server, b"SECRET\x1b[2J\n" * 1000)
        s = self.connect(server.server_address)
        self.asks(s, b"SECRET\r\nERROR")
        self.reset(s)
        server.server_close()
        self.assertEqual(len(self.log(" after ")), 2)
        self.assertEqual(self.log("SECRET|ERROR|\x1b"), [])


if __name__ == "__main__":
    unittest.main()
