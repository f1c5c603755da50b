"""The server program of this folder, as something to be tried and measured.

It runs on a free port of the loopback interface unless told otherwise.  Its
log goes to a file without a name.  What it costs is read from /proc, of all
its processes together; where there is none, it is None.
"""

import contextlib
import glob
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from typing import Any, Dict, List, Optional, Tuple

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore

__all__ = ["Failure", "Server", "ask_models", "can_limit",
           "field", "raise_descriptor_limit"]

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))

# Seconds in which a server listens, and in which one that was stopped ends.
START_TIMEOUT, STOP_TIMEOUT = 30.0, 15.0

ASK_MODELS = """\
import json
from echoserver.server.models import MODELS
print(json.dumps({name: {"pool_size": getattr(model, "pool_size", 0),
                         "descriptors": model.descriptors}
                  for name, model in MODELS.items()}))
"""


class Failure(Exception):

    """Something could not be tried; the message says why."""


def ask_models() -> Dict[str, Dict[str, int]]:
    """Return the package's models by name, in its order.

    Of each: its pool_size, 0 if it has no fixed number of workers, and the
    descriptors that it needs for a connection.
    """
    answer = subprocess.check_output([sys.executable, "-c", ASK_MODELS],
                                     cwd=ROOT)
    models: Dict[str, Dict[str, int]] = json.loads(answer.decode())
    return models


def raise_descriptor_limit() -> float:
    """Allow as many descriptors as may be, here and in what is started.

    Return how many that is.
    """
    if resource is None:
        return math.inf
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(OSError, ValueError):  # macOS: unlimited
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return math.inf if soft == resource.RLIM_INFINITY else soft


def can_limit() -> bool:
    """Whether Server.limit() can do it: on Linux."""
    return hasattr(resource, "prlimit")


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
        try:
            self.pid = self._process.pid
            self.address = self._wait_ready()
        except BaseException:   # Ctrl-C, too
            self._process.kill()
            self.close()
            raise

    def _wait_ready(self) -> Tuple[str, int]:
        """Return the address at which it has begun to listen."""
        timer = threading.Timer(START_TIMEOUT, self._process.kill)
        timer.daemon = True
        try:
            timer.start()
            ready = self._process.stdout.readline().decode()  # type: ignore
        finally:
            timer.cancel()
        found = re.search(r" on (\S+) port (\d+)", ready)
        if not found:
            raise Failure("the server did not start: " + self.log())
        return found.group(1), int(found.group(2))

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
        self._process.wait()
        self._process.stdout.close()  # type: ignore
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

    def limit(self, name: str, soft: Optional[int] = None) -> int:
        """Return what RLIMIT_name was for it, and set it if so wanted."""
        which = getattr(resource, "RLIMIT_" + name)
        before, hard = resource.prlimit(self.pid, which)
        if soft is not None:
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
        """Return the seconds of processor time used so far.

        By thread, in nanoseconds: /proc/PID/stat counts in hundredths of a
        second, rounded down, which of many children would lose the most.
        """
        used = sum(int(read(path).split()[0] or 0) for pid in self.family()
                   for path in glob.glob("/proc/%d/task/*/schedstat" % pid))
        return used / 1e9 or None

    def memory(self) -> Optional[int]:
        """Return the resident bytes: those of the process that listens, and
        those that its children do not share with it."""
        used = field("/proc/%d/status" % self.pid, "VmRSS:")
        for pid in self.family()[1:]:
            used += field("/proc/%d/smaps_rollup" % pid, "Private_")
        return used or None

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
