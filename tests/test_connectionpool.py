"""ConnectionPool."""

import contextlib
import os
import random
import re
import signal
import sys
import threading
import unittest
import warnings
from time import perf_counter
from unittest import mock

from echoserver import ConnectionPool, PoolClosed, PoolTimeout, WrongEcho

from . import peers
from .support import PATIENCE, TestCase, until

CLOCK = "echoserver.client.%s.perf_counter"


class PoolTestCase(TestCase):

    def pool(self, *scripts, **options):
        """Return a pool of connections to a peer that plays scripts."""
        self.peer = peers.play(self, *scripts or [peers.echo])
        options.setdefault("timeout", PATIENCE)
        pool = ConnectionPool(self.peer.address, **options)
        self.addCleanup(pool.close)
        return pool

    def begin(self, function, *args):
        """Call function in a thread that is joined at the end."""
        thread = threading.Thread(target=function, args=args)
        thread.start()
        self.addCleanup(thread.join, PATIENCE)
        return thread

    def borrower(self, pool):
        """Start a thread that wants a connection; return its fate, a list,
        and the thread."""
        fate = []

        def borrow():
            try:
                with pool.connection() as connection:
                    fate.append(connection.echo(b"abc"))
            except Exception as error:
                fate.append(error)
        return fate, self.begin(borrow)

    def waiter(self, pool):
        """The same, and wait until it waits for one to be given back."""
        fate, thread = self.borrower(pool)
        until(lambda: sys._current_frames()[thread.ident].f_code.co_name
              == "_wait", "the thread to wait")
        return fate, thread

    def assertAllFree(self, pool):
        """Check that as many connections can be had as there may be."""
        with contextlib.ExitStack() as stack:
            for _ in range(pool.max_size):
                stack.enter_context(pool.connection())


class LendingTests(PoolTestCase):

    def test_last_in_first_out(self):
        """The connection that was given back last is lent first."""
        pool = self.pool()
        with pool.connection() as first:
            with pool.connection() as second:
                self.assertEqual(second.echo(b"abc"), b"ABC")
        for _ in range(3):
            with pool.connection() as connection:
                self.assertIs(connection, first)
                with pool.connection() as connection:
                    self.assertIs(connection, second)
        self.assertEqual(self.peer.accepted, 2)

    def test_defaults(self):
        """They are what the signature says."""
        pool = ConnectionPool(("127.0.0.1", 8080))
        self.assertEqual((pool.max_size, pool.timeout, pool.max_idle),
                         (10, 10, 60))

    def test_timeout_is_the_connections_too(self):
        """After the connecting, timeout is for silence, in full."""
        for timeout in 7, None, 0:
            pool = self.pool(timeout=timeout)
            with pool.connection() as connection:
                self.assertEqual(connection.timeout, timeout)

    def test_what_a_borrower_changed(self):
        """It is not lent on: a timeout, a half-close, the end."""
        pool = self.pool(max_size=1, timeout=7)
        with pool.connection() as first:
            first.timeout = 0.001
        with pool.connection() as connection:
            self.assertIs(connection, first)
            self.assertEqual(connection.timeout, 7)
            connection.half_close()
        for _ in range(2):
            with pool.connection() as connection:
                self.assertEqual(connection.echo(b"abc"), b"ABC")
                connection.close()

    def test_options_that_cannot_be(self):
        """They are one sentence, each by its name."""
        for name, values in (("max_size", (0, 2.5, "3")),
                             ("timeout", (-1, float("nan"))),
                             ("max_idle", (-1, float("nan")))):
            for value in values:
                with self.assertRaisesRegex(ValueError, "^%s must " % name):
                    ConnectionPool(("127.0.0.1", 8080), **{name: value})

    def test_repr(self):
        """It shows the address and what the pool does."""
        pool = self.pool(max_size=3)
        with pool.connection(), pool.connection():
            self.assertEqual(repr(pool), "<ConnectionPool to %s:%d, 2 of 3 in "
                             "use, 0 idle>" % self.peer.address)
        self.assertIn(" 0 of 3 in use, 2 idle", repr(pool))
        pool.close()
        self.assertIn("closed, ", repr(pool))

    def test_hard_maximum(self):
        """16 threads, 20 checkouts each, and 4 connections in all, counted at
        the server."""
        pool, together = self.pool(max_size=4), threading.Barrier(16)

        def borrow(me):
            together.wait(PATIENCE)
            for i in range(20):
                with pool.connection() as connection:
                    data = b"%d of %d" % (i, me)
                    self.assertEqual(connection.echo(data), data.upper())
            fates.append(None)
        fates = []
        for thread in [self.begin(borrow, me) for me in range(16)]:
            thread.join(PATIENCE)
        self.assertEqual(len(fates), 16)
        self.assertLessEqual(self.peer.accepted, 4)
        self.assertAllFree(pool)


