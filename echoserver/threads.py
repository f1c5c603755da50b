"""Starting and ending threads where the means for it may run out."""

import errno
import sys
import threading
from typing import Any, Callable, Optional

__all__ = ["learn_to_end", "start_thread"]

START = 2.0     # seconds that a new thread may take to begin


class Moment(threading.Event):

    """An Event that nobody waits for longer than START seconds."""

    def wait(self, timeout: Optional[float] = None) -> bool:
        return super().wait(START)


def start_thread(target: Callable[..., Any], *args: Any) -> threading.Thread:
    """Start a daemon thread; raise OSError if that cannot be.

    Thread.start() waits for ever for a thread that finds no memory in its
    first moments (gh-140746).  What it waits for is not public; where it has
    another name, this is just start().
    """
    def run() -> None:
        if not late:
            target(*args)

    late = False
    thread = threading.Thread(target=run, daemon=True)
    setattr(thread, "_started", Moment())
    try:
        thread.start()
    except RuntimeError as error:  # all that it says of EAGAIN
        raise OSError(errno.EAGAIN, str(error)) from error
    if thread.ident is None:
        late = True
        raise OSError(errno.EAGAIN, "a thread did not begin")
    return thread


def learn_to_end() -> None:
    """Have the first thread of this process end now, while there is memory.

    Before Python 3.9.6 a thread ends by pthread_exit(), and the GNU C library
    loads a library for the first of them.  If it has no memory or descriptor
    for that, it aborts the process (bpo-44434).
    """
    if sys.version_info < (3, 9, 6):
        start_thread(int).join()
