"""An event loop for one thread.

It calls a function when a file is ready, when a timer expires, or when another
thread wakes it.  It does not know TCP.  stop() sets a flag and writes one byte
to a socketpair, so it can be called from any thread, from a signal handler,
before run(), and more than once.

It replaces the loop of socketserver, which looks for shutdown() every half
second (bpo-44769), and cannot be stopped from a signal handler (bpo-13749) nor
before it has begun (bpo-2302).
"""

import contextlib
import math
import sched
import select
import selectors
import socket
import sys
import threading
from time import monotonic, sleep
from typing import Any, Callable, Dict, List, Optional, Tuple

__all__ = ["Loop", "READ", "WRITE"]

# Events of one wait, so that timers and new clients get their turn soon.  (For
# as many as epoll can return, 12 KiB would be allocated for each wait.)
MAX_EVENTS = 64

TICK = 0.002    # seconds between two looks of wait()

# EVENT_READ is epoll's number, too.
READ = selectors.EVENT_READ
WRITE = 4 if hasattr(select, "epoll") else selectors.EVENT_WRITE


class Selector(selectors.DefaultSelector):

    """What a system without epoll has, with the interface of epoll."""

    def poll(self, timeout: float, maxevents: int) -> List[Tuple[int, int]]:
        return [(key.fd, events)
                for key, events in self.select(timeout)[:maxevents]]


class Loop:

    """Calls functions when files are ready and when timers expire.

    Only add(), wake(), stop() and wait() may be called from another thread.

    Class variables that may be overridden:

    - poller_class: poll(), register(), modify() and unregister() are those of
      select.epoll
    - max_wait: seconds for which it sleeps at most

    Instance variables: stopping, whether stop() was called and run() has not
    returned since; closed.
    """

    # Where there is epoll it is used directly: selectors adds to an event 3 to
    # 5 % of the time of a small reply.
    poller_class: Any = getattr(select, "epoll", Selector)
    max_wait = 3600.0   # epoll() takes no more than 24 days

    def __init__(self) -> None:
        self.stopping = self.closed = False
        self._thread: Optional[int] = None      # the one that calls callbacks
        # By descriptor: the function to call, and the file to call it with.
        self._callbacks: Dict[int, Tuple[Callable[[Any], Any], Any]] = {}
        # It would sleep(0) after each function, behind all busy threads.
        self._timers = sched.scheduler(monotonic, lambda seconds: None)
        self._due = math.inf    # the time of the first of them
        self.poller = self.poller_class()
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)
        self.add(self._receiver, lambda receiver: receiver.recv(512))

    def close(self) -> None:
        """Give everything back; closing again does nothing."""
        self.closed = True
        self._thread = None
        self.poller.close()
        self._receiver.close()
        self._sender.close()
        self._callbacks.clear()

    # Files.

    def add(self, file: Any, callback: Callable[[Any], Any],
            events: int = READ) -> None:
        """Call callback(file) whenever file is ready for events.

        OSError is raised when the system has no room for it, ValueError when
        the loop is closed.
        """
        if self.closed:
            raise ValueError("the loop has been closed")
        number = file.fileno()
        # In this order: a file that another thread finds can be removed.
        self.poller.register(number, events)
        self._callbacks[number] = callback, file

    def modify(self, file: Any, events: int) -> None:
        """Change the events that file is to be ready for."""
        self.poller.modify(file.fileno(), events)

    def remove(self, file: Any) -> None:
        """Undo add(), before the file is closed; in any thread, and again."""
        if self._callbacks.pop(file.fileno(), None) is not None:
            self.poller.unregister(file.fileno())

    def call_at(self, when: float, function: Callable[..., Any],
                *args: Any) -> None:
        """Call function(*args) once, at the monotonic time when or soon
        after."""
        self._timers.enterabs(when, 0, function, args)
        self._due = min(self._due, when)

    # Running and stopping.

    def begin(self) -> None:
        """Make this thread the loop's."""
        self._thread = threading.get_ident()

    def run(self, before: Callable[[], Any], after: Callable[[], Any],
            max_wait: float = math.inf) -> None:
        """Run until stop(), calling before() and after() around each wait; in
        the thread that has called begin()."""
        try:
            while not self.stopping:
                before()
                self.run_once(max_wait)
                after()
        except (OSError, ValueError):
            if not self.closed:     # by a callback or a signal handler
                raise
        finally:
            self.stopping = False
            self._thread = None

    def run_once(self, max_wait: float = math.inf) -> None:
        """Wait until something is to be done, and do it."""
        now = monotonic()
        if now >= self._due:
            left = self._timers.run(blocking=False)
            self._due = math.inf if left is None else now + left
        timeout = max(min(max_wait, self.max_wait, self._due - now), 0)
        callbacks = self._callbacks
        for number, _ in self.poller.poll(timeout, MAX_EVENTS):
            try:
                callback, file = callbacks[number]
            except KeyError:
                continue  # removed since the wait, or not yet added
            callback(file)

    def stop(self) -> None:
        """Make run() return soon; never blocks."""
        self.stopping = True
        self.wake()

    def wait(self, timeout: float = math.inf) -> None:
        """Wait for the end of run(), for so many seconds at most; in its own
        thread, where that would never be, return at once.

        It looks again and again.  A lock or an Event could stay locked when
        an exception of a signal handler interrupts a wait (bpo-29988).
        """
        end = monotonic() + timeout
        while (self.is_running() and not self.in_thread()
               and monotonic() < end and not sys.is_finalizing()):
            sleep(TICK)

    def wake(self) -> None:
        """Make run_once() return soon; from any thread or signal handler."""
        with contextlib.suppress(OSError):  # enough bytes are under way, or
            self._sender.send(b".")         # the loop is closed

    def wakeup_fd(self) -> int:
        """Return the descriptor for signal.set_wakeup_fd()."""
        return self._sender.fileno()

    def is_running(self) -> bool:
        """Whether a thread is the loop's."""
        return self._thread is not None

    def in_thread(self) -> bool:
        """Whether this is the thread in which callbacks are called."""
        return threading.get_ident() == self._thread
