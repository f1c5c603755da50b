"""How long may a connection be silent?  The --idle of the client program.

There is one connection for each of the silences to be tried, all at the same
time.  Each is verified, left alone for so long, and verified again.  A cut
that shows is told at once, with its time; one that does not, because the box
that cut it sent nothing, is found out by asking again.

If this program stood still meanwhile, a silence was longer than it should be.
The probe then counts the real length.
"""

from typing import Any, Dict, List, Tuple

from .connecting import connect
from .connection import Connection
from .diagnosis import CUT, diagnose
from .errors import WrongEcho
from .running import Run
from .waiting import Task

__all__ = ["run"]


def run(args: Any) -> int:
    """Try the silences that args name; return the exit code."""
    probe = Probe(args)
    return probe.run(map(probe.silence, args.idle))


class Probe(Run):
    """One idle probe: what has become of each silence, and how it is told.

    Attribute failures has the errors that are no cuts: no silence was tried,
    or a wrong echo came.
    """

    def __init__(self, args: Any) -> None:
        super().__init__(args)
        self._unfinished: List[float] = list(args.idle)
        self._alive: List[float] = []
        self._cuts: List[Tuple[float, float, str]] = []  # silence, after, word

    def silence(self, seconds: float) -> Task:
        """Try a silence of so many seconds, as a task."""
        # A silence that was cut may have begun as soon as it was asked, one
        # that was not began when the reply was seen.
        tasks, timeout, begun = self.tasks, self.args.timeout, None
        try:
            with Connection(self.address, timeout, (yield from connect(
                    self.address, timeout))) as connection:
                asked = tasks.standstill
                yield from connection.exchange(b"before %g s" % seconds)
                begun, standstill = tasks.now, tasks.standstill
                yield from connection.rest(tasks, begun + seconds)
                silence = round(seconds + tasks.standstill - standstill, 3)
                yield from connection.exchange(b"after %g s" % seconds)
            self._alive.append(silence)
            self._say("silent for %g s: alive" % silence)
        except (OSError, WrongEcho) as error:
            if begun is None or isinstance(error, WrongEcho):
                self.tell_failure(error)
            else:
                self._note_cut(error, seconds, tasks.now - begun,
                               tasks.standstill - asked)
        self._unfinished.remove(seconds)

    def _note_cut(self, error: OSError, seconds: float, after: float,
                  standstill: float) -> None:
        """Count a silence of so many seconds that was cut, as was seen after
        some, beside those for which this program stood still."""
        word = diagnose(error, self.address)[1]
        how = "lost, as was found when it was asked again"
        if standstill:
            how = "cut while this program stood still, or since"
            seconds = round(min(after, seconds) + standstill, 3)
        elif after < seconds:
            how = "cut after %.1f s" % after
        self.failures.worsen(CUT)
        self._cuts.append((seconds, round(after + standstill, 3), word))
        self._say("silent for %g s: %s (%s)" % (seconds, how, word))

    def _say(self, line: str) -> None:
        if not self.args.quiet:
            self.say(line)

    def so_far(self) -> List[str]:
        """Return the state of all connections, as a line."""
        count, cut = len(self.args.idle), len(self._cuts)
        failed = sum(self.failures.words.values())
        return ["after %.1f s: of %d connections %d alive, %d cut, %d failed"
                % (self.tasks.now + self.tasks.standstill - self.start,
                   count, count - cut - failed, cut, failed)]

    def progress(self) -> None:
        """Show the state of all connections."""
        if not self.args.quiet:
            self.show(*self.so_far())

    def figures(self) -> Dict[str, Any]:
        """Return all figures: the longest silence that was borne, the shortest
        that was not, and each."""
        longest = max(self._alive, default=None)
        return dict(
            super().figures(), alive_after_seconds=longest,
            cut_within_seconds=min(
                (cut[0] for cut in self._cuts if longest is None
                 or cut[0] > longest), default=None),
            asked_seconds=self.args.idle, alive_seconds=sorted(self._alive),
            cuts=[dict(zip(("seconds", "after_seconds", "word"), cut))
                  for cut in sorted(self._cuts)],
            unfinished_seconds=self._unfinished)

    def conclusion(self) -> List[str]:
        """Return what is known of a limit."""
        longest, shortest = map(self.figures().get, (
            "alive_after_seconds", "cut_within_seconds"))
        seen = " and ".join("%.1f" % after for after in sorted({
            after for seconds, after, _ in self._cuts if after < seconds}))
        lines = self.so_far() if self.tasks.signal else []
        if shortest is not None:
            lines += ["cut %s %g s%s; if the server has no limit itself "
                      "(echoserver --idle-timeout 0), something in between has"
                      % ("within" if longest is None else "between %g and"
                         % longest, shortest, seen and ", after %s s" % seen)]
        elif len(self._alive) == len(self.args.idle):
            lines += ["alive after all of them"]
        elif longest is not None:
            lines += ["alive after %g s%s" % (
                longest, ": what was cut sooner has another reason"
                if self._cuts else "")]
        return lines
