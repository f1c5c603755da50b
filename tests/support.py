"""What the tests share: a TestCase that leaves nothing behind, and waits with
an end.

A test that returns while a thread, a descriptor or a child process that it
began still lives fails for that alone: a leak in the tests hides a leak in the
program.
"""

import atexit
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import warnings
from unittest import mock

__all__ = ["PATIENCE", "PLAIN", "ROOT", "SCRIPTS", "TestCase", "children",
           "fork", "python", "resolving", "scripts_importable", "until"]

# The end of every wait: generous, because it is only ever waited out by a
# failing test, and a loaded machine is not a bug.
PATIENCE = 20.0

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPTS = os.path.join(ROOT, "scripts")

# Programs are started by the dozen.  If they may not keep what they compile
# beside the sources, they do so elsewhere (where Python knows how, from 3.8).
if sys.dont_write_bytecode and sys.version_info >= (3, 8):
    _cache = tempfile.TemporaryDirectory()
    atexit.register(_cache.cleanup)
    os.environ["PYTHONPYCACHEPREFIX"] = _cache.name
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# The background job of a script, and nohup, have these ignored, and programs
# that are started inherit that.
for _name in "SIGINT", "SIGQUIT", "SIGHUP":
    if getattr(signal, _name, None) and signal.getsignal(
            getattr(signal, _name)) == signal.SIG_IGN:
        signal.signal(getattr(signal, _name), signal.SIG_DFL)

# An environment in which nothing flushes, or speaks UTF-8, by itself.
PLAIN = {name: value for name, value in os.environ.items()
         if name not in ("PYTHONUNBUFFERED", "PYTHONUTF8", "PYTHONIOENCODING",
                         "COLUMNS", "LISTEN_PID", "LISTEN_FDS")}


def python(*args):
    """Return the command line that runs *args* on this interpreter, with the
    same warnings and mode, and with nothing but the standard library (which
    halves the time of a start where site-packages has .pth files)."""
    flags = subprocess._args_from_interpreter_flags()
    if "PYTHONPYCACHEPREFIX" in os.environ:
        flags = [flag for flag in flags if flag != "-B"]
    return [sys.executable, "-S"] + flags + list(args)


@contextlib.contextmanager
def scripts_importable():
    """Let the modules of scripts/ be imported meanwhile."""
    sys.path.insert(0, SCRIPTS)
    try:
        yield
    finally:
        sys.path.remove(SCRIPTS)


def resolving(*places):
    """Let every name stand for places, addresses of IPv4, meanwhile."""
    return mock.patch("socket.getaddrinfo", return_value=[
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", place)
        for place in places])


def fork():
    """Fork without the warning that threads are left behind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def until(condition, what="the condition"):
    """Return the first true value of condition(); fail after PATIENCE.

    For what can only be asked, not waited on (a descriptor count, a thread
    that must end); everything else blocks on a socket, a pipe or an event.
    """
    deadline = time.monotonic() + PATIENCE
    pause = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError("waited %g s for %s" % (PATIENCE, what))
        pause.wait(0.002)


def descriptors():
    """Return the set of open descriptors, or None where it cannot be told."""
    try:
        return set(os.listdir("/proc/self/fd"))
    except OSError:
        return None


def children(pid=os.getpid()):
    """Return the pids of a process' children, or an empty list."""
    try:
        with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
            return f.read().split()
    except OSError:
        return []


class TestCase(unittest.TestCase):
    """A unittest.TestCase that fails when something outlives the test."""

    def setUp(self):
        super().setUp()
        before = set(threading.enumerate()), descriptors(), children()
        self.addCleanup(self._nothing_left, *before)

    def limit_time(self):
        """Let the main thread's waits end in a minute, where the system has
        alarms."""
        def expire(number, frame):
            raise AssertionError("the test took more than a minute")
        if hasattr(signal, "alarm"):
            self.addCleanup(signal.signal, signal.SIGALRM,
                            signal.signal(signal.SIGALRM, expire))
            self.addCleanup(signal.alarm, 0)
            signal.alarm(60)

    def _nothing_left(self, threads, fds, pids):
        until(lambda: set(threading.enumerate()) <= threads,
              "threads to end: %r" % (set(threading.enumerate()) - threads))
        # the listing itself opens one descriptor, before and after alike
        if fds is not None:
            until(lambda: len(descriptors()) <= len(fds),
                  "descriptors to be closed")
        until(lambda: set(children()) <= set(pids), "children to be reaped")

    def enter(self, context):
        """Enter a context until the test is over; return what that returns."""
        result = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return result

    def run_program(self, module, *args, **options):
        """Start ``python -m module args`` in the way of run_python()."""
        return self.run_python("-m", module, *args, **options)

    def run_python(self, *args, **options):
        """Start this Python from the project's root with pipes at all three
        ends; the test's end kills what is left of it."""
        return self.run_command(python(*[
            arg if isinstance(arg, bytes) else str(arg) for arg in args]),
            **options)

    def run_command(self, command, **options):
        """Start any command in the same way, in a plain environment."""
        for name in "stdin", "stdout", "stderr":
            options.setdefault(name, subprocess.PIPE)
        options.setdefault("cwd", ROOT)
        options.setdefault("env", PLAIN)
        process = subprocess.Popen(command, **options)
        self.addCleanup(self._end, process)
        return process

    @staticmethod
    def _end(process):
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in process.stdin, process.stdout, process.stderr:
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass

    def connect(self, address):
        """Return a socket connected to address, closed when the test ends."""
        s = socket.create_connection(address[:2], PATIENCE)
        self.addCleanup(s.close)
        return s

    def receive(self, s, count):
        """Return exactly count bytes of s, or fewer if its end comes first."""
        parts = []
        while count:
            data = s.recv(min(count, 1 << 20))
            if not data:
                break
            parts.append(data)
            count -= len(data)
        return b"".join(parts)

    def readable(self, f, what):
        """Fail unless f can be read (or has ended) before PATIENCE is over."""
        if not select.select([f], [], [], PATIENCE)[0]:
            self.fail("waited %g s for %s" % (PATIENCE, what))

    def read_line(self, f, what="a line"):
        """Return the next line of the unbuffered or buffered pipe f."""
        self.readable(f, what)
        return f.readline()
