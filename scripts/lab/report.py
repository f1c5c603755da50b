"""What soak.py shows: a row for each fault, and the last words."""

from typing import Any, Dict, List, Optional, Sequence, Tuple

__all__ = ["HEAD", "Row", "counted", "show_time", "verdict"]

HEAD = ("fault                     times   lost traceb.   stall     p99  "
        "descr.   after  memory   after")
TRACEBACK = "Traceback (most recent call last)"


def counted(count: int, noun: str) -> str:
    return "%d %s%s" % (count, noun, "" if count == 1 else "s")


def show_time(seconds: float) -> str:
    return ("%.2f s" % seconds if seconds >= 0.9995
            else "%.3g ms" % (seconds * 1e3) if seconds >= 1e-4
            else "%.3g us" % (seconds * 1e6))


# A server's descriptors and bytes of memory, where they can be told.
Use = Tuple[Optional[int], Optional[int]]


class Row:

    """A line of the table, and what is to be said under it.

    Instance variables: times; lost, the messages of honest clients without a
    good reply; stall and p99, in microseconds, of those that have one;
    tracebacks; before and after, the server's descriptors and its bytes of
    memory; may_log, the end of the only lines that are due in its log;
    problems, which make the soak fail, and notes, which do not.
    """

    def __init__(self, name: str) -> None:
        self.name, self.may_log = name, ""
        self.times = self.lost = self.tracebacks = 0
        self.stall: Optional[float] = None
        self.p99: Optional[float] = None
        self.before: Use = (None, None)
        self.after: Use = (None, None)
        self.problems: List[str] = []
        self.notes: List[str] = []

    def add(self, figures: Dict[str, Any]) -> None:
        """Take over what a client program has measured and lost."""
        self.stall, self.p99 = figures["wait_max_us"], figures["wait_p99_us"]
        self.lost += figures["messages_lost"] + figures["replies_wrong"]
        if figures["failures"]:
            self.problems.append("honest clients: %s" % figures[
                "first_failure"])

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
        cells = ["%.1f" % (each / 1e3) if each else "-"
                 for each in (self.stall, self.p99)]
        cells += ["%d" % use[0] if use[0] else "-"
                  for use in (self.before, self.after)]
        cells += ["%.1f" % (use[1] / 2**20) if use[1] else "-"
                  for use in (self.before, self.after)]
        lines = ["%-24s %6d %6d %7d" % (
            self.name, self.times, self.lost, self.tracebacks)
            + "".join("%8s" % cell for cell in cells)]
        lines += ["  - " + note for note in self.notes]
        lines += ["  ! " + problem for problem in self.problems[:5]]
        lines += ["  ! ... and more"] * (len(self.problems) > 5)
        return "\n".join(lines)


def verdict(rows: List[Row], left_out: Sequence[str] = ()) -> str:
    """Return the last words about a model, which begin with FAILED if so."""
    tried, left = (sum(not name.startswith("quiet") for name in names)
                   for names in ([row.name for row in rows], left_out))
    if not tried:
        return "FAILED: no fault was tried."
    problems = sum(len(row.problems) for row in rows)
    return "%s %d of %s tried." % (
        "FAILED: %s lost, %s, %s (!) in all." % (
            counted(sum(row.lost for row in rows), "message"),
            counted(sum(row.tracebacks for row in rows), "traceback"),
            counted(problems, "problem")) if problems else
        "Nothing was lost, there was no traceback and no problem.",
        tried, counted(tried + left, "fault"))