class WaitingTests(PoolTestCase):

    def test_wait_for_a_return(self):
        """Who finds all lent gets the next that is given back, however long
        the timeout is: no system is asked for more than it can count."""
        forever = float("inf")
        for timeout in PATIENCE, forever:
            pool = self.pool(max_size=1, timeout=timeout, max_idle=forever)
            with pool.connection() as connection:
                fate, thread = self.waiter(pool)
                self.assertEqual(connection.echo(b"abc"), b"ABC")
            thread.join(PATIENCE)
            self.assertEqual(fate, [b"ABC"])
            self.assertEqual(self.peer.accepted, 1)

    def test_long_wait(self):
        """It lasts as long as the timeout, and not as each look."""
        pool = self.pool(max_size=1)
        with pool.connection():
            fate, thread = self.waiter(pool)
            thread.join(0.6)
        thread.join(PATIENCE)
        self.assertEqual(fate, [b"ABC"])

    def test_timeout(self):
        """PoolTimeout, a TimeoutError, says what to do."""
        pool = self.pool(max_size=1, timeout=0.05)
        with pool.connection():
            with self.assertRaisesRegex(PoolTimeout, "raise max_size"):
                with pool.connection():
                    self.fail("lent twice")
        self.assertTrue(issubclass(PoolTimeout, TimeoutError))
        self.assertAllFree(pool)

    def test_timeout_of_connecting(self):
        """Waiting and connecting have one deadline, and then PoolTimeout."""
        pool = ConnectionPool(peers.deaf(self), timeout=PATIENCE)
        with mock.patch(CLOCK % "pool", side_effect=[100, PATIENCE + 99.9]):
            with self.assertRaisesRegex(PoolTimeout,
                                        "a slot was free, but") as caught:
                with pool.connection():
                    self.fail("lent what was not connected")
        seconds = re.search("within ([0-9.]+) s", str(caught.exception))
        self.assertGreaterEqual(float(seconds.group(1)), 0.1)

    def test_failed_attempt_frees_its_slot(self):
        """And who waits for one has it."""
        pool = self.pool(max_size=1, timeout=0.2)
        good, pool.address = pool.address, peers.deaf(self)
        first = self.borrower(pool)
        until(lambda: "wait" == sys._current_frames()[
            first[1].ident].f_back.f_code.co_name, "the attempt")
        pool.address, pool.timeout = good, PATIENCE
        second = self.waiter(pool)
        for fate, thread in first, second:
            thread.join(PATIENCE)
        self.assertIsInstance(first[0][0], PoolTimeout)
        self.assertEqual(second[0], [b"ABC"])


