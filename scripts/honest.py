"""Honest clients: load that verifies every byte of every reply.

All clients of a Load run in one thread, over one selector, so that they are
not slowed down by each other's locks nor by whatever else the caller does in
threads.  (beside.py runs a Load in a process of its own.)

What a client sends is cut from one block of random bytes, from a place of its
own.  What comes back is compared with the same place of the block in upper
case.  So a client remembers two counters and no data, and a reply that is
shifted, mixed with another client's, or altered in any bit is seen.

Nothing here imports echoserver: the judge shares no code with the judged.
"""

import collections
import errno
import heapq
import itertools
import random
import selectors
import socket
from time import monotonic
from typing import Any, Callable, List, Optional, Tuple

from verdict import PATIENCE, Tally, judge, judge_stopped

__all__ = ["BUSY", "Client", "FUZZ", "Kind", "LARGE", "Load", "ONCE", "PING",
           "SLOW", "STREAM"]

# What a client does, over and over.
#
# - low, high: the size of a message in bytes; small ones are likelier
# - pause: seconds between a reply and the next message
# - piece: bytes of one send or receive at most
# - messages: how many, before it ends the connection; 0 is no end
# - again: whether another client then takes its place
# - fuzz: whether pieces, pauses and the manner of the end are random
Kind = collections.namedtuple(
    "Kind", "name low high pause piece messages again fuzz")

PIECE = 256 << 10
ENDLESS = 1 << 50
PING = Kind("ping", 1, 4096, 0.02, PIECE, 0, False, False)
SLOW = PING._replace(name="slow", pause=0.1)
BUSY = PING._replace(name="busy", pause=0)
LARGE = BUSY._replace(name="large", low=256 << 10, high=2 << 20)
STREAM = BUSY._replace(name="stream", low=ENDLESS, high=ENDLESS)
ONCE = BUSY._replace(name="once", messages=1)
FUZZ = Kind("fuzz", 1, 1 << 20, 0.02, 64 << 10, 5, True, True)

SIZE = 1 << 20
_block = random.Random(0).getrandbits(8 * SIZE).to_bytes(SIZE, "big")
SENT = _block * 2           # twice, so that no slice has to wrap around
RIGHT = SENT.upper()


class Client:

    """One verifying connection; a Load calls step() when it is ready.

    Instance variables:

    - sent, received: bytes so far
    - target: bytes that this and all earlier messages have together
    - base: the same without this message
    - marked: bytes sent at the moment of Load.mark_stop(), else None
    - done: whether it is over
    """

    def __init__(self, load: "Load", kind: Any, name: str) -> None:
        self.load = load
        self.kind = kind
        self.name = name
        # From a text, which seeds alike in every version of Python.
        self.random = random.Random("%s/%s" % (load.seed, name))
        self.offset = self.random.randrange(SIZE)
        self.sent = self.received = self.base = self.target = 0
        self.marked = None  # type: Optional[int]
        self.done = self.connected = self.ending = self.resting = False
        self.left = kind.messages
        self.since = self.asked = monotonic()
        self._connect()

    def _connect(self) -> None:
        self.events = 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex(self.load.address)
        self.watch()

    @property
    def owed(self) -> int:
        """Bytes that were sent and not answered."""
        return self.sent - self.received

    def watch(self) -> None:
        """Have the selector wait for what the client can do next."""
        events = selectors.EVENT_READ if self.connected else 0
        if not self.connected or self.sent < self.target:
            events |= selectors.EVENT_WRITE
        if self.resting or self.done:
            events = 0
        selector, before = self.load.selector, self.events
        self.events = events
        if events and before:
            if events != before:
                selector.modify(self.socket, events, self)
        elif events:
            selector.register(self.socket, events, self)
        elif before:
            selector.unregister(self.socket)

    def step(self, events: int) -> None:
        """Do what the socket is ready for."""
        try:
            if not self.connected:
                self._begin()
            elif events & selectors.EVENT_READ:
                self._receive()
            if self.sent < self.target and not self.done:
                self._send()
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self.end("refused" if error.errno == errno.ECONNREFUSED
                     else "reset", error)
        if not self.done:
            self.watch()

    def _begin(self) -> None:
        code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, errno.errorcode.get(code, "error"))
        self.connected = True
        self.ask()

    def ask(self) -> None:
        """Begin the next message."""
        low, high = self.kind.low, self.kind.high
        size = int(low * (high / low) ** self.random.random())
        self.base, self.target = self.target, self.target + size
        self.asked = monotonic()

    def _piece(self, most: int) -> int:
        most = max(min(most, self.kind.piece), 1)
        if self.kind.fuzz:
            return int(most ** self.random.random())
        return most

    def _send(self) -> None:
        at = (self.offset + self.sent) % SIZE
        piece = SENT[at:at + self._piece(self.target - self.sent)]
        self.sent += self.socket.send(piece)
        if self.sent == self.target and self.left == 1 and self.kind.fuzz:
            if self.random.random() < 0.5:
                self.ending = True
                self.socket.shutdown(socket.SHUT_WR)
        self._dawdle()

    def _receive(self) -> None:
        data = self.socket.recv(self._piece(PIECE))
        if not data:
            return self.end("eof")
        at = (self.offset + self.received) % SIZE
        self.received += len(data)
        if RIGHT[at:at + len(data)] != data or self.received > self.sent:
            return self.end("wrong")
        if self.received == self.target:
            self._answered()
        self._dawdle()

    def _dawdle(self) -> None:
        """If this is fuzz, be deaf and mute for a moment, now and then."""
        if self.kind.fuzz and not self.done and self.random.random() < 0.1:
            self.rest(self.random.random() * self.kind.pause)

    def rest(self, seconds: float) -> None:
        """Do nothing for so many seconds."""
        self.resting = True
        self.load.call_later(seconds, self.wake)

    def wake(self) -> None:
        self.resting = False
        if self.done:
            return
        if self.sent == self.received == self.target and self.connected:
            if self.load.finishing:
                return self.end("done")
            if not self.ending:
                self.ask()
        self.watch()

    def _answered(self) -> None:
        now, tally = monotonic(), self.load.tally
        tally.latencies.append(now - self.asked)
        if not self.base:
            tally.first.append(now - self.since)
        self.left -= 1
        if self.ending:
            pass  # the end of the stream is to come yet
        elif self.load.finishing or self.left == 0:
            self.end("done")
        elif self.kind.pause and not self.kind.fuzz:
            self.rest(self.kind.pause * (0.5 + self.random.random()))
        else:
            self.ask()

    def end(self, how: str, error: Optional[OSError] = None) -> None:
        """Close, and have it judged how the connection ended."""
        if self.done:
            return
        self.done = True
        self.watch()
        self.socket.close()
        if how == "eof" and self.ending and not self.owed:
            how = "done"
        self.load.ended(self, how, error)

    def __str__(self) -> str:
        return "%s after %d of %d bytes" % (self.name, self.received,
                                            self.sent)


