"""Rude peers: what clients and networks do to a server, on purpose.

Each fault is a function that is given a connected socket and a generator of
random numbers, and misbehaves.  What it expects of the server it checks, and
raises Broken when the server fails it; what it does to itself it swallows.
RUDE lists them all.
"""

import concurrent.futures
import contextlib
import random
import select
import socket
import struct
import sys
import time
from typing import Callable, List, NamedTuple, Tuple

from .clients import PATIENCE

__all__ = ["Broken", "Fault", "RUDE", "connect", "expect", "inject"]

RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)

TCP_REPAIR = 19             # Linux; the socket module has no name for it
SECOND = 1.0                # between the bytes of the slowest peer
MUCH = 100 << 20            # bytes, for the peer that sends too much


class Broken(Exception):

    """The server did not do what it should have done for a rude peer."""


class Fault(NamedTuple):

    """What is done to a server so many times in a soak of a minute, of which
    so many at once."""

    name: str
    times: int
    at_once: int
    run: Callable[[socket.socket, random.Random], None]


def connect(address: Tuple[str, int]) -> socket.socket:
    """Return a connection that is closed with a reset.

    After that no port stays in TIME_WAIT, of which there are 28,000.
    """
    s = socket.create_connection(address, PATIENCE)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def expect(s: socket.socket, data: bytes, then_end: bool = False) -> None:
    """Receive exactly data, and the end of the stream if so wanted."""
    got = b""
    try:
        for more in iter(lambda: s.recv(65536), b""):
            got += more
            if len(got) >= len(data) + then_end:
                break
    except OSError as error:
        raise Broken("instead of a reply or the end: %s" % error)
    if got != data:
        raise Broken("wrong reply: %r for %r" % (got[:40], data[:40]))


def reset_at_connect(s: socket.socket, rng: random.Random) -> None:
    """Leave at once."""


def reset_mid_send(s: socket.socket, rng: random.Random) -> None:
    """Leave while a part of a message is still in our own kernel."""
    s.setblocking(False)
    s.send(b"m" * rng.randrange(1, 1 << 20))


def reset_with_reply_pending(s: socket.socket, rng: random.Random) -> None:
    """Leave when the reply is there, unread."""
    s.sendall(b"p" * rng.randrange(1, 100000))
    if not select.select([s], [], [], PATIENCE)[0]:
        raise Broken("no reply within %g s" % PATIENCE)


def half_open(s: socket.socket, rng: random.Random) -> None:
    """Vanish without a word, as a host does that loses its power.

    Linux lets those who may administer the network close a socket so that
    nothing is sent.  Others stay mute, which looks the same to the server,
    until it ends the connection for being idle.
    """
    s.sendall(b"hello")
    expect(s, b"HELLO")
    try:
        s.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    except OSError:
        expect(s, b"", then_end=True)


def silent(s: socket.socket, rng: random.Random) -> None:
    """Say nothing, until the server ends the connection for being idle."""
    expect(s, b"", then_end=True)


def one_byte_a_second(s: socket.socket, rng: random.Random) -> None:
    for _ in range(3):
        s.sendall(b"a")
        expect(s, b"A")
        time.sleep(SECOND)


def never_reading(s: socket.socket, rng: random.Random) -> None:
    """Send and never read, until the server cuts the connection."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with contextlib.suppress(ConnectionError):
        while True:
            s.sendall(b"n" * 65536)


def send_much_and_leave(s: socket.socket, rng: random.Random) -> None:
    """Send 100 MB as fast as the server takes it, and leave."""
    s.setblocking(False)
    block, left = memoryview(b"x" * (256 << 10)), MUCH
    while left > 0:
        readable, writable, _ = select.select([s], [s], [], PATIENCE)
        if not readable and not writable:
            raise Broken("moved no byte for %g s" % PATIENCE)
        if readable and not s.recv(256 << 10):
            raise Broken("the stream ended")
        if writable:
            left -= s.send(block)


def close_both_sides(s: socket.socket, rng: random.Random) -> None:
    s.sendall(b"c" * rng.randrange(1, 65536))
    s.shutdown(socket.SHUT_RDWR)


def out_of_band(s: socket.socket, rng: random.Random) -> None:
    """Mark a byte as urgent: it is echoed like any other."""
    s.sendall(b"before")
    s.send(b"!", socket.MSG_OOB)
    s.sendall(b"after")
    s.shutdown(socket.SHUT_WR)
    expect(s, b"BEFORE!AFTER", then_end=True)


RUDE = [
    Fault("reset at connect", 600, 8, reset_at_connect),
    Fault("reset in mid-send", 400, 8, reset_mid_send),
    Fault("reset, reply pending", 330, 8, reset_with_reply_pending),
    Fault("half-open", 100, 100, half_open),
    Fault("silent", 100, 100, silent),
    Fault("one byte a second", 60, 100, one_byte_a_second),
    Fault("never reading", 40, 40, never_reading),
    Fault("100 MB and leaving", 4, 2, send_much_and_leave),
    Fault("both sides closed", 200, 8, close_both_sides),
    Fault("out-of-band bytes", 160, 8, out_of_band),
]


def inject(fault: Fault, address: Tuple[str, int], times: int, at_once: int,
           seconds: float, seed: int) -> Tuple[int, List[str]]:
    """Do it so many times, unless that takes too long; return how often that
    was, and what the server did wrong."""
    problems: List[str] = []
    done: List[int] = []
    numbers = iter(range(times))
    end = time.monotonic() + seconds

    def work() -> None:
        for number in numbers:  # one iterator for all: each takes the next
            rng = random.Random("%s/%s/%d" % (seed, fault.name, number))
            try:
                with connect(address) as s:
                    fault.run(s, rng)
            except (Broken, OSError) as error:
                problems.append("%s %d: %s" % (fault.name, number, error))
            done.append(number)
            if time.monotonic() > end:
                break

    threads = min(fault.at_once, at_once, times)
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for _ in range(threads):
            pool.submit(work)
    return len(done), problems
