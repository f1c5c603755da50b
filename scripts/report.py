"""What a soak shows: its progress while it runs, and the table at its end."""

import sys
from time import monotonic
from typing import Any, List, Optional, Tuple

__all__ = ["Progress", "Row", "table"]

HEADS = ["fault", "times", "lost", "traceb.", "stall", "p99", "descr.",
         "after", "memory", "after"]
TRACEBACK = "Traceback (most recent call last)"


class Row:

    """A line of the table, and what is to be said under it.

    Instance variables: times, lost, tracebacks; stall and p99 in seconds;
    before and after, pairs of descriptors and bytes of memory; problems,
    which make the soak fail, and notes, which do not.
    """

    def __init__(self, name: str, *notes: str) -> None:
        self.name = name
        self.times = self.lost = self.tracebacks = 0
        self.stall = self.p99 = 0.0
        self.before = self.after = (None, None)  # type: Tuple[Any, Any]
        self.problems = []  # type: List[str]
        self.notes = list(notes)

    def lose(self, tally: Any) -> None:
        """Take over what honest clients have lost."""
        self.lost += tally.lost
        self.problems += tally.problems

    def count(self, tally: Any) -> None:
        """Take over what honest clients have seen."""
        self.lose(tally)
        self.stall = max(self.stall, tally.stall)
        self.p99 = max(self.p99, tally.percentile(0.99))

    def read_log(self, text: str) -> None:
        """Count the tracebacks, and show the first."""
        found = text.count(TRACEBACK)
        self.tracebacks += found
        if found:
            at = text.index(TRACEBACK)
            self.problems.append("the log has a traceback:\n"
                                 + text[max(at - 100, 0):at + 2000])

    @property
    def bad(self) -> bool:
        return bool(self.lost or self.tracebacks or self.problems)

    def cells(self) -> List[str]:
        def number(value: Any, scale: float, form: str) -> str:
            return "-" if value is None else form % (value * scale)
        return ([self.name, str(self.times), str(self.lost),
                 str(self.tracebacks)]
                + [number(value or None, 1e3, "%.1f")
                   for value in (self.stall, self.p99)]
                + [number(value, 1, "%d")
                   for value in (self.before[0], self.after[0])]
                + [number(value, 2 ** -20, "%.1f")
                   for value in (self.before[1], self.after[1])])


def table(rows: List[Row]) -> str:
    """Return the table of rows, and what else is to be known."""
    cells = [HEADS] + [row.cells() for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ["  ".join([line[0].ljust(widths[0])] + [
        cell.rjust(width) for cell, width in zip(line[1:], widths[1:])])
        for line in cells]
    for row in rows:
        lines += ["- %s: %s" % (row.name, note) for note in row.notes]
    for row in rows:
        lines += ["! %s: %s" % (row.name, text) for text in row.problems[:5]]
        if row.problems[5:]:
            lines.append("! %s: ... and %d more" % (
                row.name, len(row.problems) - 5))
    return "\n".join(lines)


class Progress:

    """One line, redrawn on a terminal; elsewhere a line for each fault."""

    def __init__(self, model: str, seconds: float) -> None:
        self.model = model
        self.seconds = seconds
        self.began = monotonic()
        self._last = ""

    def __call__(self, name: str, done: Optional[int] = None,
                 times: int = 0) -> None:
        text = "%3d of %d s  %s: %s" % (monotonic() - self.began,
                                        self.seconds, self.model, name)
        if sys.stdout.isatty():
            if done is not None:
                text += " %d/%d" % (done, times)
            sys.stdout.write("\r%-79.79s" % text)
        elif name != self._last:
            sys.stdout.write(text + "\n")
        self._last = name
        sys.stdout.flush()

    def end(self) -> None:
        if sys.stdout.isatty():
            sys.stdout.write("\r%79s\r" % "")
