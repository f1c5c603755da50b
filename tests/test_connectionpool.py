"""ConnectionPool."""

import gc
import linecache
import os
import signal
import sys
import threading
import unittest
import warnings
from unittest import mock

from echoserver.client import pool as module
from echoserver.client.verifier import WrongEcho
from echoserver.client.pool import ConnectionPool, PoolClosed, PoolTimeout

from . import peers
from .support import PATIENCE, TestCase, until


def striking_in(path, countdown):
    """Return a trace function that raises KeyboardInterrupt at the line
    of the module at path with which the countdown ends.

    Not at a with: its end is a line event, too, but at a place where the
    interpreter (3.10 and later, bpo-29988) handles no signal.
    """
    def trace(frame, event, argument):
        if frame.f_code.co_filename != path:
            return None
        line = linecache.getline(path, frame.f_lineno)
        if event == "line" and not line.lstrip().startswith("with "):
            countdown[0] -= 1
            if countdown[0] == -1:
                raise KeyboardInterrupt
        return trace
    return trace


class PoolTestCase(TestCase):

    def pool(self, script=peers.echo, *args, **options):
        """Return a pool of connections to a peer that plays script."""
        self.peer = peers.play(self, script)
        options.setdefault("timeout", PATIENCE)
        pool = ConnectionPool(self.peer.address, *args, **options)
        self.addCleanup(pool.close)
        return pool

    def begin(self, function, *args):
        """Call function in a thread that is joined at the end."""
        thread = threading.Thread(target=function, args=args)
        thread.start()
        self.addCleanup(thread.join, PATIENCE)
        return thread

    def waiter(self, pool):
        """Start a thread that wants a connection; return its fate, a list,
        when it waits in the pool."""
        fate = []

        def borrow():
            try:
                with pool.connection() as connection:
                    fate.append(connection.echo(b"abc"))
            except Exception as error:
                fate.append(error)
        waiting = len(pool._share().returned._waiters)
        fate_thread = self.begin(borrow)
        until(lambda: len(pool._share().returned._waiters) > waiting
              or not fate_thread.is_alive(), "the thread to wait")
        return fate, fate_thread

    def assertAllFree(self, pool):
        """Check that no slot is taken and no lock held."""
        share = pool._share()
        self.assertFalse(share.lock._is_owned())
        self.assertEqual(len(share.taken), 0)


class LendingTests(PoolTestCase):

    def test_reuse(self):
        """What has been given back is lent again."""
        pool = self.pool()
        for _ in range(3):
            with pool.connection() as connection:
                self.assertEqual(connection.echo(b"abc"), b"ABC")
        self.assertEqual(self.peer.accepted, 1)

    def test_last_in_first_out(self):
        """The connection that was given back last is lent first."""
        pool = self.pool()
        with pool.connection() as first:
            with pool.connection() as second:
                pass
        with pool.connection() as connection:
            self.assertIs(connection, first)
            with pool.connection() as connection:
                self.assertIs(connection, second)

    def test_no_dialling_in_advance(self):
        """A pool that nobody uses has no connection."""
        self.pool(max_size=5)
        self.assertEqual(self.peer.accepted, 0)

    def test_timeout_is_the_connections_too(self):
        """After dialling, timeout is for silence, in full."""
        pool = self.pool(timeout=7)
        with pool.connection() as connection:
            self.assertEqual(connection.timeout, 7)

    def test_size_that_cannot_be(self):
        """A pool without slots is a mistake."""
        with self.assertRaises(ValueError):
            ConnectionPool(("127.0.0.1", 8080), max_size=0)

    def test_times_that_cannot_be(self):
        """They are one sentence, each by its name."""
        for name in "timeout", "max_idle":
            for value in -1, float("nan"):
                with self.assertRaisesRegex(ValueError, "^%s must " % name):
                    ConnectionPool(("127.0.0.1", 8080), **{name: value})

    def test_times_that_are_very_long(self):
        """No system is asked for more than it can count."""
        forever = float("inf")
        pool = self.pool(max_size=1, timeout=forever, max_idle=forever)
        with pool.connection() as connection:
            fate, thread = self.waiter(pool)
            self.assertEqual(connection.echo(b"abc"), b"ABC")
        thread.join(PATIENCE)
        self.assertEqual(fate, [b"ABC"])

    def test_hard_maximum(self):
        """100 threads, 1,000 checkouts each, and 8 connections in all.

        Counted at the server; every 100th checkout is used, so that the
        pool is the busy part.
        """
        if hasattr(os, "sched_setaffinity"):
            # Threads begin where their maker is: on one CPU, which spares
            # the interpreter lock its way to and fro.
            cpus = os.sched_getaffinity(0)
            self.addCleanup(os.sched_setaffinity, 0, cpus)
            os.sched_setaffinity(0, {min(cpus)})
        pool = self.pool(max_size=8)
        failures = []
        checkouts = [0] * 100
        start = threading.Event()

        def borrow(me):
            start.wait(PATIENCE)
            try:
                for i in range(1000):
                    with pool.connection() as connection:
                        checkouts[me] += 1
                        if i % 100 == me:
                            data = b"%d of %d" % (i, me)
                            self.assertEqual(connection.echo(data),
                                             data.upper())
            except Exception as error:
                failures.append(error)
        threads = [self.begin(borrow, me) for me in range(100)]
        start.set()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(failures, [])
        self.assertEqual(checkouts, [1000] * 100)
        self.assertLessEqual(self.peer.accepted, 8)
        self.assertAllFree(pool)


