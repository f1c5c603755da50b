"""--workers: forked processes that share a listener."""

import collections
import os
import re
import select
import signal
import sys
import unittest
from unittest import mock

from echoserver.server import workers

from .models import MODELS, ModelTestCase, children, needs_fork, until

# A worker is started again at once; and what fork() does, or a worker before
# it serves, in the %s.
FORKS = """
import os, signal, sys, time
from echoserver import SelectorEchoServer
from echoserver.server.workers import Workers
Workers.restart_interval = 0.05
forks = 0
def fork(fork=os.fork):
    global forks
    forks += 1
    %s
    return fork()
def adopt(self, listener, adopt=SelectorEchoServer.adopt):
    %s
    adopt(self, listener)
SelectorEchoServer.adopt, os.fork = adopt, fork"""


@needs_fork
class WorkersTest(ModelTestCase):

    server_class = MODELS["events"]

    def start(self, *args, fork="pass", adopt="pass", prelude=""):
        """Start the program of model events, unless args say another."""
        return self.run_server("0", "-m", "events", *args, bufsize=0,
                               prelude=FORKS % (fork, adopt) + prelude)

    def log_line(self, process, pattern):
        """Return the first group of pattern in the next line with it that
        process writes to stderr."""
        while True:
            found = re.search(pattern, self.read_line(process.stderr).decode())
            if found:
                return found.group(1)

    def test_worker_that_is_killed(self):
        """Another takes its place, though who started all ignores SIGCHLD;
        the log tells how the first ended, and one from the other; and what it
        and its children had is reset."""
        process = self.start("-m", "processes", "--workers", "1", prelude="""
signal.signal(signal.SIGCHLD, signal.SIG_IGN)""")
        address = self.ready(process)
        pids = []
        for _ in range(2):
            self.answers(address)
            pids.append(int(self.log_line(process, r" \[(\d+)\] INFO .* eof")))
            idle = self.client(address)
            os.kill(pids[-1], signal.SIGKILL)
            self.ends(idle, "reset")
            self.assertEqual(pids[-1], int(self.log_line(
                process, r"ERROR worker (\d+) was ended by signal 9;")))
        self.assertEqual(len({process.pid, *pids}), 3)
        self.answers(address)
        self.assertEqual(self.outcome(process, signal.SIGTERM)[0], 0)

    def test_worker_that_cannot_be_replaced(self):
        """It is tried again, and no faster than once in the interval."""
        process = self.start(
            "--workers", "1", fork='print("fork at %.3f" % time.monotonic(), '
            'file=sys.stderr, flush=True)',
            adopt='if forks > 1: raise OSError("no luck")')
        self.ready(process)
        os.kill(int(children(process.pid)[0]), signal.SIGKILL)
        times = []
        for _ in range(3):
            times.append(float(self.log_line(process, "fork at (.*)")))
            self.log_line(process, "ERROR (no luck)" if times[1:] else
                          "(signal 9; starting another)")
        for earlier, later in zip(times, times[1:]):
            self.assertGreater(later - earlier, 0.045)
        self.log_line(process, "(ended with exit status 3; starting another)")

    def test_workers_that_cannot_serve(self):
        """If none can, there is no ready line, and the reason is told."""
        for fork, words in (
                ("raise OSError(11, 'again')", "enough threads or processes"),
                ("number = fork()\n    return number or os.kill("
                 "os.getpid(), 9)", "none of the workers")):
            with self.subTest(words):
                status, lines = self.outcome(self.start(
                    "--workers", "2", fork=fork))
                self.assertEqual(status, 1)
                self.assertIn(words, "\n".join(lines))
                self.assertNotIn("starting another", "\n".join(lines))

    def test_one_worker_that_can_serve(self):
        """It is enough for the ready line."""
        process = self.start("--workers", "2", adopt='if forks == 1: '
                             'raise OSError("no luck")')
        self.answers(self.ready(process))
        status, lines = self.outcome(process, signal.SIGTERM)
        self.assertEqual((status, "\n".join(lines).count("ERROR no luck")),
                         (0, 1), lines)

    @unittest.skipUnless(hasattr(os, "sched_getaffinity")
                         and len(os.sched_getaffinity(0)) > 1,
                         "two workers do not run at once on one CPU")
    def test_clients_that_come_at_once(self):
        """No worker takes most of them, as a rule."""
        process = self.start("--workers", "2", "-q", prelude="""
from echoserver import EchoHandler
EchoHandler.reply = staticmethod(lambda data: b"%8d" % os.getpid())""")
        address = self.ready(process)
        for _ in range(10):
            clients = [self.asking(address) for _ in range(60)]
            served = collections.Counter(self.receive(s, 8) for s in clients)
            for s in clients:
                s.close()
            if max(served.values()) <= 45:
                break
        else:
            self.fail("shared out as %r" % served)

    def test_breather(self):
        """Between two clients, a server that shares its listener pauses."""
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

    def test_limit_and_cpus(self):
        """The limit is divided so that in total it is kept, also with a rest;
        models with threads have a CPU each, as far as there are some; and an
        ordinary end is no error."""
        process = self.start("-m", "threads", "--workers", "3", "-c", "7")
        address = self.ready(process)
        if (hasattr(os, "sched_getaffinity")
                and getattr(sys, "_is_gil_enabled", lambda: True)()):
            cpus = [os.sched_getaffinity(int(pid))
                    for pid in children(process.pid)]
            self.assertEqual([len(found) for found in cpus], [1] * 3)
            self.assertEqual(len(set.union(*cpus)), min(
                3, len(os.sched_getaffinity(0))))
        clients = [self.asking(address) for _ in range(9)]
        served = until(lambda: [found for found in [
            select.select(clients, [], [], 0)[0]] if len(found) >= 7])[0]
        limits = [self.log_line(process, "WARNING at the limit of (.) conn")
                  for _ in range(3)]
        self.assertEqual(sorted(limits), ["2", "2", "3"])
        self.assertEqual(len(served), 7)
        self.quiet(*[s for s in clients if s not in served])
        for s in clients:
            s.close()
        status, lines = self.outcome(process, signal.SIGTERM)
        log = "\n".join(lines)
        self.assertEqual((status, log.count("ERROR"),
                          log.count("INFO served")), (0, 0, 3), log)

    def test_what_a_worker_is_told(self):
        """It pauses between two clients, and its listener serves others."""
        process = self.start("--workers", "1", prelude="""
from echoserver.server import workers
workers.serve_in_child = lambda server, control: (
    int(server.acceptor.breather * 1e6) + server.adopted)""")
        self.log_line(process, "ended with exit status (20);")
        process.kill()
        process.wait()

    def test_stop(self):
        """Callers are ignored from then on, unless others serve after us."""
        for adopted in False, True:
            server = self.make()
            server.adopted = adopted
            group = workers.Workers(server, None, 0, None)
            with mock.patch.object(workers, "ignore_callers") as ignore:
                group.stop()
            group.serve_forever()
            group.server_close()
            self.assertEqual(ignore.called, not adopted)

    def test_worker_that_is_stuck(self):
        """It is killed when the drain is over, which the log tells, and the
        exit status is 1."""
        process = self.start("--workers", "1", "--grace", "0.05", prelude="""
from echoserver import EchoHandler
EchoHandler.reply = staticmethod(
    lambda data: os.kill(os.getpid(), signal.SIGSTOP) or data)
from echoserver.server import workers
workers.CUT_TIMEOUT = 0.05""")
        self.asking(self.ready(process))

        def is_stopped(pid):
            with open("/proc/%s/stat" % pid) as f:
                return f.read().rpartition(") ")[2][0] == "T"

        (pid,) = until(lambda: list(filter(is_stopped, children(
            process.pid))), "the worker to stop")
        status, lines = self.outcome(process, signal.SIGTERM)
        self.assertEqual(status, 1)
        self.assertIn("ERROR worker %s did not drain and was killed" % pid,
                      "\n".join(lines))
