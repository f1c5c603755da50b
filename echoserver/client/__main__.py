"""The client program, from its first moment: see program.py.

What it needs is imported late, within reach of the except clause: Ctrl-C ends
it quietly from here on.
"""

import os
import sys
from typing import List, Optional

__all__ = ["main"]

if __package__ in ("", "client"):   # started by its path, or moved out
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if not os.path.exists(os.path.join(folder, "address.py")):
        sys.exit("the folder client/ is no program by itself: copy the folder "
                 "echoserver/ that holds it")
    sys.path[0], package = os.path.split(folder)
    __package__, __spec__ = package + ".client", None
    __import__(__package__)


def main(argv: Optional[List[str]] = None) -> int:
    """Run the program with the arguments argv; return its exit code."""
    try:
        from . import program
        return program.main(argv)
    except KeyboardInterrupt:
        # A second one while the interpreter exits shall show no traceback.
        import signal
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        return 130
    except MemoryError:
        sys.stderr.write("this host is out of memory\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
