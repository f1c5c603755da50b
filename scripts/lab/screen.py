"""Standard output, be it a terminal or not.

On a terminal there are colours, and rows are drawn again while they change.
In a pipe there is neither: rows are printed once, when they
are complete.  What rows are made of is ASCII, and is replaced by better
characters where the user's locale and the encoding have them.
"""

import itertools
import os
import shutil
import sys
import textwrap
from typing import Any, List

__all__ = ["ABSENT", "BOLD", "CUT", "GREEN", "QUEUED", "RED", "REPLY",
           "SILENT", "Screen", "WAITING"]

# What a client does in a part of its row.
ABSENT, SILENT, QUEUED, WAITING, REPLY, CUT = " .:-#x"

BETTER = {SILENT: "\u00b7", QUEUED: "\u2591", WAITING: "\u2592",
          REPLY: "\u2588", CUT: "\u00d7"}
COLOURS = {SILENT: "2", QUEUED: "31", WAITING: "33", REPLY: "32", CUT: "31"}
BOLD, GREEN, RED = "1", "1;32", "1;31"

WIDEST = 80


class Screen:

    """Prints text that is wrapped, and rows.

    Instance variables: width, in columns; live, whether rows are drawn while
    they change.
    """

    def __init__(self) -> None:
        self.width = min(shutil.get_terminal_size().columns, WIDEST)
        # None was closed before the program began.
        self.live = (sys.stdout is not None and sys.stdout.isatty()
                     and os.environ.get("TERM") != "dumb")
        self._better = BETTER if has_better() else {}
        self._drawn = 0     # rows that the next ones are drawn over

    def say(self, words: str, word: str = "", colour: str = "") -> None:
        """Print a paragraph; word is put before it, in that colour."""
        text = textwrap.fill((word + " " + words).strip(), self.width,
                             break_on_hyphens=False)    # as of options
        print(self._paint(word, colour) + text[len(word):], flush=True)

    def draw(self, rows: List[str], last: bool = True) -> None:
        """Print rows, over those before, unless these were the last."""
        if self.live or last:
            # After Ctrl-C the cursor is not at the beginning of its line.
            up = "\r\033[%dA" % self._drawn if self._drawn else ""
            erase = "\033[K" if self.live else ""
            print(up + "\n".join(erase + row for row in rows), flush=True)
            self._drawn = 0 if last else len(rows)

    def begin(self, *_: Any) -> None:
        """Draw the next rows below what is there now: after Ctrl-Z and fg
        those before are not at the end of it."""
        self._drawn = 0

    def symbol(self, cell: str) -> str:
        """Return what stands for a cell here."""
        return self._better.get(cell, cell)

    def cells(self, cells: str) -> str:
        """Return how some cells of a row look here."""
        return "".join(
            self._paint(self.symbol(cell) * len(list(run)),
                        COLOURS.get(cell, ""))
            for cell, run in itertools.groupby(cells))

    def _paint(self, text: str, colour: str) -> str:
        return ("\033[%sm%s\033[m" % (colour, text) if self.live and colour
                else text)


def has_better() -> bool:
    """Whether the user's locale and standard output have the characters."""
    # Not LC_CTYPE: Python sets that itself in the locale C (PEP 538).
    locale = os.environ.get("LC_ALL") or os.environ.get("LANG", "")
    try:
        "".join(BETTER.values()).encode(
            getattr(sys.stdout, "encoding", None) or "ascii")
        return "UTF" in locale.upper()
    except (LookupError, UnicodeError):
        return False
