"""The gate: where busy connections wait while the server is needed elsewhere.

Many busy threads share one interpreter lock, and each keeps it for a while.
To start a thread, or to go through all connections, the server needs the lock
again and again, and would wait for all of them each time: a newcomer among 300
busy connections was not answered within two seconds.  So the server closes the
gate for that time.  A handler that finds it closed waits until it is open.
"""

import threading
from typing import Any, Optional

__all__ = ["Gate"]


class Gate:

    """Closed and opened by the server's loop, passed by its handlers.

    A with statement closes it for its block, and opens it at the end.
    """

    def __init__(self) -> None:
        # Handlers wait for it; open() sets it.  None while the gate is open.
        # An Event wakes all of them at once.  A lock would wake one after the
        # other, each of which needs the interpreter lock (1.7 s for 900).
        self._opened: Optional[threading.Event] = None

    def close(self) -> None:
        """Let handlers wait from their next pass() on."""
        self._opened = self._opened or threading.Event()

    def open(self) -> None:
        """Let all handlers go on."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.set()

    def wait(self) -> None:
        """Return when the gate is open."""
        opened = self._opened
        if opened is not None:
            opened.wait()

    def __enter__(self) -> None:
        self.close()

    def __exit__(self, *exc_info: Any) -> None:
        self.open()
