"""What one model has and the others have not: threads that are used again,
the workers of a pool, and no thread at all."""

import errno
import os
import select
import re
import subprocess
import sys
import threading
import unittest
import weakref
from unittest import mock

from echoserver import EchoHandler
from echoserver.server.models import MODELS

from .models import ModelTestCase, dies, replying, waits_for
from .support import PATIENCE, ROOT, until


class ThreadsTest(ModelTestCase):

    def recording(self, seen):
        """Return a handler class that appends its thread to seen."""
        class Handler(EchoHandler):
            def setup(self):
                super().setup()
                seen.append(threading.current_thread())
        return Handler

    def test_thread_that_is_used_again(self):
        """A spare thread takes the next connection."""
        threads = []
        server = self.serve(self.recording(threads))
        for _ in range(5):
            self.answers(server)
            self.gone(server)
        self.assertLess(len(set(threads)), 5)

    def test_thread_that_has_ended(self):
        """It is kept by nobody (bpo-37193)."""
        seen = []
        server = self.make(self.recording(seen))
        server.spare_timeout = 0.01
        server = self.in_background(server)
        for _ in range(5):
            self.answers(server)
        self.gone(server)
        seen[:] = [weakref.ref(thread) for thread in seen]
        until(lambda: not any(thread() for thread in seen),
              "threads to be freed")


    @unittest.skipUnless(sys.platform.startswith("linux"), "needs /proc")
    def test_thread_that_ends_without_memory(self):
        """The process lives on, before Python 3.9.6, too (bpo-44434)."""
        for model in "threads", "pool":
            process = self.run_python("-c", """if 1:
                import os, resource, threading, time
                from echoserver.server.models import MODELS
                go = threading.Event()
                threading.Thread(target=go.wait).start()
                with MODELS["%s"](("127.0.0.1", 0)):
                    with open("/proc/self/statm") as f:
                        pages = int(f.read().split()[0])
                    resource.setrlimit(resource.RLIMIT_AS, (
                        pages * resource.getpagesize(),
                        resource.RLIM_INFINITY))
                    go.set()
                end = time.monotonic() + %d
                while (len(os.listdir("/proc/self/task")) > 1
                       and time.monotonic() < end):
                    pass
                """ % (model, PATIENCE))
            err = process.communicate(timeout=2 * PATIENCE)[1]
            self.assertEqual((process.returncode, err), (0, b""))


class PoolTest(ModelTestCase):

    server_class = MODELS["pool"]

    def test_pool_size(self):
        """It is the number of threads, whatever the connections are."""
        before = threading.active_count()
        server = self.serve(pool_size=3)
        for _ in range(10):
            self.client(server)
        self.assertEqual(threading.active_count(), before + 3 + 1)

    def test_pool_size_without_sense(self):
        """A pool without workers is refused."""
        for size in 0, -1:
            with self.assertRaisesRegex(ValueError, "pool_size"):
                self.serve(pool_size=size)

    def test_pool_that_cannot_start(self):
        """It says how far it came, and leaves no thread."""
        real, left = threading.Thread.start, [1, 1]

        def start(thread):
            if not left:
                raise RuntimeError("can't start new thread")
            left.pop()
            real(thread)

        with mock.patch.object(threading.Thread, "start", start):
            with self.assertRaisesRegex(OSError, "started 2 of 5"):
                self.server_class(("127.0.0.1", 0), pool_size=5)

    def test_worker_that_goes_on(self):
        """Whatever a handler raises: its connection ends, no worker does."""
        for name in "pinned", "pool":
            server = self.serve(replying(dies(KeyboardInterrupt())),
                                cls=MODELS[name], pool_size=1)
            for _ in range(2):
                s = self.connect(server.server_address)
                s.sendall(b"die")
                self.ends(s, "reset")
            self.answers(server)
        self.assertEqual(len(self.log("^KeyboardInterrupt")), 4)

    def test_workers_that_are_stuck(self):
        """server_close() has one deadline for all of them."""
        go, waits = threading.Event(), []
        server = self.serve(replying(waits_for(go)), pool_size=8, grace=0)
        self.addCleanup(go.set)
        for _ in range(8):
            self.connect(server.server_address).sendall(b"hello")
        until(lambda: sum(peer.bytes_in > 0 for peer in
                          server.peers.copy().values()) == 8, "the workers")
        real = threading.Thread.join

        def join(thread, timeout=None):
            waits.append(timeout)
            real(thread, timeout)

        with mock.patch("echoserver.server.drain.CUT_TIMEOUT", 0.05), \
                mock.patch("echoserver.server.models.pinned.CUT_TIMEOUT", 0.05), \
                mock.patch.object(threading.Thread, "join", join):
            server.server_close()
        bounded = [wait for wait in waits if wait is not None]
        self.assertEqual(bounded[-7:], [0] * 7)

    def parking(self, happens):
        """Return a server, of one worker, that calls happens() when it parks
        its first connection."""
        class Poller:
            def __init__(poller):
                poller.epoll = real()

            def __getattr__(poller, name):
                return getattr(poller.epoll, name)

            def modify(poller, *args):
                while calls:
                    calls.pop()()
                return poller.epoll.modify(*args)

        real = select.epoll
        calls = [happens]
        with mock.patch("select.epoll", Poller):
            self.server = self.serve(pool_size=1)
        return self.server

    def test_abort_while_parking(self):
        """It is not taken out of the loop before it is in."""
        server = self.parking(lambda: [
            self.server.peers.end(peer, "drain")
            for peer in self.server.peers.copy().values()])
        self.ends(self.client(server), "reset")
        self.answers(server)

    def test_no_room_to_park(self):
        """The connection is reset, and the worker lives on."""
        def fail():
            raise OSError(errno.ENOSPC, "No space left on device")

        server = self.parking(fail)
        s = self.client(server)
        self.ends(s, "reset")
        self.assertRegex(self.logged_end(s), "error after")
        self.assertEqual(len(self.log("ERROR .*cannot go on: .*No space")), 1)
        self.answers(server)


