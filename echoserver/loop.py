"""The loop: a TCP server that waits without polling and stops when told.

SelectorTCPServer is a TCPServer with another loop: one wait for the listener,
a wake-up socket, and whatever else is given to watch().  That of socketserver
looks for shutdown() only every half-second (bpo-44769), cannot be stopped from
a signal handler (bpo-13749) nor before it began (bpo-2302), and takes one more
request after it was (bpo-35017).  Stopping here is a flag and a byte: right
from any thread, from a signal handler, before serving, and twice.

What the loop does when it is woken, when the clock demands it, and when a
client waits, is for the derived class to say.
"""

import contextlib
import os
import select
import selectors
import socket
import threading
from time import monotonic
from typing import (Any, Callable, Dict, List, Optional, Set, Tuple, Type,
                    TypeVar)

from .listening import ListeningTCPServer

__all__ = ["NEVER", "READ", "WRITE", "SelectorTCPServer"]

NEVER = float("inf")

# Seconds.  Python on Windows cannot be interrupted in a wait (gh-74157), and
# notices Ctrl-C at its end.  Elsewhere, epoll() takes no more than 24 days.
LONGEST_WAIT = 0.5 if os.name == "nt" else 3600.0

# Files that are ready at once.  Room for epoll's own 1,023 is 12 KiB a wait,
# which may not be there.
MAX_EVENTS = 64

Self = TypeVar("Self", bound="SelectorTCPServer")


class Selector(selectors.DefaultSelector):

    """The best that this system has, with the interface of select.epoll."""

    def poll(self, timeout: float, maxevents: int) -> List[Tuple[int, int]]:
        return [(key.fd, events) for key, events in self.select(timeout)]


# Where there is epoll it is used directly: what selectors adds to an event is
# 3 % of the time of a small reply.
if hasattr(select, "epoll"):
    Poller: Any = select.epoll
    READ, WRITE = select.EPOLLIN, select.EPOLLOUT
