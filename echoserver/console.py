"""What both programs need of the streams that they were started with."""

import os

__all__ = ["discard_output"]


def discard_output() -> None:
    """Let what is still in the buffer of standard output go nowhere.

    The interpreter flushes it at exit and would complain (see the note on
    SIGPIPE in the documentation of the signal module).
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
