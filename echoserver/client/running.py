"""What --count and --idle share: tasks, failures, and how a run ends."""

import argparse
from typing import Any, Callable, Dict, Iterable, List

from .diagnosis import Failures
from .output import Voice, now
from .waiting import Task, Tasks

__all__ = ["Run"]


class Run:
    """A run of the client program that measures something.

    A derived class has first_tasks(), the tasks to begin with; is_owed(),
    whether to wait for replies when the run has been stopped; progress(), to
    show how it goes, several times a second; so_far(), which returns lines
    about that; and summarize(), which prints the end of it.
    """

    first_tasks: Callable[[], Iterable[Task]]
    is_owed: Callable[[], bool]
    progress: Callable[[], None]
    so_far: Callable[[], List[str]]
    summarize: Callable[[], None]

    def __init__(self, args: argparse.Namespace, tasks: Tasks) -> None:
        self.args, self.tasks = args, tasks
        self.address = args.host, args.port
        self.voice = Voice(args)
        self.failures = Failures(self.address)
        self.start, self.started = tasks.now, now()

    def tell_failure(self, error: Exception, details: str = "") -> None:
        """Count and tell a failure."""
        self.voice.tell(self.failures.note(error)[1] + details)

    def figures(self) -> Dict[str, Any]:
        """Return the figures that every run has."""
        return {"host": self.args.host, "port": self.args.port,
                "started": self.started, "failures": self.failures.words,
                "first_failure": self.failures.first,
                "stopped_seconds": round(self.tasks.standstill, 6)}

    def run(self) -> int:
        """Return the exit code, after the summary."""
        tasks = self.tasks
        try:
            for task in self.first_tasks():
                tasks.start(task)
            tasks.run(self._tick, self.is_owed)
        except MemoryError as error:
            self.tell_failure(error)
        self.voice.erase(tasks.signal > 0)
        self.summarize()
        return 128 + tasks.signal if tasks.signal else self.failures.code

    def _tick(self) -> None:
        standstill = self.tasks.new_standstill()
        if standstill:
            self.voice.tell("this program stood still for %.1f s, which counts "
                            "as no time of the server's" % standstill)
        if self.tasks.is_asked:
            self.tasks.is_asked = False
            self.voice.erase(True)
            self.voice.tell(*self.so_far())
        self.progress()
