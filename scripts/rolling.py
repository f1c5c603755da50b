"""Restart two servers in turn behind HAProxy, under load, and lose nothing.

    python3 scripts/rolling.py --restarts 20

Starts HAProxy and two servers of this folder on free ports of the loopback
interface.  Client programs connect through HAProxy, exchange a message, verify
the reply, close, and come again.  Meanwhile one server after the other is
stopped with SIGTERM, started again, and waited for until HAProxy finds it
healthy.
"""

import sys

if __name__ == "__main__":
    try:
        from lab.program import run as run_program
    except ImportError:
        sys.exit("no lab here: drop -I and PYTHONSAFEPATH, or take the .pyz")
    sys.exit(run_program("rolling"))

import contextlib
import os
import random
import re
import shutil
import socket
import string
import subprocess
import tempfile
from time import monotonic, sleep
from typing import Any, Dict, List, Optional, Set

from lab.arguments import above_zero, parser
from lab.clients import PATIENCE, Clients
from lab.server import ROOT, Failure, Server, ask_models

__all__ = ["main"]

HELP = """\
Do clients lose a request when servers are restarted behind HAProxy?

The exit status is 1 if an exchange failed (a refused connection counts, too),
77 if there is no HAProxy to run, 130 after Ctrl-C."""


CONFIGURATION = os.path.join(ROOT, "scripts", "lab", "haproxy.cfg")

# Each message has a connection of its own.
LOADS = ("-n", 8, "-i", 0.01, "-s", 999), ("-n", 2, "-i", 0.05, "-s", 500000)
ALL = "-c", 0, "--reconnect", "-W", PATIENCE, "--json", "-q"


def free_ports(count: int) -> List[int]:
    """Return so many ports that are free now.

    They are below those that systems give to clients, one of whom could get a
    server's port while that is restarted.
    """
    ports: Set[int] = set()
    while len(ports) < count:
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", random.randrange(20000, 32000)))
            ports.add(s.getsockname()[1])
    return list(ports)


class Balancer:

    """HAProxy in front of two servers' ports."""

    def __init__(self, program: str, *ports: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="rolling-")
        self.address = "127.0.0.1", ports[0]
        path = os.path.join(self._folder.name, "haproxy.cfg")
        with open(CONFIGURATION) as template, open(path, "w") as file:
            file.write(string.Template(template.read()).substitute(
                dict(zip(("frontend", "one", "two"), (
                    "127.0.0.1:%d" % port for port in ports))),
                folder=self._folder.name))
        self.process = subprocess.Popen(
            [program, "-db", "-q", "-f", path], stdin=subprocess.DEVNULL)

    def __enter__(self) -> "Balancer":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.process.terminate()
        self.process.wait()
        self._folder.cleanup()

    def wait_healthy(self) -> None:
        """Wait until HAProxy finds both servers up."""
        end = monotonic() + 20
        while monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError), \
                    socket.socket(socket.AF_UNIX) as s:    # it is starting
                s.settimeout(5)
                s.connect(os.path.join(self._folder.name, "haproxy.sock"))
                s.sendall(b"show stat\n")
                text = b"".join(iter(lambda: s.recv(65536), b""))
                if len(re.findall(b"echoservers,(?:one|two),.*,UP,",
                                  text)) > 1:
                    return
            sleep(0.05)
        raise Failure("HAProxy has ended, or does not find both servers up")


class Rolling:

    """Two servers of a model, restarted in turn, and what was seen of it."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.restarts, self.longest = 0, 0.0
        self.servers: List[Server] = []
        self.figures: List[Dict[str, Any]] = []
        self.problems: List[str] = []

    def run(self, program: str, restarts: int, seconds: float) -> None:
        """Start everything, and restart the servers under load."""
        frontend, *ports = free_ports(3)
        with contextlib.ExitStack() as stack:
            for port in ports:
                self.servers.append(Server(self.model, port=port))
                stack.callback(lambda which: self.servers[which].close(),
                               len(self.servers) - 1)
            balancer = stack.enter_context(Balancer(program, frontend, *ports))
            balancer.wait_healthy()
            loads = [stack.enter_context(Clients(
                balancer.address, *ALL, *load)).go() for load in LOADS]
            self.roll(balancer, restarts, seconds)
            self.figures = [load.stop() for load in loads]
        self.problems += ["%d failed, the first: %s" % (
            sum(each["failures"].values()), each["first_failure"])
            for each in self.figures if each["failures"]]

    def roll(self, balancer: Balancer, restarts: int, seconds: float) -> None:
        """Restart one server after the other, evenly over the time."""
        began = monotonic()
        for number in range(restarts):
            due = began + seconds * number / restarts
            sleep(max(due - monotonic(), 0.2))
            started = monotonic()
            old = self.servers[number % 2]
            old.stop()
            status, log = old.wait(), old.log()
            if status or "Traceback" in log:
                self.problems.append("a server ended with status %d: %s"
                                     % (status, log[-2000:]))
            old.close()
            self.servers[number % 2] = Server(self.model, port=old.address[1])
            balancer.wait_healthy()
            self.restarts += 1
            self.longest = max(self.longest, monotonic() - started)

    def __str__(self) -> str:
        def total(name: str) -> int:
            return sum(figures[name] for figures in self.figures)
        waits = [figures["wait_max_us"] or 0 for figures in self.figures]
        lines = ["%-28s%10s" % pair for pair in [
            ("restarts", self.restarts),
            ("exchanges", total("replies_verified")),
            ("failed", total("messages_lost") + total("replies_wrong")
             + total("messages_unsent")),
            ("longest wait, ms", "%.1f" % (max(waits, default=0) / 1e3)),
            ("longest restart, s", "%.2f" % self.longest)]]
        return "\n! ".join(["\n".join(lines), *self.problems[:10]])


def main(argv: Optional[List[str]] = None) -> int:
    """Run the program; return its exit status."""
    arguments = parser(HELP)
    add = arguments.add_argument
    add("--restarts", type=above_zero(10**6, int), default=20,
        help="of both servers together (default %(default)d)")
    add("--seconds", type=above_zero(10**6), default=60.0,
        help="over which they are spread, if restarts are quick enough "
        "(default %(default)g)")
    add("--model", choices=list(ask_models()), default="threads",
        help="(default %(default)s)")
    args = arguments.parse_args(argv)
    # /usr/sbin is not in every user's PATH
    program = shutil.which("haproxy", path=os.pathsep.join(
        [os.environ.get("PATH", os.defpath), "/usr/sbin"]))
    if program is None:
        print("SKIPPED: there is no haproxy on this host")
        return 77      # what test suites take for "could not be run"
    rolling = Rolling(args.model)
    try:
        rolling.run(program, args.restarts, args.seconds)
    except (Failure, OSError) as error:
        rolling.problems.append(str(error))
    finally:
        print(rolling)
    return 1 if rolling.problems else 0
