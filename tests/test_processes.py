"""--model processes: a forked child for each connection."""

import os
import signal
import socket
import threading

from echoserver import EchoHandler

from .models import (MODELS, PATIENCE, ModelTestCase, children, needs_fork,
                     replying, until)


@needs_fork
class ChildrenTest(ModelTestCase):

    server_class = MODELS.get("processes")

    def child(self, server):
        """Return a connection and the number of the process that serves it,
        which says it."""
        s = self.asking(server)
        return s, int(s.recv(100))

    def numbered(self):
        return self.serve(replying(lambda data: b"%5d" % os.getpid()))

    def test_process_of_its_own(self):
        """Every connection has one, which is reaped when it has ended, while
        others are served."""
        server = self.numbered()
        clients = [self.child(server) for _ in range(4)]
        self.assertEqual(len({number for _, number in clients}
                             - {os.getpid(), server.child.pid}), 4)
        for s, _ in clients[1:]:
            s.close()
        until(lambda: children(server.child.pid) == [str(clients[0][1])],
              "children to be reaped")

    def test_child_and_signals(self):
        """Ctrl-C reaches all processes, and the parent decides; one that is
        killed resets its connection, and the server lives on."""
        server = self.numbered()
        s, number = self.child(server)
        os.kill(number, signal.SIGINT)
        s.sendall(b"hello")
        self.assertEqual(int(s.recv(100)), number)
        os.kill(number, signal.SIGKILL)
        self.ends(s, "reset")
        self.assertRegex(self.logged_end(s), "error after")
        self.child(server)

    def test_child_that_exits(self):
        """However it does: the end is no end of a whole reply."""
        class Leaving(EchoHandler):
            def handle(self):
                self.request.recv(10)
                self.request.sendall(b"HA")
                os._exit(0)

        s = self.asking(self.serve(Leaving))
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

        self.answers(self.serve(Last))

    def test_stopped_parent(self):
        """The client of a child does not wait for it."""
        server = self.serve()
        s = self.client(server)
        os.kill(server.child.pid, signal.SIGSTOP)
        s.sendall(b"bye")
        s.shutdown(socket.SHUT_WR)
        self.ends(s, data=b"BYE")
        os.kill(server.child.pid, signal.SIGCONT)

    def test_children_of_others(self):
        """They are not reaped: their exit status stays for who started
        them."""
        number = os.fork()
        if not number:
            os._exit(7)
        # ended, and not reaped by this look
        os.waitid(os.P_PID, number, os.WEXITED | os.WNOWAIT)
        server = self.make()
        s = self.asking(server)
        server.server_close()
        self.ends(s, data=b"HELLO")
        self.assertEqual(os.waitpid(number, 0)[1], 7 << 8)
