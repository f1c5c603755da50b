"""Threads: started where the system may be out of them, and kept waiting.

Many busy threads share one interpreter lock, and each keeps it for a while.
To start a thread, or to go through all connections, the server needs the lock
again and again, and would wait for all of them each time: a newcomer among 300
busy connections was not answered within two seconds.  So the server closes a
gate for that time.  A handler that finds it closed waits until it is open.
"""

import contextlib
import errno
import mmap
import sys
import threading
from typing import Any, Callable, Optional

__all__ = ["Gate", "start_thread"]

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
    thread = threading.Thread(target=target, args=args, daemon=True,
                              name="echoserver")
    try:
        thread.start()
    except RuntimeError as error:  # all that threading says of EAGAIN
        raise OSError(errno.EAGAIN, str(error)) from error
    return thread


class Gate:

    """Closed and opened by the server's loop, passed by its handlers.

    A with statement closes it for its block, and opens it at the end.
    """

    def __init__(self) -> None:
        # Handlers wait for it; open() sets it.  None while the gate is open.
        # An Event wakes all of them at once.  A lock would wake one after the
        # other, each of which needs the interpreter lock (1.7 s for 900).
        self._opened: Optional[threading.Event] = None

    def close(self) -> None:
        """Let handlers wait from their next pass() on."""
        self._opened = self._opened or threading.Event()

    def open(self) -> None:
        """Let all handlers go on."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.set()

    def wait(self) -> None:
        """Return when the gate is open."""
        opened = self._opened
        if opened is not None:
            opened.wait()

    def __enter__(self) -> None:
        self.close()

    def __exit__(self, *exc_info: Any) -> None:
        self.open()
