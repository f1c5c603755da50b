"""SIGTERM and Ctrl-C: the first drains the server, the second ends it."""

import contextlib
import itertools
import signal
from typing import Any, Iterator

__all__ = ["STOP_SIGNALS", "stop_on"]

# SIGBREAK is Ctrl-Break, on Windows only.
STOP_SIGNALS = [getattr(signal, name) for name in (
    "SIGTERM", "SIGINT", "SIGBREAK") if hasattr(signal, name)]

# What the program may still take after the second signal: more than a drain
# without grace does.
LAST_SECONDS = 3.0


@contextlib.contextmanager
def stop_on(server: Any, *signals: int) -> Iterator[None]:
    """Drain server on the first of signals, end the drain on the second.

    The handler does no more than stop() does, a flag and a byte: a log line
    or an exception in a signal handler could land anywhere (bpo-24283).  The
    interpreter itself wakes the loop, for when another thread takes the
    signal, or it comes just before the loop waits.

    The program may be stuck, in a write to a log that nobody reads, say.  So
    the second signal also has the system end the process soon.

    Afterwards the signals are ignored: the program is about to exit, with a
    status that tells of the drain.
    """
    seen = itertools.count(1)

    def on_signal(number: int, frame: Any) -> None:
        nth = next(seen)
        if nth == 1:
            server.stop()
        elif nth == 2:
            server.stop(grace=0)
            if hasattr(signal, "setitimer"):    # its default needs no Python
                signal.setitimer(signal.ITIMER_REAL, LAST_SECONDS)

    for number in signals:
        signal.signal(number, on_signal)
    signal.set_wakeup_fd(server.loop.wakeup_fd())
    try:
        yield
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
