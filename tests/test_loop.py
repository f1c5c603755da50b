"""The loop: files, times, wake-ups; and the systems that have no epoll."""

import select
import signal
import socket
import threading
from unittest import mock

from echoserver import BlockingEchoServer
from echoserver.server.loop import Loop, Selector

from .models import PATIENCE, ModelTestCase, TestCase, stream


class Spy(Selector):
    """A poller that records the timeouts of its waits."""

    def __init__(self):
        super().__init__()
        self.timeouts = []

    def poll(self, timeout, maxevents):
        self.timeouts.append(timeout)
        return super().poll(timeout, maxevents)


class LoopTest(TestCase):

    def setUp(self):
        super().setUp()
        self.loop = Loop()
        self.addCleanup(self.loop.close)

    def pair(self):
        """Return two sockets, each of which receives what the other sends."""
        pair = socket.socketpair()
        for s in pair:
            self.addCleanup(s.close)
        return pair

    def test_callback_that_ends_another(self):
        """What was ready in the same wait is not called any more."""
        called, pairs = [], [self.pair() for _ in range(2)]

        def callback(file):
            called.append(file)
            for ours, _ in pairs:
                self.loop.remove(ours)

        for ours, theirs in pairs:
            self.loop.add(ours, callback)
            theirs.send(b".")
        self.loop.run_once(0)
        self.loop.run_once(0)
        self.assertEqual(len(called), 1)

    def test_call_at(self):
        """Each function is called once, in the order of the times, and not
        before its own."""
        called = []
        for when in 3, 1, float("inf"), 2, 1:
            self.loop.call_at(when, lambda when=when: called.append(when))
        self.loop.run_once(0)
        self.loop.run_once(0)
        self.assertEqual(called, [1, 1, 2, 3])

    def test_many_wake_ups(self):
        """More than the wake-up socket holds neither block nor are lost."""
        for _ in range(5000):
            self.loop.wake()
        self.loop.stop()
        self.loop.run(int, int)

    def test_after_close(self):
        """A file is refused, since nobody would look; and the number that a
        wake-up wrote to may be another file's."""
        self.loop.close()
        pairs = [self.pair() for _ in range(3)]     # with the same numbers
        with self.assertRaises(ValueError):
            self.loop.add(pairs[0][0], print)
        self.loop.wake()
        self.assertEqual(select.select(sum(pairs, ()), [], [], 0)[0], [])


class ServerLoopTest(ModelTestCase):

    def timeouts(self, clients, **options):
        """Return the timeouts of the loop of a server with so many clients at
        a time."""
        with mock.patch.object(Loop, "poller_class", Spy):
            server = self.make(**options)
        server.loop.max_wait = 3600.0
        self.in_background(server)
        self.answers(server)
        for _ in range(clients):
            self.client(server)
        if not clients:
            self.gone(server)
        server.shutdown()
        return server.loop.poller.timeouts

    def test_idle_loop(self):
        """It is woken by what happens, not by the clock (bpo-44769)."""
        timeouts = self.timeouts(0, idle_timeout=0)
        self.assertEqual(set(timeouts), {3600.0})
        self.assertLessEqual(len(timeouts), 5)

    def test_idle_timeout(self):
        """The clock matters little."""
        self.assertGreater(min(self.timeouts(1, idle_timeout=1000)), 90)

    def test_listener_that_is_not_ready(self):
        """accept() never blocks the loop, whatever the poller has said."""
        said = threading.Event()

        class Hasty(Selector):
            def poll(self, timeout, maxevents):
                if not said.is_set():
                    said.set()
                    return [(server.fileno(), 1)]
                return super().poll(timeout, maxevents)

        with mock.patch.object(Loop, "poller_class", Hasty):
            server = self.make(cls=BlockingEchoServer)
        thread = self.serve_in_thread(server)
        self.assertTrue(said.wait(PATIENCE))
        server.stop()
        self.ended(thread)


class NoEpollTest(ModelTestCase):
    """A system without epoll, mimicked."""

    def test_slow_reader(self):
        """A reply that does not fit is finished when it does; the others are
        served meanwhile; and the end comes."""
        for name in "threads", "events":
            process = self.run_server("0", "-m", name, prelude="""
import select
del select.epoll""")
            address = self.ready(process)
            s = self.connect(address, window=4096)
            sent = self.fill(s)
            self.answers(address)
            self.assertTrue(self.receive(s, sent) == stream(sent).upper())
            self.assertEqual(self.outcome(process, signal.SIGTERM)[0], 0)
            self.ends(s)
