"""What --count and --idle share: how a run begins, speaks and ends."""

import contextlib
import json
import os
import sys
from typing import Any, Dict, Iterable

from .diagnosis import Failures
from .output import now, put, tell
from .waiting import Task, Tasks

__all__ = ["Run"]


class Run:
    """A run of the client program that measures something.

    It says lines, with the time of day if args ask for it, and shows one that
    changes on standard error, where that is a terminal (is_shown).

    A derived class has progress(), to show how it goes, several times a
    second; so_far(), which returns lines about that; and conclusion(), which
    returns those of the end.  It may add to figures().
    """

    def __init__(self, args: Any) -> None:
        self.args, self.tasks = args, Tasks()
        self.address = args.host, args.port
        self.failures = Failures(self.address)
        self.start, self.started = self.tasks.now, now()
        self.is_shown = sys.stderr.isatty()
        self._columns = 0       # that the changing line takes at present
        self._told = 0.0        # seconds of standstill

    def run(self: Any, first: Iterable[Task]) -> int:
        """Begin with the first tasks; return the exit code at the end."""
        with self.tasks as tasks:
            try:
                tasks.run(first, self._tick, self.is_owed)
            except MemoryError as error:
                self.tell_failure(error)
            self._tell_standstill()
            self.erase(tasks.signal > 0)
            self.summarize()
        return int(tasks.signal and 128 + tasks.signal or self.failures.code)

    def is_owed(self) -> bool:
        """Return whether to wait for replies when the run has been stopped."""
        return False

    def _tell_standstill(self) -> None:
        new, self._told = (self.tasks.standstill - self._told,
                           self.tasks.standstill)
        if new:
            self.tell("this program stood still for %.1f s; no wait and no "
                      "round trip has this time in it" % new)

    def _tick(self: Any) -> None:
        self._tell_standstill()
        if self.tasks.is_asked:
            self.tasks.is_asked = False
            self.erase(True)
            self.tell(*self.so_far())
        self.progress()

    def tell_failure(self, error: Exception, details: str = "") -> None:
        """Count and tell a failure."""
        self.tell(self.failures.note(error)[1] + details)

    def summarize(self: Any) -> None:
        """Print the end of it, as one JSON object if args ask for that."""
        if self.args.json:
            put(json.dumps(self.figures(), allow_nan=False))
        self.say(*self.conclusion())

    def figures(self) -> Dict[str, Any]:
        """Return the figures that every run has."""
        return {"host": self.args.host, "port": self.args.port,
                "started": self.started, "failures": self.failures.words,
                "first_failure": self.failures.first,
                "stopped_seconds": round(self.tasks.standstill, 6)}

    def say(self, *lines: str) -> None:
        """Print lines on standard output, unless that is for JSON."""
        if not self.args.json:
            self._print(put, lines)

    def tell(self, *lines: str) -> None:
        """Print lines on standard error."""
        self._print(tell, lines)

    def _print(self, function: Any, lines: Iterable[str]) -> None:
        self.erase()
        for line in lines:
            function("%s %s" % (now(), line) if self.args.timestamps else line)

    def show(self, text: str) -> None:
        """Show text as the line that changes."""
        with contextlib.suppress(OSError):  # no terminal, or one that is gone
            columns = os.get_terminal_size(sys.stderr.fileno()).columns
            # Not the last three: room for ^C and the cursor behind it.
            self._columns = max((columns or 80) - 3, 0)
            tell("\r" + text[:self._columns].ljust(self._columns), end="")

    def erase(self, key: bool = False) -> None:
        """Make place for other lines; leave the one where the terminal has
        shown a key, such as ^C."""
        if key and self.is_shown:
            tell("")
        if self._columns:
            tell("\r%*s\r" % (self._columns, ""), end="")
            self._columns = 0
