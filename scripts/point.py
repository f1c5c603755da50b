"""One point of the benchmark: a server and its load, and what they did.

Both are started for it and ended after it; nothing is left of one point for
the next to meet.  The server's CPU time and memory are those of all its
processes, memory that they share counted once, read from /proc while every
connection is open; where the system has no /proc they are None.
"""

import collections
import contextlib
import glob
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from typing import Any, Dict, List, Tuple

from load import quantile

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore

__all__ = ["Failure", "MODELS", "hindrance", "measure",
           "raise_descriptor_limit", "summary"]

HERE = os.path.dirname(os.path.abspath(__file__))

MODELS = ["threads", "pinned", "pool", "events"]
if hasattr(os, "fork"):
    MODELS.append("processes")

MOST = 20000        # connections in a point
SPARE = 64          # descriptors for other things than connections
CHILD_MEMORY = 3 << 20  # a forked child's own, where there are many
# Seconds beyond those measured, after which a point is given up, and that a
# server may take to drain before it is killed.
PATIENCE, DRAIN = 90.0, 15.0

Point = Dict[str, Any]
Plan = Tuple[str, int, int, int]    # model, size, connections, idle ones


def server_command(model: str) -> List[str]:
    if model == "pinned":
        return [sys.executable, os.path.join(HERE, "pinned.py")]
    return [sys.executable, "-m", "echoserver", "0", "--model", model, "-q",
            "--max-connections", str(MOST)]


class Failure(Exception):

    """A point could not be made; the message says why."""


