"""How long may a connection be silent?  The --idle of the client program.

There is one connection for each of the silences to be tried, all at the same
time.  Each is verified, left alone for so long, and verified again.  A cut
that shows is told at once, with its time; one that does not, because what cut
it kept it to itself, is found out by asking again.
"""

import argparse
import json
import socket
from typing import Dict, List, Optional, Tuple

from .connecting import Place, connect, lookup
from .connection import Connection
from .diagnosis import OK, diagnose
from .errors import WrongEcho
from .output import Progress, put, stamped, tell
from .waiting import READ, Tasks, ready

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
        self._code = OK
        self._progress = Progress()
        self._start = tasks.now
        self._alive: List[float] = []
        self._cut: Dict[float, Tuple[float, str]] = {}      # after, word
        # What is no cut, by word: nothing was tried, or a wrong echo came.
        self._failures: Dict[str, int] = {}
        self._first_failure: Optional[str] = None

    def run(self) -> int:
        """Return the exit code, after the summary."""
        try:
            places = lookup(self._address)
            for seconds in self._args.idle:
                self._tasks.resume(self._try(places, seconds))
            self._tasks.run(lambda: self._show(self._tasks.now - self._start))
        except (socket.gaierror, MemoryError) as error:
            self._fail(error)
        self._summarize()
        return 128 + self._tasks.signal if self._tasks.signal else self._code

    async def _try(self, places: List[Place], seconds: float) -> None:
        timeout, begun = self._args.timeout, 0.0
        try:
            with Connection(self._address, timeout, await connect(
                    self._address, places, timeout)) as connection:
                await connection.exchange(b"before %g s" % seconds)
                begun = self._tasks.now
                if (await ready(connection, READ, begun + seconds)
                        and connection.receive() is not None):
                    raise connection.ended_early()
                await connection.exchange(b"after %g s" % seconds)
        except (OSError, WrongEcho) as error:
            if begun and isinstance(error, OSError):
                self._note_cut(error, seconds, self._tasks.now - begun)
            else:
                self._fail(error)
        else:
            self._alive.append(seconds)
            self._say("silent for %g s: alive" % seconds)

    def _note_cut(self, error: OSError, seconds: float, after: float) -> None:
        code, word, _ = diagnose(error, self._address)
        self._code = max(self._code, code)
        self._cut[seconds] = after, word
        self._say("silent for %g s: %s (%s)" % (
            seconds, "cut after %.1f s" % after if after < seconds
            else "lost, as was found when it was asked again", word))

    def _fail(self, error: Exception) -> None:
        """Tell of what says nothing about silences."""
        code, word, line = diagnose(error, self._address)
        self._code = max(self._code, code)
        self._failures[word] = self._failures.get(word, 0) + 1
        self._first_failure = self._first_failure or line
        self._progress.erase()
        tell(stamped(self._args, line))

    def _say(self, line: str) -> None:
        self._progress.erase()
        if not (self._args.json or self._args.quiet):
            put(stamped(self._args, line))

    def _state(self, seconds: float) -> str:
        count, cut = len(self._args.idle), len(self._cut)
        failed = sum(self._failures.values())
        return ("after %.1f s: of %d connections %d alive, %d cut, %d failed"
                % (seconds, count, count - cut - failed, cut, failed))

    def _show(self, seconds: float) -> None:
        text = self._state(seconds)
        if self._tasks.is_asked:
            self._tasks.is_asked = False
            self._progress.erase(True)
            tell(text)
        elif not self._args.quiet:
            self._progress.show(text)

    def _summarize(self) -> None:
        """Print the longest silence that was borne, the shortest that not."""
        self._progress.erase(self._tasks.signal > 0)
        longest = max(self._alive, default=None)
        shortest = min((seconds for seconds in self._cut if longest is None
                        or seconds > longest), default=None)
        if self._args.json:
            put(json.dumps({
                "host": self._args.host, "port": self._args.port,
                "alive_after_seconds": longest, "cut_within_seconds": shortest,
                "cuts": [{"seconds": seconds, "after_seconds": round(after, 3),
                          "word": word} for seconds, (after, word)
                         in sorted(self._cut.items())],
                "failures": self._failures,
                "first_failure": self._first_failure}))
            return
        if self._tasks.signal:
            put(self._state(self._tasks.now - self._start))
        if shortest is not None:
            put("cut %s %g s%s; if the server has no limit itself (echoserver "
                "--idle-timeout 0), something in between has" % (
                    "within" if longest is None else "between %g and"
                    % longest, shortest, self._seen()))
        elif longest is not None and self._cut:
            put("alive after %g s: what was cut sooner has another reason"
                % longest)
        elif longest is not None:
            put("alive after all of them" if len(self._alive) == len(
                self._args.idle) else "alive after %g s" % longest)

    def _seen(self) -> str:
        """Return when the cuts came, as far as they showed."""
        times = ["%.1f" % after for seconds, (after, _)
                 in sorted(self._cut.items()) if after < seconds]
        return ", after %s s" % " and ".join(
            sorted(set(times), key=float)) if times else ""
