"""The server program: ``python -m echoserver [port] [options]``."""

import os
import sys
from typing import List, Optional

__all__ = ["main"]

if not __package__:     # it was started by its path: python /opt/echoserver
    folder = os.path.dirname(os.path.abspath(__file__))
    sys.path[0], __package__ = os.path.split(folder)
    __spec__ = None
    __import__(__package__)


def main(argv: Optional[List[str]] = None) -> int:
    """Run the program; return its exit status."""
    try:
        from .server.program import run     # late: Ctrl-C is no traceback
        return run(argv)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