else:
    Poller = Selector
    READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class SelectorTCPServer(ListeningTCPServer):

    """Base class of the servers: looping and stopping.

    Methods for the caller:

    - start(server_address, ...) -> server, serving in the background
    - serve_forever()
    - stop(), from anywhere
    - shutdown(), which also waits for the loop to end
    - server_close()

    Methods for derived classes:

    - watch(file, callback), rewatch(file, events), watches(file), ignore(file)
    - let_go() or renew_poller(), in a forked child

    Methods that may be overridden:

    - accept_ready(): a client waits
    - woken(): somebody has called wake()
    - sweep(now) -> when it wants to be called next
    """

    def __init__(self, server_address: Tuple[Any, ...],
                 RequestHandlerClass: Any,
                 bind_and_activate: bool = True) -> None:
        self._stopping = False
        self._loop_ended = threading.Event()  # shutdown() waits for it
        self._loop_ended.set()
        self._loop_thread: Optional[int] = None
        self._background: Optional[threading.Thread] = None
        self._due = NEVER           # when sweep() has something to do
        self._watching = False      # whether it waits for the listener
        self._closed = False
        # What the loop waits for, by the number of the file.
        self._watched: Dict[int, Tuple[Any, Callable[[Any], None]]] = {}
        with contextlib.ExitStack() as opened:
            self._poller = Poller()
            opened.callback(lambda: self._poller.close())
            self._alarm, self._waker = map(opened.enter_context,
                                           socket.socketpair())
            self._alarm.setblocking(False)
            self._waker.setblocking(False)
            self.watch(self._alarm, self._woken)
            super().__init__(server_address, RequestHandlerClass,
                             bind_and_activate)
            self._close_loop = opened.pop_all().close

    @classmethod
    def start(cls: Type[Self],
              server_address: Tuple[Any, ...] = ("127.0.0.1", 0),
              *args: Any, **options: Any) -> Self:
        """Return a server that is serving in the background.

        Made for a with block, whose end stops and drains it:

            with ThreadingEchoServer.start() as server:
                host, port = server.server_address

        The default address is a free port on the loopback interface.
        """
        server = cls(server_address, *args, **options)
        try:
            server.run_in_background()
        except BaseException:
            server.server_close()
            raise
        return server

    def run_in_background(self) -> None:
        """Begin serve_forever() beside the caller; part of start()."""
        background = threading.Thread(target=self.serve_forever,
                                      name="echoserver", daemon=True)
        background.start()
        self._background = background

    def stop(self) -> None:
        """Make serve_forever() return soon.

        Never blocks.  May be called in any state, twice, from any thread and
        from a signal handler.
        """
        self._stopping = True
        self.wake()

    def shutdown(self) -> None:
        """Stop the loop and wait until it has ended.

        In the loop's own thread, where waiting would never end, this is
        stop().
        """
        self.stop()
        if threading.get_ident() != self._loop_thread:
            while not self._loop_ended.wait(LONGEST_WAIT):
                pass

    def server_close(self) -> None:
        """Stop, and give everything back; once is enough."""
        self.shutdown()
        if self._background is not None:
            self._background.join()
        super().server_close()
        self._closed = True
        self._close_loop()
        self._watched.clear()

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Serve until stop() or shutdown().

        There is no polling, so poll_interval is ignored.
        """
        self._loop_ended.clear()
        self._loop_thread = threading.get_ident()
        try:
            if not self._stopping:
                self.socket.setblocking(False)
                self._watch_listener()
            while not self._stopping:
                self._turn()
        finally:
            self._ignore_listener()
            self._stopping = False
            self._loop_thread = None
            self._loop_ended.set()

    def watch(self, file: Any, callback: Callable[[Any], None],
              events: int = READ) -> None:
        """Have the loop call callback(file) when file is ready.

        ValueError is raised if the loop has been closed.
        """
        if self._closed:
            raise ValueError("the loop has been closed")
        number = file.fileno()
        # in this order: what another thread finds can be unregistered
        self._poller.register(number, events)
        self._watched[number] = file, callback

    def rewatch(self, file: Any, events: int) -> None:
        """Change what file is watched for."""
        self._poller.modify(file.fileno(), events)

    def watches(self, file: Any) -> bool:
        """Whether file is open and watched."""
        return file.fileno() in self._watched

    def ignore(self, file: Any) -> None:
        """Undo watch(); raise KeyError if there was none."""
        number = file.fileno()
        del self._watched[number]
        self._poller.unregister(number)

    def let_go(self, keep: Any = None) -> None:
        """Close, in a forked child, all but keep that is its parent's.

        Otherwise the port stays bound for as long as the child lives.  They
        are closed by their numbers, since the thousand sockets of a busy
        parent take milliseconds one by one.
        """
        numbers = self.descriptors()
        if keep is not None:
            numbers.discard(keep.fileno())
        # No object is to close its number again, which may be another's then.
        self._inherited = list(vars(self).values())
        close_descriptors(numbers)
        self._loop_thread = None
        self._loop_ended.set()  # here there is none to wait for

    def renew_poller(self) -> None:
        """Let a forked child go on with the loop.

        The parent's epoll is shared with it, and a kqueue not even inherited.
        """
        self._inherited = [self._poller]    # its number is not to be closed
        self._poller = Poller()
        for number in self._watched:
            self._poller.register(number, READ)

    def descriptors(self) -> Set[int]:
        """Return the numbers of all that this server has open."""
        numbers = set(self._watched)
        numbers.update((self._waker.fileno(), self.socket.fileno(),
                        getattr(self._poller, "fileno", lambda: -1)()))
        return numbers - {-1}

    def _turn(self) -> None:
        """Wait for something to happen, and have it handled."""
        now = monotonic()
        if now >= self._due:
            self._due = self.sweep(now)
        timeout = max(min(self._due - now, LONGEST_WAIT), 0)
        watched = self._watched
        for number, _ in self._poller.poll(timeout, MAX_EVENTS):
            try:
                file, callback = watched[number]
            except KeyError:
                continue  # ended in this turn, or watched from now on
            callback(file)
        self.service_actions()

    def _woken(self, alarm: socket.socket) -> None:
        alarm.recv(512)
        self.woken()

    def woken(self) -> None:
        """Called by the loop after wake()."""

    def sweep(self, now: float) -> float:
        """Called by the loop when due; return when it next is."""
        return NEVER

    def wake(self) -> None:
        """Have the loop call woken() soon; from any thread."""
        try:
            self._waker.send(b".")
        except OSError:
            pass  # enough bytes are under way, or there is no loop any more

    def wakeup_fd(self) -> int:
        """Return what signal.set_wakeup_fd() takes, to wake this loop."""
        return self._waker.fileno()

    def _watch_listener(self) -> None:
        if not self._watching and self.socket.fileno() >= 0:
            self.watch(self.socket, self._accept_ready)
            self._watching = True

    def _ignore_listener(self) -> None:
        if self._watching:
            self.ignore(self.socket)
            self._watching = False

    def _accept_ready(self, listener: socket.socket) -> None:
        self.accept_ready()

    def accept_ready(self) -> None:
        """Called by the loop when a client waits."""
        self._handle_request_noblock()  # type: ignore


def close_descriptors(numbers: Set[int]) -> None:
    """Close them in runs, a system call each where there is such a call."""
    for first in sorted(n for n in numbers if n - 1 not in numbers):
        last = first
        while last + 1 in numbers:
            last += 1
        os.closerange(first, last + 1)