class ReplacingTests(PoolTestCase):

    def test_stale_is_replaced_unseen(self):
        """A connection that ended, was cut or speaks up while idle."""
        for then in peers.end, peers.cut, peers.banner:
            go = threading.Event()
            pool = self.pool(peers.after(3, then, go), peers.echo)
            with pool.connection() as connection:
                connection.echo(b"abc")
            go.set()
            until(connection.is_stale, "the server's move")
            with pool.connection() as other:
                self.assertIsNot(other, connection)
                self.assertEqual(other.echo(b"abc"), b"ABC")
            self.assertTrue(connection.closed)

    def test_restart_of_the_server_is_invisible(self):
        """All stale connections are passed over, not only the first."""
        pool = self.pool(max_size=3)
        with pool.connection() as a, pool.connection() as b, \
                pool.connection() as c:
            pass
        self.peer.stop()
        until(lambda: a.is_stale() and b.is_stale() and c.is_stale(), "the end")
        pool.address = peers.play(self, peers.echo).address
        with pool.connection() as d, pool.connection() as e, \
                pool.connection() as f:
            for connection in d, e, f:
                self.assertEqual(connection.echo(b"abc"), b"ABC")

    def test_too_long_idle(self):
        """max_idle counts from the last byte, on a clock of our own; None and
        0 are no limit."""
        for max_idle, age in (60, 60), (None, 1e9), (0, 1e9):
            pool, now = self.pool(max_idle=max_idle), [perf_counter()]
            with mock.patch(CLOCK % "connection", lambda: now[0]):
                with pool.connection() as first:
                    now[0] += 100
                    first.echo(b"abc")
                now[0] += age
                with pool.connection() as connection:
                    self.assertIs(connection, first)
                now[0] += 1
                with pool.connection() as connection:
                    self.assertEqual(connection is not first, age == 60)
            self.assertEqual(first.closed, age == 60)

    def test_exception_in_the_block(self):
        """Any exception drops the connection and frees the slot."""
        pool = self.pool(max_size=1)
        for kind in ValueError, OSError, KeyboardInterrupt, GeneratorExit:
            with self.assertRaises(kind):
                with pool.connection() as connection:
                    connection.echo(b"abc")
                    raise kind
            self.assertTrue(connection.closed)
            self.assertAllFree(pool)

    def test_abandoned_borrower(self):
        """One that nobody has any more is given back."""
        pool = self.pool(max_size=1)
        borrower = pool.connection()
        borrower.__enter__()
        del borrower
        self.assertAllFree(pool)

    def test_no_reply_reaches_another_borrower(self):
        """Borrowers who fail half way leave nothing for the next."""
        late, wrong = threading.Event(), []

        def unreliable(connection):
            """Echo; every seventh reply is late, every ninth lost with all."""
            for data in iter(lambda: connection.recv(1 << 16), b""):
                if len(data) * data[-1] % 9 == 0:
                    return
                if data[-4] % 7 == 0:
                    late.wait(0.04)
                connection.sendall(data.upper())

        def borrow(me):
            for i in range(20):
                data = b"message %d of borrower %d" % (i, me)
                try:
                    with pool.connection() as connection:
                        if i % 5 == me % 5:
                            connection.send(data)
                            raise InterruptedError("left in the middle")
                        connection.timeout = 0.02
                        if connection.echo(data) != data.upper():
                            wrong.append(data)
                except WrongEcho as error:
                    wrong.append(error)
                except OSError:
                    pass
        pool = self.pool(unreliable, max_size=4)
        for thread in [self.begin(borrow, me) for me in range(8)]:
            thread.join(PATIENCE)
        self.assertEqual(wrong, [])
        self.assertAllFree(pool)


class ClosingTests(PoolTestCase):

    def test_close(self):
        """Idle connections are closed, and nobody gets another; a pool is a
        context manager, too."""
        with self.pool() as pool:
            with pool.connection() as connection:
                pass
        pool.close()
        self.assertTrue(connection.closed)
        with self.assertRaisesRegex(PoolClosed, "make another"):
            with pool.connection():
                self.fail("lent by a closed pool")

    def test_close_while_lent(self):
        """A connection in use stays so, and is closed on its return."""
        pool = self.pool()
        with pool.connection() as connection:
            pool.close()
            self.assertEqual(connection.echo(b"abc"), b"ABC")
        self.assertTrue(connection.closed)

    def test_close_while_waited_on(self):
        """All who wait get PoolClosed, at once."""
        pool = self.pool(max_size=1, timeout=None)
        with pool.connection():
            fates = [self.waiter(pool) for _ in range(3)]
            pool.close()
            for fate, thread in fates:
                thread.join(PATIENCE)
                self.assertFalse(thread.is_alive())
                self.assertIsInstance(fate[0], PoolClosed)


