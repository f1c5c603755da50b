"""What a count and an idle probe have in common."""

import argparse
import signal
import socket
from time import perf_counter
from typing import Any, Iterator, List

from .connecting import Place, lookup
from .diagnosis import OK, Diagnosis, diagnose
from .waiting import Loop, Task

__all__ = ["Run"]


class Run:
    """Tasks in a loop, until they have ended, or a signal ends them.

    To be overridden: tasks(); failed(), for an error outside of them; tick(),
    called every tick_seconds, which is also how long it may take until a
    signal is noticed; end(), with the summary.

    Attributes: args, address, loop, start; code, the exit code so far; signal,
    the number of the one that has ended the run, or 0.
    """

    tick_seconds = 0.25

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.address = args.host, args.port
        self.code = OK
        self.start = perf_counter()
        self.signal = 0
        self._is_asked = False      # for the figures so far

    def run(self) -> int:
        """Return the exit code, after the summary."""
        handlers = {"SIGINT": self._stop, "SIGTERM": self._stop,
                    "SIGQUIT": self._show, "SIGINFO": self._show}
        old = {number: signal.signal(number, handlers[name])
               for name, number in vars(signal).items() if name in handlers}
        try:
            with Loop() as self.loop:
                self._run()
            self.end()
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
        return 128 + self.signal if self.signal else self.code

    def _run(self) -> None:
        try:
            places = lookup(self.address)
            self.start = perf_counter()
            for task in self.tasks(places):
                self.loop.resume(task)
            self.loop.run(self._tick, self.tick_seconds)
        except (socket.gaierror, MemoryError) as error:
            self.failed(error)

    def _tick(self) -> None:
        is_asked, self._is_asked = self._is_asked, False
        self.tick(is_asked)

    def _stop(self, number: int, frame: Any) -> None:
        """End the run within a tick, and the program at a second signal,
        whatever blocks it."""
        signal.signal(number, signal.SIG_DFL)
        self.signal = number
        self.loop.running = False

    def _show(self, number: int, frame: Any) -> None:
        self._is_asked = True

    def diagnose(self, error: Exception) -> Diagnosis:
        """Return the diagnosis, which has its effect on the exit code."""
        diagnosis = diagnose(error, self.address)
        self.code = max(self.code, diagnosis.code)
        return diagnosis

    def tasks(self, places: List[Place]) -> Iterator[Task]:
        raise NotImplementedError

    def failed(self, error: Exception) -> None:
        raise NotImplementedError

    def tick(self, is_asked: bool) -> None:
        raise NotImplementedError

    def end(self) -> None:
        raise NotImplementedError
