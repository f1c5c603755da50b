"""What both programs do with the streams that they were started with."""

import contextlib
import io
import math
import os
import resource
import selectors
import signal
import sys
from typing import Any, cast

__all__ = ["Selector", "WaitingFile", "allow_descriptors", "die",
           "discard_output", "make_output_wait"]

# poll() needs no descriptor of its own, and takes those above 1023.
Selector: Any = getattr(selectors, "PollSelector", selectors.SelectSelector)


class WaitingFile(io.FileIO):

    """A file that takes all it is given, and waits when it cannot.

    O_NONBLOCK belongs to the open file and not to the process, so a neighbour
    on the same pipe or terminal sets it for all.  Then print() and logging
    lose what does not fit.
    """

    def write(self, data: Any) -> int:
        left = memoryview(data)
        while left:
            count = super().write(left)
            if count is None:
                with Selector() as selector:
                    selector.register(self, selectors.EVENT_WRITE)
                    selector.select()
            left = left[count or 0:]
        return len(data)


def make_output_wait() -> None:
    """Let sys.stdout and sys.stderr wait where they would lose output."""
    for name in ("stdout", "stderr"):
        old = getattr(sys, name)
        try:
            file = WaitingFile(old.fileno(), "w", closefd=False)
        except (AttributeError, OSError, ValueError):
            continue        # it is closed, or a test's
        old.flush()
        error = name == "stderr"
        # Standard error has no buffer: what cannot be written is given up, and
        # does not change the exit status.
        setattr(sys, name, io.TextIOWrapper(
            cast(Any, file) if error else io.BufferedWriter(file),
            old.encoding, old.errors, write_through=error,
            line_buffering=error or old.isatty()))


def discard_output() -> None:
    """Let what is still in the buffer of standard output go nowhere.

    The interpreter flushes it at exit and would complain (see the note on
    SIGPIPE in the documentation of the signal module).
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def allow_descriptors(count: int) -> float:
    """Raise the limit of open descriptors to count, or as far as the system
    allows, 0 for that far; return the limit then.

    Many systems start processes with a limit of 1,024 (256 on macOS) that they
    may raise themselves, up to a hard limit.
    """
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (math.inf if limit == resource.RLIM_INFINITY else limit
                  for limit in limits)
    wanted = min(count or hard, hard)
    if soft < wanted < math.inf:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE,
                               (int(wanted), limits[1]))
            return wanted
    return soft


def die(number: int, frame: Any = None) -> None:
    """End this process by a signal, as its default action does.

    Process 1 of a container has no default actions: it exits with the status
    that a shell would show.
    """
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)
