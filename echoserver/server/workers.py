"""--workers: several processes on one listener, for more CPUs than one.

Under the interpreter lock a process serves with one CPU, whatever its model.
Workers forks the workers, starts another when one dies, and drains them
together.  Each of them runs the chosen model on the same listening socket; the
kernel hands a connection to whoever accepts first.
"""

import logging
import os
import signal
import socket
import sys
from time import monotonic
from typing import Any, Callable, Dict, Optional, Tuple

from .acceptor import Acceptor
from .base import EchoServer
from .child import Child, describe, hear_parent
from .drain import CUT_TIMEOUT
from .system import ignore_callers

__all__ = ["Workers", "share_one_cpu"]

logger = logging.getLogger("echoserver")


class Workers:

    """Serve with count processes in place of server, an EchoServer that
    listens: its socket, its loop and its options are used, and it accepts
    nobody.

    make_server(max_connections) returns what a worker serves with, before it
    listens; the limit of server is divided among them, so that it is kept in
    total.  A worker is started again, at once if it has served for
    restart_interval seconds.
    """

    restart_interval = 1.0

    def __init__(self, server: EchoServer,
                 make_server: Callable[[int], EchoServer], count: int,
                 one_cpu: bool = False) -> None:
        self.server = server
        self.server_address = server.server_address
        self.loop = server.loop
        self.cut_short = 0      # how many workers could not drain in time
        self._make_server = make_server
        self._count = count
        self._one_cpu = one_cpu
        self._children: Dict[Child, Tuple[int, float]] = {}
        self._stopping = False
        self._stopped_at = 0.0      # the last time, monotonic

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.server_close()

    def serve_forever(self) -> None:
        """Start the workers; return soon after stop()."""
        for index in range(self._count):
            self._start(index)
        while not self._stopping:
            self.loop.run_once()

    def _start(self, index: int) -> None:
        if self._stopping:
            return
        try:
            child = Child(lambda control: self._work(index, control))
        except OSError as error:
            logger.error("cannot start a worker: %s", error)
            self.loop.call_at(monotonic() + Acceptor.pause,
                              lambda: self._start(index))
            return
        self._children[child] = index, monotonic()
        self.loop.add(child, self._worker_ended)

    def _work(self, index: int, control: socket.socket) -> int:
        """Be a worker."""
        self.loop.close()   # first: a kqueue's number may be used again
        for other in self._children:
            other.close()
        if self._one_cpu:
            share_one_cpu(index)
        share = self.server.max_connections
        if share:
            share = (share + index) // self._count
        try:
            server = self._make_server(share)
            server.adopt(self.server.socket, self.server.adopted)
        except OSError as error:
            logger.error("a worker cannot serve: %s", error)
            return 1
        return serve_in_child(server, control)

    def _worker_ended(self, child: Child) -> None:
        status = child.poll()
        if status is None:
            return  # about to: its files close first, and this is called again
        self.loop.remove(child)
        child.close()
        index, since = self._children.pop(child)
        if self._stopping:
            self.cut_short += bool(status)
            return
        logger.error("worker %d %s; starting another", child.pid,
                     describe(status))
        self.loop.call_at(since + self.restart_interval,
                          lambda: self._start(index))

    def stop(self, grace: Optional[float] = None) -> None:
        """Have the workers drain; from a signal handler, too, and twice."""
        self._stopping = True
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
        self._children.clear()
        self.loop.close()

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


def share_one_cpu(index: Optional[int] = None) -> None:
    """Keep this process on one CPU, where the system knows how (Linux).

    The interpreter lock lets one thread run at a time.  With several CPUs it
    is handed across them at every system call, and most of the time goes into
    that.  (64 busy connections: 97,000 replies/s on one CPU, 44,000 on two.)
    A free-threaded interpreter is left alone.
    """
    try:
        if getattr(sys, "_is_gil_enabled", lambda: True)():
            cpus = sorted(os.sched_getaffinity(0))
            cpu = cpus[(os.getpid() if index is None else index) % len(cpus)]
            os.sched_setaffinity(0, {cpu})
            logger.debug("the threads share CPU %d", cpu)
    except (AttributeError, OSError):
        pass
