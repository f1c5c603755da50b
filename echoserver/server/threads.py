"""Threads: started where the means may run out, and given work to do."""

import collections
import contextlib
import errno
import mmap
import sys
import threading
from typing import Any, Callable, Deque

__all__ = ["Handover", "start_thread"]

# More than the stack of a thread, 8 MiB on Linux, and what it allocates first.
THREAD_SIZE = 16 << 20

if sys.version_info < (3, 9, 6) and sys.platform.startswith("linux"):
    # There a thread ends by pthread_exit(), for which the GNU C library loads
    # a library at the first of them, and aborts the process if there is no
    # memory or descriptor for that (bpo-44434).  So it is loaded now.
    with contextlib.suppress(ImportError, OSError):
        import ctypes
        ctypes.CDLL("libgcc_s.so.1")


def start_thread(target: Callable[..., Any], *args: Any) -> threading.Thread:
    """Start a daemon thread; raise OSError if the system cannot."""
    # Thread.start() waits for ever for a thread that finds no memory in its
    # first moments (gh-140746): see before whether there is any.
    mmap.mmap(-1, THREAD_SIZE).close()
    thread = threading.Thread(target=target, args=args, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # all that threading says of EAGAIN
        raise OSError(errno.EAGAIN, str(error)) from error
    return thread


class Handover:

    """Hands items to threads.  The thread that began to wait last gets the
    next item; the others can end if there is little to do.

    Compared with queue.Queue, put() holds no lock, so that a signal handler
    can interrupt it and call it again; and waking the thread that was busy
    last is faster (13,500 connections a second instead of 12,500).
    """

    def __init__(self) -> None:
        self._items: Deque[Any] = collections.deque()
        # A locked lock for each thread that waits; put() releases the last.
        self._waiting: "Deque[Any]" = collections.deque()

    def put(self, item: Any) -> bool:
        """Add an item; return whether a thread was waiting for one."""
        self._items.append(item)
        try:
            self._waiting.pop().release()
        except IndexError:
            return False
        return True

    def take_back(self, item: Any) -> bool:
        """Remove an item; return False if a thread has taken it."""
        try:
            self._items.remove(item)
        except ValueError:
            return False
        return True

    def get(self, timeout: float = -1) -> Any:
        """Return the next item; raise IndexError after timeout seconds without
        one, -1 for no limit."""
        woken = True
        while True:
            try:
                return self._items.popleft()
            except IndexError:
                if not woken:
                    raise
            waker = threading.Lock()
            waker.acquire()
            self._waiting.append(waker)
            # An item that came before that has woken nobody.
            woken = bool(self._items) or waker.acquire(timeout=timeout)
            with contextlib.suppress(ValueError):
                self._waiting.remove(waker)
