"""What a model that forks needs: the child, and books that both can read.

Parent and child each hold one end of a socketpair, the tie: it ends when the
other one does, however that ends.  A descriptor that a selector can watch
needs neither a handler for SIGCHLD, which only the main thread may install,
nor a wait for whatever child ends next, which would steal the exit status of
children that somebody else started.

It also carries the parent's word to stop, which is the grace.  A signal would
be lost on a child that has no handler yet, and count twice where a service
manager sends SIGTERM to every process of a service.
"""

import logging
import mmap
import os
import signal
import socket
import struct
from typing import Any, Callable, Optional, Tuple

from .handler import Peer
from .registry import Registry

__all__ = ["GRACE", "Child", "ChildRegistry", "SharedPeer"]

logger = logging.getLogger("echoserver")

# The word to stop: how many seconds the drain may take.
GRACE = struct.Struct("d")

# What is sent to end a server.
SIGNALS = {signal.SIGINT, signal.SIGTERM}


class Child:

    """A forked child that calls run(tie) and exits with what it returns.

    fileno() becomes readable when it has ended.  The tie that run() is given
    becomes readable when the parent has called stop(), or has ended.

    The child ignores SIGINT and SIGTERM, which a terminal and a service
    manager send to all processes: how to end is the parent's decision.

    OSError is raised when the system is out of processes or descriptors.
    """

    def __init__(self, run: Callable[[socket.socket], int],
                 ties: Optional[Tuple[socket.socket, socket.socket]] = None
                 ) -> None:
        self._tie, tie = ties or socket.socketpair()
        # No signal is to meet the parent's handlers in the child.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self.pid = os.fork()
            if self.pid == 0:
                self._live(run, tie, blocked)
        except OSError:
            self._tie.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            tie.close()

    def _live(self, run: Callable[[socket.socket], int],
              tie: socket.socket, blocked: Any) -> None:
        status = 1
        try:
            self._tie.close()
            signal.set_wakeup_fd(-1)
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            status = run(tie)
        except Exception:
            logger.exception("unexpected error in a child process")
        finally:
            os._exit(status)  # nothing of the parent's is flushed or cleaned

    def fileno(self) -> int:
        return self._tie.fileno()

    def poll(self) -> Optional[int]:
        """Return the status that os.waitpid() gives, None while it lives."""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # SIGCHLD is ignored: the system reaped it
            return 0
        return status if pid else None

    def stop(self, grace: float) -> None:
        """Send the grace on the tie; right in a signal handler, too."""
        try:
            self._tie.send(GRACE.pack(grace), socket.MSG_DONTWAIT)
        except OSError:
            pass  # it has ended

    def wait(self, timeout: float) -> int:
        """Return the status at its end; kill it after timeout seconds."""
        try:
            self._tie.settimeout(timeout)
            self._tie.recv(1)
        except (socket.timeout, BlockingIOError):  # the latter if it is 0
            os.kill(self.pid, signal.SIGKILL)
        except OSError:
            pass
        self.close()
        try:
            return os.waitpid(self.pid, 0)[1]
        except ChildProcessError:  # as above
            return 0

    def close(self) -> None:
        """Let go of it; the parent does so at its end, a sibling at once."""
        self._tie.close()


def shared(index: int) -> Any:
    """Return a property that lives in a SharedPeer's memory."""
    def get(self: Any) -> float:
        return float(self._cells[index])

    def put(self: Any, value: float) -> None:
        self._cells[index] = value

    return property(get, put)


class SharedPeer(Peer):

    """A Peer whose books a child process writes and its parent reads."""

    __slots__ = "_cells",

    REASONS = ["", "reset", "idle", "drain", "error"]

    bytes_in = shared(0)
    bytes_out = shared(1)
    progress = shared(2)
    aborted = shared(3)
    cut = shared(4)
    bytes_heard = shared(5)
    _reason = shared(6)

    def __init__(self, *args: Any) -> None:
        # anonymous memory is zeroed, shared over a fork, freed with its last
        # user, and comes in pages
        self._cells = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("d")
        super().__init__(*args)

    @property
    def reason(self) -> str:
        return self.REASONS[int(self._reason)]

    @reason.setter
    def reason(self, value: str) -> None:
        self._reason = self.REASONS.index(value)


class ChildRegistry(Registry):

    """The registry in a child, which keeps no books: its parent does."""

    def leave(self, request: Any) -> None:
        self.pop(request, None)
