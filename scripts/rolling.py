"""Restart two servers in turn behind HAProxy, under load, and lose nothing.

    python scripts/rolling.py --restarts 20

Starts HAProxy and two servers of this folder on free ports of the loopback
interface.  Clients connect through HAProxy, exchange a message, verify the
reply, close, and come again; they retry a refused connection and nothing
else.  Meanwhile one server after the other is stopped with SIGTERM, started
again, and waited for until HAProxy finds it healthy.

The exit status is 0 if no exchange failed, 1 if one did, 77 if there is no
HAProxy to run, 130 after Ctrl-C.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from time import monotonic, sleep
from typing import Any, Dict, List, Optional

from beside import Beside
from honest import ONCE
from served import MODELS, Server, ServerFailed
from verdict import Tally, judge_retrying

__all__ = ["CONFIGURATION", "main"]

SKIPPED = 77            # what test suites take for "could not be run"

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

CLIENTS = [(ONCE._replace(again=True, pause=0.01), 8),
           (ONCE._replace(name="bulk", low=64 << 10, high=1 << 20,
                          again=True, pause=0.05), 2)]


def find_haproxy() -> Optional[str]:
    """Return its path; /usr/sbin is not in every user's PATH."""
    path = os.environ.get("PATH", os.defpath)
    return shutil.which("haproxy", path=path + os.pathsep + "/usr/sbin")


def free_ports(count: int) -> List[int]:
    """Return so many ports that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


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

    def wait_healthy(self, patience: float = 20.0) -> None:
        """Wait until both servers are up."""
        end = monotonic() + patience
        while monotonic() < end:
            try:
                states = self.states()
                if states.get("one") == states.get("two") == "UP":
                    return
            except OSError:
                pass  # it is starting
            if self.process.poll() is not None:
                raise ServerFailed("HAProxy did not start")
            sleep(0.05)
        raise ServerFailed("HAProxy has not found both servers healthy")


class Figures:

    """What is shown at the end."""

    def __init__(self) -> None:
        self.restarts = self.exchanges = self.failed = self.refused = 0
        self.stall = self.p99 = self.longest = 0.0
        self.problems = []  # type: List[str]

    def count(self, tally: Tally) -> None:
        self.exchanges += len(tally.latencies)
        self.failed += len(tally.problems)
        self.refused += tally.ends["refused"]
        self.stall = max(self.stall, tally.stall)
        self.p99 = max(self.p99, tally.percentile(0.99))
        self.problems += tally.problems

    def __str__(self) -> str:
        lines = ["%-28s%10s" % pair for pair in [
            ("restarts", self.restarts),
            ("exchanges", self.exchanges),
            ("failed", self.failed),
            ("refused and tried again", self.refused),
            ("longest wait, ms", "%.1f" % (self.stall * 1e3)),
            ("worst p99 of a restart, ms", "%.1f" % (self.p99 * 1e3)),
            ("longest restart, s", "%.2f" % self.longest)]]
        return "\n".join(lines + ["! " + problem
                                  for problem in self.problems[:10]])


def restart(old: Server, model: str, figures: Figures) -> Server:
    """Stop a server, see how it ended, and return the next on its port."""
    old.stop()
    status, log = old.wait(), old.log()
    if "Traceback" in log or status:
        figures.problems.append("a server ended with status %s: %s" % (
            status, log[-2000:]))
    old.close()
    return Server(model, port=old.address[1])


def roll(servers: List[Server], model: str, balancer: Balancer,
         beside: Beside, figures: Figures, restarts: int,
         seconds: float) -> None:
    """Restart one server after the other, evenly over the time."""
    began = monotonic()
    for number in range(restarts):
        sleep(max(began + seconds * number / restarts - monotonic(), 0.2))
        started = monotonic()
        servers[number % 2] = restart(servers[number % 2], model, figures)
        balancer.wait_healthy()
        figures.restarts += 1
        figures.longest = max(figures.longest, monotonic() - started)
        figures.count(beside.take_tally())


def run(program: str, model: str, restarts: int, seconds: float,
        figures: Figures) -> None:
    """Do all of it; fill in the figures as they come."""
    frontend, one, two = free_ports(3)
    servers = []  # type: List[Server]
    try:
        for port in one, two:
            servers.append(Server(model, port=port))
        with Balancer(program, frontend, one, two) as balancer:
            balancer.wait_healthy()
            with Beside(balancer.address, CLIENTS,
                        judge=judge_retrying) as beside:
                roll(servers, model, balancer, beside, figures, restarts,
                     seconds)
                figures.count(beside.finish())
    finally:
        for server in servers:
            server.close()


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0,
                        help="over which they are spread, if restarts are "
                        "quick enough (default %(default)g)")
    parser.add_argument("--model", choices=MODELS, default="threads")
    args = parser.parse_args(argv)
    program = find_haproxy()
    if program is None:
        print("SKIPPED: there is no haproxy on this host")
        return SKIPPED
    figures = Figures()
    try:
        run(program, args.model, args.restarts, args.seconds, figures)
    except (ServerFailed, OSError, EOFError) as error:
        figures.problems.append(str(error))
    except KeyboardInterrupt:
        print("interrupted\n%s" % figures)
        return 130
    print(figures)
    return 1 if figures.problems else 0


if __name__ == "__main__":
    sys.exit(main())
