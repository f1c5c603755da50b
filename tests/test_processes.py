"""Forked children: those of --model processes, and those of --workers."""

import os
import re
import select
import signal
import socket
import threading
import unittest

from echoserver import EchoHandler
from echoserver.server.models import MODELS
from echoserver.server.child import describe

from .models import ModelTestCase, needs_fork
from .support import PATIENCE, TestCase, children, until


def state(pid):
    """Return the letter for the state of a process, as ps has it."""
    with open("/proc/%s/stat" % pid) as f:
        return f.read().rpartition(") ")[2][0]


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

    def test_ignored_end_of_children(self):
        """Who starts it may ignore SIGCHLD: it is told all the same."""
        process, address = self.start_server(
            "--workers", "1", "-m", "events", bufsize=0,
            prelude=WorkersTest.HURRY + """
import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)""")
        with self.connect(address) as s:
            self.asks(s)
        line = self.read_line(process.stderr).decode()
        pid = int(re.search(r" \[(\d+)\] ", line).group(1))
        os.kill(pid, signal.SIGKILL)
        self.assertIn(b"was ended by signal 9", self.read_line(process.stderr))

    def test_worker_with_children_that_is_killed(self):
        """Its children end with it, and another takes its place at once."""
        process, address = self.start_server(
            "--workers", "1", "-m", "processes", bufsize=0,
            prelude=WorkersTest.HURRY)
        s = self.connect(address)
        self.asks(s)
        (worker,) = children(process.pid)
        os.kill(int(worker), signal.SIGKILL)
        self.assertIn(b"was ended by signal 9", self.read_line(process.stderr))
        self.ends(s, "reset")
        with self.connect(address) as s:
            self.asks(s)

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


@needs_fork
class WorkersTest(TestCase):

    # So that a worker is started again at once.
    HURRY = """
from echoserver.server.workers import Workers
Workers.restart_interval = 0.1"""

    # A reply that stops the process.
    STOP = """
import os, signal
from echoserver import EchoHandler
EchoHandler.reply = staticmethod(
    lambda data: os.kill(os.getpid(), signal.SIGSTOP) or data)
from echoserver.server import workers
workers.CUT_TIMEOUT = 0.05"""

    def echo(self, address):
        """Return a connection over which data has come back."""
        s = self.connect(address)
        s.sendall(b"hello")
        self.assertEqual(self.receive(s, 5), b"HELLO")
        return s

    def end(self, process):
        """Stop a server; return its exit status and what it has logged."""
        process.terminate()
        log = process.communicate(timeout=PATIENCE)[1].decode()
        return process.returncode, log

    def test_worker_that_is_killed(self):
        """Another takes its place, and the log tells how the first ended, and
        one from the other."""
        process, address = self.start_server(
            "--workers", "1", "-m", "events", bufsize=0, prelude=self.HURRY)
        pids = []
        for _ in range(2):
            self.echo(address).close()
            line = self.read_line(process.stderr).decode()
            pids.append(int(re.search(r" \[(\d+)\] INFO .* eof ",
                                      line).group(1)))
            if len(pids) == 1:
                os.kill(pids[0], signal.SIGKILL)
                self.assertIn(b"ERROR worker %d was ended by signal 9;"
                              % pids[0], self.read_line(process.stderr))
        self.assertEqual(len({process.pid, *pids}), 3)
        self.assertEqual(self.end(process)[0], 0)

    def test_worker_that_cannot_serve(self):
        """It is started again, and no faster than once in the interval."""
        process, address = self.start_server(
            "--workers", "1", bufsize=0, prelude=self.HURRY + """
import os, sys, time
from echoserver import ThreadingEchoServer
def adopt(self, listener, adopted):
    raise OSError("no luck")
def fork(fork=os.fork):
    print("fork at %.3f" % time.monotonic(), file=sys.stderr, flush=True)
    return fork()
ThreadingEchoServer.adopt, os.fork = adopt, fork""")
        log, times = "", []
        while len(times) < 3:
            log += self.read_line(process.stderr).decode()
            times = [float(time) for time in re.findall("fork at (.*)", log)]
        for earlier, later in zip(times, times[1:]):
            self.assertGreater(later - earlier, 0.09)
        self.assertIn("a worker cannot serve: no luck", log)
        self.assertIn("ended with exit status 1; starting another", log)

    def test_limit(self):
        """It is divided so that in total it is kept, also with a rest."""
        process, address = self.start_server("--workers", "3", "-c", "7")
        clients = [self.connect(address) for _ in range(9)]
        for s in clients:
            s.sendall(b"x")
        until(lambda: len(select.select(clients, [], [], 0)[0]) >= 7)
        self.assertEqual(len(select.select(clients, [], [], 0.05)[0]), 7)
        for s in clients:
            s.close()
        log = self.end(process)[1]
        limits = re.findall("WARNING at the limit of (.) connections", log)
        self.assertEqual(sorted(limits), ["2", "2", "3"])

    def test_stop(self):
        """An ordinary end is no error, however many workers there are."""
        process, address = self.start_server("--workers", "8")
        until(lambda: len(children(process.pid)) == 8, "the workers")
        self.echo(address).close()
        status, log = self.end(process)
        self.assertEqual((status, re.findall("ERROR.*", log)), (0, []))
        self.assertEqual(log.count("INFO served"), 8)

    def test_worker_that_is_stuck(self):
        """It is killed when the drain is over, and the exit status is 1."""
        process, address = self.start_server(
            "--workers", "1", "--grace", "0.05", prelude=self.STOP)
        s = self.connect(address)
        s.sendall(b"hello")
        until(lambda: [pid for pid in children(process.pid)
                       if state(pid) == "T"], "the worker to stop")
        self.assertEqual(self.end(process)[0], 1)

    def test_poller_that_is_not_inherited(self):
        """A kqueue is not, and its number may be another file's."""
        process, address = self.start_server("--workers", "1", prelude="""
import os
from echoserver.server.loop import Loop
from tests.support import not_inherited
Loop.poller_class, os.fork = not_inherited()""")
        self.echo(address).close()
        self.assertEqual(self.end(process)[0], 0)

    def test_words_for_an_end(self):
        """A signal and an exit status are told apart."""
        self.assertEqual(describe(9), "was ended by signal 9")
        self.assertEqual(describe(1 << 8), "ended with exit status 1")


if __name__ == "__main__":
    unittest.main()
