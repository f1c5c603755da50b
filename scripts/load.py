"""The load of bench.py: connections that ask, and compare every byte.

A program of its own, so that several can run, beside the server and on other
CPUs.  It takes one argument, a JSON object with the port, the number of
connections, the size of their messages and the seconds to ask for, and talks
to who started it in lines:

    it says     {"unanswered": 0, ...}      every connection has asked once
    it is told  go                          ask, and ask again, for the seconds
    it says     {"replies": 51234, ...}     what came of it

and then holds its connections until its input ends.  A load that is never
told to go is so many idle connections.

One thread serves all connections.  A message is random bytes, other ones on
each connection.  Nothing waits to be writable: each byte that comes back is
one that has left our send buffer, so a read is the moment to send the rest.

In the percentiles each connection weighs the same, shared among the waits it
has had.  By number of replies, a few that are served at full speed would hide
the many that are not served at all.  A question still open at the end counts
with its wait so far if the connection has known no longer one: a lower bound,
and how much of the weight is such is told with it.
"""

import array
import collections
import gc
import json
import math
import random
import select
import selectors
import signal
import socket
import struct
import sys
from time import monotonic, perf_counter, process_time
from typing import Any, Counter, Dict, List, Mapping

__all__ = ["Load", "quantile", "spread"]

# Seconds: to connect all; without a first answer, until those that are still
# to come are not waited for; between two looks at the clock.
CONNECT, NEWS, LOOK = 30.0, 0.75, 0.05
# Waits are counted in steps of 2 %, so a percentile is right within 1 %.
STEP = math.log(1.02)
# malloc() takes blocks above 128 KiB from the system anew each time.
LARGEST_READ = 64 << 10
# Close with a reset: no port is left in TIME_WAIT, of which there are 28,000.
RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class WrongEcho(Exception):

    """A byte came back that should not have."""


class Connection:

    """A connection, its message, and how long each reply took."""

    __slots__ = ("recv", "send", "socket", "ask", "want", "unsent", "due",
                 "asked", "waits")

    def __init__(self, port: int, number: int, size: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), CONNECT)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.recv, self.send = self.socket.recv, self.socket.send
        text = random.Random(number).getrandbits(8 * size)
        self.ask = text.to_bytes(size, "big")
        self.want = self.ask.upper()
        self.unsent = self.due = b""
        self.asked = 0.0
        self.waits = array.array("d")

    def begin(self) -> None:
        """Send the message, or as much as fits."""
        self.asked = perf_counter()
        self.due, self.unsent = self.want, self.ask
        self.push()

    def push(self) -> None:
        """Send more of the message."""
        try:
            self.unsent = self.unsent[self.send(self.unsent):]
        except BlockingIOError:
            pass

    def take(self, data: bytes) -> None:
        """Compare a part of the reply; raise WrongEcho or ConnectionError."""
        if not data:
            raise ConnectionError("the server has closed")
        if not self.due.startswith(data):
            raise WrongEcho
        self.due = self.due[len(data):]
        if self.unsent:
            self.push()


class Poll(selectors.DefaultSelector):

    """What select.epoll is, for systems without it."""

    def poll(self, timeout: float) -> List[Any]:
        return [(key.fd, events) for key, events in self.select(timeout)]