class Load:

    """Any number of clients of one server, in the caller's thread."""

    def __init__(self, address: Tuple[str, int], seed: Any = 0) -> None:
        self.address = address
        self.seed = seed
        self.selector = selectors.DefaultSelector()
        self.tally = Tally()
        self.clients = set()  # type: set
        self.finishing = self.stopped = False
        self.judge = judge  # says what was lost with a connection that ended
        self._calls = []  # type: List[Tuple[float, int, Callable[[], Any]]]
        self._number = itertools.count(1)

    def __enter__(self) -> "Load":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        for client in list(self.clients):
            client.done = True
            client.watch()
            client.socket.close()
        self.selector.close()

    def add(self, kind: Any, count: int = 1) -> List[Client]:
        """Let count more clients of that kind connect, and return them."""
        new = [Client(self, kind, "%s %d" % (kind.name, next(self._number)))
               for _ in range(count)]
        self.clients.update(new)
        return new

    def call_later(self, seconds: float, call: Callable[[], Any]) -> None:
        heapq.heappush(self._calls, (monotonic() + seconds,
                                     next(self._number), call))

    def run(self, seconds: float) -> None:
        """Go on for so long, or until no client is left or to come."""
        end = monotonic() + seconds
        while (self.clients or self._calls) and monotonic() < end:
            self.turn(end - monotonic())

    def turn(self, timeout: float) -> None:
        """Wait until something can be done, and do it."""
        now = monotonic()
        while self._calls and self._calls[0][0] <= now:
            heapq.heappop(self._calls)[2]()
        if self._calls:
            timeout = min(timeout, self._calls[0][0] - now)
        for key, events in self.selector.select(max(timeout, 0)):
            if isinstance(key.data, Client):
                key.data.step(events)

    def finish(self, patience: float = PATIENCE) -> Tally:
        """Have every message answered and none begun; return the tally."""
        self.finishing = True
        for client in list(self.clients):
            if client.received == client.target and not client.ending:
                client.end("done")
        end = monotonic() + patience
        while self.clients and monotonic() < end:
            self.turn(end - monotonic())
        for client in list(self.clients):
            client.end("late" if client.connected else "refused")
        return self.take_tally()

    def take_tally(self) -> Tally:
        """Return what was seen since the last time."""
        tally, self.tally = self.tally, Tally()
        now = monotonic()
        tally.waiting = max([now - client.asked for client in self.clients
                             if client.target > client.received
                             and client.target < ENDLESS] or [0.0])
        return tally

    def mark_stop(self) -> None:
        """Remember what was sent before the server is told to stop."""
        self.stopped = True
        self.judge = judge_stopped
        for client in self.clients:
            client.marked = client.sent

    def ended(self, client: Client, how: str,
              error: Optional[OSError]) -> None:
        """Count a connection that is over, and what was lost with it."""
        self.clients.discard(client)
        self.tally.ends[how] += 1
        lost, why = (0, "") if how == "done" else self.judge(client, how)
        if why:
            self.tally.lost += max(lost, 1)  # one at least, so that it shows
            self.tally.problems.append("%s: %s%s" % (
                client, why, " (%s)" % error if error else ""))
        if client.kind.again and not (self.stopped and how == "refused"):
            self.call_later(client.kind.pause, lambda: self.add_again(client))

    def add_again(self, client: Client) -> None:
        """Let another client of its kind take its place."""
        if not self.finishing:
            self.add(client.kind)
