"""The stage of lesson.py: some clients of a server, drawn against time.

It is said before when each client speaks and leaves.  Then the scene runs,
all clients in one thread, and draws a row for each, with time to the right.
"""

import contextlib
import select
import socket
from time import monotonic, perf_counter
from typing import Any, Callable, Iterator, List, Optional, Sequence, Tuple

from .report import counted, show_time
from .screen import (ABSENT, CUT, QUEUED, REPLY, SILENT, WAITING, Screen)
from .server import Failure, Server

__all__ = ["Client", "Play", "Scene", "Verdict", "had_threads", "legend",
           "outcomes", "served_by"]

NAME, WAIT = 12, 10     # columns for a client's name, and for its wait
TICK = 0.1              # seconds between two drawings
LOOK = 0.02             # and between two looks at who is accepted

# Whether the claim was shown, and what was measured, as a sentence.
Verdict = Tuple[bool, str]


def legend(screen: Screen) -> str:
    """Return what the parts of a row mean."""
    return ", ".join(screen.symbol(cell) + meaning for cell, meaning in (
        (QUEUED, " waits, and is not accepted yet"), (WAITING, " waits for a "
         "reply"), (REPLY, " gets it"), (SILENT, " is connected and silent"),
        (CUT, " is cut")))


def axis(columns: int, seconds: float) -> str:
    """Return the ticks of so many seconds, in so many columns."""
    step = next(step for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 1000)
                if step / seconds * columns >= 8)
    cells = [" "] * columns
    for number in range(int(seconds / step * 1.0001) + 1):
        at = int(number * step / seconds * columns)
        text = "|%g%s" % (number * step, "" if number else " s")
        if at + len(text) <= columns:
            cells[at:at + len(text)] = text
    return "".join(cells)


class Client:

    """A client of a scene, which connects when it first speaks.

    Instance variables; times are seconds since the scene began:

    - waiting: whether it waits for a reply, or did when it left
    - waits: for how long it waited for each reply that has come
    - answered: when the last reply came, or None
    - left: when it left or was cut, or None; cut tells which
    - copying: seconds that its last recv() took, when there was data
    """

    def __init__(self, scene: "Scene", name: str) -> None:
        self.name, self._scene = name, scene
        self.waiting = self.cut = False
        self.waits: List[float] = []
        self.answered: Optional[float] = None
        self.left: Optional[float] = None
        self.copying = self._asked = 0.0
        self.socket: Optional[socket.socket] = None
        self.unsent = self._due = b""       # what is still to go, and to come
        # Since when it has done what, and when something happened to it.
        self.states: List[Tuple[float, str]] = []
        self._marks: List[Tuple[float, str]] = []

    def say(self) -> None:
        """Ask for a reply, unless it waits for one, or has left."""
        if self.left is not None or self.waiting:
            return
        state = WAITING
        if self.socket is None:
            self.socket = socket.socket()
            self.socket.setblocking(False)
            self.socket.connect_ex(self._scene.server.address)
            if self._scene.server.has_accepted(self.socket) is not None:
                state = QUEUED
        self.waiting, self._asked = True, self._scene.now()
        self.unsent, self._due = b"hello", b"HELLO"
        self.states.append((self._asked, state))

    def move(self) -> None:
        """Send and receive what can be, without waiting."""
        assert self.socket is not None
        try:
            if self.unsent:
                self.unsent = self.unsent[self.socket.send(self.unsent):]
                return
            began = perf_counter()
            data = self.socket.recv(len(self._due) + 1)
            self.copying = perf_counter() - began
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.cut = True
            self._marks.append((self._scene.now(), CUT))
            self.leave()
        elif not self._due.startswith(data):
            raise Failure("%s got a wrong reply" % self.name)
        else:
            self._due = self._due[len(data):]
            if not self._due:
                self.waiting, self.answered = False, self._scene.now()
                self.waits.append(self.answered - self._asked)
                self._marks.append((self.answered, REPLY))
                self.states.append((self.answered, SILENT))

    def fileno(self) -> int:
        return self.socket.fileno() if self.socket else -1

    def leave(self) -> None:
        if self.socket is not None and self.left is None:
            self.socket.close()
            self.left = self._scene.now()
            self.states.append((self.left, ABSENT))

    def all_waits(self) -> List[float]:
        """Return its waits, and the one that has not ended, if any."""
        end = self._scene.now() if self.left is None else self.left
        return self.waits + [end - self._asked] * self.waiting

    def longest(self) -> str:
        """Return its longest wait, in words."""
        return show_time(max(self.all_waits())) if self.states else ""

    def cells(self, count: int, seconds: float) -> str:
        """Return what it did in so many parts of so many seconds."""
        cells = [ABSENT] * count
        ends = [start for start, _ in self.states[1:]] + [self._scene.now()]

        def place(time: float) -> int:
            return min(int(time / seconds * count), count - 1)

        for (start, state), end in zip(self.states, ends):
            for cell in range(place(start), place(end) + 1):
                cells[cell] = state
        for time, mark in self._marks:
            cells[place(time)] = mark
        return "".join(cells)


