"""More CPUs than one: several processes on one listener.

Under the interpreter lock a process serves with one CPU, whatever its model.
Workers is a server whose connections are accepted by others: it listens, forks
the workers, starts another when one dies, and drains them together.  Each of
them runs the chosen model, on the same listening socket; the kernel hands a
connection to whoever accepts first.
"""

import logging
import os
import socket
import sys
from time import monotonic
from typing import Any, Dict, List, Optional, Tuple, Type

from .accepting import COMPLAINT, PAUSE
from .blocking import serve_as_child, start_child
from .child import Child
from .loop import NEVER
from .server import LAST_MOMENT, EchoServer

__all__ = ["Workers", "share_one_cpu"]

logger = logging.getLogger("echoserver")


class Workers(EchoServer):

    """A server of count processes, each a server_class.

    The options are those of server_class.  max_connections is divided among
    the workers, so that it is kept in total.
    """

    def __init__(self, server_class: Type[EchoServer], count: int,
                 server_address: Tuple[Any, ...],
                 bind_and_activate: bool = True, *, one_cpu: bool = False,
                 **options: Any) -> None:
        self.model = "%s, %d workers" % (server_class.model, count)
        self._server_class = server_class
        self._count = count
        self._one_cpu = one_cpu
        self._options = options
        self._workers: Dict[Child, Tuple[int, float]] = {}
        self._wanted: List[Tuple[float, int]] = []
        super().__init__(
            server_address, bind_and_activate=bind_and_activate,
            max_connections=options.pop("max_connections", None),
            grace=options.get("grace"))

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        self._wanted = [(0.0, index) for index in range(self._count)]
        self._due = 0.0
        super().serve_forever(poll_interval)

    def _watch_listener(self) -> None:
        pass  # the workers do

    def sweep(self, now: float) -> float:
        """Start the workers that are due."""
        for entry in list(self._wanted):
            if entry[0] <= now:
                self._wanted.remove(entry)
                self._start(entry[1])
        return min((when for when, _ in self._wanted), default=NEVER)

    def _start(self, index: int) -> None:
        try:
            child = start_child(self, lambda tie: self._work(index, tie),
                                self._worker_ended)
        except OSError as error:
            self.complain("cannot start a worker: %s", error)
            self._wanted.append((monotonic() + PAUSE, index))
        else:
            self._workers[child] = index, monotonic()

    def _work(self, index: int, tie: socket.socket) -> int:
        """Be a worker."""
        self.let_go(self.socket)
        if self._one_cpu:
            share_one_cpu(index)
        share = self.max_connections
        if share:
            share = (share + index) // self._count
        try:
            server = self._server_class(
                self.server_address, bind_and_activate=False,
                max_connections=share, **self._options)
            server.adopt(self.socket)
        except OSError as error:
            logger.error("a worker cannot serve: %s", error)
            return 1
        return serve_as_child(server, tie)

    def _worker_ended(self, child: Child) -> None:
        status = child.poll()
        if status is None:
            return
        self.ignore(child)
        child.close()
        index, since = self._workers.pop(child)
        if monotonic() < self._draining_since:
            logger.error("worker %d ended with status %d; starting another",
                         child.pid, status)
            # at once if it has served; but no more than one a second
            self._wanted.append((since + COMPLAINT, index))
            self._due = min(self._due, self._wanted[-1][0])
        else:
            self.peers.cut_short += bool(status)

    def stop(self, grace: Optional[float] = None) -> None:
        super().stop(grace)
        for child in list(self._workers):
            child.stop(self.grace)

    def drain(self) -> None:
        self._draining_since = monotonic()
        self.ignore_callers()
        self.stop()     # and with it a worker that was made meanwhile
        self._wanted = []
        self.socket.close()
        while self._workers:
            self._due = self._draining_since + self.grace + 2 * LAST_MOMENT
            if monotonic() >= self._due:
                break
            self._turn()
        for child in self._workers:
            child.wait(0)
            self.peers.cut_short += 1


def share_one_cpu(index: Optional[int] = None) -> Optional[int]:
    """Keep this process on one CPU; return which, None if it was not done.

    The interpreter lock lets one thread run at a time.  With several CPUs it
    is handed across them at every system call, and most of the time goes into
    that.  (64 busy connections: 97,000 replies/s on one CPU, 44,000 on two.)
    A free-threaded interpreter is left alone, and so is a system that does not
    know the call (all but Linux).
    """
    try:
        if not getattr(sys, "_is_gil_enabled", lambda: True)():
            return None
        cpus = sorted(os.sched_getaffinity(0))
        cpu = cpus[(os.getpid() if index is None else index) % len(cpus)]
        os.sched_setaffinity(0, {cpu})
    except (AttributeError, OSError):
        return None
    logger.debug("the threads share CPU %d", cpu)
    return cpu