class WaitingTests(PoolTestCase):

    def test_wait_for_a_return(self):
        """Who finds all lent gets the next that is given back."""
        pool = self.pool(max_size=1)
        with pool.connection():
            fate, thread = self.waiter(pool)
        thread.join(PATIENCE)
        self.assertEqual(fate, [b"ABC"])
        self.assertEqual(self.peer.accepted, 1)

    def test_slot_that_is_lost(self):
        """Nobody is told of a slot that an interrupt has freed, but who waits
        finds it."""
        pool = self.pool(max_size=1)
        lost = module._Slot()
        pool._share().taken.add(lost)
        with mock.patch.object(module, "LONGEST_SLEEP", 0.01):
            fate, thread = self.waiter(pool)
            del lost
            thread.join(PATIENCE / 2)
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

    def test_timeout_of_dialling(self):
        """Waiting and dialling have one deadline, and then PoolTimeout."""
        given = []

        def dial(address, timeout):
            given.append(timeout)
            raise TimeoutError("no answer")
        pool = ConnectionPool(("127.0.0.1", 8080), timeout=5)
        with mock.patch.object(module, "Connection", dial), \
                mock.patch.object(module.time, "monotonic",
                                  side_effect=[100.0, 103.0]):
            with self.assertRaisesRegex(PoolTimeout, "no answer"):
                with pool.connection():
                    self.fail("lent what was not dialled")
        self.assertEqual(given, [2.0])

    def test_no_timeout(self):
        """None and 0 are no limit, for dialling neither."""
        for none in None, 0:
            pool = self.pool(timeout=none)
            with pool.connection() as connection:
                self.assertEqual(connection.timeout, none)

    def test_failed_dial_wakes_a_waiter(self):
        """The slot of a failed dial is free, and a waiter learns of it."""
        pool = self.pool(max_size=1)
        real, dialling, fail = module.Connection, [], threading.Event()

        def dial(*args):
            dialling.append(args)
            if len(dialling) > 1:
                return real(*args)
            fail.wait(PATIENCE)
            raise ConnectionRefusedError("not this time")
        with mock.patch.object(module, "Connection", dial):
            errors = []

            def borrow():
                try:
                    with pool.connection():
                        pass
                except OSError as error:
                    errors.append(error)
            first = self.begin(borrow)
            until(lambda: dialling, "the dial")
            fate, thread = self.waiter(pool)
            fail.set()
            thread.join(PATIENCE)
            first.join(PATIENCE)
        self.assertEqual(fate, [b"ABC"])
        self.assertIsInstance(errors[0], ConnectionRefusedError)

    def test_interrupted_waiter_passes_its_turn_on(self):
        """A waiter that is woken and then struck wakes another one."""
        pool = self.pool(max_size=1)
        share = pool._share()
        real = share.returned.wait
        struck = []

        def wait(timeout):
            real(timeout)
            if not struck:
                struck.append(True)
                raise KeyboardInterrupt
        with mock.patch.object(share.returned, "wait", wait), \
                mock.patch("sys.excepthook"), \
                mock.patch("threading.excepthook", create=True):
            with pool.connection():
                victim = threading.Thread(target=self.strike, args=(pool,))
                victim.start()
                until(lambda: len(share.returned._waiters) == 1, "the victim")
                fate, thread = self.waiter(pool)
            victim.join(PATIENCE)
            thread.join(PATIENCE)
        self.assertEqual((struck, fate), ([True], [b"ABC"]))

    def strike(self, pool):
        with self.assertRaises(KeyboardInterrupt):
            with pool.connection():
                self.fail("the victim got a connection")


