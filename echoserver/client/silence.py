"""How long may a connection be silent?  The --idle of the client program.

There is one connection for each of the silences to be tried, all at the same
time.  Each is verified, left alone for so long, and verified again.  A cut
that shows is told at once, with its time; one that does not, because the box
that cut it sent nothing, is found out by asking again.

If this program stood still meanwhile, a silence was longer than it should be.
It then counts as what it was.
"""

import argparse
import json
from typing import Any, Dict, List, Optional, Tuple

from .connecting import connect
from .connection import Connection
from .diagnosis import CUT, Failures, diagnose
from .errors import WrongEcho
from .output import Progress, now, put, stamped, tell
from .waiting import Task, Tasks

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Try the silences that args name; return the exit code."""
    with Tasks() as tasks:
        return Probe(args, tasks).run()


class Probe:
    """One idle probe: what has become of each silence, and how it is told."""

    def __init__(self, args: argparse.Namespace, tasks: Tasks) -> None:
        self._args = args
        self._address = args.host, args.port
        self._tasks = tasks
        # What is no cut: no silence was tried, or a wrong echo came.
        self._failures = Failures(self._address)
        self._progress = Progress()
        self._started = now()
        self._start, self._standstill_told = tasks.now, 0.0
        self._unfinished: List[float] = list(args.idle)
        self._alive: List[float] = []
        self._cuts: List[Tuple[float, float, str]] = []  # silence, after, word

    def run(self) -> int:
        """Return the exit code, after the summary."""
        try:
            for seconds in self._args.idle:
                self._tasks.start(self._try(seconds))
            self._tasks.run(self._tick)
        except MemoryError as error:
            self._fail(error)
        self._summarize()
        return (128 + self._tasks.signal if self._tasks.signal
                else self._failures.code)

    def _try(self, seconds: float) -> Task:
        tasks, timeout, begun = self._tasks, self._args.timeout, None
        try:
            with Connection(self._address, timeout, (yield from connect(
                    self._address, timeout))) as connection:
                yield from connection.exchange(b"before %g s" % seconds)
                begun, standstill = tasks.now, tasks.standstill
                while tasks.now < begun + seconds:
                    if ((yield connection.reading,
                         begun + seconds - tasks.now)
                            and connection.receive() is not None):
                        raise connection.ended_early()
                yield from connection.exchange(b"after %g s" % seconds)
        except (OSError, WrongEcho) as error:
            self._unfinished.remove(seconds)
            if begun is None or isinstance(error, WrongEcho):
                self._fail(error)
                return
            self._note_cut(error, seconds, tasks.now - begun,
                           tasks.standstill - standstill)
        else:
            self._unfinished.remove(seconds)
            silence = seconds + tasks.standstill - standstill
            self._alive.append(silence)
            self._say("silent for %s s: alive" % _short(silence))

    def _note_cut(self, error: OSError, seconds: float, after: float,
                  standstill: float) -> None:
        """Count a silence of so many seconds that was cut, as was seen after
        some, beside those for which this program stood still."""
        word = diagnose(error, self._address)[1]
        how = "lost, as was found when it was asked again"
        if standstill:
            how = "cut while this program stood still, or since"
            seconds = min(after, seconds) + standstill
        elif after < seconds:
            how = "cut after %.1f s" % after
        self._failures.worsen(CUT)
        self._cuts.append((seconds, after + standstill, word))
        self._say("silent for %s s: %s (%s)" % (_short(seconds), how, word))

    def _fail(self, error: Exception) -> None:
        """Tell of what says nothing about silences."""
        self._tell(self._failures.note(error)[1])

    def _tell(self, line: str) -> None:
        self._progress.erase()
        tell(stamped(self._args, line))

    def _say(self, line: str) -> None:
        self._progress.erase()
        if not (self._args.json or self._args.quiet):
            put(stamped(self._args, line))

    def _state(self) -> str:
        count, cut = len(self._args.idle), len(self._cuts)
        failed = sum(self._failures.words.values())
        return ("after %.1f s: of %d connections %d alive, %d cut, %d failed"
                % (self._tasks.now + self._tasks.standstill - self._start,
                   count, count - cut - failed, cut, failed))

    def _tick(self) -> None:
        more = self._tasks.standstill - self._standstill_told
        if more:
            self._standstill_told += more
            self._tell("this program stood still for %.1f s; a silence counts "
                       "as what it was" % more)
        if self._tasks.is_asked:
            self._tasks.is_asked = False
            self._progress.erase(True)
            tell(stamped(self._args, self._state()))
        elif not self._args.quiet:
            self._progress.show(self._state())

    def _summarize(self) -> None:
        """Print the longest silence that was borne, the shortest that not."""
        self._progress.erase(self._tasks.signal > 0)
        longest = max(self._alive, default=None)
        shortest = min((seconds for seconds, _, _ in self._cuts
                        if longest is None or seconds > longest), default=None)
        if self._args.json:
            put(json.dumps(self._figures(longest, shortest)))
            return
        lines = [self._state()] if self._tasks.signal else []
        if shortest is not None:
            lines.append(
                "cut %s %s s%s; if the server has no limit itself (echoserver "
                "--idle-timeout 0), something in between has" % (
                    "within" if longest is None else "between %s and"
                    % _short(longest), _short(shortest), self._seen()))
        elif longest is not None:
            lines.append(
                "alive after all of them" if len(self._alive) == len(
                    self._args.idle) else "alive after %s s%s" % (
                        _short(longest), ": what was cut sooner has another "
                        "reason" if self._cuts else ""))
        for line in lines:
            put(stamped(self._args, line))

    def _figures(self, longest: Optional[float],
                 shortest: Optional[float]) -> Dict[str, Any]:
        return {
            "host": self._args.host, "port": self._args.port,
            "started": self._started, "asked_seconds": self._args.idle,
            "alive_seconds": sorted(self._alive),
            "unfinished_seconds": self._unfinished,
            "alive_after_seconds": longest, "cut_within_seconds": shortest,
            "cuts": [{"seconds": seconds, "after_seconds": round(after, 3),
                      "word": word} for seconds, after, word
                     in sorted(self._cuts)],
            "stopped_seconds": round(self._tasks.standstill, 6),
            "failures": self._failures.words,
            "first_failure": self._failures.first}

    def _seen(self) -> str:
        """Return when the cuts came, as far as they showed."""
        times = {"%.1f" % after for seconds, after, _ in self._cuts
                 if after < seconds}
        return ", after %s s" % " and ".join(
            sorted(times, key=float)) if times else ""


def _short(seconds: float) -> str:
    return "%g" % round(seconds, 3)
