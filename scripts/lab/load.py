"""A load of clients that verify every byte of every reply.

All clients of a Load run in one thread, over one poller, so that no lock and
no other work of the caller slows them down.  (Beside, in beside.py, runs a
Load in a process of its own.)

What a client sends is cut from one block of random bytes, from a place of its
own.  What comes back is compared with the same place of the block in upper
case.  So a client remembers two counters and no data, and a reply that is
shifted, mixed with another client's, or altered in any bit is seen.

Nothing here imports echoserver: the judge shares no code with the judged.
"""

import errno
import heapq
import itertools
import math
import random
import select
import selectors
import socket
import struct
import sys
from array import array
from time import monotonic, process_time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from .tally import PATIENCE, Judge, Tally, judge, judge_stopped

__all__ = ["Client", "ENDLESS", "Kind", "Load"]

SIZE = 1 << 20              # of the block; a power of two
ENDLESS = 1 << 50           # bytes of a message that has no end

_block = random.Random(0).getrandbits(8 * SIZE).to_bytes(SIZE, "big")
SENT = _block * 2           # twice, so that no slice has to wrap around
RIGHT = SENT.upper()

# Bytes of one send or receive at most.  malloc() takes blocks above 128 KiB
# from the system anew each time.
PIECE = 64 << 10
# Connections that are dialled at the same time, where they need not be more.
# A full backlog makes the system wait for a second.  And the seconds for them,
# after which no more are tried.
BATCH, DIAL_TIMEOUT = 100, 5.0
# Seconds without a first reply after which those to come are given up.
NEWS = 0.75
LOOK = 0.05                 # seconds between two looks at the clock
# Close with a reset: no port stays in TIME_WAIT, of which there are 28,000.
RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class Kind(NamedTuple):

    """What a client does, over and over: it sends a message of low to high
    bytes (small ones are likelier), waits for the reply, and pauses."""

    name: str
    low: int
    high: int
    pause: float = 0.0          # seconds; math.inf until it is told otherwise
    messages: int = 0           # then it ends the connection; 0 is never
    again: bool = False         # then another client takes its place
    fuzz: bool = False          # split, delay and end at random


class Selector(selectors.DefaultSelector):

    """What select.epoll is, for systems without it."""

    def poll(self, timeout: float) -> List[Tuple[int, int]]:
        return [(key.fd, events) for key, events in self.select(timeout)]


# epoll itself costs half a microsecond less for each event.
Poller: Any = getattr(select, "epoll", Selector)
READ: int = getattr(select, "EPOLLIN", selectors.EVENT_READ)
WRITE: int = getattr(select, "EPOLLOUT", selectors.EVENT_WRITE)