class ReplacingTests(PoolTestCase):

    def test_stale_is_replaced_unseen(self):
        """A connection that ended, was cut or speaks up while idle."""
        for then in peers.end, peers.cut, peers.banner:
            go = threading.Event()
            scripts = [peers.echo, peers.after(3, then, go)]
            pool = self.pool(lambda connection: scripts.pop()(connection))
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
        pool = self.pool()
        with pool.connection(), pool.connection(), pool.connection():
            pass
        self.peer.stop()
        until(lambda: all(connection.is_stale()
                          for connection, _ in pool._share().stock), "the end")
        pool.address = peers.play(self, peers.echo).address
        with pool.connection() as connection:
            self.assertEqual(connection.echo(b"abc"), b"ABC")
        self.assertEqual(len(pool._share().stock), 1)

    def test_too_long_idle(self):
        """max_idle counts from the return, on a clock of our own."""
        pool = self.pool(max_idle=60)
        now = [1000.0]
        with mock.patch.object(module.time, "monotonic", lambda: now[0]):
            with pool.connection() as first:
                now[0] += 100           # in use, not idle
            now[0] += 60
            with pool.connection() as connection:
                self.assertIs(connection, first)
            now[0] += 61
            with pool.connection() as connection:
                self.assertIsNot(connection, first)
        self.assertTrue(first.closed)

    def test_no_limit_of_idleness(self):
        """None and 0 keep a connection as long as it is good."""
        for none in None, 0:
            pool = self.pool(max_idle=none)
            with pool.connection() as first:
                pass
            with mock.patch.object(module.time, "monotonic", lambda: 1e9):
                with pool.connection() as connection:
                    self.assertIs(connection, first)

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

    def test_closed_by_its_borrower(self):
        """A connection that comes back closed is not lent again."""
        pool = self.pool(max_size=1)
        with pool.connection() as connection:
            connection.close()
        with pool.connection() as connection:
            self.assertEqual(connection.echo(b"abc"), b"ABC")

    def test_interrupted_at_every_line(self):
        """A KeyboardInterrupt at any line of the module loses no slot."""
        pool = self.pool(max_size=1)
        # A connection may be lost before its slot knows of it.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            lines = self.strike_one_line_after_the_other(pool)
        self.assertGreater(lines, 20)
        self.assertLess(lines, 1000)

    def strike_one_line_after_the_other(self, pool):
        for line in range(10000):
            countdown = [line]
            sys.settrace(striking_in(module.__file__, countdown))
            try:
                with pool.connection():
                    pass
                return line
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(None)
            gc.collect()
            self.assertAllFree(pool)

    def test_no_reply_reaches_another_borrower(self):
        """Borrowers who fail half way leave nothing for the next."""
        pool = self.pool(self.unreliable, max_size=4)
        wrong = []

        def borrow(me):
            for i in range(50):
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
        for thread in [self.begin(borrow, me) for me in range(8)]:
            thread.join(PATIENCE)
        self.assertEqual(wrong, [])
        self.assertAllFree(pool)

    @staticmethod
    def unreliable(connection):
        """Echo; every seventh reply is late, every ninth lost with all."""
        late = threading.Event()
        while True:
            data = connection.recv(1 << 16)
            if not data or len(data) * data[-1] % 9 == 0:
                return
            if data[-4] % 7 == 0:
                late.wait(0.04)
            connection.sendall(data.upper())


