"""The loop: files, times, wake-ups; and the systems that have no epoll."""

import select
import selectors
import socket
import threading
import unittest
from unittest import mock

from echoserver import BlockingEchoServer, EchoServer
from echoserver.server.models import MODELS
from echoserver.server.loop import Loop, Selector

from .models import ModelTestCase, needs_fork, stream
from .support import PATIENCE, TestCase, not_inherited, until


class Spy(Selector):
    """A poller that records the timeouts of its waits."""

    def __init__(self):
        super().__init__()
        self.timeouts = []

    def poll(self, timeout, maxevents):
        self.timeouts.append(timeout)
        return super().poll(timeout, maxevents)


class OnlySelect(Selector):
    """What there is on Windows."""

    selector_class = selectors.SelectSelector


class OnlyPoll(Selector):
    """What there is on some other systems."""

    selector_class = getattr(selectors, "PollSelector",
                             selectors.SelectSelector)


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

    def test_call(self):
        """What was added is called, though it is not ready; nothing else."""
        called, (ours, theirs) = [], self.pair()
        self.loop.add(ours, called.append)
        self.loop.call(ours)
        self.loop.call(theirs)
        self.assertEqual(called, [ours])

    def test_call_at(self):
        """Each function is called once, in the order of the times, and not
        before its own."""
        called = []
        for when in 3, 1, float("inf"), 2, 1:
            self.loop.call_at(when, lambda when=when: called.append(when))
        self.loop.run_once(0)
        self.loop.run_once(0)
        self.assertEqual(called, [1, 1, 2, 3])

    def test_add_after_close(self):
        """Nobody would look, so that it is refused; select() would not."""
        self.loop.close()
        with self.assertRaises(ValueError):
            self.loop.add(self.pair()[0], print)

    def test_wake_after_close(self):
        """The number that it wrote to may be another file's."""
        self.loop.close()
        pairs = [self.pair() for _ in range(3)]     # with the same numbers
        self.loop.wake()
        self.assertEqual(select.select(sum(pairs, ()), [], [], 0)[0], [])


class ServerLoopTest(ModelTestCase):

    def spy_on(self, **options):
        """Return a server in the background and the timeouts of its loop."""
        with mock.patch.object(Loop, "poller_class", Spy):
            server = self.make(**options)
        server.loop.max_wait = 3600.0
        server = self.in_background(server)
        return server, server.loop.poller.timeouts

    def test_idle_loop(self):
        """It is woken by what happens, not by the clock (bpo-44769)."""
        server, timeouts = self.spy_on(idle_timeout=0)
        self.answers(server)
        self.gone(server)
        server.shutdown()
        self.assertEqual(set(timeouts), {3600.0})
        self.assertLessEqual(len(timeouts), 5)

    def test_idle_timeout(self):
        """The clock matters only while somebody is connected, and little."""
        server, timeouts = self.spy_on(idle_timeout=1000)
        self.answers(server)
        self.client(server)
        server.shutdown()
        self.assertEqual(timeouts[0], 3600)
        self.assertGreater(min(timeouts), 90)

    def test_system_whose_waits_cannot_be_interrupted(self):
        """On Windows none is longer than half a second (gh-74157)."""
        with mock.patch.object(Loop, "poller_class", Spy):
            server = self.make(idle_timeout=1000)
        server.loop.max_wait = 0.5
        server = self.in_background(server)
        self.answers(server)
        server.shutdown()
        for timeout in server.loop.poller.timeouts:
            self.assertTrue(0 <= timeout <= 0.5)

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


class OtherSystemsTest(ModelTestCase):
    """Systems without epoll, mimicked."""

    def test_slow_reader(self):
        """A reply that does not fit is finished when it does; the others are
        served meanwhile; and the end comes."""
        threads = threading.active_count()
        for poller_class in OnlySelect, OnlyPoll:
            for name, cls in MODELS.items():
                if name in ("blocking", "processes", "pool"):
                    continue    # one at a time; elsewhere; not there
                # one of them forks
                until(lambda: threading.active_count() <= threads,
                      "threads to end")
                with mock.patch.object(Loop, "poller_class", poller_class):
                    server = self.serve(cls=cls)
                s = self.connect(server.server_address, window=4096)
                sent = self.fill(s)
                self.answers(server)
                self.assertTrue(self.receive(s, sent)
                                == stream(sent).upper())
                server.server_close()
                self.ends(s)

    def test_cap(self):
        """The model that waits in select() says how much it holds, and holds
        to that."""
        for limit in 0, 1000:
            with mock.patch.object(Loop, "poller_class", OnlySelect):
                server = self.serve(cls=MODELS["events"],
                                    max_connections=limit)
            self.assertEqual(server.max_connections, 500)
            self.answers(server)
        self.assertEqual(len(self.log("WARNING select")), 2)


if __name__ == "__main__":
    unittest.main()
