"""Code that waits, written once, for one connection and for many.

What waits here is a coroutine: it says what for, and is resumed when that is
ready or its time is over.  block() drives one coroutine and blocks, which is
what a Connection does.  A Loop drives many, in one thread: with a thread for
each connection, an instrument measures the switches between its own threads.
Nothing else runs while a coroutine does, so there is nothing to lock.

Times are seconds of time.perf_counter(), in the whole client: a clock that
never goes back, and fine enough on every system for a round trip.
"""

import os
import selectors
import types
from time import perf_counter
from typing import Any, Coroutine, Dict, Generator, Tuple, TypeVar

__all__ = ["LONGEST_WAIT", "Loop", "READ", "WRITE", "block", "is_ready",
           "ready"]

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

# Seconds.  On Windows nothing that waits is interrupted by Ctrl-C (gh-74157),
# so there nothing waits longer at a time.  Elsewhere eleven days: poll()
# counts milliseconds in an int.
LONGEST_WAIT = 0.5 if os.name == "nt" else 1e6

# poll() needs no descriptor of its own, and takes those above 1023.
_Selector: Any = getattr(selectors, "PollSelector", selectors.SelectSelector)

_T = TypeVar("_T")
_Task = Coroutine[Any, bool, Any]


@types.coroutine
def ready(file: Any, events: int,
          end: float) -> Generator[Tuple[Any, int, float], bool, bool]:
    """Wait until file is ready for events, or for nothing (None), until the
    time end; return whether it is ready."""
    return (yield file, events, end)


def is_ready(file: Any, events: int, end: float) -> bool:
    """Do the same by blocking."""
    with _Selector() as selector:
        selector.register(file, events)
        while True:
            left = end - perf_counter()
            if selector.select(max(min(left, LONGEST_WAIT), 0)):
                return True
            if left <= 0:
                return False


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


class Loop:
    """Run many tasks, in a with statement, which ends those that are left.

    Attributes: running, which ends run() when it is made false; now, when the
    last wait ended.  What was ready then was so by that time, however long its
    task has to wait for its turn.
    """

    def __init__(self) -> None:
        self.running = True
        self.now = perf_counter()
        self._selector = selectors.DefaultSelector()
        self._ends: Dict[_Task, float] = {}
        # What each is registered for at present: file and events.
        self._waits: Dict[_Task, Tuple[Any, int]] = {}

    def __enter__(self) -> "Loop":
        return self

    def __exit__(self, *exc_info: object) -> None:
        for task in self._ends:
            task.close()
        self._selector.close()

    def start(self, task: _Task) -> None:
        """Run task up to where it waits."""
        self._waits[task] = None, 0
        self._resume(task, None)

    def run(self) -> None:
        """Run until all tasks have ended, or running is false."""
        while self.running and self._ends:
            end = min(self._ends.values())
            found = self._selector.select(
                min(max(end - perf_counter(), 0), LONGEST_WAIT))
            self.now = perf_counter()
            for key, _ in found:
                self._resume(key.data, True)
            if end <= self.now:
                for task, end in list(self._ends.items()):
                    if end <= self.now:
                        self._resume(task, False)

    def _resume(self, task: _Task, answer: Any) -> None:
        file, events = None, 0
        try:
            file, events, self._ends[task] = task.send(answer)
        except StopIteration:
            self._ends.pop(task, None)
        old = self._waits[task]
        self._waits[task] = file, events
        if old != (file, events):
            if old[0] is not None:
                self._selector.unregister(old[0])
            if file is not None:
                self._selector.register(file, events, task)
