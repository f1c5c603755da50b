"""How long may a connection be silent?  The --idle of the client program.

There is one connection for each of the silences to be tried, all at the same
time.  Each is verified, left alone for so long, and verified again.  A cut
that shows is told at once, with its time; one that does not, because what cut
it kept it to itself, is found out by asking again.
"""

import argparse
import json
import socket
from typing import Dict, List, Tuple

from .connecting import Place, connect, lookup
from .connection import Connection, WrongEcho
from .diagnosis import OK, diagnose
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
        self._alive: List[float] = []
        self._cut: Dict[float, Tuple[float, str]] = {}      # after, word

    def run(self) -> int:
        """Return the exit code, after the summary."""
        start = self._tasks.now
        try:
            places = lookup(self._address)
            for seconds in self._args.idle:
                self._tasks.resume(self._try(places, seconds))
            self._tasks.run(lambda: self._show(self._tasks.now - start))
        except (socket.gaierror, MemoryError) as error:
            self._note(error)
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
            self._note(error, seconds, begun and self._tasks.now - begun)
        else:
            self._alive.append(seconds)
            self._say("silent for %g s: alive" % seconds)

    def _note(self, error: Exception, seconds: float = 0,
              after: float = 0) -> None:
        """Tell of an error, after so much silence or before there was any."""
        code, word, line = diagnose(error, self._address)
        self._code = max(self._code, code)
        if after:
            self._cut[seconds] = after, word
            self._say("silent for %g s: %s (%s)" % (
                seconds, "cut after %.1f s" % after if after < seconds
                else "lost, as was found when it was asked again", word))
        else:
            self._progress.erase()
            tell(stamped(self._args, line))

    def _say(self, line: str) -> None:
        self._progress.erase()
        if not (self._args.json or self._args.quiet):
            put(stamped(self._args, line))

    def _show(self, seconds: float) -> None:
        text = "%.0f s: of %d connections %d were alive, %d cut" % (
            seconds, len(self._args.idle), len(self._alive), len(self._cut))
        if self._tasks.is_asked:
            self._tasks.is_asked = False
            self._progress.erase(True)
            tell(text)
        elif not self._args.quiet:
            self._progress.show(text)

    def _summarize(self) -> None:
        """Print the longest silence that was borne, the shortest that not."""
        self._progress.erase(self._tasks.signal > 0)
        shortest = min(self._cut, default=None)
        longest = max((seconds for seconds in self._alive if shortest is None
                       or seconds < shortest), default=None)
        if self._args.json:
            put(json.dumps({
                "host": self._args.host, "port": self._args.port,
                "alive_after_seconds": longest, "cut_within_seconds": shortest,
                "cuts": [{"seconds": seconds, "after_seconds": round(after, 3),
                          "word": word} for seconds, (after, word)
                         in sorted(self._cut.items())]}))
        elif shortest is not None:
            put("cut %s %g s; if the server has no limit itself (echoserver "
                "--idle-timeout 0), something in between has" % (
                    "within" if longest is None else "between %g and"
                    % longest, shortest))
        elif longest is not None:
            put("alive after all of them" if longest == max(self._args.idle)
                else "alive after %g s" % longest)