class Client:

    """One verifying connection; its Load calls step() when it is ready.

    Instance variables:

    - sent, received: bytes so far
    - base, target: bytes that all messages have together, without and with
      the present one
    - answered: whole messages
    - waits: seconds from a message's first byte to the last of its reply, of
      each reply since the last Tally
    - asked: when the present message was begun
    - marked: bytes sent at the moment of Load.mark_stop()
    """

    def __init__(self, load: "Load", kind: Kind, name: str) -> None:
        self.load, self.kind, self.name = load, kind, name
        self.fuzz = kind.fuzz
        # From a text, which seeds alike in every version of Python.
        self.random = random.Random("%s/%s" % (load.seed, name))
        self.offset = self.random.randrange(SIZE)
        self.sent = self.received = self.base = self.target = 0
        self.answered = self.marked = self.events = 0
        self.connected = self.ending = self.deaf = self.done = False
        self.waits = array("d")
        self.began = self.asked = monotonic()
        self.socket = socket.socket()
        self.fd = self.socket.fileno()
        self.recv, self.send = self.socket.recv, self.socket.send
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex(load.address)
        self.watch()

    @property
    def unanswered(self) -> int:
        """Bytes that were sent and have not come back."""
        return self.sent - self.received

    def watch(self) -> None:
        """Have the poller wait for what the client can do next."""
        events = (0 if self.done or self.deaf else WRITE if not self.connected
                  else READ | WRITE if self.sent < self.target else READ)
        if events != self.events:
            poller = self.load.poller
            if not events:
                poller.unregister(self.fd)
            elif self.events:
                poller.modify(self.fd, events)
            else:
                poller.register(self.fd, events)
            self.events = events

    def step(self, events: int) -> None:
        """Do what the socket is ready for."""
        try:
            if not self.connected:
                self._connect()
            elif events != WRITE:
                self._receive()
            if self.sent < self.target and not self.done:
                self._send()
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self.end("refused" if error.errno == errno.ECONNREFUSED
                     else "reset", error)
        if self.events != READ or self.sent < self.target:
            self.watch()

    def _connect(self) -> None:
        code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, errno.errorcode.get(code, "error"))
        self.connected = True
        self.ask(monotonic())

    def ask(self, now: float) -> None:
        """Begin the next message."""
        size = self.kind.low
        if size < self.kind.high:
            ratio = self.kind.high / size
            size = int(size * ratio ** self.random.random())
        self.base = self.target
        self.target += size
        self.asked = now

    def _send(self) -> None:
        at = (self.offset + self.sent) % SIZE
        size = self.target - self.sent
        if size > PIECE or self.fuzz:
            size = min(size, self._piece())
        self.sent += self.send(SENT[at:at + size])
        if self.fuzz:
            if (self.sent == self.target and self.random.random() < 0.5
                    and self.answered + 1 == self.kind.messages):
                self.ending = True
                self.socket.shutdown(socket.SHUT_WR)
            self._dawdle()

    def _receive(self) -> None:
        data = self.recv(self._piece() if self.fuzz else PIECE)
        size = len(data)
        at = (self.offset + self.received) % SIZE
        self.received += size
        if RIGHT[at:at + size] != data or self.received > self.sent:
            self.end("wrong")
        elif self.received == self.target and size:
            self._answered()
        elif not size:
            self.end("eof")
        if self.fuzz:
            self._dawdle()

    def _piece(self) -> int:
        """Return how many bytes fuzz moves at once."""
        return int(PIECE ** self.random.random())

    def _answered(self) -> None:
        """Take note of a reply that is whole, and go on."""
        now = monotonic()
        self.waits.append(now - self.asked)
        self.answered += 1
        if self.answered == 1:
            self.load.tally.first.append(now - self.began)
        if self.ending:
            pass  # the end of the stream is to come yet
        elif self.answered == self.kind.messages or self.load.finishing:
            self.end("done")
        elif not self.kind.pause or self.fuzz:
            self.ask(now)
        elif self.kind.pause < math.inf:
            self.load.call_later(
                self.kind.pause * (0.5 + self.random.random()), self.resume)

    def resume(self) -> None:
        """Go on after a pause, or after being deaf."""
        if self.connected and not self.done:
            self.deaf = False
            if self.received == self.target and not self.ending:
                self.ask(monotonic())
            self.step(WRITE)

    def _dawdle(self) -> None:
        """Be deaf and mute for a moment, now and then."""
        if not self.done and not self.deaf and self.random.random() < 0.1:
            self.deaf = True
            self.load.call_later(self.random.random() * self.kind.pause,
                                 self.resume)
            self.watch()

    def end(self, how: str, error: Optional[OSError] = None) -> None:
        """Close, and have it judged how the connection ended."""
        if not self.done:
            self.done = True
            self.watch()
            self.socket.close()
            if how == "eof" and self.ending and not self.unanswered:
                how = "done"
            self.load.ended(self, how, error)

    def __str__(self) -> str:
        return "%s after %d of %d bytes" % (self.name, self.received,
                                            self.sent)