class Load:

    """So many connections to a port of this host."""

    def __init__(self, port: int, connections: int, size: int,
                 first: int = 0) -> None:
        self.connections = {}  # type: Dict[int, Connection]
        self.everyone = []  # type: List[Connection]  # the dropped, too
        self.wanted = connections
        self.counts = collections.Counter()  # type: Counter[str]
        # select.epoll costs half a microsecond less for each event.
        self.selector = getattr(select, "epoll", Poll)()  # type: Any
        self.read_size = min(size + 1, LARGEST_READ)
        end = monotonic() + CONNECT
        for number in range(first, first + connections):
            try:
                if monotonic() > end:
                    raise socket.timeout
                connection = Connection(port, number, size)
            except OSError:
                self.counts["errors"] += 1
                continue
            fd = connection.socket.fileno()
            self.connections[fd] = connection
            self.everyone.append(connection)
            self.selector.register(fd, selectors.EVENT_READ)  # as EPOLLIN

    def warm_up(self) -> Dict[str, int]:
        """Ask once on each connection; return what has happened.

        A reply proves that the connection is accepted and has its thread or
        process.  It is not waited for where none comes any more.
        """
        self.begin()
        waiting = len(self.connections)
        news = monotonic()
        while waiting and monotonic() < news + NEWS:
            for fd, _ in self.selector.poll(LOOK):
                connection = self.connections[fd]
                try:
                    connection.take(connection.recv(self.read_size))
                except (OSError, WrongEcho) as error:
                    self.drop(fd, error)
                if not connection.due:
                    news = monotonic()
                    waiting -= 1
        return dict(self.counts, unanswered=waiting)

    def run(self, seconds: float) -> Dict[str, Any]:
        """Ask, and again at each reply, for so many seconds; report."""
        self.begin()
        cpu = process_time()
        start = now = perf_counter()
        while now < start + seconds:
            self.turn()
            now = perf_counter()
        cpu = process_time() - cpu
        waits = [connection.waits for connection in self.everyone]
        weights, unfinished = spread(
            waits, [now - connection.asked if connection.due else 0
                    for connection in self.everyone])
        replies = [len(each) for each in waits]
        return {"replies": sum(replies), "seconds": now - start, "cpu": cpu,
                "errors": self.counts["errors"],
                "wrong": self.counts["wrong"],
                "unanswered": self.wanted - len(list(filter(None, replies))),
                "fewest": min(replies or [0]), "most": max(replies or [0]),
                "waits": weights, "unfinished": unfinished}

    def begin(self) -> None:
        """Ask on every connection that waits for no reply."""
        for fd, connection in list(self.connections.items()):
            if not connection.due:
                try:
                    connection.begin()
                except OSError as error:
                    self.drop(fd, error)

    def turn(self) -> None:
        """Read what there is; ask again where a reply is complete."""
        clock, connections, size = perf_counter, self.connections, \
            self.read_size
        for fd, _ in self.selector.poll(LOOK):
            connection = connections[fd]
            try:
                data = connection.recv(size)
                if data == connection.due:
                    now = clock()
                    connection.waits.append(now - connection.asked)
                    connection.asked = now
                    connection.due = connection.want
                    ask = connection.unsent = connection.ask
                    connection.unsent = ask[connection.send(ask):]
                else:
                    connection.take(data)
            except BlockingIOError:
                pass
            except (OSError, WrongEcho) as error:
                self.drop(fd, error)

    def drop(self, fd: int, error: Exception) -> None:
        """Count an error, and let the connection go."""
        wrong = isinstance(error, WrongEcho)
        self.counts["wrong" if wrong else "errors"] += 1
        self.selector.unregister(fd)
        connection = self.connections.pop(fd)
        connection.due = b""
        connection.socket.close()

    def close(self) -> None:
        """Reset every connection."""
        for connection in self.connections.values():
            connection.socket.close()
        self.selector.close()


def spread(waits: Any, still_open: Any) -> Any:
    """Return the weight of each step of waits, and of those unfinished.

    waits has a sequence of seconds for each connection, still_open the
    seconds that its last question has been open.
    """
    weights = collections.Counter()  # type: Counter[str]
    unfinished = 0.0
    for each, last in zip(waits, still_open):
        longer = last > max(each, default=0)
        weight = 1 / max(len(each) + longer, 1)
        unfinished += weight * longer
        for wait in list(each) + [last] * longer:
            weights[str(round(math.log(max(wait, 1e-7)) / STEP))] += weight
    return dict(weights), unfinished


def quantile(weights: Mapping[str, float], part: float) -> Any:
    """Return the seconds within which that part of the weight is."""
    seen, wanted = 0.0, part * sum(weights.values())
    for step in sorted(map(int, weights)):
        seen += weights[str(step)]
        if seen >= wanted:
            return math.exp(step * STEP)
    return None


def say(words: Dict[str, Any]) -> None:
    print(json.dumps(words, allow_nan=False), flush=True)


def main() -> None:
    """Follow the protocol above."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ends with its input
    gc.disable()  # there are no cycles
    spec = json.loads(sys.argv[1])
    seconds = spec.pop("seconds")
    load = Load(**spec)
    say(load.warm_up())
    if sys.stdin.readline():
        say(load.run(seconds))
        sys.stdin.readline()
    load.close()


if __name__ == "__main__":
    main()
