"""--model processes: a forked child for each connection."""

import os
import signal
import socket
import threading
import unittest

from echoserver import EchoHandler
from echoserver.server.models import MODELS

from .models import ModelTestCase, needs_fork
from .support import PATIENCE, children, until


class Number(EchoHandler):
    """A handler that says which process it is in."""

    @staticmethod
    def reply(data):
        return b"%5d" % os.getpid()


@needs_fork
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
        self.assertRegex(self.logged_end(s), "error after")
        self.child(server)

    def test_child_that_exits(self):
        """However it does: the end is no end of a whole reply."""
        class Leaving(EchoHandler):
            def handle(self):
                self.request.recv(10)
                self.request.sendall(b"HA")
                os._exit(0)

        s = self.connect(self.serve(Leaving).server_address)
        s.sendall(b"hallo")
        self.assertEqual(self.rest(s)[1], "reset")
        self.assertRegex(self.logged_end(s), "error after")

    def test_two_servers(self):
        """Of one process, each with figures of its own."""
        self.server_class.peer_class(None, None)    # takes memory, too
        servers = [self.serve(), self.serve()]
        clients = [self.client(server, b"a" * size) for server, size
                   in zip(servers, (10, 1000))]
        for s, size in zip(clients, (10, 1000)):
            s.shutdown(socket.SHUT_WR)
            self.ends(s)
            self.assertRegex(self.logged_end(s), " %d bytes in" % size)

    def test_no_zombie(self):
        """A child that has ended is reaped while others are served."""
        server, address = self.start_server("-m", "processes")
        with self.connect(address) as other:
            self.asks(other)
            for _ in range(3):
                with self.connect(address) as s:
                    self.asks(s)
            until(lambda: len(children(server.pid)) == 1,
                  "children to be reaped")
            self.asks(other)

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

    def test_children_of_others_are_not_reaped(self):
        """Their exit status stays for who started them."""
        number = os.fork()
        if not number:
            os._exit(7)
        # ended, and not reaped by this look
        os.waitid(os.P_PID, number, os.WEXITED | os.WNOWAIT)
        server = self.make()
        s = self.connect(server.server_address)
        s.sendall(b"hello")
        server.server_close()
        self.ends(s, data=b"HELLO")
        self.assertEqual(os.waitpid(number, 0)[1], 7 << 8)

    def test_signal_to_all_processes(self):
        """Children leave their end to the parent, which drains."""
        server, address = self.start_server("-m", "processes",
                                            start_new_session=True)
        s = self.connect(address)
        self.asks(s)
        os.killpg(server.pid, signal.SIGTERM)
        self.ends(s)
        self.assertEqual(server.wait(PATIENCE), 0)


if __name__ == "__main__":
    unittest.main()
