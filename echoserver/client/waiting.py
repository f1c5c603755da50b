"""Code that waits, written once, for one connection and for many.

A function that waits is a generator.  It yields the files that it waits for,
each with READ, WRITE or both, and for how many seconds; it is resumed with
whether one of them may be ready.  block() runs one and blocks, as a Connection
does.  Tasks runs many in one thread: with a thread for each connection, an
instrument measures the switches between its own threads.  While one generator
runs no other does, so there is nothing to lock.

The clock is time.perf_counter(), which never goes back and is fine enough for
a round trip on every system.  Tasks has one that goes on while the system is
suspended, and leaves out the time in which this process stood still.
"""

import contextlib
import math
import os
import select
import selectors
import signal
import time
from collections import defaultdict, deque
from time import perf_counter
from typing import (
    Any, Callable, Dict, Generator, Iterable, List, Optional, Tuple)

from ..console import Selector, die

__all__ = ["Files", "READ", "Task", "Tasks", "WRITE", "block",
           "checked_limit", "wait"]

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

# Seconds, eleven days: poll() counts milliseconds in an int.
_LONGEST_WAIT = 1e6

Files = Tuple[Tuple[Any, int], ...]
Task = Generator[Tuple[Files, float], bool, Any]


def checked_limit(name: str, seconds: Optional[float]) -> Optional[float]:
    """Return seconds; raise ValueError if they are negative or no number."""
    if seconds is not None and not seconds >= 0:        # nan, too
        raise ValueError("%s must be a number of seconds, or None or 0 for "
                         "no limit, not %r" % (name, seconds))
    return seconds


def wait(files: Files, seconds: float) -> List[Any]:
    """Block until one of files is ready, or for so many seconds; return those
    that are."""
    end = perf_counter() + seconds
    with Selector() as selector:
        for file, events in files:
            selector.register(file, events)
        while True:     # select() ends early if a handler raises EINTR
            left = end - perf_counter()
            found = selector.select(max(min(left, _LONGEST_WAIT), 0))
            if found or left <= 0:
                return [key.fileobj for key, _ in found]


def block(task: Task) -> Any:
    """Run task to its end; return what it returns."""
    answer: Any = None
    try:
        while True:
            answer = bool(wait(*task.send(answer)))
    except StopIteration as end:
        return end.value
    finally:
        task.close()


def _clock() -> float:
    """Return a time in seconds that goes on while the system is suspended, if
    there is one; on Linux perf_counter() stands still then."""
    try:
        return time.clock_gettime(7)    # CLOCK_BOOTTIME of Python 3.7
    except (AttributeError, OSError):
        return perf_counter()


class Tasks(contextlib.ExitStack):
    """Many tasks, run in a with statement, and the signals meanwhile.

    Attributes: running, until SIGINT or SIGTERM comes, or somebody sets it;
    signal, the number of the signal, or 0; stopped_at, when it came; is_asked,
    whether a signal (SIGQUIT) has asked how it goes; now, when the last wait
    ended, less standstill: a file that was ready then was so by that time,
    however long its task has to wait for its turn; standstill, for how many
    seconds this process did not run: it was stopped (Ctrl-Z, a frozen
    container), the system was suspended, or nobody read its output.  While
    it grew, no time that was measured is true.

    Class variables: tick, seconds between two calls of the function that run()
    is given, which is also how long it takes until a signal is noticed;
    least_standstill, seconds by which a wait must be too long to be one: a
    busy system causes shorter ones, which belong to the waits; at_once, tasks
    that begin between two looks at those that have begun, so that the first
    ones need not wait for the last ones.
    """

    tick = 0.25
    least_standstill = 1.0
    at_once = 64

    def __init__(self) -> None:
        super().__init__()
        self.running, self.signal, self.is_asked = True, 0, False
        self.standstill = 0.0
        self.now = self.stopped_at = _clock()
        # Until when each task waits, and the soonest of that; its files, with
        # their descriptors, and the other way round.
        self._ends: Dict[Task, float] = {}
        self._soonest = math.inf
        self._files: Dict[Task, Tuple[Files, List[int]]] = defaultdict(
            lambda: ((), []))
        self._by_number: Dict[int, Task] = {}
        self._selector = self.enter_context(selectors.DefaultSelector())
        self._poll: Callable[[float], Any] = lambda timeout: [
            (key.fd, events) for key, events in self._selector.select(timeout)]
        if hasattr(select, "epoll"):
            # select() takes 5 % of a fast round trip for each event.
            self._poll = self.enter_context(select.epoll.fromfd(os.dup(
                self._selector.fileno()))).poll
        for name in "SIGINT", "SIGTERM", "SIGQUIT", "SIGINFO":
            number = getattr(signal, name, None)
            if number:
                self.callback(signal.signal, number, signal.signal(
                    number, self._on_signal))

    def _on_signal(self, number: int, frame: Any) -> None:
        if number not in (signal.SIGINT, signal.SIGTERM):
            self.is_asked = True
            return
        self.signal, self.running, self.stopped_at = number, False, self.time()
        # A second one ends the program, even if it is blocked.
        signal.signal(number, die)

    def time(self) -> float:
        """Return the time at this moment, less the standstill before."""
        return _clock() - self.standstill

    def run(self, tasks: Iterable[Task], tick: Callable[[], Any],
            is_owed: Callable[[], bool]) -> None:
        """Run until all tasks have ended, or a signal has come and is_owed()
        is false; then end those that are left.

        After the signal a task is resumed by its files, and by no time.
        """
        new = deque(tasks)
        due = self.now = self._read = _clock()
        try:
            while (self._ends or new) and (self.running or is_owed()):
                if due <= self.now:
                    tick()
                    due = self.now + self.tick
                for _ in range(min(len(new), self.at_once)):
                    self._resume(new.popleft(), None)
                end = min(due, self._soonest if self.running else due)
                timeout = 0 if new or not self._ends else max(
                    end - self.time(), 0)
                found = self._poll(timeout)
                self._read_clock(timeout)
                for number, _ in found:
                    if number in self._by_number:   # no task has closed it
                        self._resume(self._by_number[number], True)
                if self.running and self._soonest <= self.now:
                    self._wake_up()
        finally:
            for task in self._ends:
                task.close()

    def _read_clock(self, timeout: float) -> None:
        """Set now, after a wait of timeout seconds.

        If the wait and the work before it took far too long, the excess is
        standstill.
        """
        before, self._read = self._read, _clock()
        late = self._read - before - timeout
        if late >= self.least_standstill:
            self.standstill += late
        self.now = self._read - self.standstill

    def _resume(self, task: Task, answer: Any) -> None:
        """Run task up to where it waits next."""
        try:
            files, seconds = task.send(answer)
        except StopIteration:
            self._watch(task, ())
            del self._files[task]
            self._ends.pop(task, None)
            return
        self._ends[task] = end = self.now + seconds
        if end < self._soonest:
            self._soonest = end
        if files is not self._files[task][0]:
            self._watch(task, files)

    def _watch(self, task: Task, files: Files) -> None:
        """Wait for files on behalf of task, and no longer for others."""
        for number in self._files[task][1]:
            del self._by_number[number]
            self._selector.unregister(number)
        numbers = [self._selector.register(*one).fd for one in files]
        self._files[task] = files, numbers
        self._by_number.update(dict.fromkeys(numbers, task))

    def _wake_up(self) -> None:
        """Resume the tasks whose time is over."""
        for task, end in list(self._ends.items()):
            if end <= self.now:
                self._resume(task, False)
        self._soonest = min(self._ends.values(), default=math.inf)