class Program:

    """A child process that is spoken with in lines, for a with block.

    The timer kills it when it has taken too long, so no read hangs.
    """

    def __init__(self, command: List[str], limit: float) -> None:
        self._errors = tempfile.TemporaryFile("a+b")  # the child appends
        self.process = subprocess.Popen(
            command, cwd=os.path.dirname(HERE), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self._errors,
            universal_newlines=True)
        self._timer = threading.Timer(limit, self.process.kill)
        self._timer.daemon = True
        self._timer.start()

    def hear(self) -> str:
        """Return the next line; raise Failure if there is none."""
        line = self.process.stdout.readline()  # type: ignore
        if not line:
            raise Failure(self.complaint() or "a program ended early")
        return str(line)

    def tell(self, line: str) -> None:
        print(line, file=self.process.stdin, flush=True)

    def complaint(self) -> str:
        """Return the last line that it has written to stderr."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").splitlines()
        return lines[-1] if lines else ""

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self.process.terminate()
            self.process.wait(DRAIN)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self._timer.cancel()
            self._errors.close()
            with contextlib.suppress(OSError):
                self.process.stdin.close()  # type: ignore
            self.process.stdout.close()  # type: ignore


# What a server uses.

def family(pid: int) -> List[int]:
    """Return pid and the processes that descend from it."""
    pids = [pid]
    for parent in pids:
        with contextlib.suppress(OSError):
            with open("/proc/%d/task/%d/children" % (parent, parent)) as f:
                pids += map(int, f.read().split())
    return pids


def cpu_seconds(pids: List[int]) -> float:
    """Return the CPU time that processes have used so far.

    By thread, in nanoseconds: /proc/PID/stat counts in hundredths of a second,
    rounded down, which of many children would lose the most.
    """
    nanoseconds = 0
    for pid in pids:
        for path in glob.glob("/proc/%d/task/*/schedstat" % pid):
            with contextlib.suppress(OSError), open(path) as f:
                nanoseconds += int(f.read().split()[0])
    return nanoseconds / 1e9


def memory(pids: List[int]) -> int:
    """Return the bytes of a process, and those its children have alone."""
    kilobytes = 0
    for pid in pids:
        name, wanted = (("status", "VmRSS:") if pid == pids[0] else
                        ("smaps_rollup", "Private_"))
        with contextlib.suppress(OSError):
            with open("/proc/%d/%s" % (pid, name)) as f:
                kilobytes += sum(int(line.split()[1]) for line in f
                                 if line.startswith(wanted))
    return kilobytes << 10


def hindrance(model: str, connections: int) -> str:
    """Return why this host cannot make a point; "" if nothing is known."""
    if connections > MOST:
        return "more than %d connections" % MOST
    needed = connections * (2 if model == "processes" else 1) + SPARE
    if resource is not None:
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if 0 <= allowed < needed:
            return ("%d descriptors are needed, %d allowed (ulimit -Hn)"
                    % (needed, allowed))
    if model == "processes":
        with contextlib.suppress(OSError, KeyError):
            with open("/proc/meminfo") as f:
                info = dict(line.split(":") for line in f)
            free = int(info["MemAvailable"].split()[0]) << 10
            if connections * CHILD_MEMORY > free / 2:
                return ("it could take %.1f GiB of memory"
                        % (connections * CHILD_MEMORY / 2**30))
    return ""


def raise_descriptor_limit() -> None:
    """Allow as many descriptors as may be, here and in what is started."""
    if resource is not None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        with contextlib.suppress(OSError, ValueError):  # macOS: unlimited
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# A point.

def measure(plan: Plan, seconds: float, processes: int) -> Point:
    """Start a server and its load, and return what they did.

    The loads connect one after the other: none takes the time that the server
    needs for another's connections for a sign that nothing will come.
    """
    model, size, connections, idle = plan
    with contextlib.ExitStack() as stack:
        def start(command: List[str]) -> Tuple[Program, str]:
            program = stack.enter_context(Program(command, seconds + PATIENCE))
            return program, program.hear()

        server, ready = start(server_command(model))
        port = int(re.search(r"port (\d+)", ready).group(1))  # type: ignore
        unanswered = 0
        if idle:
            ready = start(load_command(port, connections, idle, size, 0))[1]
            unanswered = json.loads(ready)["unanswered"]
        loads = [start(load_command(port, first, share, size, seconds))[0]
                 for first, share in shares(connections, processes)]
        before = cpu_seconds(family(server.process.pid))
        for load in loads:
            load.tell("go")
        results = [json.loads(load.hear()) for load in loads]
        pids = family(server.process.pid)
        used = cpu_seconds(pids) - before
        return dict(summary(results, used), model=model, size=size,
                    connections=connections, idle=idle,
                    idle_unanswered=unanswered, memory=memory(pids) or None,
                    complaint=server.complaint())


def shares(connections: int, processes: int) -> List[Tuple[int, int]]:
    """Return the first and the number of each load's connections."""
    bounds = [connections * part // processes for part in range(processes + 1)]
    return [(first, last - first) for first, last in zip(bounds, bounds[1:])
            if last > first]


def load_command(port: int, first: int, connections: int, size: int,
                 seconds: float) -> List[str]:
    return [sys.executable, os.path.join(HERE, "load.py"), json.dumps({
        "port": port, "first": first, "connections": connections,
        "size": size, "seconds": seconds})]


def summary(results: List[Dict[str, Any]], cpu: float) -> Point:
    """Return the numbers of a point from those of its load processes."""
    waits = collections.Counter()  # type: collections.Counter[str]
    for result in results:
        waits.update(result["waits"])
    total = {name: sum(result[name] for result in results) for name in (
        "replies", "cpu", "errors", "wrong", "unanswered", "unfinished")}
    weight = sum(waits.values())
    point = {name: total[name] for name in ("errors", "wrong", "unanswered")}
    point.update(
        rate=sum(r["replies"] / r["seconds"] for r in results),
        fewest=min(r["fewest"] for r in results),
        most=max(r["most"] for r in results))
    for name, part in ("p50", 0.5), ("p99", 0.99):
        point[name] = quantile(waits, part)
        point[name + "_at_least"] = total["unfinished"] > (1 - part) * weight
    for name, seconds in ("server_cpu", cpu), ("load_cpu", total["cpu"]):
        replies = total["replies"]
        point[name] = seconds / replies if seconds and replies else None
    return point
