"""The server program of this folder, as something to be tried and measured.

It runs on a free port of the loopback interface unless told otherwise.  Its
log goes to a file without a name.  What it costs is read from /proc, of all
its processes together; where there is none, it is None.
"""

import contextlib
import glob
import os
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from typing import Any, Dict, List, Optional

__all__ = ["Failure", "ROOT", "START_TIMEOUT", "Server", "ask_models",
           "field", "read"]

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))

# Seconds in which a server listens, and in which one that was stopped ends.
START_TIMEOUT, STOP_TIMEOUT = 30.0, 15.0

sys.path.insert(1, ROOT)
from echoserver.server.models import MODELS     # noqa: E402


class Failure(Exception):

    """Something could not be tried; the message says why."""


def ask_models() -> Dict[str, Dict[str, int]]:
    """Return the package's models by name, in its order.

    Of each: its pool_size, 0 if it has no fixed number of workers, and the
    descriptors that it needs for a connection.
    """
    return {name: {"pool_size": getattr(model, "pool_size", 0),
                   "descriptors": model.descriptors}
            for name, model in MODELS.items()}


class Server:

    """A running server; the end of a with block ends it.

    With a program, a text, that is run in place of python -m echoserver.

    Instance variables: address, pid.
    """

    def __init__(self, model: str, *options: str, port: int = 0,
                 program: str = "") -> None:
        self._log = tempfile.TemporaryFile()
        command = ["-c", program] if program else ["-m", "echoserver"]
        self._process = subprocess.Popen(
            [sys.executable, *command, str(port), "--model", model, *options],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=self._log)
        self.pid = self._process.pid
        try:
            out = self._process.stdout
            assert out
            ready = select.select([out], [], [], START_TIMEOUT)[0]
            found = ready and re.search(r" on (\S+) port (\d+)",
                                        out.readline().decode())
            if not found:
                raise Failure("the server did not start: " + self.log())
            self.address = found.group(1), int(found.group(2))
        except BaseException:   # Ctrl-C, too
            self._process.kill()
            self.close()
            raise

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close()

    def close(self) -> None:
        """End it, by force if it does not end by itself."""
        self.stop()
        with contextlib.suppress(Failure):
            self.wait()
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def stop(self) -> None:
        self.send_signal(signal.SIGTERM)

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """Return its exit status at its end, which is waited for."""
        try:
            return self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise Failure("the server had not ended after %g seconds"
                          % STOP_TIMEOUT)

    def status(self) -> Optional[int]:
        """Return its exit status, or None while it runs."""
        return self._process.poll()

    def log(self, start: int = 0) -> str:
        """Return what it has logged since the log was so long."""
        # not seek() and read(), which would move the server's place, too
        text = os.pread(self._log.fileno(), self.log_size() - start, start)
        return text.decode("utf-8", "replace")

    def log_size(self) -> int:
        return os.fstat(self._log.fileno()).st_size

    # What it uses.

    def limit(self, name: str, soft: int) -> int:
        """Set RLIMIT_name for it, on Linux; return what that was."""
        which = getattr(resource, "RLIMIT_" + name)
        before, hard = resource.prlimit(self.pid, which)
        resource.prlimit(self.pid, which, (soft, hard))
        return before

    def family(self) -> List[int]:
        """Return its process and those that descend from it."""
        pids = [self.pid]
        for parent in pids:
            pids += map(int, read("/proc/%d/task/%d/children"
                                  % (parent, parent)).split())
        return pids

    def descriptors(self) -> Optional[int]:
        """Return how many are open in the process that listens."""
        return len(glob.glob("/proc/%d/fd/*" % self.pid)) or None

    def cpu(self) -> Optional[float]:
        """Return the seconds of processor time used so far, by its ended
        children, too.

        Of those that live in nanoseconds: /proc/PID/stat counts in hundredths
        of a second, rounded down, which of many children would lose the most.
        """
        stat = read("/proc/%d/stat" % self.pid).rpartition(")")[2].split()
        if not stat:
            return None
        living = sum(int((read(path).split() or ["0"])[0])
                     for pid in self.family()[1:]
                     for path in glob.glob("/proc/%d/task/*/schedstat" % pid))
        return (sum(map(int, stat[11:15])) / os.sysconf("SC_CLK_TCK")
                + living / 1e9)

    def memory(self) -> Optional[int]:
        """Return the resident bytes: those of the process that listens, and
        those that its children do not share with it."""
        used = field("/proc/%d/status" % self.pid, "VmRSS:")
        for pid in self.family()[1:]:
            used += field("/proc/%d/smaps_rollup" % pid, "Private_")
        return used or None

    def threads(self) -> int:
        """Return how many threads it has, its children's too; 0 if that
        cannot be told."""
        return sum(len(glob.glob("/proc/%d/task/*" % pid))
                   for pid in self.family())

    def has_accepted(self, client: socket.socket) -> Optional[bool]:
        """Whether it has accepted the connection of a client, or None if the
        system does not tell: sock_diag(7) of Linux does.  A connection that
        waits in the backlog has no inode yet."""
        host, port = (socket.inet_aton(self.address[0]),
                      client.getsockname()[1])
        with contextlib.suppress(OSError, AttributeError):
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as s:
                s.send(struct.pack("=IHHIIBBHi", 72, 20, 1, 0, 0, 2, 6, 0, -1)
                       + struct.pack("!HH16s16s", self.address[1], port,
                                     host, host)
                       + struct.pack("=Iii", 0, -1, -1))
                answer = s.recv(4096)
            # state 10 is that of the listener: there is no connection yet
            return (len(answer) > 88 and answer[17] != 10
                    and answer[84:88] != b"\0" * 4)
        return None

    def address_space(self) -> int:
        return field("/proc/%d/status" % self.pid, "VmSize:")


def read(path: str) -> str:
    """Return the text of a file of /proc; "" if there is none any more."""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def field(path: str, name: str) -> int:
    """Return the sum, in bytes, of the lines whose names begin so."""
    return sum(int(line.split()[1]) << 10
               for line in read(path).splitlines() if line.startswith(name))
