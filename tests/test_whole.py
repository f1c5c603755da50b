"""A clean end of the stream always means a whole reply, whatever ends it."""

import os
import select
import signal
import socket
import struct
import unittest

from echoserver.server.models import MODELS

from .models import ModelTestCase, needs_fork, posix_only, stream
from .support import PATIENCE, children, until

# A reply that ends its process, or its thread, in the midst.
ENDS = """
import os, sys, time
from echoserver import EchoHandler
def reply(data):
    if data == b"die":
        %s
    return data.upper()
EchoHandler.reply = staticmethod(reply)"""


@posix_only
class WholeTest(ModelTestCase):

    def models(self):
        """Yield the arguments of every way to serve."""
        for name in MODELS:
            yield ["-m", name]
        yield ["-m", "threads", "--workers", "1"]

    def half_a_reply(self, address):
        """Return a connection with a part of its reply read, and no more sent
        by the server, which waits to send the rest."""
        s = self.connect(address, window=4096)
        sent = self.fill(s)
        while select.select([], [s], [], 0.02)[1]:
            sent = self.fill(s, sent)
        self.assertEqual(self.receive(s, 100), stream(100).upper())
        return s

    def test_killed(self):
        """A server that is killed resets what is not whole."""
        for args in self.models():
            with self.subTest(args=args):
                process, address = self.start_server(*args)
                s = self.half_a_reply(address)
                process.kill()
                self.assertEqual(self.rest(s)[1], "reset")

    def test_second_signal(self):
        """It ends the drain, and what is not whole; the exit status tells."""
        for args in self.models():
            with self.subTest(args=args):
                process, address = self.start_server(*args, "--grace", "600")
                s = self.half_a_reply(address)
                process.send_signal(signal.SIGTERM)
                until(lambda: self.is_refused(address), "the drain")
                process.send_signal(signal.SIGTERM)
                self.assertEqual(self.rest(s)[1], "reset")
                self.assertEqual(process.wait(PATIENCE), 1)

    def is_refused(self, address):
        with socket.socket() as s:
            s.settimeout(0.05)      # who is ignored calls again
            return s.connect_ex(address) != 0

    def test_exit_in_a_handler(self):
        """os._exit() ends the process, sys.exit() no more than the handler,
        and both reset the connection."""
        for how in "os._exit(0)", "sys.exit(0)":
            for args in self.models():
                with self.subTest(how=how, args=args):
                    process, address = self.start_server(
                        *args, prelude=ENDS % how)
                    s = self.connect(address)
                    s.sendall(b"die")
                    self.ends(s, "reset")

    @needs_fork
    def test_process_that_is_killed(self):
        """A worker or a child alone resets its connections."""
        for args in ["-m", "processes"], ["--workers", "1"]:
            with self.subTest(args=args):
                process, address = self.start_server(*args)
                s = self.half_a_reply(address)
                for pid in children(process.pid):
                    os.kill(int(pid), signal.SIGKILL)
                self.assertEqual(self.rest(s)[1], "reset")

    @needs_fork
    def test_children_of_a_parent_that_ends(self):
        """They end with it, at once, and so do their connections."""
        for args in ["-m", "processes"], ["--workers", "2"], [
                "--workers", "1", "-m", "processes"]:
            with self.subTest(args=args):
                process, address = self.start_server(*args)
                s = self.connect(address)
                self.asks(s)
                process.kill()
                self.ends(s, "reset")
                # the last process that ends closes it
                self.assertEqual(self.read_line(process.stdout), b"")
                with self.assertRaises(ConnectionRefusedError):
                    self.connect(address)

    @needs_fork
    def test_stopped_parent(self):
        """The client of a child does not wait for it."""
        process, address = self.start_server("-m", "processes")
        s = self.connect(address)
        self.asks(s)
        process.send_signal(signal.SIGSTOP)
        s.sendall(b"bye")
        s.shutdown(socket.SHUT_WR)
        self.ends(s, data=b"BYE")
        process.send_signal(signal.SIGCONT)

    def test_adopted_listener(self):
        """It keeps none of our options, and its next server no surprise."""
        for name in MODELS:
            if name == "processes":
                continue
            with self.subTest(model=name), socket.socket() as listener:
                listener.bind(("127.0.0.1", 0))
                listener.listen(5)

                def options():
                    return [listener.getsockopt(socket.SOL_SOCKET, option, 16)
                            for option in (socket.SO_LINGER, socket.SO_RCVTIMEO,
                                           socket.SO_SNDTIMEO,
                                           socket.SO_KEEPALIVE)]

                before = options()
                server = self.make(cls=MODELS[name])
                server.adopt(listener.dup())
                self.in_background(server)
                self.client(server)
                self.assertEqual(options(), before)
                peer = self.peer(server)
                self.assertEqual(
                    peer.request.getsockopt(socket.SOL_SOCKET,
                                            socket.SO_LINGER, 8),
                    struct.pack("ii", 1, 0))
                # Clients that wait are left to the next server.
                server.stop()
                until(lambda: not server.loop.is_running(), "the loop to end")
                waiting = self.connect(listener.getsockname())
                server.server_close()
                listener.settimeout(PATIENCE)
                accepted, address = listener.accept()
                accepted.close()
                self.assertEqual(address, waiting.getsockname())


if __name__ == "__main__":
    unittest.main()
