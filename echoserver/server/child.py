"""A forked child process, and how its parent talks to it.

Parent and child each hold one end of a socketpair, the control socket.  It
ends when the other process does, however that ends: a descriptor that a
selector can watch needs neither a handler for SIGCHLD, which only the main
thread may install, nor a wait for whatever child ends next, which would steal
the exit status of children that somebody else started (gh-111872).

It also carries the parent's command to stop.  A signal would be lost on a
child that has no handler yet, and count twice where a service manager sends
SIGTERM to every process of a service.
"""

import contextlib
import fcntl
import os
import signal
import socket
import struct
from typing import Any, Callable

from .log import logger

__all__ = ["Child", "describe", "hear_parent"]

STOP = struct.Struct("d")       # the command: seconds that the drain may take
STOP_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
# Seconds; settimeout() counts milliseconds in an int.
MAX_TIMEOUT = 1e6


class Child:

    """A forked child that calls run(control) and exits with its result.

    fileno() becomes readable when run() has sent a byte to control, or the
    child has ended.  control becomes readable when the parent has called
    stop(), or has ended.

    The child ignores SIGINT, SIGTERM and SIGHUP, which a terminal or a service
    manager sends to all processes: the parent decides how to end.

    OSError is raised when the system is out of processes or descriptors.
    """

    def __init__(self, run: Callable[[socket.socket], int]) -> None:
        self._control, theirs = socket.socketpair()
        for control in self._control, theirs:
            control.setblocking(True)   # whatever the default timeout is
        # Block signals until the child has handlers of its own.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            self.pid = os.fork()
            if self.pid == 0:
                self._live(run, theirs, blocked)
        except OSError:
            self._control.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            theirs.close()

    def _live(self, run: Callable[[socket.socket], int],
              control: socket.socket, blocked: Any) -> None:
        status = 1
        try:
            self._control.close()
            signal.set_wakeup_fd(-1)    # the parent's loop
            for number in STOP_SIGNALS:
                signal.signal(number, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            status = run(control)
        except Exception:
            logger.exception("unexpected error in a child process")
        finally:
            os._exit(status)  # nothing of the parent's is flushed or cleaned

    def fileno(self) -> int:
        return self._control.fileno()

    def has_sent(self) -> bool:
        """Return whether run() has sent a byte; False at its end."""
        try:
            return bool(self._control.recv(1))
        except OSError:     # it has ended without reading a command
            return False

    def stop(self, grace: float) -> None:
        """Have it drain; right in a signal handler, too."""
        with contextlib.suppress(OSError):  # it has ended
            self._control.send(STOP.pack(grace), socket.MSG_DONTWAIT)

    def wait(self, timeout: float = MAX_TIMEOUT) -> int:
        """Return what os.waitpid() gives at its end; kill it after timeout
        seconds."""
        try:
            self._control.settimeout(min(timeout, MAX_TIMEOUT))
            while self._control.recv(1):
                pass
        except (socket.timeout, BlockingIOError):  # the latter if it is 0
            os.kill(self.pid, signal.SIGKILL)
        except OSError:
            pass
        self.close()
        try:
            return os.waitpid(self.pid, 0)[1]
        except ChildProcessError:  # SIGCHLD is ignored: the system reaped it
            return 0

    def close(self) -> None:
        """Let go of the control socket, in the parent or in a sibling."""
        self._control.close()


def describe(status: int) -> str:
    """Return in words how a process ended, from what os.waitpid() gave."""
    if os.WIFSIGNALED(status):
        return "was ended by signal %d" % os.WTERMSIG(status)
    return "ended with exit status %d" % os.WEXITSTATUS(status)


def hear_parent(control: socket.socket,
                on_stop: Callable[[float], Any]) -> None:
    """Have on_stop(grace) called when the parent has called stop(), and end
    this process when the parent has ended.

    By a signal, so that it is heard whatever this process waits for.  (And a
    thread takes ten times as long to start.)
    """
    def on_signal(*args: Any) -> None:
        with contextlib.suppress(BlockingIOError):
            command = control.recv(STOP.size, socket.MSG_DONTWAIT)
            while command:
                on_stop(*STOP.unpack(command))
                command = control.recv(STOP.size, socket.MSG_DONTWAIT)
            os._exit(1)     # which resets what is open

    signal.signal(signal.SIGIO, on_signal)
    fcntl.fcntl(control, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(control, fcntl.F_SETFL, os.O_ASYNC)
    on_signal()     # for what has happened before
