"""Keeping the time where no loop can, since it serves a connection.

A server's loop ends who is idle, and drains.  But a server that serves one
connection at a time does so in the loop, which stands still meanwhile; and a
forked child whose parent has been killed has nobody's loop to look after it.
There a thread, or signals, keep the time, for as long as it lasts.
"""

import contextlib
import os
import signal
import socket
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any, Iterator

from .child import MAX_TIMEOUT, hear_parent
from .threads import start_thread

if TYPE_CHECKING:
    from .base import EchoServer

__all__ = ["keep_time_in_child", "keeping_time"]

TICK = 0.05     # seconds between two looks


@contextlib.contextmanager
def keeping_time(server: "EchoServer") -> Iterator[None]:
    """Have the time kept during the block of a with statement.

    OSError is raised when the system has no means for a thread.
    """
    ended = threading.Event()
    start_thread(keep_time, server, ended)
    try:
        yield
    finally:
        ended.set()


def keep_time(server: "EchoServer", ended: threading.Event) -> None:
    """End who is idle and, after a stop, who is at rest, until ended."""
    peers, began = server.peers, server.draining_since
    due = monotonic() + TICK
    while not ended.wait(TICK):
        now = monotonic()
        if not server.is_ending():
            if server.idle.timeout and now >= due:
                due = server.idle.end_idle(now)
            continue
        began = began or now
        if now < began + server.grace:
            peers.end_resting(now, began, server.grace)
        else:
            peers.cut_all("drain")


def keep_time_in_child(server: "EchoServer", control: socket.socket) -> None:
    """Hear when the parent process stops; when it has ended, end who is idle
    in its place, or who is left of its drain."""
    def on_end() -> None:
        if server.is_ending():
            server.stop(grace=0)
            os._exit(1)
        elif server.idle.timeout:
            signal.signal(signal.SIGALRM, on_alarm)
            on_alarm()

    def on_alarm(*args: Any) -> None:
        now = monotonic()
        signal.setitimer(signal.ITIMER_REAL, min(
            server.idle.end_idle(now) - now, MAX_TIMEOUT))

    hear_parent(control, lambda grace: server.stop(), on_end)
