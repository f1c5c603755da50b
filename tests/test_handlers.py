"""Handlers and hooks: what socketserver lets a subclass override, in every
model; what their errors cost; and the log of a connection."""

import errno
import functools
import os
import socket
import socketserver
import sys

from echoserver import BlockingEchoServer, EchoHandler

from .models import (PATIENCE, ModelTestCase, dies, every_model, logger,
                     replying)


Lower = replying(bytes.lower)


class Lines(EchoHandler):
    """A handler in the manner of socketserver, with rfile and wfile."""

    def handle(self):
        for line in self.rfile:
            self.wfile.write(b"> " + line)


class Stock(socketserver.BaseRequestHandler):
    """A handler that knows nothing of this package."""

    def handle(self):
        self.request.sendall(self.request.recv(100).swapcase())


class Early(EchoHandler):
    """A handler that does not read all of its input."""

    def handle(self):
        self.request.recv(10)
        self.request.sendall(bytes(100000))


class Exiting(EchoHandler):
    """A handler whose handle() may exit."""

    def handle(self):
        if self.request.recv(10) == b"die":
            sys.exit()
        self.request.sendall(b"HELLO")


class Failed(BaseException):
    """As pytest.fail() raises it."""


@every_model
class Handlers:

    def subclass(self, **members):
        """Return a server class of the model with these members."""
        return type("Server", (self.server_class,), members)

    def refused(self, handler=EchoHandler, cls=None):
        """Return whether the model refuses a handler, with a reason."""
        if self.turns_only:
            with self.assertRaisesRegex(TypeError, "reply"):
                self.make(handler, cls)
        return self.turns_only

    def dies(self, server, count=1):
        """Fail unless clients that say so are reset, and the next is
        answered; return the port of the last."""
        for _ in range(count):
            s = self.asking(server, b"die")
            port = s.getsockname()[1]
            self.ends(s, "reset")
        self.answers(server)
        return port

    def test_another_reply(self):
        """reply() may be overridden in every model."""
        server = self.serve(replying(bytes.swapcase))
        self.assertEqual(self.exchange(server, b"Hello"), (b"hELLO", "eof"))

    def test_its_own_handle(self):
        """handle() may be overridden, or is refused with a reason."""
        self.needs(3)
        if self.refused(Lines):
            return
        server = self.serve(Lines, grace=PATIENCE)
        clients = [self.asking(server, b"a\nb\n") for _ in range(3)]
        for s in clients:
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
        """A stock handler runs, and a handler's own reply is used, whatever
        makes the handler; or it is refused with a reason."""
        for members, handler in (
                ({}, Stock),
                ({}, functools.partial(Lower)),
                ({}, lambda *args: Lower(*args)),
                ({"finish_request": lambda server, request, client_address:
                  Lower(request, client_address, server)}, EchoHandler)):
            cls = self.subclass(**members)
            if not self.refused(handler, cls):
                server = self.serve(handler, cls)
                self.assertEqual(self.exchange(server, b"HELLO"),
                                 (b"hello", "eof"))

    def test_timeout(self):
        """That of a StreamRequestHandler ends an idle peer, and does not hold
        up a drain."""
        for timeout in 10 * PATIENCE, 0.05:
            handler = type("Timed", (EchoHandler,), {"timeout": timeout})
            if self.refused(handler):
                return
            server = self.serve(handler, grace=10 * PATIENCE)
            s = self.client(server)
            if timeout > 1:
                server.server_close()
            self.ends(s)
            port = s.getsockname()[1]
            s.close()
            self.assertRegex(self.logged_end(port), "%s after" % (
                "drain" if timeout > 1 else "idle"))

    def test_answer_in_part(self):
        """A reply arrives whole, though much of the input is unread."""
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
        # The last: a handler that cannot connect elsewhere, not its peer.
        errors = [ZeroDivisionError(), BlockingIOError(), TimeoutError(),
                  ConnectionRefusedError()]

        def reply(data):
            if data.isdigit():
                raise errors[int(data)]
            return data.upper()

        server = self.serve(replying(reply), **self.few)
        other = self.connect(server.server_address)
        for number, error in enumerate(errors):
            s = self.asking(server, b"%d" % number)
            self.asks(other)
            self.ends(s, "reset")
            self.assertRegex(self.logged_end(s), "error after")
            self.assertEqual(len(self.log("^" + type(error).__name__)), 1)

    def test_exit(self):
        """SystemExit ends its own connection with a reset, without a
        traceback; no worker and no loop."""
        server = self.serve(replying(dies(SystemExit())), **self.few)
        self.assertRegex(self.logged_end(self.dies(server, 2)), "error after")
        if not self.refused(Exiting):
            self.dies(self.serve(Exiting, **self.few), 2)
        self.assertEqual(self.log("Traceback"), [])

    def test_what_is_no_exception(self):
        """It costs its own connection, and is told; no worker and no loop
        ends."""
        self.only_here()
        size = {"pool_size": 1} if self.server_class.pool_size else {}
        for error in Failed("no"), KeyboardInterrupt():
            self.dies(self.serve(replying(dies(error)), **size), 2)
        self.assertEqual(len(self.log("unexpected error")), 4)

    # Hooks.

    def test_hooks_in_their_order(self):
        """Each is called once for a connection, as in socketserver, or is
        refused with a reason."""
        hooks = ["get_request", "verify_request", "process_request",
                 "finish_request", "shutdown_request", "close_request"]

        def recording(name):
            def hook(server, *args):
                # get_request() raises if nobody waits
                if name != "get_request":
                    logger.info("hook %s", name)
                result = getattr(self.server_class, name)(server, *args)
                if name == "get_request":
                    logger.info("hook %s", name)
                return result
            return hook

        if self.refused(cls=self.subclass(finish_request=print)):
            hooks.remove("finish_request")
        server = self.serve(cls=self.subclass(**{
            name: recording(name) for name in hooks}))
        s = self.client(server)
        port = s.getsockname()[1]
        s.close()
        self.logged_end(port)
        if not self.here:   # the child closes its copy, then the parent
            hooks.append("close_request")
        self.assertEqual([line.split()[-1] for line in self.log("hook")],
                         hooks)

    def test_verify_request(self):
        """Who is turned away gets no reply, and others do."""
        server = self.serve(cls=self.subclass(
            verify_request=lambda server, request, client_address:
            request.recv(1, socket.MSG_PEEK) != b"n"))
        self.assertEqual(self.rest(self.asking(server, b"no"))[0], b"")
        self.answers(server)

    def test_handle_error(self):
        """It is told of a bug, in place of the log; that it raises ends no
        worker and no loop, be it SystemExit."""
        def care(server, request, client_address):
            logger.info("care: %s", sys.exc_info()[0].__name__)

        def careless(server, request, client_address):
            raise KeyError("who cares")

        def leave(server, request, client_address):
            sys.exit()

        for hook in care, careless, leave:
            self.dies(self.serve(
                replying(dies(ZeroDivisionError())),
                cls=self.subclass(handle_error=hook), **self.few), 2)
        self.assertEqual(len(self.log("care: ZeroDivisionError")), 2)
        self.assertEqual(len(self.log("^ERROR handle_error")), 4)

    # The log.

    def test_log(self):
        """A connection has one line, with what it was and how it ended, and
        nothing of what was sent."""
        server = self.serve()
        self.exchange(server, b"SECRET\x1b[2J\n" * 1000)
        s = self.client(server)
        s.shutdown(socket.SHUT_WR)
        self.ends(s)
        self.assertRegex(self.logged_end(s), r"^INFO 127\.0\.0\.1:\d+: eof "
                         r"after \d+\.\d{3} s, 5 bytes in, 5 bytes out$")
        server.server_close()
        self.assertEqual(len(self.log(" after ")), 2)
        self.assertTrue(self.log(r"INFO served 2 connections, 11005 bytes in, "
                                 r"11005 bytes out \(2 eof\)$"), self.log())
        self.assertEqual(self.log("SECRET|ERROR|\x1b"), [])

    def test_connections_without_a_byte(self):
        """Short ones are those of health probes, and shown on demand; one
        that lasted is worth a line."""
        for after, level in (60, "DEBUG"), (0, "INFO"):
            server = self.make()
            server.peers.log_after = after
            s = self.connect(server.server_address)
            s.shutdown(socket.SHUT_WR)
            server = self.in_background(server)
            self.ends(s)
            self.assertRegex(self.logged_end(s), level + " .* 0 bytes in")


class HookTest(ModelTestCase):

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

    def test_out_of_memory(self):
        """It costs its connection, and one line a second at most."""
        server = self.serve(replying(dies(MemoryError())))
        for _ in range(3):
            self.breaks(server, b"die")
        self.assertEqual(len(self.log("ERROR .*: out of memory$")), 1)
