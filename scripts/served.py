"""The server program of this folder, as something to be tried.

It runs on a free port of the loopback interface unless told otherwise.  Its
log goes to a file without a name.  What it costs is read from /proc; where
there is none, it is None.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from typing import Any, Optional

try:
    import resource
except ImportError:  # Windows
    pass

__all__ = ["MODELS", "Server", "ServerFailed"]

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

MODELS = ["threads", "processes", "pool", "events"]
if not hasattr(os, "fork"):
    MODELS.remove("processes")


# The program again, which between SIGUSR1 and SIGUSR2 can start no thread and
# no process.  Root is exempt from that limit, so it becomes somebody else.
LIMITABLE = """\
import os, resource, signal, sys
from echoserver.__main__ import main
soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
def limit(number, frame):
    if os.getuid() == 0:
        os.setresuid(65534, 65534, 65534)
    resource.setrlimit(resource.RLIMIT_NPROC, (
        1 if number == signal.SIGUSR1 else soft, hard))
signal.signal(signal.SIGUSR1, limit)
signal.signal(signal.SIGUSR2, limit)
sys.exit(main())
"""


class ServerFailed(Exception):

    """The server could not be started, or did not end."""


class Server:

    """A running server; the end of a with block ends it.

    Instance variables: address, process, pid.
    """

    def __init__(self, model: str, *options: str, port: int = 0,
                 limitable: bool = False) -> None:
        self._log = tempfile.TemporaryFile()
        program = ["-c", LIMITABLE] if limitable else ["-m", "echoserver"]
        self.process = subprocess.Popen(
            [sys.executable] + program + [str(port), "--model", model]
            + list(options), cwd=ROOT, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=self._log)
        self.pid = self.process.pid
        line = self.process.stdout.readline().decode()  # type: ignore
        found = re.search(r" on (\S+) port (\d+)", line)
        if not found:
            said = self.log()
            self.close()
            raise ServerFailed("the server did not start: " + said)
        self.address = found.group(1), int(found.group(2))

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close()

    def close(self) -> None:
        """End it, by force if it does not end by itself."""
        self.stop()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()  # type: ignore
        self._log.close()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Return its exit status at its end, for which it is not told."""
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            raise ServerFailed("it had not ended after ten seconds")

    def limit(self, which: int, soft: int) -> int:
        """Set one of its limits, of Linux; return what it was."""
        before, hard = resource.prlimit(self.pid, which)
        resource.prlimit(self.pid, which, (soft, hard))
        return before

    def log(self, start: int = 0) -> str:
        """Return what it has logged since the log was so long."""
        # not seek() and read(), which would move the server's place, too
        text = os.pread(self._log.fileno(), self.log_size() - start, start)
        return text.decode("utf-8", "replace")

    def log_size(self) -> int:
        return os.fstat(self._log.fileno()).st_size

    def descriptors(self) -> Optional[int]:
        try:
            return len(os.listdir("/proc/%d/fd" % self.pid))
        except OSError:
            return None

    def memory(self, what: str = "VmRSS") -> Optional[int]:
        """Return bytes: VmRSS, resident, or VmSize, of address space."""
        try:
            with open("/proc/%d/status" % self.pid) as status:
                found = re.search(what + r":\s+(\d+) kB", status.read())
                return int(found.group(1)) << 10 if found else None
        except OSError:
            return None

    def cpu(self) -> float:
        """Return the seconds of processor time used so far; 0 if untold."""
        try:
            with open("/proc/%d/stat" % self.pid) as stat:
                fields = stat.read().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
