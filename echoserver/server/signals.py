"""SIGTERM, SIGHUP and Ctrl-C: the first drains, the second ends the drain."""

import contextlib
import faulthandler
import itertools
import os
import signal
from typing import Any, Callable, Iterator, List

__all__ = ["STOP_SIGNALS", "end_soon", "stop_on"]

# Seconds that the program may still take after the second signal: more than
# a drain without grace needs.
LAST_SECONDS = 3.0

# Opened early: a program that is stuck may be out of descriptors, too.
NOWHERE = os.open(os.devnull, os.O_WRONLY)

CALLS = itertools.count()   # of end_soon()

# SIGHUP says that the terminal is gone.  If it was ignored at the start, by
# nohup, it stays so.
STOP_SIGNALS: List[int] = [signal.SIGTERM, signal.SIGINT]
if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
    STOP_SIGNALS.append(signal.SIGHUP)


@contextlib.contextmanager
def stop_on(signals: List[int], stop: Callable[..., Any],
            wakeup_fd: int) -> Iterator[None]:
    """Call stop() on the first of signals, and stop(grace=0) on the second.

    stop() must only set a flag and write a byte: a log line or an exception
    in a signal handler could land anywhere (bpo-24283).  The interpreter
    itself writes to wakeup_fd and so wakes the loop, for when another thread
    takes the signal, or it comes just before the loop waits.

    The program may be stuck, perhaps in a write to a full log pipe.  So
    the second signal also calls end_soon().

    Afterwards the signals are ignored: the program is about to exit, with a
    status that tells of the drain.
    """
    seen = itertools.count(1)

    def on_signal(number: int, frame: Any) -> None:
        nth = next(seen)
        if nth == 1:
            stop()
        elif nth == 2:
            stop(grace=0)
            end_soon()

    for number in signals:
        signal.signal(number, on_signal)
    signal.set_wakeup_fd(wakeup_fd)
    try:
        yield
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)


def end_soon() -> None:
    """Have this process exit with 1 in LAST_SECONDS, if it still runs then;
    calling it again does nothing.

    A thread of faulthandler sees to that.  It needs no Python code to run, so
    it works whatever the program waits for; and as process 1 of a container,
    where a signal with its default action does nothing.
    """
    if next(CALLS):
        return      # it would begin to count anew
    with contextlib.suppress(RuntimeError):     # no thread can be started
        faulthandler.dump_traceback_later(LAST_SECONDS, exit=True,
                                          file=NOWHERE)
