"""--workers: forked processes that share a listener."""

import collections
import os
import re
import select
import signal
import socket
import unittest
from unittest import mock

from echoserver.server.child import describe
from echoserver.server.models import MODELS

from .models import ModelTestCase, needs_fork
from .support import PATIENCE, TestCase, children, until


def state(pid):
    """Return the letter for the state of a process, as ps has it."""
    with open("/proc/%s/stat" % pid) as f:
        return f.read().rpartition(") ")[2][0]


class BreatherTest(ModelTestCase):

    server_class = MODELS["events"]

    def test_clients_that_come_at_once(self):
        """Between two of them, a server that shares its listener pauses."""
        for seconds in 0, 0.001:
            with self.subTest(seconds), mock.patch(
                    "echoserver.server.acceptor.sleep") as sleep:
                server = self.make()
                server.acceptor.breather = seconds
                clients = [self.connect(server.server_address)
                           for _ in range(4)]
                self.serve_in_thread(server)
                for s in clients:
                    self.asks(s)
                server.server_close()
                self.assertEqual(sleep.call_args_list,
                                 [mock.call(0.001)] * 3 if seconds else [])


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

    def end(self, process, number=signal.SIGTERM):
        """Stop a server, unless it ends by itself; return its exit status and
        what it has logged."""
        if number is not None:
            process.send_signal(number)
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

    def test_worker_that_cannot_be_replaced(self):
        """It is tried again, and no faster than once in the interval."""
        process, address = self.start_server(
            "--workers", "1", "-m", "events", bufsize=0,
            prelude=self.HURRY + """
import os, sys, time
from echoserver import SelectorEchoServer
def adopt(self, listener, adopt=SelectorEchoServer.adopt):
    if forks > 1:
        raise OSError("no luck")
    adopt(self, listener)
forks = 0
def fork(fork=os.fork):
    global forks
    forks += 1
    print("fork at %.3f" % time.monotonic(), file=sys.stderr, flush=True)
    return fork()
SelectorEchoServer.adopt, os.fork = adopt, fork""")
        os.kill(int(children(process.pid)[0]), signal.SIGKILL)
        log, times = "", []
        while len(times) < 4:
            log += self.read_line(process.stderr).decode()
            times = [float(time) for time in re.findall("fork at (.*)", log)]
        for earlier, later in zip(times, times[1:]):
            self.assertGreater(later - earlier, 0.09)
        self.assertIn("ERROR no luck", log)
        self.assertIn("ended with exit status 1; starting another", log)

    def test_workers_that_cannot_serve(self):
        """If none can, there is no ready line, and the reason is told."""
        for failing, words in (
                ("import resource\nresource.setrlimit(resource.RLIMIT_AS, "
                 "(120 << 20, 120 << 20))", "enough memory"),
                ("import os\ndef fork():\n"
                 "    raise OSError(11, 'again')\nos.fork = fork",
                 "enough threads or processes"),
                ("import os\nfrom echoserver.server.workers import Workers\n"
                 "Workers._work = lambda *args: os.kill(os.getpid(), 9)",
                 "none of the workers")):
            with self.subTest(words):
                status, log = self.end(self.run_server(
                    "0", "--workers", "2", "-m", "pool", "--pool-size", "64",
                    prelude=failing), number=None)
                self.assertEqual(status, 1)
                self.assertIn(words, log)
                self.assertNotIn("starting another", log)
                self.assertNotIn("Traceback", log)

    def test_one_worker_that_can_serve(self):
        """It is enough for the ready line."""
        process, address = self.start_server("--workers", "2", prelude="""
import os
from echoserver import ThreadingEchoServer
forks = 0
def fork(fork=os.fork):
    global forks
    forks += 1
    return fork()
def adopt(self, listener, adopt=ThreadingEchoServer.adopt):
    if forks == 1:
        raise OSError("no luck")
    adopt(self, listener)
ThreadingEchoServer.adopt, os.fork = adopt, fork""")
        self.echo(address).close()
        status, log = self.end(process)
        self.assertEqual((status, log.count("ERROR no luck")), (0, 1), log)

    @unittest.skipUnless(hasattr(os, "sched_getaffinity")
                         and len(os.sched_getaffinity(0)) > 1,
                         "two workers do not run at once on one CPU")
    def test_clients_that_come_at_once(self):
        """No worker takes most of them, as a rule."""
        process, address = self.start_server(
            "--workers", "2", "-m", "events", "-q", prelude="""
import os
from echoserver import EchoHandler
EchoHandler.reply = staticmethod(lambda data: b"%8d" % os.getpid())""")
        for _ in range(10):
            clients = [socket.socket() for _ in range(60)]
            for s in clients:
                self.addCleanup(s.close)
                s.setblocking(False)
                s.connect_ex(address)
            served = collections.Counter()
            for s in clients:
                s.settimeout(PATIENCE)
                s.sendall(b"?")
                served[self.receive(s, 8)] += 1
                s.close()
            if max(served.values()) <= 45:
                break
        else:
            self.fail("shared out as %r" % served)

    def test_limit(self):
        """It is divided so that in total it is kept, also with a rest."""
        process, address = self.start_server("--workers", "3", "-c", "7")
        clients = [self.connect(address) for _ in range(9)]
        for s in clients:
            s.sendall(b"x")
        served = until(lambda: [found for found in [
            select.select(clients, [], [], 0)[0]] if len(found) >= 7])[0]
        self.assertEqual(len(served), 7)
        self.assertEqual(select.select(
            [s for s in clients if s not in served], [], [], 0.05)[0], [])
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
        """It is killed when the drain is over, which the log tells, and the
        exit status is 1."""
        process, address = self.start_server(
            "--workers", "1", "--grace", "0.05", prelude=self.STOP)
        s = self.connect(address)
        s.sendall(b"hello")
        (pid,) = until(lambda: [pid for pid in children(process.pid)
                                if state(pid) == "T"], "the worker to stop")
        status, log = self.end(process)
        self.assertEqual(status, 1)
        self.assertIn("ERROR worker %s did not drain and was killed" % pid,
                      log)

    def test_poller_that_is_not_inherited(self):
        """A kqueue is not, and its number may be another file's."""
        process, address = self.start_server("--workers", "1", prelude="""
import os
from echoserver.server.loop import Loop
from tests.support import not_inherited
Loop.poller_class, os.fork = not_inherited()""")
        self.echo(address).close()
        self.assertEqual(self.end(process)[0], 0)

    def test_ignored_end_of_children(self):
        """Who starts it may ignore SIGCHLD: it is told all the same."""
        process, address = self.start_server(
            "--workers", "1", "-m", "events", bufsize=0,
            prelude=self.HURRY + """
import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)""")
        self.echo(address).close()
        line = self.read_line(process.stderr).decode()
        pid = int(re.search(r" \[(\d+)\] ", line).group(1))
        os.kill(pid, signal.SIGKILL)
        self.assertIn(b"was ended by signal 9", self.read_line(process.stderr))

    def test_worker_with_children_that_is_killed(self):
        """Another takes its place at once, whatever its children do."""
        process, address = self.start_server(
            "--workers", "1", "-m", "processes", bufsize=0,
            prelude=self.HURRY)
        self.echo(address)
        (worker,) = children(process.pid)
        os.kill(int(worker), signal.SIGKILL)
        self.assertIn(b"was ended by signal 9", self.read_line(process.stderr))
        self.echo(address)

    def test_words_for_an_end(self):
        """A signal and an exit status are told apart."""
        self.assertEqual(describe(9), "was ended by signal 9")
        self.assertEqual(describe(1 << 8), "ended with exit status 1")




if __name__ == "__main__":
    unittest.main()
