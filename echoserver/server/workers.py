"""--workers: several processes on one listener, for more CPUs than one.

Under the interpreter lock a process serves with one CPU, whatever its model.
Workers forks the workers, starts another when one dies, and drains them
together.  Each of them runs the chosen model on the same listening socket; the
kernel hands a connection to the worker that accepts first.
"""

import contextlib
import functools
import signal
import socket
from time import monotonic
from typing import Any, Callable, Dict, Optional

from .base import EchoServer
from .child import Child, describe, hear_parent
from .drain import CUT_TIMEOUT
from .listening import explain
from .log import logger
from .signals import end_soon
from .system import ignore_callers

__all__ = ["Workers", "serve_in_child"]

CANNOT_SERVE = 3    # the exit status of a worker that has not served


class Workers:

    """Serve with count processes in place of server, which listens: its
    socket, its loop and its grace are used, and it accepts no client.

    make_server(index, listener) is called in each worker and returns what
    that serves with.  on_ready() is called when the first worker serves; if
    all end before, serve_forever() returns.

    Class variables that may be overridden, in seconds:

    - restart_interval: a worker that has ended is started again, at once if
      it has lived for so long
    - breather: see Acceptor; with it, 60 clients that connect at once are
      shared 21 to 39 by two workers of model events; without, 0 to 60 at times

    Instance variables: cut_short, how many workers could not serve at all or
    did not drain in time.
    """

    restart_interval = 1.0
    breather = 2e-5

    def __init__(self, server: EchoServer,
                 make_server: Callable[[int, socket.socket], EchoServer],
                 count: int, on_ready: Callable[[], Any]) -> None:
        self.server = server
        self.loop = server.loop
        self.cut_short = 0
        self._make_server = make_server
        self._count = count
        self._on_ready = on_ready
        self._served = False        # whether a worker has ever served
        # With the function that starts another in its place, in time.
        self._children: Dict[Child, Callable[[], None]] = {}
        self._stopped_at = 0.0      # the last time, monotonic

    def serve_forever(self) -> None:
        """Start the workers; return soon after stop()."""
        for index in range(self._count):
            self._start(index)
        while not self.loop.stopping:
            if not (self._served or self._children):
                logger.error("none of the workers can serve")
                self.cut_short += 1
                break
            self.loop.run_once()

    def _start(self, index: int) -> None:
        if self.loop.stopping:
            return
        again = functools.partial(
            self.loop.call_at, monotonic() + self.restart_interval,
            self._start, index)
        try:
            child = Child(lambda control: self._work(index, control))
        except OSError as error:
            logger.error("%s", explain(error, self.server.server_address))
            return again()
        self._children[child] = again
        self.loop.add(child, self._hear)

    def _work(self, index: int, control: socket.socket) -> int:
        """Be a worker."""
        self.loop.close()   # first: a kqueue's number may be used again
        for other in self._children:
            other.close()
        try:
            server = self._make_server(index, self.server.socket)
        except (MemoryError, OSError, RuntimeError) as error:
            logger.error("%s", explain(error, self.server.server_address))
            return CANNOT_SERVE
        server.adopted = self.server.adopted    # or else the backlog is ours
        server.acceptor.breather = self.breather
        with contextlib.suppress(OSError):  # the parent has ended
            control.send(b".")
        return serve_in_child(server, control)

    def _hear(self, child: Child) -> None:
        """Learn that a worker serves, or has ended."""
        if child.has_sent():
            if not (self._served or self.loop.stopping):
                self._served = True
                self._on_ready()
            return
        self.loop.remove(child)
        status = child.wait()
        self._children.pop(child)()
        if self.loop.stopping:
            self.cut_short += status not in (0, CANNOT_SERVE << 8)
        elif self._served:  # or else it has told why, and may be the last
            logger.error("worker %d %s; starting another", child.pid,
                         describe(status))

    def stop(self, grace: Optional[float] = None) -> None:
        """Have the workers drain; from a signal handler, too, and twice."""
        self._stopped_at = monotonic()
        self.server.stop(grace)
        if not self.server.adopted:
            ignore_callers(self.server.socket)
        for child in list(self._children):
            child.stop(self.server.grace)

    def server_close(self) -> None:
        """Wait for the workers to drain, and kill those that do not."""
        self.stop()     # and with them one that was just started
        self.server.socket.close()
        self._wait(CUT_TIMEOUT)     # as long as they may take
        for child in self._children:
            child.stop(0)           # they are stuck: have all reset
        self._wait(2 * CUT_TIMEOUT)
        for child in self._children:
            self.cut_short += 1
            child.wait(0)
        self.loop.close()
        for child in self._children:
            end_soon()      # the log may be stuck, as the worker was
            logger.error("worker %d did not drain and was killed", child.pid)

    def _wait(self, seconds: float) -> None:
        """Wait until all have ended, or so long after stop() and the grace,
        which a second stop() may change meanwhile."""
        left = 1.0
        while self._children and left > 0:
            left = self._stopped_at + self.server.grace + seconds - monotonic()
            self.loop.run_once(max(min(left, CUT_TIMEOUT), 0))


def serve_in_child(server: EchoServer, control: socket.socket) -> int:
    """Serve until the parent says stop; drain; return the exit status."""
    with server:
        signal.set_wakeup_fd(server.loop.wakeup_fd())
        hear_parent(control, server.stop)
        server.serve_forever()
        signal.set_wakeup_fd(-1)
    return 1 if server.cut_short else 0
