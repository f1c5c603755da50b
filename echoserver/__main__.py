"""The server program: ``python -m echoserver [port] [options]``."""

import sys
from typing import List, Optional

__all__ = ["main"]


def main(argv: Optional[List[str]] = None) -> int:
    """Run the program; return its exit status."""
    try:
        from .server.program import run     # late: Ctrl-C is no traceback
        return run(argv)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
