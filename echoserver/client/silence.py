"""How long may a connection be silent?  The --idle of the client program.

There is one connection for each of the silences to be tried, all at the same
time.  Each is verified, left alone for so long, and verified again.  A cut
that shows is told at once, with its time; one that does not, because what cut
it forgot to say so, is found out by asking again.
"""

import argparse
import json
from time import perf_counter
from typing import Any, Dict, Iterator, List, Tuple

from .connecting import Place, connect
from .connection import Connection, WrongEcho
from .output import Progress, put, tell
from .report import stamped
from .run import Run
from .waiting import READ, Task, ready

__all__ = ["Probe", "run"]


def run(args: argparse.Namespace) -> int:
    """Try the silences that args name; return the exit code."""
    return Probe(args).run()


class Probe(Run):
    """One idle probe."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        self._progress = Progress()
        # What became of each silence: cut after so long and with that word.
        self._alive: List[float] = []
        self._cut: Dict[float, Tuple[float, str]] = {}

    def tasks(self, places: List[Place]) -> Iterator[Task]:
        return (self._probe(places, seconds) for seconds in self.args.idle)

    def failed(self, error: Exception) -> None:
        self._progress.erase()
        tell(stamped(self.args, self.diagnose(error).line))

    def tick(self, is_asked: bool) -> None:
        text = "%.0f s of silence: %d of %d alive, %d cut" % (
            perf_counter() - self.start, len(self._alive),
            len(self.args.idle), len(self._cut))
        if is_asked:
            tell(text)
        elif self._progress.exists and not self.args.quiet:
            self._progress.show(text)

    async def _probe(self, places: List[Place], seconds: float) -> None:
        args, begun = self.args, 0.0
        try:
            with Connection(self.address, args.timeout, await connect(
                    self.address, places, args.timeout)) as connection:
                await connection.exchange(b"before %g s" % seconds)
                begun = self.loop.now
                if (await ready(connection, READ, begun + seconds)
                        and connection.receive() is not None):
                    raise connection.ended_early()
                await connection.exchange(b"after %g s" % seconds)
                self._alive.append(seconds)
                self._say("silent for %g s: alive" % seconds)
        except (OSError, WrongEcho) as error:
            if begun:
                self._note_cut(seconds, self.loop.now - begun,
                               self.diagnose(error).word)
            else:
                self.failed(error)

    def _note_cut(self, seconds: float, after: float, word: str) -> None:
        self._cut[seconds] = after, word
        self._say("silent for %g s: %s (%s)" % (
            seconds, "cut after %.1f s" % after if after < seconds
            else "lost, as was found when it was asked again", word))

    def _say(self, line: str) -> None:
        self._progress.erase()
        if not (self.args.json or self.args.quiet):
            put(stamped(self.args, line))

    def end(self) -> None:
        self._progress.erase()
        shortest = min(self._cut, default=None)
        longest = max((seconds for seconds in self._alive
                       if shortest is None or seconds < shortest),
                      default=None)
        if self.args.json:
            put(json.dumps({
                "host": self.args.host, "port": self.args.port,
                "alive_after_seconds": longest,
                "cut_within_seconds": shortest,
                "cuts": [{"seconds": seconds, "after_seconds": round(after, 3),
                          "word": word} for seconds, (after, word)
                         in sorted(self._cut.items())]}))
        elif shortest is not None:
            put("cut %s %g s; if the server has no limit itself (echoserver "
                "--idle-timeout 0), something in between has" % (
                    "within" if longest is None else "between %g and"
                    % longest, shortest))
        elif longest is not None:
            put("alive after all of them" if longest == max(self.args.idle)
                else "alive after %g s" % longest)