class EventsTest(ModelTestCase):

    server_class = MODELS["events"]

    def test_no_thread(self):
        """The loop's own is the only one."""
        before = threading.active_count()
        server = self.serve()
        for _ in range(10):
            self.client(server)
        self.assertEqual(threading.active_count(), before + 1)

    def start(self, *command):
        """Start a server program without the flags that cost memory; return
        its process and its address."""
        process = subprocess.Popen(
            [sys.executable, "-S"] + list(command), cwd=ROOT, bufsize=0,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE)
        self.addCleanup(self._end, process)
        return process, self.ready(process)

    def proc(self, process, name):
        """Return a text of the /proc system about process."""
        try:
            with open("/proc/%d/%s" % (process.pid, name)) as f:
                return f.read()
        except OSError as error:
            self.skipTest("needs /proc: %s" % error)

    def test_memory(self):
        """An idle connection costs less than 3 KiB."""
        server, address = self.start("-m", "echoserver", "0", "-m", "events")

        def resident():
            return int(re.search(r"VmRSS:\s+(\d+)",
                                 self.proc(server, "status")).group(1))

        for _ in range(100):
            self.asks(self.connect(address))
        before = resident()
        crowd = [self.connect(address) for _ in range(500)]
        for s in crowd:
            self.asks(s)
        self.assertLess((resident() - before) / len(crowd), 3)

    def test_out_of_descriptors(self):
        """The rest waits, without a spin, and is served when it can be."""
        server, address = self.start("-c", """if 1:
            import resource, runpy, sys
            from echoserver.server.acceptor import Acceptor
            Acceptor.pause = 0.1
            resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
            sys.argv[1:] = ["0", "--model", "events", "--idle-timeout", "0"]
            runpy.run_module("echoserver", run_name="__main__")
            """)

        def used():
            fields = self.proc(server, "stat").split()
            return sum(map(int, fields[13:15])) / os.sysconf("SC_CLK_TCK")

        crowd = [self.connect(address) for _ in range(30)]
        for s in crowd:
            s.sendall(b"hello")
        while b"cannot accept" not in self.read_line(server.stderr):
            pass
        before = used()
        for s in crowd:
            self.assertEqual(self.receive(s, 5), b"HELLO")
            s.close()
        # a spin takes a CPU; the pauses of a second take a hundredth of one
        self.assertLess(used() - before, 0.5)


if __name__ == "__main__":
    unittest.main()
