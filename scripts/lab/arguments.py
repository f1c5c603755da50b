"""What the programs of this folder take as arguments."""

import argparse
from typing import Any, Callable

__all__ = ["above_zero"]


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
