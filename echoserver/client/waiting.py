"""Code that waits, written once, for one connection and for many.

What waits is a coroutine: it says what for, and is resumed when that is ready
or its time is over.  block() drives one and blocks, as a Connection does.
Tasks are many, driven in one thread: with a thread for each connection, an
instrument measures the switches between its own threads.  While a coroutine
runs nothing else does, so there is nothing to lock.

Times are seconds of time.perf_counter(), in the whole client: a clock that
never goes back, and fine enough on every system for a round trip.
"""

import math
import os
import select
import selectors
import signal
import types
from time import perf_counter
from typing import (Any, Callable, Coroutine, Dict, Generator, List, Optional,
                    Tuple, TypeVar)

__all__ = ["LONGEST_WAIT", "READ", "Task", "Tasks", "WRITE", "block",
           "checked_limit", "is_ready", "ready"]

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

# Seconds.  On Windows nothing that waits is interrupted by Ctrl-C (gh-74157),
# so there nothing waits longer at a time.  Elsewhere eleven days: poll()
# counts milliseconds in an int.
LONGEST_WAIT = 0.5 if os.name == "nt" else 1e6

# poll() needs no descriptor of its own, and takes those above 1023.
_Selector: Any = getattr(selectors, "PollSelector", selectors.SelectSelector)

_T = TypeVar("_T")
Task = Coroutine[Any, bool, Any]


def checked_limit(name: str, seconds: Optional[float]) -> Optional[float]:
    """Return seconds; raise ValueError for what is no limit."""
    if seconds is not None and not seconds >= 0:        # nan, too
        raise ValueError("%s must be a number of seconds, or None or 0 for "
                         "no limit, not %r" % (name, seconds))
    return seconds


@types.coroutine
def ready(file: Any, events: int,
          end: float) -> Generator[Tuple[Any, int, float], bool, bool]:
    """Wait until file, or None for nothing, is ready for events, or for the
    time end; return whether it is ready."""
    return (yield file, events, end)


def is_ready(file: Any, events: int, end: float) -> bool:
    """Do the same by blocking."""
    with _Selector() as selector:
        selector.register(file, events)
        while not selector.select(
                max(min(end - perf_counter(), LONGEST_WAIT), 0)):
            if perf_counter() >= end:
                return False
        return True


def block(task: "Coroutine[Any, bool, _T]") -> _T:
    """Run task to its end; return what it returns."""
    answer: Any = None
    try:
        while True:
            answer = is_ready(*task.send(answer))
    except StopIteration as end:
        result: _T = end.value
        return result
    finally:
        task.close()


class Tasks:
    """Many tasks, run in a with statement, and the signals meanwhile.

    Attributes: running, until SIGINT or SIGTERM comes; signal, the number of
    that, or 0; stopped_at, when it came; now, when the last wait ended: what
    was ready then was so by that time, however long its task has to wait for
    its turn; is_asked, whether a signal (SIGQUIT) has asked how it goes.

    Class variable tick: seconds between two calls of the function that run()
    is given, which is also how long it takes until a signal is noticed.
    """

    tick = 0.25

    def __init__(self) -> None:
        self.running, self.signal, self.is_asked = True, 0, False
        self.now = self.stopped_at = perf_counter()
        # What each task waits for: file and events, and the end of the wait.
        self._files: Dict[Task, Tuple[Any, int]] = {}
        self._ends: Dict[Task, float] = {}
        self._soonest = math.inf                # not later than any end
        self._by_descriptor: Dict[int, Task] = {}
        self._selector = selectors.DefaultSelector()
        self._poller: Any = self
        if hasattr(select, "epoll"):
            # What select() adds to an event is 5 % of a fast round trip.
            self._poller = select.epoll.fromfd(os.dup(
                self._selector.fileno()))
        self._handlers = {
            number: signal.signal(number, self._on_signal)
            for name, number in vars(signal).items()
            if name in ("SIGINT", "SIGTERM", "SIGQUIT", "SIGINFO")}

    def __enter__(self) -> "Tasks":
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._selector.close()
        if self._poller is not self:
            self._poller.close()

    def _on_signal(self, number: int, frame: Any) -> None:
        if number not in (signal.SIGINT, signal.SIGTERM):
            self.is_asked = True
            return
        self.running, self.signal = False, number
        self.stopped_at = perf_counter()
        # Whatever blocks, a second one ends the program.
        signal.signal(number, signal.SIG_DFL)

    def poll(self, timeout: float) -> List[Tuple[int, int]]:
        """Do as select.epoll does, where there is none."""
        return [(key.fd, events)
                for key, events in self._selector.select(timeout)]

    def resume(self, task: Task, answer: Any = None) -> None:
        """Run task, a new one for instance, up to where it waits next."""
        file, events = None, 0
        try:
            file, events, end = task.send(answer)
            self._ends[task] = end
            self._soonest = min(self._soonest, end)
        except StopIteration:
            self._ends.pop(task, None)
        old = self._files.get(task, (None, 0))
        if old != (file, events):
            self._files[task] = file, events
            if old[0] is not None:
                self._selector.unregister(old[0])
            if file is not None:
                key = self._selector.register(file, events)
                self._by_descriptor[key.fd] = task

    def run(self, tick: Callable[[], Any],
            is_owed: Callable[[], bool] = lambda: False) -> None:
        """Run until all tasks have ended, or a signal has come and is_owed()
        is false; then end those that are left.

        After the signal a task is resumed by what comes, and by no time.
        """
        due = self.now
        try:
            while self._ends and (self.running or is_owed()):
                if due <= self.now:
                    tick()
                    due = self.now + self.tick
                end = min(due, self._soonest if self.running else due)
                found = self._poller.poll(max(end - perf_counter(), 0))
                self.now = perf_counter()
                for fd, _ in found:
                    self.resume(self._by_descriptor[fd], True)
                if self.running and self._soonest <= self.now:
                    self._wake_up()
        finally:
            for task in self._ends:
                task.close()

    def _wake_up(self) -> None:
        """Resume the tasks whose time is over."""
        for task, end in list(self._ends.items()):
            if end <= self.now:
                self.resume(task, False)
        self._soonest = min(self._ends.values(), default=math.inf)
