"""Some clients of a server, drawn against time: who waits, and who is served.

It is said before when each client speaks and leaves.  Then the scene runs,
all clients in one thread, and draws a row for each, with time to the right.
"""

import contextlib
import heapq
import itertools
import os
import select
import socket
from time import monotonic, perf_counter
from typing import Any, Callable, List, Optional, Tuple

from .screen import ABSENT, CUT, REPLY, SILENT, WAITING, Screen
from .server import Failure, Server
from .tally import PATIENCE

__all__ = ["Client", "Scene", "legend", "show_time"]

NAME, WAIT = 10, 10     # columns for a client's name, and for its wait
TICK = 0.1              # seconds between two drawings
# Seconds for which a scene goes on after its time, for those who still wait.
OVERTIME = 5.0


def show_time(seconds: float) -> str:
    return ("%.2f s" % seconds if seconds >= 0.9995
            else "%.3g ms" % (seconds * 1e3) if seconds >= 1e-4
            else "%.3g us" % (seconds * 1e6))


def legend(screen: Screen) -> str:
    """Return what the parts of a row mean."""
    return ", ".join("%s %s" % (screen.symbol(cell), meaning)
                     for cell, meaning in (
                         (WAITING, "waits for a reply"), (REPLY, "gets it"),
                         (SILENT, "is connected and silent"), (CUT, "is cut")))


class Client:

    """A client of a scene, which connects when it first speaks.

    Instance variables; times are seconds since the scene began:

    - waiting: whether it waits for a reply
    - waits: for how long it waited for each reply that has come
    - answered: when the last reply came, or None
    - left: when it left or was cut, or None; cut tells which
    - copying: seconds that its last recv() took, when there was data
    """

    def __init__(self, scene: "Scene", name: str) -> None:
        self.name = name
        self.waiting = self.cut = False
        self.waits: List[float] = []
        self.answered: Optional[float] = None
        self.left: Optional[float] = None
        self.copying = 0.0
        self.socket: Optional[socket.socket] = None
        self._scene = scene
        self._asked = 0.0
        self._due = b""     # what is still to come of the reply
        # Since when it has done what, and when something happened to it.
        self._states: List[Tuple[float, str]] = []
        self._marks: List[Tuple[float, str]] = []

    def say(self, words: str = "hello") -> None:
        """Ask for a reply, unless it has left or was cut."""
        if self.left is not None:
            return
        if self.socket is None:
            self.socket = socket.create_connection(
                self._scene.server.address, PATIENCE)
        self.waiting, self._asked = True, self._scene.now()
        self._due = words.upper().encode()
        self._states.append((self._asked, WAITING))
        with contextlib.suppress(ConnectionError):  # which hear() meets, too
            self.socket.sendall(words.encode())

    def hear(self) -> None:
        """Receive what has come."""
        assert self.socket is not None
        began = perf_counter()
        try:
            data = self.socket.recv(len(self._due) + 1)
        except ConnectionError:
            data = b""
        self.copying = perf_counter() - began
        if not data:
            self.cut = True
            self._marks.append((self._scene.now(), CUT))
            self.leave()
        elif not self._due.startswith(data):
            raise Failure("%s got a wrong reply" % self.name)
        else:
            self._due = self._due[len(data):]
            if not self._due:
                self._served(self._scene.now())

    def _served(self, now: float) -> None:
        self.waiting, self.answered = False, now
        self.waits.append(now - self._asked)
        self._marks.append((now, REPLY))
        self._states.append((now, SILENT))

    def leave(self) -> None:
        if self.socket is not None and self.left is None:
            self.socket.close()
            self.waiting, self.left = False, self._scene.now()
            self._states.append((self.left, ABSENT))

    def longest(self) -> str:
        """Return its longest wait, in words."""
        waits = list(self.waits)
        if self.waiting:
            waits.append(self._scene.now() - self._asked)
        return (show_time(max(waits)) if waits
                else "no reply" if self._states else "")

    def cells(self, count: int, seconds: float) -> str:
        """Return what it did in so many parts of so many seconds."""
        cells = [ABSENT] * count
        now = self._scene.now()
        ends = [start for start, _ in self._states[1:]] + [now]

        def place(time: float) -> int:
            return min(int(time / seconds * count), count - 1)

        for (start, state), end in zip(self._states, ends):
            for cell in range(place(start), place(end) + 1):
                cells[cell] = state
        for time, mark in self._marks:
            cells[place(time)] = mark
        return "".join(cells)


class Scene:

    """A number of clients of a server, and what they do when.

    The end of a with block lets all of them leave.  All times that it is given
    are multiplied by stretch.

    Instance variables: clients; processes and threads, how many the server
    had at most (no threads where there is no /proc).
    """

    def __init__(self, screen: Screen, server: Server, count: int,
                 stretch: float = 1.0) -> None:
        self.server = server
        self.clients = [Client(self, "client %d" % (number + 1))
                        for number in range(count)]
        self.processes = self.threads = 0
        self._screen, self._stretch = screen, stretch
        self._calls: List[Tuple[float, int, Callable[[], Any]]] = []
        self._number = itertools.count()
        self._began = monotonic()

    def __enter__(self) -> "Scene":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        for client in self.clients:
            client.leave()

    def now(self) -> float:
        return monotonic() - self._began

    def at(self, seconds: float, call: Callable[[], Any]) -> None:
        """Have something done so many seconds after the beginning."""
        heapq.heappush(self._calls, (seconds * self._stretch,
                                     next(self._number), call))

    def run(self, seconds: float) -> None:
        """Let all of it happen; draw it meanwhile, and at the end."""
        end = seconds * self._stretch
        self._began = monotonic()
        due = 0.0
        try:
            while self._calls or self.now() < end + OVERTIME * any(
                    client.waiting for client in self.clients):
                while self._calls and self._calls[0][0] <= self.now():
                    heapq.heappop(self._calls)[2]()
                if self.now() >= due:
                    due += TICK
                    self._draw(end, False)
                self._look()
                self._hear([due, end] + [call[0] for call in self._calls])
        finally:
            self._draw(end, True)

    def _look(self) -> None:
        """See how many processes and threads the server has."""
        threads = 0
        pids = self.server.family()
        for pid in pids:
            with contextlib.suppress(OSError):  # there is none (any more)
                threads += len(os.listdir("/proc/%d/task" % pid))
        self.processes = max(self.processes, len(pids))
        self.threads = max(self.threads, threads)

    def _hear(self, times: List[float]) -> None:
        """Let clients receive what comes before the next of the times."""
        now = self.now()
        until = min(time for time in times + [now + TICK] if time > now)
        open_ones = {client.socket: client for client in self.clients
                     if client.socket is not None and client.left is None}
        for ready in select.select(list(open_ones), [], [], until - now)[0]:
            open_ones[ready].hear()

    def _draw(self, seconds: float, last: bool) -> None:
        count = self._screen.width - NAME - WAIT
        seconds = max(seconds, self.now())
        head = "%-*s0 s%*s%*s" % (NAME, "", count - 3, "%.1f s" % seconds,
                                  WAIT, "waited")
        self._screen.draw([head] + [
            "%-*s%s%*s" % (NAME, client.name, self._screen.cells(
                client.cells(count, seconds)), WAIT, client.longest())
            for client in self.clients], last)
