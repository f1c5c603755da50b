"""The client program, from its first moment: see program.py.

What it needs is imported late, within reach of the except clause: Ctrl-C ends
it quietly from here on.
"""

import sys
from typing import List, Optional

__all__ = ["main"]


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
