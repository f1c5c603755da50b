"""What one model has and the others have not: threads that are used again,
the workers of a pool, a process for each connection, and no thread at all."""

import errno
import gc
import os
import re
import select
import signal
import socket
import sys
import threading
import weakref
from unittest import mock

from echoserver import EchoHandler
from echoserver.server.models import pinned

from .models import (MODELS, PATIENCE, ModelTestCase, children, linux_only,
                     needs_fork, replying, until, waits_for)


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
        # Without an interpreter lock, references are counted with delay.
        until(lambda: gc.collect() >= 0 and not any(
            thread() for thread in seen), "threads to be freed")

    @linux_only
    def test_thread_that_ends_without_memory(self):
        """The process lives on, before Python 3.9.6, too (bpo-44434)."""
        self.assertEqual(self.outcome(self.run_python("-c", """if 1:
            import os, resource, threading, time
            from echoserver.server.models import MODELS
            go = threading.Event()
            threading.Thread(target=go.wait).start()
            with MODELS["pool"](("127.0.0.1", 0)):
                with open("/proc/self/statm") as f:
                    pages = int(f.read().split()[0])
                resource.setrlimit(resource.RLIMIT_AS, (
                    pages * resource.getpagesize(), resource.RLIM_INFINITY))
                go.set()
            end = time.monotonic() + %d
            while (len(os.listdir("/proc/self/task")) > 1
                   and time.monotonic() < end):
                pass
            """ % PATIENCE)), (0, []))


class PoolTest(ModelTestCase):

    server_class = MODELS["pool"]

    def test_pool_size(self):
        """It is the number of threads, whatever the connections are; a model
        without threads has the loop's own."""
        for name, options, count in (("pool", {"pool_size": 3}, 4),
                                     ("events", {}, 1)):
            before = threading.active_count()
            server = self.serve(cls=MODELS[name], **options)
            for _ in range(5):
                self.client(server)
            self.assertEqual(threading.active_count(), before + count)

    def test_pool_that_cannot_start(self):
        """It says why, and leaves no thread."""
        real, left = threading.Thread.start, [1, 1]

        def start(thread):
            if not left:
                raise RuntimeError("can't start new thread")
            left.pop()
            real(thread)

        with mock.patch.object(threading.Thread, "start", start):
            with self.assertRaisesRegex(OSError, "start new thread"):
                self.server_class(("127.0.0.1", 0), pool_size=5)

    def test_workers_that_are_stuck(self):
        """server_close() has one deadline for all of them."""
        go, waits = threading.Event(), []
        server = self.serve(replying(waits_for(go)), pool_size=3, grace=0)
        self.addCleanup(go.set)
        for _ in range(3):
            self.asking(server)
        until(lambda: sum(peer.bytes_in > 0 for peer in
                          server.peers.copy().values()) == 3, "the workers")
        real = threading.Thread.join

        def join(thread, timeout=None):
            waits.append(timeout)
            real(thread, timeout)

        with mock.patch("echoserver.server.drain.CUT_TIMEOUT", 0.05), \
                mock.patch.object(pinned, "CUT_TIMEOUT", 0.05), \
                mock.patch.object(threading.Thread, "join", join):
            server.server_close()
        self.assertEqual(waits[-2:], [0, 0])
        go.set()

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


@linux_only
class CostTest(ModelTestCase):
    """What a server program of the model without threads takes."""

    def start(self, files):
        """Start it without the flags that cost memory."""
        process = self.run_command(
            [sys.executable, "-S", "-c", """if 1:
            import resource, runpy, sys
            from echoserver.server.acceptor import Acceptor
            Acceptor.pause = 0.1
            resource.setrlimit(resource.RLIMIT_NOFILE, (%d, %d))
            sys.argv[1:] = ["0", "--model", "events"]
            runpy.run_module("echoserver", run_name="__main__")
            """ % (files, files)], bufsize=0)
        return process, self.ready(process)

    def test_memory(self):
        """An idle connection costs less than 3 KiB."""
        server, address = self.start(600)

        def resident():
            with open("/proc/%d/status" % server.pid) as f:
                return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))

        for _ in range(100):
            self.client(address)
        before = resident()
        for _ in range(400):
            self.client(address)
        self.assertLess((resident() - before) / 400, 3)

    def test_out_of_descriptors(self):
        """The rest waits, without a spin, and is served when it can be."""
        server, address = self.start(24)

        def used():
            with open("/proc/%d/stat" % server.pid) as f:
                ticks = f.read().split()[13:15]
            return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

        crowd = [self.asking(address) for _ in range(30)]
        while b"cannot accept" not in self.read_line(server.stderr):
            pass
        before = used()
        for s in crowd:
            self.assertEqual(self.receive(s, 5), b"HELLO")
            s.close()
        # a spin takes a CPU; the pauses of a second take a hundredth of one
        self.assertLess(used() - before, 0.5)
