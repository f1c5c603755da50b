"""The life of a server: made, serving, stopping, closed, in one process."""

import contextlib
import os
import sys
import threading
from time import monotonic
from typing import Any, Callable, Optional

from .loop import Loop

__all__ = ["Life"]

class Life:

    """Lets one thread serve and one thread close, and finishes the closing.

    The loop knows the rest: whether it runs, is to stop, or is closed.

    Instance variables: background, the thread that alone may serve, or None.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._pid = os.getpid()
        self.background: Optional[threading.Thread] = None
        # Held while a thread closes the server.  Other threads that close it,
        # or that begin to serve, wait for that.
        self._closing = threading.RLock()
        self._closer: Optional[int] = None      # the thread that holds it

    def is_over(self) -> bool:
        """Return whether the server cannot serve any more: in a child that
        was forked from its process, and at the interpreter's exit."""
        return self._pid != os.getpid() or sys.is_finalizing()

    def state(self) -> str:
        """Return a word or two for what the server does."""
        return ("closed" if self._loop.closed else
                "stopping" if self._loop.stopping else
                "serving" if self._loop.is_running() else "not serving")

    def begin(self) -> bool:
        """Make this thread the one that serves; return False if the server is
        closed.  RuntimeError is raised if another thread serves already."""
        with self._closing:
            if self._loop.closed:
                return False
            if self._loop.is_running() or self.background not in (
                    None, threading.current_thread()):
                raise RuntimeError("another thread serves already")
            self._loop.begin()
            return True

    def close(self, timeout: float, may_wait: bool,
              *steps: Callable[[], Any]) -> None:
        """Take the steps of closing, each whatever happens in those before.

        If several threads call this, each returns when all is done.  When it
        was interrupted, another call takes all the steps again.  timeout is in
        seconds, for the thread that serves to return.

        Return at once if the closing waits for the caller: for a connection
        that this thread serves (may_wait is false), for the loop that runs in
        it, or for the call that this one has interrupted in a signal handler.
        """
        if self._closer == threading.get_ident() or self._closer and not (
                may_wait and not self._loop.in_thread()):
            return
        with self._closing:
            self._closer, end = threading.get_ident(), monotonic() + timeout
            try:
                self._loop.wait(timeout)
                with contextlib.ExitStack() as last_first:
                    for step in reversed(steps):
                        last_first.callback(step)
                    if self.background not in (None,
                                                threading.current_thread()):
                        self.background.join(min(max(end - monotonic(), 0),
                                                 threading.TIMEOUT_MAX))
            finally:
                self._closer = None
