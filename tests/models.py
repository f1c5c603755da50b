"""What the tests of the server share: every model, its log, its clients, and
the program.  With the names of support, it is all that they need."""

import contextlib
import errno
import logging
import os
import re
import select
import socket
import struct
import sys
import tempfile
import threading
import unittest
from unittest import mock

from echoserver import EchoHandler
from echoserver.server.child import Child
from echoserver.server.drain import CUT_TIMEOUT
from echoserver.server.idle import IdleTimeout
from echoserver.server.models import MODELS, blocking
from echoserver.server.workers import serve_in_child

from .support import (PATIENCE, PLAIN, TestCase, children, fork, python,
                      resolving, until)

__all__ = ["MODELS", "ModelTestCase", "NOWHERE", "PATIENCE", "PLAIN",
           "TestCase", "children", "dies", "every_model", "fork", "has_ipv6",
           "linux_only", "logger", "needs_fork", "needs_ipv6", "posix_only",
           "python", "replying", "resolving", "stream", "until", "waits_for"]

logger = logging.getLogger("echoserver")

# The end of a server of this model waits for a look of its time keeper.
blocking.TICK = 0.005

# Its length shares no factor with that of a buffer: a block out of place is
# noticed.
STREAM = os.urandom(1000003)


def stream(count):
    """Return the first bytes of STREAM, said again and again."""
    return (STREAM * (count // len(STREAM) + 1))[:count]


# Nobody has an address of this network (RFC 1112, section 4).
NOWHERE = "240.0.0.1"

RESET_ON_CLOSE = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)

# The server program, in which a drain has little to wait for.
RUN = """
import sys
from echoserver import EchoServer
from echoserver.server.drain import Drain
Drain.loopback_quiet_period = EchoServer.send_timeout = 0.02
Drain.last_call = 0.005
from echoserver.__main__ import main
sys.exit(main())"""


def replying(reply):
    """Return a handler class with that reply()."""
    return type("Handler", (EchoHandler,), {"reply": staticmethod(reply)})


def dies(error):
    """Return a reply() that raises error for b"die"."""
    def reply(data):
        if data == b"die":
            raise error
        return data.upper()
    return reply


def waits_for(event):
    """Return a reply() that waits for event."""
    def reply(data):
        event.wait(PATIENCE)
        return data
    return reply


def has_ipv6():
    """Whether ::1 is an address of this host."""
    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = unittest.skipUnless(has_ipv6(), "there is no IPv6 here")
needs_fork = unittest.skipUnless("processes" in MODELS,
                                 "there is no fork() here")
posix_only = unittest.skipUnless(os.name == "posix", "is for POSIX systems")
linux_only = unittest.skipUnless(sys.platform.startswith("linux"),
                                 "needs Linux")


def every_model(cls):
    """Make a TestCase of cls for each model, in the module of cls.

    cls is no TestCase itself.  A model costs its class, and nothing here.
    """
    module = sys.modules[cls.__module__]
    for name, server_class in MODELS.items():
        made = type("%s_%s" % (cls.__name__, name), (cls, ModelTestCase), {
            "server_class": server_class, "__module__": cls.__module__})
        setattr(module, made.__name__, made)
    return cls


class ForkedServer:
    """A server in a process of its own, as a model that forks needs it."""

    cut_short = 0

    def __init__(self, server):
        self.server = server
        self.server_address = server.server_address
        self.child = Child(self._serve)
        server.socket.close()       # the child listens

    def _serve(self, control):
        # An epoll would be shared with the caller.
        self.server.loop.close()
        self.server.loop.__init__()
        self.server.life.__init__(self.server.loop)
        self.server.idle.__init__(self.server.loop, self.server.peers,
                                  self.server.idle.timeout)
        return serve_in_child(self.server, control)

    def stop(self, grace=None):
        self.server.grace = self.server.grace if grace is None else grace
        if self.child is not None:
            self.child.stop(self.server.grace)

    shutdown = stop

    def server_close(self):
        self.stop()
        child, self.child = self.child, None
        if child is not None:
            self.cut_short = int(child.wait(
                self.server.grace + 2 * CUT_TIMEOUT) != 0)


class ModelTestCase(TestCase):
    """Servers of one model, their log, and the clients to try them.

    The log is a file, since start() of a model that forks serves in another
    process; where a test must look inside a server, it is skipped for that.
    """

    server_class = MODELS["threads"]

    def setUp(self):
        super().setUp()
        self.limit_time()
        self.record_log()

    @property
    def few(self):
        """The options that leave the model the fewest threads."""
        return {"pool_size": 1} if self.server_class.model == "pool" else {}

    def needs(self, count):
        """Skip the test where fewer connections are served at a time."""
        at_once = {"blocking": 1, "pinned": 8}.get(self.server_class.model)
        if at_once is not None and at_once < count:
            self.skipTest("%s serves no more than %d at a time" % (
                self.server_class.model, at_once))

    @property
    def here(self):
        """Whether the server is in this process, so that one can look."""
        return self.server_class.model != "processes"

    @property
    def turns_only(self):
        """Whether the model refuses a handler that overrides handle()."""
        return self.server_class.model == "events"

    def only_here(self):
        if not self.here:
            self.skipTest("looks inside a server that is in another process")

    def record_log(self):
        """Have the log written to a file, by forked children, too."""
        handle, self.log_name = tempfile.mkstemp()
        os.close(handle)
        self.addCleanup(os.remove, self.log_name)
        handler = logging.FileHandler(self.log_name)
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        self.addCleanup(handler.close)
        self.addCleanup(logger.removeHandler, handler)
        self.addCleanup(logger.setLevel, logger.level)
        self.addCleanup(setattr, logger, "propagate", logger.propagate)
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False

    # Servers.

    def make(self, handler=EchoHandler, cls=None, address=("127.0.0.1", 0),
             **options):
        """Return a server that listens, with short waits; whether it serves
        is the test's."""
        cls = cls or self.server_class
        shorter = {"send_timeout": 0.02}
        if cls.pool_size:
            shorter["pool_size"] = 8
        cls = type(cls.__name__, (cls,), shorter)
        with mock.patch.object(IdleTimeout, "tick", 0.05):
            server = cls(address, handler, **options)
        self.addCleanup(server.server_close)
        # What it accepts has these, too: a reply soon fills them.
        for buffer in socket.SO_RCVBUF, socket.SO_SNDBUF:
            server.socket.setsockopt(socket.SOL_SOCKET, buffer, 1 << 18)
        # Most have nothing to wait for.
        server.drain.loopback_quiet_period = 0.01
        server.drain.last_call = 0.002
        server.acceptor.pause, server.acceptor.limit_interval = 0.02, 0.05
        return server

    def serve(self, *args, **options):
        """Return a server that serves in the background."""
        return self.in_background(self.make(*args, **options))

    def in_background(self, server):
        """Return server, or what stands for it, when it serves beside us."""
        if self.here:
            return server.in_background()
        server = ForkedServer(server)
        self.addCleanup(server.server_close)
        return server

    def serve_in_thread(self, server):
        """Return the thread in which server serves from now on."""
        thread = self.in_thread(server.serve_forever)
        self.addCleanup(server.stop)
        return thread

    def in_thread(self, function):
        """Begin function() in a thread; return the thread."""
        thread = threading.Thread(target=function)
        thread.start()
        self.addCleanup(thread.join, PATIENCE)
        return thread

    def ended(self, thread):
        """Fail unless a thread ends."""
        thread.join(PATIENCE)
        self.assertFalse(thread.is_alive(), "the thread goes on")

    def gone(self, server):
        """Wait until server has no connection left."""
        until(lambda: not server.peers, "connections to end")

    def peer(self, server):
        """Return what a server that is here knows of its one connection."""
        (peer,) = until(lambda: server.peers.copy().values(), "a connection")
        return peer

    # Its log.

    def log(self, pattern=""):
        """Return the lines of the log so far in which pattern is found."""
        with open(self.log_name) as f:
            return [line.rstrip("\n") for line in f
                    if re.search(pattern, line)]

    def logged(self, pattern):
        """Wait until the log has a line with pattern; return all such."""
        return until(lambda: self.log(pattern), "%r in the log" % pattern)

    def logged_end(self, s):
        """Return the log line about the end of s, a socket or its port."""
        port = s if isinstance(s, int) else s.getsockname()[1]
        return self.logged(r"127\.0\.0\.1:%d: \w+ after" % port)[0]

    # Its clients.

    def connect(self, address, window=0):
        """Return a socket connected to address, closed when the test ends."""
        if not window:
            return super().connect(address)
        s = socket.socket()
        self.addCleanup(s.close)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        s.settimeout(PATIENCE)
        s.connect(address)
        return s

    def asks(self, s, data=b"hello"):
        """Fail unless data comes back over s as it should."""
        s.sendall(data)
        self.assertEqual(self.receive(s, len(data)), data.upper())

    def asking(self, server, data=b"hello"):
        """Return a new connection over which data was sent."""
        s = self.connect(getattr(server, "server_address", server))
        s.sendall(data)
        return s

    def client(self, server, data=b"hello"):
        """Return a new connection over which data has come back."""
        s = self.connect(getattr(server, "server_address", server))
        self.asks(s, data)
        return s

    def answers(self, server):
        """Fail unless a new client is answered."""
        self.client(server).close()

    def ends(self, s, end="eof", data=b""):
        """Fail unless s receives data and then its end."""
        self.assertEqual(self.rest(s), (data, end))

    def breaks(self, server, data=b"hello"):
        """Fail unless a new client that sends data is reset, be it that it
        has not connected yet."""
        with self.assertRaises(ConnectionError):
            s = self.asking(server, data)
            while s.recv(1 << 16):
                pass

    def keeps_waiting(self, server):
        """Fail unless a client is answered in the end, and a line in the log
        says why it had to wait."""
        self.answers(server)
        self.assertEqual(len(self.log("ERROR cannot accept another")), 1)
        self.assertEqual(self.log("Traceback"), [])

    def rest(self, s):
        """Return what s still receives, and how it ends."""
        parts = []
        try:
            for data in iter(lambda: s.recv(1 << 18), b""):
                parts.append(data)
        except ConnectionError:
            return b"".join(parts), "reset"
        return b"".join(parts), "eof"

    def exchange(self, server, data):
        """Send data and its end; return the reply and how it ends."""
        def send():
            with contextlib.suppress(OSError):  # what is received shows it
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)

        s = self.connect(server.server_address)
        self.in_thread(send)
        return self.rest(s)

    def fill(self, s, sent=0):
        """Send of stream(), from sent on, what goes now; return sent then."""
        s.settimeout(0)
        try:
            while True:
                at = sent % len(STREAM)
                sent += s.send(STREAM[at:at + 65536])
        except BlockingIOError:
            return sent
        finally:
            s.settimeout(PATIENCE)

    def stuff(self, server):
        """Return a connection whose reply the server cannot get rid of, and
        how much was sent."""
        s = self.connect(getattr(server, "server_address", server), 4096)
        sent = self.fill(s)
        while select.select([], [s], [], 0.02)[1]:
            sent = self.fill(s, sent)
        self.assertTrue(s.recv(1, socket.MSG_PEEK))     # it has begun
        return s, sent

    def reset(self, s):
        """Close s with a reset."""
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        s.close()

    def quiet(self, *clients):
        """Fail if there is anything to receive, or an end."""
        self.assertEqual(select.select(clients, [], [], 0)[0], [])

    # The program.

    def run_server(self, *args, prelude="", inside=(), **options):
        """Start the server program with short waits; prelude is code to run
        before, and inside is a command to run it by."""
        command = python("-c", "%s\n%s" % (prelude, RUN), *map(str, args))
        return self.run_command([*inside, *command], **options)

    def start_server(self, *args, **options):
        """Start it on a free port; return its process and its address."""
        process = self.run_server("0", *args, **options)
        return process, self.ready(process)

    def ready(self, process):
        """Return the address in the ready line of a server program."""
        line = self.read_line(process.stdout, "the ready line").decode()
        if not line:
            self.fail("no ready line, but %r" % (process.communicate(),))
        return line.split()[4], int(line.split()[6])

    def outcome(self, process, number=None):
        """Send a signal, if given; return the exit status and the lines of
        standard error, among which is no traceback."""
        if number is not None:
            process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
        self.assertEqual(out or b"", b"")
        self.assertNotIn(b"Traceback", err)
        self.assertNotIn(b"Exception ignored", err)
        return process.returncode, err.decode().splitlines()

    def refused(self, address):
        """Wait until address is listened on no more."""
        def refused():
            with socket.socket() as s:
                s.settimeout(0.05)      # who is ignored calls again
                return s.connect_ex(address) == errno.ECONNREFUSED
        until(refused, "the listener to close")
