"""The package's client program, as the load that the scripts measure with.

What the client can tell, no script measures again: each run is a process of
its own, so that neither the script's threads nor their lock are in the
figures, which come as --json has them.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from time import monotonic, sleep
from typing import Any, Dict, List, Tuple

from .server import ROOT, START_TIMEOUT, Failure, read

__all__ = ["Clients", "HOLD", "PATIENCE"]

# Seconds after which a client that got no answer gives up, and has lost it.
PATIENCE = 30.0

# Connections that ask once and are silent then; each reply is a line.
HOLD = "-c", "0", "-i", "1000000", "-W", "0"

# It tells when all is imported, and begins at a word.
RUN = """\
import sys
from echoserver.client import counting
from echoserver.client.__main__ import main
print("ready", flush=True)
sys.stdin.readline()
sys.exit(main())
"""


class Clients:

    """A run of the client program with these options, which go() begins.

    The end of a with block ends it.
    """

    def __init__(self, address: Tuple[str, int], *options: Any) -> None:
        self._out = tempfile.TemporaryFile()
        self._begun = 0.0   # seconds of processor time until it was ready
        self._process = subprocess.Popen(
            [sys.executable, "-c", RUN, address[0], str(address[1]),
             *map(str, options)], cwd=ROOT, stdin=subprocess.PIPE,
            stdout=self._out, stderr=subprocess.STDOUT)
        try:
            end = monotonic() + START_TIMEOUT
            while not self._lines():
                if self._process.poll() is not None or monotonic() > end:
                    raise Failure("the client program does not run")
                sleep(0.005)
            self._begun = self.cpu()
        except BaseException:   # Ctrl-C, too
            self.__exit__()
            raise

    def __enter__(self) -> "Clients":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._process.kill()
        self._process.communicate()
        self._out.close()

    def go(self) -> "Clients":
        """Begin, and return when stop() is expected, where that is told."""
        assert self._process.stdin
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        end = monotonic() + START_TIMEOUT
        while monotonic() < end:
            caught = re.search(r"SigCgt:\s*(\w+)", read(
                "/proc/%d/status" % self._process.pid))
            if not caught or int(caught.group(1), 16) >> 14 & 1:    # SIGTERM
                break
            sleep(0.002)
        return self

    def _lines(self) -> List[str]:
        # not seek() and read(), which would move the client's place, too
        size = os.fstat(self._out.fileno()).st_size
        return os.pread(self._out.fileno(), size, 0).decode().splitlines()

    def cpu(self) -> float:
        """Return the seconds of processor time since it was ready; 0 if they
        cannot be told."""
        used = read("/proc/%d/schedstat" % self._process.pid).split()
        return int(used[0]) / 1e9 - self._begun if used else 0.0

    def replies(self, wanted: int, news: float = PATIENCE) -> int:
        """Return how many replies of HOLD have come: so many as are wanted,
        or fewer if none came for some seconds."""
        seen, since = 0, monotonic()
        while seen < wanted and monotonic() < since + news:
            sleep(0.02)
            now = sum(" bytes from " in line for line in self._lines())
            if now > seen:
                seen, since = now, monotonic()
        return seen

    def figures(self, seconds: float = 0.0) -> Dict[str, Any]:
        """Return what --json tells at the end of a run, which is waited for.

        Failure is raised if the client has not ended in so many seconds, and
        a little.
        """
        try:
            self._process.wait(seconds + PATIENCE)
            figures: Dict[str, Any] = json.loads(self._lines()[-1])
            return figures
        except (subprocess.TimeoutExpired, ValueError):
            raise Failure("the client program: " + self._lines()[-1])

    def stop(self) -> Dict[str, Any]:
        """End the run; return its figures."""
        self._process.send_signal(signal.SIGTERM)
        return self.figures()
