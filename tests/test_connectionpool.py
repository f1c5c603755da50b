"""ConnectionPool."""

import contextlib
import io
import os
import random
import signal
import sys
import threading
import unittest
import warnings
from time import perf_counter
from unittest import mock

from echoserver import ConnectionPool, PoolClosed, PoolTimeout

from . import peers
from .support import PATIENCE, TestCase, fork, until

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

    def all_of(self, pool):
        """Return as many connections as there may be at a time."""
        with contextlib.ExitStack() as stack:
            return [stack.enter_context(pool.connection())
                    for _ in range(pool.max_size)]


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

    def test_what_a_borrower_changed(self):
        """It is not lent on: a timeout, which is the pool's for each, in full;
        a half-close, the end."""
        for timeout in 7, None, 0:
            pool = self.pool(max_size=1, timeout=timeout)
            first, = self.all_of(pool)
            first.timeout = 0.001
            with pool.connection() as connection:
                self.assertIs(connection, first)
                self.assertEqual(connection.timeout, timeout)
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
        """Many threads have no more connections than there may be, counted at
        the server, and each has one in the end."""
        go = threading.Event()
        pool = self.pool(lambda connection: (
            go.wait(PATIENCE), peers.echo(connection)), max_size=4)
        borrowers = [self.borrower(pool) for _ in range(20)]
        until(lambda: self.peer.accepted == 4, "connections")
        go.set()
        for fate, thread in borrowers:
            thread.join(PATIENCE)
            self.assertEqual(fate, [b"ABC"])
        self.assertEqual(self.peer.accepted, 4)


class WaitingTests(PoolTestCase):

    def test_wait_for_a_return(self):
        """Who finds all lent gets the next that is given back, however long
        the timeout is, and however long that takes: no look is the last."""
        forever = float("inf")
        for timeout, seconds in (PATIENCE, 0), (forever, 0.6):
            pool = self.pool(max_size=1, timeout=timeout, max_idle=forever)
            with pool.connection() as connection:
                fate, thread = self.waiter(pool)
                self.assertEqual(connection.echo(b"abc"), b"ABC")
                thread.join(seconds)
            thread.join(PATIENCE)
            self.assertEqual(fate, [b"ABC"])
            self.assertEqual(self.peer.accepted, 1)

    def test_timeout(self):
        """PoolTimeout, a TimeoutError, says what to do."""
        pool = self.pool(max_size=1)
        with pool.connection():
            pool.timeout = 0.05
            with self.assertRaisesRegex(PoolTimeout, "raise max_size"):
                with pool.connection():
                    self.fail("lent twice")
        self.assertTrue(issubclass(PoolTimeout, TimeoutError))
        pool.timeout = PATIENCE
        self.all_of(pool)

    def test_timeout_of_connecting(self):
        """Waiting and connecting have one deadline, and then PoolTimeout."""
        pool = ConnectionPool(peers.deaf(self), timeout=PATIENCE)
        began = perf_counter()
        with mock.patch(CLOCK % "pool", side_effect=[100, PATIENCE + 99.7]):
            with self.assertRaisesRegex(PoolTimeout,
                                        "a slot was free, but") as caught:
                with pool.connection():
                    self.fail("lent what was not connected")
        self.assertGreaterEqual(perf_counter() - began, 0.29)
        self.assertIn("did not answer", str(caught.exception))

    def test_failed_attempt(self):
        """It frees its slot."""
        pool = self.pool(max_size=1)
        good, pool.address = pool.address, peers.nobody()
        with self.assertRaises(ConnectionRefusedError):
            with pool.connection():
                self.fail("lent what was not connected")
        pool.address = good
        self.all_of(pool)


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
        before = self.all_of(pool)
        self.peer.stop()
        until(lambda: all(one.is_stale() for one in before), "the end")
        pool.address = peers.play(self, peers.echo).address
        for connection in self.all_of(pool):
            self.assertFalse(connection.is_stale())

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
            self.all_of(pool)

    def test_abandoned_borrower(self):
        """One that nobody has any more is given back."""
        pool = self.pool(max_size=1)
        borrower = pool.connection()
        borrower.__enter__()
        del borrower
        self.all_of(pool)

    def test_no_reply_reaches_another_borrower(self):
        """Borrowers who give up half way, or when a reply is late, leave
        nothing for the next."""
        late, fates = threading.Event(), []

        def sometimes_late(connection):
            for data in iter(lambda: connection.recv(1 << 16), b""):
                if data[-4] % 7 == 0:
                    late.wait(0.04)
                connection.sendall(data.upper())

        def borrow(me):
            for i in range(20):
                data = b"message %d of borrower %d" % (i, me)
                with contextlib.suppress(OSError), pool.connection() as one:
                    if i % 5 == me % 5:
                        one.send(data)
                        raise InterruptedError("left in the middle")
                    one.timeout = 0.02
                    self.assertEqual(one.echo(data), data.upper())
            fates.append(me)
        pool = self.pool(sometimes_late, max_size=4)
        for thread in [self.begin(borrow, me) for me in range(8)]:
            thread.join(PATIENCE)
        self.assertEqual(sorted(fates), list(range(8)))
        self.all_of(pool)


