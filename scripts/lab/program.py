"""How the programs of this folder begin and end.

The first lines of each lead to run(), which imports the rest of it: from then
on Ctrl-C shows no traceback, and neither does output that cannot be written.
"""

import os
import sys

__all__ = ["run"]


def run(name: str) -> int:
    """Run main() of the module of that name; return the exit status.

    After Ctrl-C or SIGTERM that is 130; 141 if nobody reads the output any
    more; and 2, after a sentence, if the system refuses it or anything else.
    """
    try:
        import importlib    # these here, too
        import signal
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            status: int = importlib.import_module(name).main()
            return status
        finally:
            print(end="", flush=True)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except OSError as error:
        # What is still in the buffer goes nowhere; the interpreter flushes it
        # at exit, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if isinstance(error, BrokenPipeError):
            return 141
        print("%s.py: %s" % (name, error), file=sys.stderr)
        return 2
