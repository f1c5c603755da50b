"""Starting threads where the means for it may run out."""

import contextlib
import errno
import mmap
import sys
import threading
from typing import Any, Callable

__all__ = ["start_thread"]

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
    """Start a daemon thread; raise OSError if the system has no means."""
    # Thread.start() waits for ever for a thread that finds no memory in its
    # first moments (gh-140746): see before whether there is any.
    mmap.mmap(-1, THREAD_SIZE).close()
    thread = threading.Thread(target=target, args=args, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # all that threading says of EAGAIN
        raise OSError(errno.EAGAIN, str(error)) from error
    return thread
