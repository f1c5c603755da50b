"""A pool of connections that many threads share.

    pool = ConnectionPool(("127.0.0.1", 8080), max_size=4)
    with pool.connection() as connection:
        connection.echo(b"hello")

It is a queue of max_size slots.  Whoever takes one may have a connection: the
one that lies there, or a new one where there is none (None), as in all at
first.  The slot that was given back last is taken first, for its connection
has had the least time to go stale.  A new one is made by the thread that wants
it, so the pool has no thread of its own, and nothing that must be stopped.
"""

import contextlib
import math
import os
import queue
from time import perf_counter
from typing import Any, Dict, Iterator, Optional

from .connecting import Address, describe
from .connection import Connection
from .errors import PoolClosed, PoolTimeout
from .waiting import checked_limit

__all__ = ["ConnectionPool"]

# Seconds of one wait.  On Windows Ctrl-C interrupts none (gh-74157), and a
# thread that is struck when it has just been woken does not wake another.
_LONGEST_SLEEP = 0.5


class ConnectionPool:
    """Lend connections to address, never more than max_size at a time.

    timeout, in seconds, limits the whole wait for a connection: until one is
    given back, and until a new one is made.  It is then the connection's own
    timeout, for silence.  None or 0 is no limit.

    A connection that has been silent for max_idle seconds, or that can be read
    from although nobody has asked anything (it has ended, or says more than it
    should), is replaced before anybody sees it.  None or 0 is no limit of age.

    A child of fork() starts with an empty pool.  When it first borrows, it
    closes its copies of what is idle in the parent's, which stays as it is.

    Methods for the caller: connection(), close(), and the with statement.
    """

    # A handful for the server, and plenty for threads that share one
    # interpreter lock; the timeout of the client program; and less than the
    # strictest of the common firewalls grants a silent connection.
    def __init__(self, address: Address, max_size: int = 10,
                 timeout: Optional[float] = 10.0,
                 max_idle: Optional[float] = 60.0) -> None:
        if max_size < 1:
            raise ValueError("max_size must be at least 1, not %r" % max_size)
        self.address = address
        self.max_size = max_size
        self.timeout = checked_limit("timeout", timeout)
        self.max_idle = checked_limit("max_idle", max_idle)
        self._closed = False
        # By process: a parent's queue may be locked by a thread of its own.
        self._queues: "Dict[int, queue.LifoQueue[Any]]" = {}

    def __enter__(self) -> "ConnectionPool":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @contextlib.contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a connection to the block of a with statement.

        An exception that leaves the block, KeyboardInterrupt and all, closes
        the connection: its reply may be on the way still, and shall not reach
        the next borrower.  Raise PoolTimeout, PoolClosed, and what a failed
        Connection() raises.
        """
        end = perf_counter() + (self.timeout or math.inf)
        slots = self._slots()
        connection = self._take(end)
        try:
            if connection is not None and (
                    connection.is_stale()
                    or connection.silence > (self.max_idle or math.inf)):
                connection.close()
            if connection is None or connection.closed:
                connection = self._connect(end)
            connection.timeout = self.timeout   # a borrower may change it
            yield connection
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        finally:
            if slots is self._slots():
                slots.put(connection)
            elif connection is not None:
                connection.close()      # fork() has come between
            if self._closed:
                self.close()

    def close(self) -> None:
        """Close the idle connections now, and each lent one on its return.

        Who waits for a connection gets PoolClosed.  Closing again does
        nothing.
        """
        self._closed = True
        slots = self._slots()
        with contextlib.suppress(queue.Empty):
            while True:
                connection = slots.get_nowait()
                if connection is not None:
                    connection.close()
        # For those who wait: each gives it back, and so it wakes all.
        slots.put(None)

    def _slots(self) -> "queue.LifoQueue[Any]":
        """Return the queue of this process."""
        pid = os.getpid()
        if pid not in self._queues:
            slots: "queue.LifoQueue[Any]" = queue.LifoQueue()
            for _ in range(self.max_size):
                slots.put(None)
            # One step, should several threads come here at a time.
            self._queues.setdefault(pid, slots)
            for parent in set(self._queues) - {pid}:
                for connection in filter(None, self._queues[parent].queue):
                    connection.close()
        return self._queues[pid]

    def _take(self, end: float) -> Optional[Connection]:
        """Take a slot as soon as there is one; return what is in it."""
        found: Optional[Connection]
        while True:
            left = max(end - perf_counter(), 0)
            try:
                found = self._slots().get(timeout=min(left, _LONGEST_SLEEP))
                break
            except queue.Empty:
                if not left:
                    raise PoolTimeout(
                        "all %d connections to %s were in use for %g s; give "
                        "them back sooner, or raise max_size"
                        % (self.max_size, describe(self.address),
                           self.timeout or 0)) from None
        if self._closed:
            self._slots().put(found)
            self.close()
            raise PoolClosed("this pool is closed; make another")
        return found

    def _connect(self, end: float) -> Connection:
        left = None
        if self.timeout:
            left = max(end - perf_counter(), 0.001)     # 0 would be no limit
        try:
            return Connection(self.address, left)
        except TimeoutError as error:
            raise PoolTimeout("a slot was free, but %s" % error) from error