class ClosingTests(PoolTestCase):

    def test_close(self):
        """Idle connections are closed, and nobody gets another."""
        pool = self.pool()
        with pool.connection() as connection:
            pass
        pool.close()
        pool.close()
        self.assertTrue(connection.closed)
        with self.assertRaisesRegex(PoolClosed, "make another"):
            with pool.connection():
                self.fail("lent by a closed pool")

    def test_close_by_a_with_block(self):
        """A pool is a context manager."""
        with self.pool() as pool:
            with pool.connection() as connection:
                pass
        self.assertTrue(connection.closed)

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


@unittest.skipUnless(hasattr(os, "fork"), "no fork")
class ForkTests(PoolTestCase):

    def in_child(self, function):
        """Return the exit code of a child that calls function."""
        pid = os.fork()
        if not pid:
            code = 1
            try:
                # A child that hangs is ended, and its waiting parent helped.
                signal.alarm(int(PATIENCE))
                function()
                code = 0
            finally:
                os._exit(code)
        return os.waitpid(pid, 0)[1]

    def setUp(self):
        super().setUp()
        # The peer's threads must not be there when this process forks: it is
        # a process of its own.
        self.process = self.run_program("tests.peers", bufsize=0)
        port = int(self.read_line(self.process.stdout))
        self.forked = ConnectionPool(("127.0.0.1", port), 2, PATIENCE)
        self.addCleanup(self.forked.close)

    def test_child_starts_empty(self):
        """Neither talks on the connection of the other."""
        pool = self.forked
        with pool.connection() as parents:
            parents.echo(b"abc")

        def child():
            with pool.connection() as connection:
                assert connection is not parents
                assert parents.closed
                assert connection.echo(b"child") == b"CHILD"
            pool.close()
        self.assertEqual(self.in_child(child), 0)
        with pool.connection() as connection:
            self.assertIs(connection, parents)
            self.assertEqual(connection.echo(b"parent"), b"PARENT")

    def test_fork_while_all_are_lent(self):
        """What the parent has lent is not missing in the child, nor is a
        lock held there that another thread held."""
        pool = self.forked
        held, forked = threading.Event(), threading.Event()

        def hold():
            with pool._share().lock:
                held.set()
                forked.wait(PATIENCE)

        def child():
            with pool.connection() as a, pool.connection() as b:
                assert a.echo(b"a") + b.echo(b"b") == b"AB"
        with pool.connection(), pool.connection():
            self.begin(hold)
            self.assertTrue(held.wait(PATIENCE))
            try:
                with warnings.catch_warnings():
                    # that a thread which holds a lock is left behind
                    warnings.simplefilter("ignore", DeprecationWarning)
                    self.assertEqual(self.in_child(child), 0)
            finally:
                forked.set()

    def test_abandoned_borrower(self):
        """A borrower that garbage collection ends is given back, even while
        the pool's lock is held."""
        pool = self.forked
        borrower = pool.connection()
        borrower.__enter__()
        with pool._share().lock:
            del borrower
            gc.collect()
        self.assertAllFree(pool)

    def test_fork_in_the_block(self):
        """The child that leaves the block keeps nothing of it."""
        pool = self.forked
        parent = os.getpid()
        with pool.connection() as connection:
            connection.echo(b"abc")
            pid = os.fork()
        if os.getpid() != parent:
            os._exit(0 if connection.closed
                     and not pool._share().stock else 1)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        with pool.connection() as again:
            self.assertIs(again, connection)
            self.assertEqual(again.echo(b"abc"), b"ABC")