class ClosingTests(PoolTestCase):

    def test_close(self):
        """Idle connections are closed, and nobody gets another; a pool is a
        context manager, too."""
        with self.pool(max_size=1) as pool:
            connection, = self.all_of(pool)
        pool.close()
        self.assertTrue(connection.closed)
        with self.assertRaisesRegex(PoolClosed, "make another"):
            with pool.connection():
                self.fail("lent by a closed pool")

    def test_close_while_lent(self):
        """A connection in use stays so, and is closed on its return; all who
        wait get PoolClosed, at once."""
        pool = self.pool(max_size=1, timeout=None)
        with pool.connection() as connection:
            fates = [self.waiter(pool) for _ in range(3)]
            pool.close()
            for fate, thread in fates:
                thread.join(PATIENCE)
                self.assertIsInstance(fate[0], PoolClosed)
            self.assertEqual(connection.echo(b"abc"), b"ABC")
        self.assertTrue(connection.closed)


@unittest.skipUnless(hasattr(signal, "setitimer"), "no setitimer()")
class InterruptTests(PoolTestCase):
    """Signals that come at any moment."""

    def strike(self, handle):
        """Let handle() be called at some moments, each after arm()."""
        def strike(number, frame):
            self.struck += 1
            handle()
        self.struck, moments = 0, random.Random(1)
        self.addCleanup(signal.signal, signal.SIGALRM, signal.signal(
            signal.SIGALRM, strike))
        self.addCleanup(signal.setitimer, signal.ITIMER_REAL, 0)
        self.arm = lambda: signal.setitimer(
            signal.ITIMER_REAL, moments.uniform(1e-6, 5e-4))

    def test_exception(self):
        """An exception out of a signal handler leaves nothing locked, and no
        place taken."""
        def interrupt():
            raise InterruptedError
        self.strike(interrupt)
        pool = self.pool(max_size=1)
        # The garbage collector may close a socket, or be what it strikes.
        with warnings.catch_warnings(), \
                contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore", ResourceWarning)
            while self.struck < 300:
                with contextlib.suppress(InterruptedError):
                    self.arm()
                    with pool.connection() as connection:
                        connection.echo(b"abc")
                    signal.setitimer(signal.ITIMER_REAL, 0)
            del connection
        self.all_of(pool)

    def test_close(self):
        """close() in a signal handler waits for nothing."""
        self.strike(lambda: pool.close())
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
        pid = fork()
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
        """Neither talks on a connection of the other, be it idle or lent, and
        a child that leaves the block keeps nothing of it."""
        pool = self.forked
        with contextlib.ExitStack() as stack:
            lent = stack.enter_context(pool.connection())
            with pool.connection() as idle:
                idle.echo(b"abc")

            def child():
                stack.close()
                with pool.connection() as own:
                    return (own not in (lent, idle) and lent.closed
                            and idle.closed and own.echo(b"child") == b"CHILD")
            self.in_child(child)
        with pool.connection() as again:
            self.assertIs(again, lent)
            self.assertEqual(again.echo(b"parent"), b"PARENT")

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
        for _ in range(2):
            self.begin(borrow)
        self.addCleanup(stop.set)
        for _ in range(2):
            self.in_child(child)
