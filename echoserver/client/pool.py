"""A pool of connections that many threads share.

    pool = ConnectionPool(("127.0.0.1", 8080), max_size=4)
    with pool.connection() as connection:
        connection.echo(b"hello")

It is a line and a stack.  A borrower stands in the line from the moment it
asks until it gives back, and may have a connection while fewer than max_size
stand before it.  The idle connections are the stack: the one that was given
back last is lent first, for it has had the least time to go stale.  A new one
is made by the thread that wants it, so the pool has no thread of its own, and
nothing that must be stopped.

There is no lock that could be left locked by an exception out of a signal
handler.  The line holds weak references, and each step changes it by one call
that no signal handler can interrupt: whatever ends a borrower, its place is
free when nothing refers to the borrower any more.
"""

import contextlib
import math
import os
import threading
import weakref
from collections import deque
from time import perf_counter
from typing import Any, Deque, Dict, Iterator, List, Optional, Tuple

from ..address import checked_address
from .connecting import Address, describe
from .connection import Connection
from .errors import PoolClosed, PoolTimeout
from .waiting import checked_limit

__all__ = ["ConnectionPool"]

# Seconds of one wait.  A thread that a signal strikes when it has just been
# woken does not wake another.
_LONGEST_SLEEP = 0.5

# A borrower is a lock, which it acquires again to wait until it is woken.  (A
# threading.Event has a lock that a signal handler could find locked.)
_Line = Dict[Any, None]     # weakref.refs; a set that has an order


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

    Methods for the caller: connection(); close(), also for a signal handler;
    and the with statement.
    """

    # A handful for the server, and plenty for threads that share one
    # interpreter lock; the timeout of the client program; and less than the
    # strictest of the common firewalls grants a silent connection.
    def __init__(self, address: Address, max_size: int = 10,
                 timeout: Optional[float] = 10.0,
                 max_idle: Optional[float] = 60.0) -> None:
        if not isinstance(max_size, int) or max_size < 1:
            raise ValueError("max_size must be 1 or more, not %r" % max_size)
        self.address, self.max_size = checked_address(address), max_size
        self.timeout = checked_limit("timeout", timeout)
        self.max_idle = checked_limit("max_idle", max_idle)
        self._closed = False
        # By process: the parent's borrowers do not exist in a child.
        self._states: Dict[int, Tuple[_Line, Deque[Connection]]] = {}

    def __repr__(self) -> str:
        line, idle = self._state()
        return "<ConnectionPool to %s, %s%d of %d in use, %d idle>" % (
            describe(self.address), "closed, " if self._closed else "",
            min(len(_alive(line)), self.max_size), self.max_size, len(idle))

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
        state = line, idle = self._state()
        borrower, connection = threading.Lock(), None
        borrower.acquire()
        place = weakref.ref(borrower)
        try:
            line[place] = None
            self._wait(line, place, end)
            connection = self._get(idle, end)
            yield connection
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        finally:
            if connection is not None and state is not self._state():
                connection.close()      # fork() has come between
            if connection is not None and not connection.closed:
                idle.append(connection)
            line.pop(place, None)
            self._wake(line, self.max_size)
            if self._closed:
                self.close()

    def close(self) -> None:
        """Close the idle connections now, and each lent one on its return.

        Threads that wait for a connection get PoolClosed.  Closing again does
        nothing.
        """
        self._closed = True
        line, idle = self._state()
        with contextlib.suppress(IndexError):
            while True:
                idle.pop().close()
        self._wake(line)

    def _state(self) -> Tuple[_Line, Deque[Connection]]:
        """Return the line and the idle connections of this process."""
        pid = os.getpid()
        if pid not in self._states:
            # One step, should several threads come here at a time.
            self._states.setdefault(pid, ({}, deque()))
            for parent in set(self._states) - {pid}:
                for connection in list(self._states[parent][1]):
                    connection.close()
        return self._states[pid]

    def _wait(self, line: _Line, place: Any, end: float) -> None:
        """Return when the turn of the borrower at place has come."""
        while not self._closed and _alive(line).index(place) >= self.max_size:
            left = end - perf_counter()
            if left <= 0:
                raise PoolTimeout(
                    "all %d connections to %s were in use for %s s; give them "
                    "back sooner, or raise max_size" % (
                        self.max_size, describe(self.address), self.timeout))
            place().acquire(timeout=min(left, _LONGEST_SLEEP))
        if self._closed:
            raise PoolClosed("this pool is closed; make another")

    def _wake(self, line: _Line, count: Optional[int] = None) -> None:
        """Wake so many borrowers at the head of the line; None is all."""
        for place in _alive(line)[:count]:
            # It may be gone now, or woken before.
            with contextlib.suppress(AttributeError, RuntimeError):
                place().release()

    def _get(self, idle: Deque[Connection], end: float) -> Connection:
        """Return an idle connection that is good, or a new one."""
        connection: Optional[Connection] = None
        with contextlib.suppress(IndexError):
            connection = idle.pop()
            if (connection.is_stale()
                    or connection.silence > (self.max_idle or math.inf)):
                connection.close()
        if connection is None or connection.closed:
            left = max(end - perf_counter(), 0.001)     # 0 would be no limit
            try:
                connection = Connection(self.address, left)
            except TimeoutError as error:
                raise PoolTimeout("a slot was free, but %s" % error) from error
        connection.timeout = self.timeout   # a borrower may change it
        return connection


def _alive(line: _Line) -> List[Any]:
    """Return the places in line whose borrowers exist; give up the others."""
    places = list(line)
    for place in places:
        if place() is None:
            line.pop(place, None)
    return [place for place in places if place() is not None]
