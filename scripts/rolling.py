"""Restart two servers in turn behind HAProxy, under load, and lose nothing.

    python3 scripts/rolling.py --restarts 20

Starts HAProxy and two servers of this folder on free ports of the loopback
interface.  Clients connect through HAProxy, exchange a message, verify the
reply, close, and come again; they retry a refused connection and nothing
else.  Meanwhile one server after the other is stopped with SIGTERM, started
again, and waited for until HAProxy finds it healthy.

The exit status is 0 if no exchange failed, 1 if one did, 77 if there is no
HAProxy to run, 130 after Ctrl-C.
"""

import sys

if __name__ == "__main__":
    from lab.program import run as run_program
    sys.exit(run_program("rolling"))

import argparse
import contextlib
import os
import random
import shutil
import socket
import subprocess
import tempfile
from time import monotonic, sleep
from typing import Any, Dict, List, Optional, Set

from lab.arguments import above_zero
from lab.beside import Beside
from lab.load import Kind
from lab.server import Failure, Server, ask_models
from lab.tally import Tally, judge_retrying

__all__ = ["CONFIGURATION", "main"]

SKIPPED = 77            # what test suites take for "could not be run"
HEALTH_TIMEOUT = 20.0   # seconds for HAProxy to find both servers healthy

# The README shows it; what is in braces differs from host to host.
CONFIGURATION = """\
global
    stats socket {folder}/haproxy.sock level user

defaults
    mode tcp
    timeout connect 5s
    timeout client 10m
    timeout server 10m
    timeout check 2s
    # A server that is going away refuses at once, and has lost nothing:
    # try again, and at once with the other one.
    retries 3
    option redispatch 1

frontend echo
    bind {frontend}
    default_backend echoservers

backend echoservers
    balance roundrobin
    option tcp-check
    tcp-check send ping
    tcp-check expect string PING
    # No on-marked-down shutdown-sessions: a server that is draining still
    # owes replies.
    default-server check inter 1s fastinter 100ms fall 2 rise 2
    server one {one}
    server two {two}
"""

CLIENTS = [(Kind("once", 1, 4096, 0.01, messages=1, again=True), 8),
           (Kind("bulk", 64 << 10, 1 << 20, 0.05, messages=1, again=True), 2)]


def find_haproxy() -> Optional[str]:
    """Return its path; /usr/sbin is not in every user's PATH."""
    path = os.environ.get("PATH", os.defpath)
    return shutil.which("haproxy", path=path + os.pathsep + "/usr/sbin")


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

    def __init__(self, program: str, frontend: int, one: int,
                 two: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="rolling-")
        self.address = "127.0.0.1", frontend
        path = os.path.join(self._folder.name, "haproxy.cfg")
        with open(path, "w") as file:
            file.write(CONFIGURATION.format(
                folder=self._folder.name, frontend="127.0.0.1:%d" % frontend,
                one="127.0.0.1:%d" % one, two="127.0.0.1:%d" % two))
        self.process = subprocess.Popen(
            [program, "-db", "-q", "-f", path], stdin=subprocess.DEVNULL)

    def __enter__(self) -> "Balancer":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.process.terminate()
        self.process.wait()
        self._folder.cleanup()

    def states(self) -> Dict[str, str]:
        """Return what HAProxy makes of each server: "UP", "DOWN", ..."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5)
            s.connect(os.path.join(self._folder.name, "haproxy.sock"))
            s.sendall(b"show stat\n")
            text = b"".join(iter(lambda: s.recv(65536), b"")).decode()
        head, *rows = [line.split(",") for line in text.splitlines() if line]
        names, states = head.index("svname"), head.index("status")
        return {row[names]: row[states] for row in rows}

    def wait_healthy(self) -> None:
        """Wait until both servers are up."""
        end = monotonic() + HEALTH_TIMEOUT
        while monotonic() < end:
            try:
                states = self.states()
                if states.get("one") == states.get("two") == "UP":
                    return
            except OSError:
                pass  # it is starting
            if self.process.poll() is not None:
                raise Failure("HAProxy did not start")
            sleep(0.05)
        raise Failure("HAProxy has not found both servers healthy")


class Rolling:

    """Two servers of a model, restarted in turn, and what was seen of it."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.tally = Tally()
        self.restarts, self.longest = 0, 0.0
        self.servers: List[Server] = []

    def run(self, program: str, restarts: int, seconds: float) -> None:
        """Start everything, and restart the servers under load."""
        frontend, *ports = free_ports(3)
        try:
            for port in ports:
                self.servers.append(Server(self.model, port=port))
            with Balancer(program, frontend, *ports) as balancer:
                balancer.wait_healthy()
                with Beside(balancer.address, CLIENTS,
                            judge=judge_retrying) as beside:
                    self.roll(balancer, restarts, seconds)
                    self.tally.add(beside.finish())
        finally:
            for server in self.servers:
                server.close()

    def roll(self, balancer: Balancer, restarts: int, seconds: float) -> None:
        """Restart one server after the other, evenly over the time."""
        began = monotonic()
        while self.restarts < restarts:
            due = began + seconds * self.restarts / restarts
            sleep(max(due - monotonic(), 0.2))
            started = monotonic()
            self.restart(self.restarts % 2)
            balancer.wait_healthy()
            self.longest = max(self.longest, monotonic() - started)

    def restart(self, which: int) -> None:
        """Stop a server, see how it ended, and start the next on its port."""
        old = self.servers[which]
        old.stop()
        status, log = old.wait(), old.log()
        if status or "Traceback" in log:
            self.tally.problems.append("a server ended with status %d: %s"
                                       % (status, log[-2000:]))
        old.close()
        self.servers[which] = Server(self.model, port=old.address[1])
        self.restarts += 1

    def __str__(self) -> str:
        lines = ["%-28s%10s" % pair for pair in [
            ("restarts", self.restarts),
            ("exchanges", self.tally.replies),
            ("failed", len(self.tally.problems)),
            ("refused and tried again", self.tally.ends["refused"]),
            ("longest wait, ms", "%.1f" % (self.tally.stall * 1e3)),
            ("longest restart, s", "%.2f" % self.longest)]]
        return "\n".join(lines + ["! " + problem
                                  for problem in self.tally.problems[:10]])


def main(argv: Optional[List[str]] = None) -> int:
    """Run the program; return its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--restarts", default=20,
                        type=above_zero(10**6, int),
                        help="of both servers together (default "
                        "%(default)d)")
    parser.add_argument("--seconds", type=above_zero(10**6), default=60.0,
                        help="over which they are spread, if restarts are "
                        "quick enough (default %(default)g)")
    parser.add_argument("--model", choices=list(ask_models()),
                        default="threads", help="(default %(default)s)")
    args = parser.parse_args(argv)
    program = find_haproxy()
    if program is None:
        print("SKIPPED: there is no haproxy on this host")
        return SKIPPED
    rolling = Rolling(args.model)
    try:
        rolling.run(program, args.restarts, args.seconds)
    except (Failure, OSError) as error:
        rolling.tally.problems.append(str(error))
    finally:
        print(rolling)
    return 1 if rolling.tally.problems else 0
