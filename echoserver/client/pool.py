"""A pool of connections that many threads share.

    pool = ConnectionPool(("127.0.0.1", 8080), max_size=4)
    with pool.connection() as connection:
        connection.echo(b"hello")

There are max_size slots.  Whoever has one may have a connection: the one that
was given back last, for it has had the least time to go stale, or a new one.
It is dialled by the thread that wants it, so the pool has no thread of its
own, and nothing that must be stopped.

A slot is an object that a borrower makes before it asks, and it is taken while
it is in a set.  Giving it back means removing it from there, as often as one
likes, and a slot that is lost leaves a weak set by itself.  So wherever an
exception strikes a borrower, the count is right afterwards; a counter, or a
queue of tokens, has moments in which a KeyboardInterrupt loses one for good.
(Before Python 3.10 the with statement has such a moment itself, bpo-29988.)
"""

import contextlib
import math
import os
import threading
import time
import weakref
from types import TracebackType
from typing import Dict, Iterator, List, Optional, Tuple, Type

from ..address import show_address
from .connection import Address, Connection, checked_limit

__all__ = ["ConnectionPool", "PoolClosed", "PoolTimeout"]

# Seconds.  A slot that was lost to an interrupt is free and nobody is told, so
# who waits looks again; and on Windows Ctrl-C interrupts no wait (gh-74157).
LONGEST_SLEEP = 0.5


class PoolTimeout(TimeoutError):
    """No connection could be had in time."""


class PoolClosed(RuntimeError):
    """The pool has been closed."""


class ConnectionPool:
    """Lend connections to address, never more than max_size at a time.

    timeout, in seconds, limits the whole wait for a connection: until one is
    given back, and until a new one is dialled.  It is then the connection's
    own timeout, for silence.  None or 0 is no limit.

    A connection that nobody has had for max_idle seconds, or that can be read
    from although nobody has asked anything (it has ended, or says more than it
    should), is replaced before anybody sees it.  None or 0 is no limit of age.

    A child of fork() starts with an empty pool.  When it first borrows, it
    closes its copies of the parent's descriptors, which does nothing to the
    parent's connections.

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
        self._shares: Dict[int, _Share] = {os.getpid(): _Share()}

    def __enter__(self) -> "ConnectionPool":
        return self

    def __exit__(self, kind: Optional[Type[BaseException]],
                 value: Optional[BaseException],
                 traceback: Optional[TracebackType]) -> None:
        self.close()

    @contextlib.contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a connection to the block of a with statement.

        An exception that leaves the block, KeyboardInterrupt and all, closes
        the connection: its reply may be on the way still, and shall not reach
        the next borrower.  Raise PoolTimeout, PoolClosed, and what a failed
        Connection() raises.
        """
        deadline = time.monotonic() + (self.timeout or math.inf)
        share = self._share()
        slot = _Slot()
        try:
            self._take(share, slot, deadline)
            while share.reuse(slot) and self._is_unfit(slot):
                slot.discard()
            if slot.connection is None:
                slot.connection = self._dial(deadline)
            yield slot.connection
        except BaseException:
            slot.discard()
            raise
        finally:
            self._give_back(share, slot)

    def close(self) -> None:
        """Close the idle connections now, and each lent one on its return.

        Who waits for a connection gets PoolClosed.  Closing again does
        nothing.
        """
        self._closed = True
        self._share().clear()

    def _share(self) -> "_Share":
        """Return what this process has of the pool."""
        share = self._shares.get(os.getpid())
        if share is None:
            # One step, should several threads come here at a time.
            share = self._shares.setdefault(os.getpid(), _Share())
            for pid in list(self._shares):
                if pid != os.getpid():
                    self._shares[pid].abandon()
        return share

    def _take(self, share: "_Share", slot: "_Slot", deadline: float) -> None:
        """Wait until slot can be one of the max_size that are taken."""
        with share.lock:
            while not self._closed and len(share.taken) >= self.max_size:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise PoolTimeout(
                        "all %d connections to %s were in use for %g s; give "
                        "them back sooner, or raise max_size"
                        % (self.max_size, show_address(self.address),
                           self.timeout or 0))
                share.returned.wait(min(left, LONGEST_SLEEP))
            if self._closed:
                raise PoolClosed("this pool is closed; make another")
            share.taken.add(slot)

    def _give_back(self, share: "_Share", slot: "_Slot") -> None:
        if share is self._share():      # no fork() has come between
            with share.lock:
                share.taken.discard(slot)
                if slot.connection is not None and not self._closed:
                    share.stock.append((slot.connection, time.monotonic()))
                    slot.connection = None
                share.returned.notify()
        slot.discard()

    def _is_unfit(self, slot: "_Slot") -> bool:
        age = time.monotonic() - slot.idle_since
        return (slot.connection is None or slot.connection.is_stale()
                or age > (self.max_idle or math.inf))

    def _dial(self, deadline: float) -> Connection:
        left = None
        if self.timeout:
            # Not 0, which would be no limit.
            left = max(deadline - time.monotonic(), 0.001)
        try:
            connection = Connection(self.address, left)
        except TimeoutError as error:
            raise PoolTimeout("a slot was free, but %s" % error) from error
        connection.timeout = self.timeout
        return connection


class _Slot:
    """The right to one connection; and the connection, if there is one."""

    connection: Optional[Connection] = None
    idle_since = 0.0

    def discard(self) -> None:
        """Close the connection."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class _Share:
    """What one process has of a pool."""

    def __init__(self) -> None:
        # Idle connections and the time of their return, the latest last.
        self.stock: List[Tuple[Connection, float]] = []
        self.taken: "weakref.WeakSet[_Slot]" = weakref.WeakSet()
        # Guards the two above.  Reentrant, since garbage collection may end an
        # abandoned borrower at any moment, also inside.
        self.lock = threading.RLock()
        # Waited on by those who find max_size slots taken.  One is notified
        # for each slot that its borrower gives back, all when the pool is
        # closed, and nobody for a slot that is lost (LONGEST_SLEEP).
        self.returned = threading.Condition(self.lock)

    def reuse(self, slot: _Slot) -> bool:
        """Let slot have the freshest idle connection, if there is any."""
        with self.lock:
            if self.stock:
                slot.connection, slot.idle_since = self.stock.pop()
        return slot.connection is not None

    def clear(self) -> None:
        """Close what is in stock, and wake all who wait."""
        with self.lock:
            stock, self.stock = self.stock, []
            self.returned.notify_all()
        for connection, _ in stock:
            connection.close()

    def abandon(self) -> None:
        """Close a parent's stock, whose lock a lost thread may hold."""
        while self.stock:
            self.stock.pop()[0].close()
