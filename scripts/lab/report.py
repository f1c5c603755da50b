"""What soak.py shows: a row for each fault, and the last words."""

from typing import List, Optional, Sequence, Tuple

from .tally import Tally

__all__ = ["HEAD", "Row", "counted", "verdict"]

HEAD = ("fault                     times   lost traceb.   stall     p99  "
        "descr.   after  memory   after")
TRACEBACK = "Traceback (most recent call last)"


def counted(count: int, noun: str) -> str:
    return "%d %s%s" % (count, noun, "" if count == 1 else "s")


# A server's descriptors and bytes of memory, where they can be told.
Use = Tuple[Optional[int], Optional[int]]


class Row:

    """A line of the table, and what is to be said under it.

    Instance variables: times; tally, of the honest clients; tracebacks;
    before and after, the server's descriptors and its bytes of memory;
    may_log, the end of the only lines that are due in its log; problems, which
    make the soak fail, and notes, which do not.
    """

    def __init__(self, name: str) -> None:
        self.name, self.may_log = name, ""
        self.times = self.tracebacks = 0
        self.tally = Tally()
        self.before: Use = (None, None)
        self.after: Use = (None, None)
        self.problems: List[str] = []
        self.notes: List[str] = []

    def lose(self, tally: Tally) -> None:
        """Take over what honest clients have lost, and not their times."""
        self.tally.lost += tally.lost
        self.tally.problems += tally.problems

    def read_log(self, text: str) -> None:
        """Count the tracebacks, and show the first."""
        found = text.count(TRACEBACK)
        self.tracebacks += found
        if found:
            at = text.index(TRACEBACK)
            self.problems.append("the log has a traceback:\n"
                                 + text[max(at - 100, 0):at + 2000])
        self.problems += ["in the log: " + line for line in text.splitlines()
                          if not line.endswith(self.may_log)]

    def __str__(self) -> str:
        def show(value: Optional[float], scale: float, form: str) -> str:
            return form % (value * scale) if value else "-"
        cells = [show(value, 1e3, "%.1f") for value in (
            self.tally.stall, self.tally.quantile(0.99)[0])]
        cells += [show(use[0], 1, "%d") for use in (self.before, self.after)]
        cells += [show(use[1], 2 ** -20, "%.1f")
                  for use in (self.before, self.after)]
        lines = ["%-24s %6d %6d %7d" % (
            self.name, self.times, self.tally.lost, self.tracebacks)
            + "".join("%8s" % cell for cell in cells)]
        lines += ["  - " + note for note in self.notes]
        problems = self.problems + self.tally.problems
        lines += ["  ! " + problem for problem in problems[:5]]
        if problems[5:]:
            lines.append("  ! ... and %d more" % len(problems[5:]))
        return "\n".join(lines)


def verdict(rows: List[Row],
            left_out: Sequence[str] = ()) -> Tuple[str, int]:
    """Return the last words about a model, and the exit status."""
    tried, left = (sum(not name.startswith("quiet") for name in names)
                   for names in ([row.name for row in rows], left_out))
    if not tried:
        return "FAILED: no fault was tried.", 1
    share = "%d of %s tried." % (tried, counted(tried + left, "fault"))
    lost = sum(row.tally.lost for row in rows)
    tracebacks = sum(row.tracebacks for row in rows)
    problems = sum(len(row.tally.problems + row.problems) for row in rows)
    if problems:
        return "FAILED: %s lost, %s, %s (!) in all. %s" % (
            counted(lost, "byte"), counted(tracebacks, "traceback"),
            counted(problems, "problem"), share), 1
    return ("Nothing was lost, there was no traceback and no problem. "
            + share, 0)