class Scene:

    """A number of clients of a server, and what they do when.

    All of them leave at its end.  All times that it is given are multiplied by
    stretch.

    Instance variables: clients; processes and threads, how many the server
    had at most (no threads where there is no /proc).
    """

    def __init__(self, screen: Screen, server: Server, count: int,
                 stretch: float = 1.0, name: str = "client") -> None:
        self.server = server
        self.clients = [Client(self, "%s %d" % (name, number + 1))
                        for number in range(count)]
        self.processes = self.threads = 0
        self._screen, self._stretch = screen, stretch
        self._calls: List[Tuple[float, Callable[[], Any]]] = []
        self._began = monotonic()

    def now(self) -> float:
        return monotonic() - self._began

    def at(self, seconds: float, call: Callable[[], Any]) -> None:
        """Have something done so many seconds after the beginning."""
        self._calls.append((seconds * self._stretch, call))
        self._calls.sort(key=lambda pair: pair[0])

    def run(self, seconds: float, overtime: float = 5.0) -> None:
        """Let all of it happen; draw it meanwhile, and at the end.

        It goes on after its time, if somebody still waits.
        """
        end, due = seconds * self._stretch, 0.0
        self._began = monotonic()
        try:
            while self._calls or self.now() < end + overtime * any(
                    client.waiting and client.left is None
                    for client in self.clients):
                while self._calls and self._calls[0][0] <= self.now():
                    self._calls.pop(0)[1]()
                if self.now() >= due:
                    due += TICK
                    self._look()
                    self._draw(end, False)
                self._move([due, end] + [call[0] for call in self._calls])
        finally:
            self._draw(end, True)
            for client in self.clients:
                client.leave()

    def _look(self) -> None:
        """See how many processes and threads the server has."""
        self.processes = max(self.processes, len(self.server.family()))
        self.threads = max(self.threads, self.server.threads())

    def _move(self, times: List[float]) -> None:
        """Let clients move what they can before the next of the times."""
        for client in self.clients:
            if (client.socket and client.waiting
                    and client.states[-1][1] == QUEUED
                    and self.server.has_accepted(client.socket)):
                client.states.append((self.now(), WAITING))
        now = self.now()
        until = min(time for time in times + [now + LOOK] if time > now)
        inside = [client for client in self.clients
                  if client.socket and client.left is None]
        readable, writable, _ = select.select(
            inside, [client for client in inside if client.unsent], [],
            until - now)
        for client in {*readable, *writable}:
            client.move()

    def _draw(self, seconds: float, last: bool) -> None:
        count = self._screen.width - NAME - WAIT
        seconds = max(seconds, self.now())
        head = "%-*s%s%*s" % (NAME, "", axis(count, seconds), WAIT, "waited")
        self._screen.draw([head] + [
            "%-*s%s%*s" % (NAME, client.name, self._screen.cells(
                client.cells(count, seconds)), WAIT, client.longest())
            for client in self.clients], last)


class Play:

    """Where the acts are played, and how long they take.

    Instance variables: screen; models, the names of those that this host has;
    stretch, by which all times are multiplied.
    """

    def __init__(self, screen: Screen, models: Sequence[str],
                 stretch: float) -> None:
        self.screen, self.models, self.stretch = screen, models, stretch

    def server(self, model: str, *options: str) -> Server:
        """Show the command line of a server, and start it."""
        self.screen.say(" ".join(["$ python3 -m echoserver --model", model,
                                  *options]))
        return Server(model, *options)

    @contextlib.contextmanager
    def scene(self, clients: int, model: str, *options: str
              ) -> Iterator[Scene]:
        """Start a server for a scene with so many clients."""
        with self.server(model, *options) as server:
            yield Scene(self.screen, server, clients, self.stretch)


def served_by(scene: Scene) -> str:
    """Return how many threads the server had, if that is known."""
    return ("; the server had " + counted(scene.threads, "thread")
            if scene.threads else "")


def had_threads(scene: Scene, count: int) -> bool:
    """Return whether the server was one process, and had so many threads if
    that is known."""
    return scene.processes == 1 and scene.threads in (0, count)


def outcomes(blocked: bool, *pairs: Tuple[Client, Client]) -> Verdict:
    """Return whether all of the pairs are as expected, and what they did.

    A pair is a client and another, for which it has to wait if the server is
    blocked by that.
    """
    results = [outcome(*pair) for pair in pairs]
    return (all(result is blocked for result, _ in results),
            "; ".join(words for _, words in results))


def outcome(client: Client, other: Client) -> Verdict:
    """Return whether client was not served while other was connected."""
    if client.answered is None:
        return True, "%s got no reply" % client.name
    blocked = other.left is not None and client.answered >= other.left
    return blocked, "%s waited %s%s %s %s" % (
        client.name, show_time(client.waits[0]),
        " for" if blocked else ", with", other.name,
        "to leave" if blocked else "still there")
