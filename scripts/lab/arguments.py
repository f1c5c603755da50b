"""What the programs of this folder take as arguments."""

import argparse
from typing import Any, Callable

__all__ = ["above_zero", "parser"]


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser whose help shows a text as it is."""
    return argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter)


def above_zero(most: float,
               kind: Callable[[str], Any] = float) -> Callable[[str], Any]:
    """Return an argparse type: a number above 0, and no more than most."""
    def number(text: str) -> Any:
        value = kind(text)
        if not 0 < value <= most:   # nor is nan
            raise argparse.ArgumentTypeError(
                "{} is not a number above 0, at most {:,}".format(text, most))
        return value
    return number