@unittest.skipUnless(hasattr(signal, "setitimer"), "no setitimer()")
class InterruptTests(PoolTestCase):
    """Signals that come at any moment."""

    def setUp(self):
        super().setUp()
        self.struck = 0
        self.moments = random.Random(1)
        self.addCleanup(signal.signal, signal.SIGALRM, signal.signal(
            signal.SIGALRM, self.strike))
        self.addCleanup(signal.setitimer, signal.ITIMER_REAL, 0)

    def strike(self, number, frame):
        self.struck += 1
        self.handle()

    def arm(self):
        signal.setitimer(signal.ITIMER_REAL, self.moments.uniform(1e-6, 5e-4))

    def test_exception(self):
        """An exception out of a signal handler leaves nothing locked, and no
        place taken."""
        def handle():
            raise InterruptedError
        self.handle = handle
        pool = self.pool(max_size=1)
        with warnings.catch_warnings():
            # The garbage collector may close a socket.
            warnings.simplefilter("ignore", ResourceWarning)
            while self.struck < 1000:
                try:
                    self.arm()
                    with pool.connection() as connection:
                        connection.echo(b"abc")
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except InterruptedError:
                    pass
            del connection
        self.assertAllFree(pool)

    def test_close(self):
        """close() in a signal handler waits for nothing."""
        self.handle = lambda: pool.close()
        address = self.pool().address
        for _ in range(30):
            pool = ConnectionPool(address, 1)
            self.arm()
            with self.assertRaises(PoolClosed):
                while True:
                    with pool.connection() as connection:
                        connection.echo(b"abc")


@unittest.skipUnless(hasattr(os, "fork"), "no fork")
class ForkTests(PoolTestCase):

    def setUp(self):
        super().setUp()
        # The peer's threads must not be there when this process forks: it is
        # a process of its own.
        process = self.run_program("tests.peers", bufsize=0)
        port = int(self.read_line(process.stdout))
        self.forked = ConnectionPool(("127.0.0.1", port), 2, PATIENCE)
        self.addCleanup(self.forked.close)

    def in_child(self, function):
        """Call function in a child; fail unless it returns true."""
        with warnings.catch_warnings():
            # that a thread which may hold a lock is left behind
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if not pid:
            code = 1
            try:
                # A child that hangs is ended, and its waiting parent helped.
                signal.alarm(int(PATIENCE))
                code = 0 if function() else 2
            finally:
                os._exit(code)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)

    def test_child_starts_empty(self):
        """Neither talks on the connection of the other."""
        pool = self.forked
        with pool.connection() as parents:
            parents.echo(b"abc")

        def child():
            with pool.connection() as connection:
                return (connection is not parents and parents.closed
                        and connection.echo(b"child") == b"CHILD")
        self.in_child(child)
        with pool.connection() as connection:
            self.assertIs(connection, parents)
            self.assertEqual(connection.echo(b"parent"), b"PARENT")

    def test_child_of_a_busy_parent(self):
        """What the parent has lent is not missing in the child, nor is a lock
        held there, when all its threads begin at once."""
        pool, stop = self.forked, threading.Event()

        def borrow():
            while not stop.is_set():
                with pool.connection() as connection:
                    connection.echo(b"abc")

        def child():
            fates = [self.borrower(pool) for _ in range(8)]
            for fate, thread in fates:
                thread.join(PATIENCE)
            return [fate for fate, _ in fates] == [[b"ABC"]] * 8
        for _ in range(4):
            self.begin(borrow)
        self.addCleanup(stop.set)
        for _ in range(5):
            self.in_child(child)

    def test_fork_in_the_block(self):
        """The child that leaves the block keeps nothing of it."""
        pool, parent = self.forked, os.getpid()
        with pool.connection() as connection:
            connection.echo(b"abc")
            pid = os.fork()
        if os.getpid() != parent:
            os._exit(0 if connection.closed else 1)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        with pool.connection() as again:
            self.assertIs(again, connection)
            self.assertEqual(again.echo(b"abc"), b"ABC")