class Load:

    """Any number of clients of one server, in the caller's thread."""

    def __init__(self, address: Tuple[str, int], seed: Any = 0,
                 judge: Judge = judge) -> None:
        self.address, self.seed, self.judge = address, seed, judge
        self.poller = Poller()
        self.clients: Dict[int, Client] = {}    # by descriptor
        self.finishing = self.stopped = False
        self.tally = Tally()
        self._since = monotonic(), process_time()
        self._calls: List[Tuple[float, int, Callable[[], Any]]] = []
        self._number = itertools.count(1)

    def __enter__(self) -> "Load":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        for client in self.clients.values():
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                     RESET)
            client.socket.close()
        self.poller.close()

    def add(self, kind: Kind, count: int = 1) -> List[Client]:
        """Let count more clients of that kind connect, all at once."""
        new = [Client(self, kind, "%s %d" % (kind.name, next(self._number)))
               for _ in range(count)]
        self.clients.update((client.fd, client) for client in new)
        return new

    def open(self, kind: Kind, count: int) -> None:
        """Let count more clients connect, some at a time, and wait for the
        first reply to each, as long as any come."""
        waiting: List[Client] = []
        end = math.inf
        while len(waiting) < count and monotonic() < end:
            batch = self.add(kind, min(count - len(waiting), BATCH))
            waiting += batch
            end = monotonic() + DIAL_TIMEOUT
            while monotonic() < end and not all(
                    client.connected or client.done for client in batch):
                self.turn(LOOK)
        seen = len(self.tally.first)
        news = monotonic()
        while waiting and monotonic() < news + NEWS:
            if waiting[-1].answered or waiting[-1].done:
                waiting.pop()
                continue
            self.turn(LOOK)
            if len(self.tally.first) > seen:
                seen, news = len(self.tally.first), monotonic()

    def call_later(self, seconds: float, call: Callable[[], Any]) -> None:
        heapq.heappush(self._calls, (monotonic() + seconds,
                                     next(self._number), call))

    def turn(self, timeout: float) -> None:
        """Wait until something can be done, and do it."""
        if self._calls:
            now = monotonic()
            while self._calls and self._calls[0][0] <= now:
                heapq.heappop(self._calls)[2]()
            if self._calls:
                timeout = min(timeout, self._calls[0][0] - now)
        for fd, events in self.poller.poll(max(timeout, 0)):
            if fd in self.clients:
                self.clients[fd].step(events)

    def run(self, seconds: float) -> None:
        """Go on for so long, or until no client is left or to come."""
        end = monotonic() + seconds
        while (self.clients or self._calls) and monotonic() < end:
            self.turn(end - monotonic())

    def measure(self, kind: Kind, seconds: float) -> Tally:
        """Let all clients be of that kind for so long; return the tally."""
        self.take_tally()
        for client in list(self.clients.values()):
            client.kind = kind
            client.resume()
        self.run(seconds)
        return self.take_tally()

    def finish(self, patience: float = PATIENCE) -> Tally:
        """Have every message answered and none begun; return the tally."""
        self.finishing = True
        for client in list(self.clients.values()):
            if client.received == client.target and not client.ending:
                client.end("done")
        end = monotonic() + patience
        while self.clients and monotonic() < end:
            self.turn(end - monotonic())
        for client in list(self.clients.values()):
            client.end("late" if client.connected else "refused")
        return self.take_tally()

    def take_tally(self) -> Tally:
        """Return what was seen since the last time."""
        tally, self.tally = self.tally, Tally()
        for client in self.clients.values():
            self._count(client, tally)
            client.waits = array("d")
        before, self._since = self._since, (monotonic(), process_time())
        tally.seconds, tally.cpu = (
            now - then for now, then in zip(self._since, before))
        return tally

    def _count(self, client: Client, tally: Tally) -> None:
        """Put into a tally what a client has seen since the last one."""
        waits = client.received < client.target < ENDLESS
        tally.waits.append(client.waits)
        tally.open.append(monotonic() - client.asked if waits else 0.0)

    def mark_stop(self) -> None:
        """Remember what was sent before the server is told to stop, and judge
        by that."""
        self.stopped, self.judge = True, judge_stopped
        for client in self.clients.values():
            client.marked = client.sent

    def ended(self, client: Client, how: str,
              error: Optional[OSError]) -> None:
        """Count a connection that is over, and what was lost with it."""
        del self.clients[client.fd]
        self.tally.ends[how] += 1
        self._count(client, self.tally)
        why = "" if how == "done" else self.judge(client, how)
        if why:
            # one byte at least, so that it shows
            self.tally.lost += max(client.unanswered, 1)
            self.tally.problems.append("%s: %s%s" % (
                client, why, " (%s)" % error if error else ""))
        if client.kind.again and not (self.stopped and how == "refused"):
            self.call_later(client.kind.pause, lambda: self._replace(client))

    def _replace(self, client: Client) -> None:
        """Let another client of its kind take a client's place."""
        if not self.finishing:
            self.add(client.kind)
