"""Honest clients, each of which judges how its connection ends.

A client that was reset or refused knows that something is missing; one that
meets the end of the stream believes that it has everything.  So it depends on
what was done to the server whether the end of a connection is a loss.

What a caller sends is cut from one block of random bytes.  What comes back is
compared with the same place of the block in upper case.  So a caller remembers
two counters and no data, and a reply that is shifted or altered in any bit is
seen.  Nothing here imports echoserver: the judge shares no code with the
judged.
"""

import random
import select
import socket
import threading
from time import monotonic, sleep
from typing import Any, Iterable, List, NamedTuple, Optional, Tuple

from .clients import PATIENCE
from .faults import connect

__all__ = ["Caller", "ENDLESS", "Kind", "finish", "start"]

SIZE = 1 << 20              # of the block
PIECE = 64 << 10            # bytes of one send or receive at most
ENDLESS = 1 << 50           # bytes of a message that has no end

_block = random.Random(0).getrandbits(8 * SIZE).to_bytes(SIZE, "big")
SENT = _block * 2           # twice, so that no slice has to wrap around
RIGHT = SENT.upper()


class Kind(NamedTuple):

    """What a caller does: it sends a message of low to high bytes (small ones
    are likelier), waits for the reply, and so on."""

    name: str
    low: int
    high: int
    messages: int = 0           # then it closes the connection; 0 is never
    again: bool = False         # then it connects again
    fuzz: bool = False          # split, delay and end at random


class Ended(Exception):

    """The connection is over; the argument says how."""


class Caller(threading.Thread):

    """An honest client, in a thread of its own.

    Instance variables:

    - sent, received: bytes of this connection so far
    - base: the bytes of the messages before the present one
    - marked: the bytes that were sent when the server was told to stop, or
      None before that; cut, when it may cut replies, since the grace is over
      for a client that is busy
    - connected: whether it is, or was
    - done: how many of its connections were served to their end
    - ends: how the others ended: "eof" (by the server), "reset", "refused",
      "wrong", "late"
    - problems: what of that the server should not have done
    """

    def __init__(self, address: Tuple[str, int], kind: Kind, seed: Any,
                 may: Iterable[str] = ()) -> None:
        super().__init__(daemon=True)
        self.address, self.kind, self.may = address, kind, may
        self.sent = self.received = self.base = self.done = 0
        self.marked: Optional[int] = None
        self.connected = self.leaving = False
        self.cut = 0.0
        self.ends: List[str] = []
        self.problems: List[str] = []
        self._random = random.Random(seed)

    def run(self) -> None:
        while not self.leaving and not self.ends:
            how = self._connection()
            self.done += not how
            self.ends += [how] * bool(how)
            why = how and how not in self.may and self._judge(how)
            if why:
                self.problems.append("%s: %s after %d of %d bytes" % (
                    self.kind.name, why, self.received, self.sent))
            if not self.kind.again:
                break

    def _connection(self) -> str:
        """Connect and do what is to be done; return how that ended, "" if as
        it should."""
        self.sent = self.received = self.base = number = 0
        try:
            with connect(self.address) as s:
                self.connected = True
                s.setblocking(False)
                while not self.leaving and (
                        not number or number != self.kind.messages):
                    number += 1
                    self._exchange(s, self.kind.fuzz
                                   and number == self.kind.messages)
            return ""
        except Ended as end:
            return str(end)
        except OSError as error:
            return ("refused" if isinstance(error, ConnectionRefusedError)
                    else "late" if isinstance(error, socket.timeout)
                    else "reset")

    def _exchange(self, s: socket.socket, end: bool) -> None:
        """Send a message, and receive its reply; then the end of the stream,
        if ours is to end with the message."""
        kind = self.kind
        self.base = self.sent
        target = self.sent + int(
            kind.low * (kind.high / kind.low) ** self._random.random())
        while self.received < target or end:
            piece = int(PIECE ** self._random.random()) if kind.fuzz else PIECE
            readable, writable, _ = select.select(
                [s], [s] if self.sent < target else [], [], PATIENCE)
            if not readable and not writable:
                raise Ended("late")
            if writable:
                at = self.sent % SIZE
                self.sent += s.send(
                    SENT[at:at + min(target - self.sent, piece)])
                if self.sent == target and end:
                    s.shutdown(socket.SHUT_WR)
            if readable and not self._receive(s.recv(piece)):
                if end and self.received == target:
                    break
                raise Ended("eof")
            if kind.fuzz and self._random.random() < 0.1:
                sleep(self._random.random() / 50)

    def _receive(self, data: bytes) -> bool:
        """Compare what has come; return False at the end of the stream."""
        at = self.received % SIZE
        self.received += len(data)
        if RIGHT[at:at + len(data)] != data or self.received > self.sent:
            raise Ended("wrong")
        return bool(data)

    def _judge(self, how: str) -> str:
        """Return what is wrong with an end, "" if nothing.

        Once the server was told to stop, a client that has one message is
        served if it is let in at all, unless that takes too long.  Others may
        be reset: that is visible.
        But a clean end says that all that was sent before the stop has been
        answered; and it never comes in the midst of a reply.
        """
        if self.marked is not None and how not in ("wrong", "late"):
            if self.kind.messages == 1:
                is_right = how == "refused" or monotonic() > self.cut
                return "" if is_right else how
            if how == "eof" and self.received < self.marked:
                return "a clean end before the reply to what was sent in time"
            if how == "eof" and self.base < self.received < self.sent:
                return "a clean end in the midst of a reply"
            return ""
        return {"wrong": "the reply is wrong", "late": "no reply, and no end",
                "eof": "the server ended the stream"}.get(how, how)


def start(address: Tuple[str, int], kind: Kind, count: int, seed: Any,
          may: Iterable[str] = ()) -> List[Caller]:
    """Let so many callers begin."""
    callers = [Caller(address, kind, "%s/%s/%d" % (seed, kind.name, number),
                      may) for number in range(count)]
    for caller in callers:
        caller.start()
    return callers


def finish(callers: List[Caller], seconds: float = PATIENCE) -> List[str]:
    """Wait for callers to end by themselves; return their problems."""
    end = monotonic() + seconds
    for caller in callers:
        caller.join(max(end - monotonic(), 0))
    late = ["%s: no end" % caller.kind.name
            for caller in callers if caller.is_alive()]
    return sum((caller.problems for caller in callers), late)
