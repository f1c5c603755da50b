"""Prove, on this host, that the server holds: python3 scripts/soak.py

Starts the server of this folder, as a program, on a free port of the loopback
interface, and does to it what goes wrong in the field: too many clients at
once, too few descriptors, threads or memory, peers that reset, vanish, dawdle
or never read, and stops under full load.  Honest clients beside them verify
every byte of every reply.

It needs Python 3.6 on a POSIX system, and as many descriptors as it has
clients; to take descriptors, threads and memory away, Linux.  Faults for which
the time does not suffice are left out, aloud.
"""

import sys

if __name__ == "__main__":
    try:
        from lab.program import run as run_program
    except ImportError:
        sys.exit("no lab here: drop -I and PYTHONSAFEPATH, or take the .pyz")
    sys.exit(run_program("soak"))

import contextlib
import platform
import random
import signal
import socket
from time import monotonic, sleep
from typing import Any, Callable, List, Optional

from lab import faults
from lab.arguments import above_zero, parser
from lab.clients import HOLD, PATIENCE, Clients
from lab.judge import ENDLESS, Caller, Kind, finish, start
from lab.report import HEAD, Row, counted, verdict
from lab.server import Failure, Server, ask_models

__all__ = ["Soak", "main"]

HELP = """\
Does the server survive faults on this host, and does it lose a byte?

A line of the table is a fault: how often it was injected; what honest clients
lost, their longest wait (stall) and p99 in ms; the server's descriptors and
memory (MB), before and after.  Under it stands (-) what else was seen, and (!)
what was promised and not kept; then the exit status is 1."""

ONCE = Kind("once", 1, 4096, messages=1)
FUZZ = Kind("fuzz", 1, 1 << 20, messages=5, again=True, fuzz=True)

# The load under which servers are stopped.
FULL = [(Kind("busy", 1, 4096), 12),
        (Kind("large", 256 << 10, 2 << 20), 4),
        (Kind("stream", ENDLESS, ENDLESS), 4),
        (ONCE._replace(name="coming", again=True), 10)]

# Those who measure while others misbehave; where few are served at the same
# time, they come and go.
MEASURED = "-c", 0, "-W", PATIENCE, "--json", "-q"
BESIDE = "-n", 10, "-i", 0.02
BESIDE_IN_TURN = "-n", 2, "-i", 0.05, "--reconnect"

FEW = 100               # connections, to see whether all are served

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


class Soak:

    """All faults against one model.

    Class variables that may be overridden:

    - crowd: clients that come at once
    - idle_timeout: of the server, in seconds, for peers that are silent
    - program: the server's, if it is not that of this folder
    """

    crowd = 1000
    idle_timeout = 2.0
    program = ""

    def __init__(self, model: str, seconds: float, seed: int) -> None:
        self.model, self.seed = model, seed
        self.end = monotonic() + seconds
        self.part = seconds / 60    # of a soak of a minute
        self.random = random.Random("%d/%s" % (seed, model))
        self.rows: List[Row] = []
        self.left_out: List[str] = []
        # How many are served at the same time; a model may have others wait.
        self.room = self.crowd

    def run(self) -> None:
        """Do all of it, and print a row of the table for each fault."""
        print("%s:\n%s" % (self.model, HEAD), flush=True)
        self.find_room()
        with self.server("--idle-timeout", str(self.idle_timeout)) as server:
            for name in "quiet", "fuzz":
                self.row(name, server, self.beside, getattr(self, name))
            for fault in faults.RUDE:
                self.row(fault.name, server, self.beside, self.rude, fault)
            self.row("quiet again", server, self.beside, self.quiet)
        for slots in self.crowd, self.crowd // 5:
            with self.server("--max-connections", str(slots)) as server:
                self.row("%d at once, %d slots" % (self.crowd, slots), server,
                         self.come, min(slots, self.room))
        if sys.platform == "linux":
            self.exhaust_all()
        self.row("SIGTERM under load", None, self.stops)

    def server(self, *options: str, program: str = "") -> Server:
        return Server(self.model, *options, program=program or self.program)

    def find_room(self) -> None:
        """See how many connections are served at the same time."""
        with self.server() as server, Clients(
                server.address, *HOLD, "-n", FEW) as clients:
            served = clients.go().replies(FEW, news=1)
        if served < FEW:
            self.room = served
            print("  - connections served at the same time: %d" % served)

    def row(self, name: str, server: Optional[Server],
            fault: Callable[..., None], *args: Any) -> None:
        """Call fault(row, server, *args), and print the row; leave it out if
        the time is over."""
        if monotonic() > self.end:
            self.left_out.append(name)
            return
        row = Row(name)
        self.rows.append(row)
        try:
            if server:
                row.before = server.descriptors(), server.memory()
                log_size = server.log_size()
            fault(row, server, *args)
            if server:
                self.settle(row, server)
                row.read_log(server.log(log_size))
        except (Failure, OSError) as error:
            row.problems.append(str(error))
        print(row, flush=True)

    def settle(self, row: Row, server: Server) -> None:
        """Wait for the server's descriptors to come back.

        First for a last client, who says nothing, to be let in and out: those
        before it are no longer in the backlog then.
        """
        with contextlib.suppress(OSError, faults.Broken):
            with faults.connect(server.address) as s:
                s.shutdown(socket.SHUT_WR)
                faults.expect(s, b"", then_end=True)
        end = monotonic() + self.idle_timeout + 10
        while (row.before[0] or 0) < (server.descriptors() or 0):
            sleep(0.02)
            if monotonic() > end:
                row.problems.append("descriptors have not come back")
                break
        row.after = server.descriptors(), server.memory()
        if server.status() is not None:
            row.problems.append("the server has ended: " + server.log()[-300:])

    # The faults against a server that is to go on.

    def beside(self, row: Row, server: Server, fault: Callable[..., None],
               *args: Any) -> None:
        """Call fault(row, server, *args) while honest clients measure."""
        options = BESIDE if self.room >= FEW // 2 else BESIDE_IN_TURN
        with Clients(server.address, *options, *MEASURED) as clients:
            clients.go()
            fault(row, server, *args)
            row.add(clients.stop())

    def quiet(self, row: Row, server: Server) -> None:
        """Measure what the others are compared with."""
        sleep(3 * self.part)

    def fuzz(self, row: Row, server: Server) -> None:
        """Split, delay and end at random; numbered from the seed."""
        callers = start(server.address, FUZZ, min(20, self.room), self.seed)
        sleep(4 * self.part)
        for caller in callers:
            caller.leaving = True
        row.problems += finish(callers)
        row.may_log = " bytes out"
        row.times = sum(caller.done for caller in callers)

    def rude(self, row: Row, server: Server, fault: faults.Fault) -> None:
        """Have the server treated rudely.

        It may log how each of the connections ended, and nothing else.
        """
        row.may_log = " bytes out"
        row.times, row.problems = faults.inject(
            fault, server.address, max(int(self.part * fault.times), 2),
            self.room, 5 * self.part, self.seed)

    def come(self, row: Row, server: Server, slots: int) -> None:
        """Have a crowd connect at once, of whom so many are let in.

        Those who are inside stay, and nobody else may get a reply.  Then each
        leaves after its reply, and all get one.
        """
        row.times = self.crowd
        with Clients(server.address, *HOLD, "-n", self.crowd) as clients:
            began = monotonic()
            clients.go().replies(slots)
            seconds = monotonic() - began
            sleep(0.2)
            served = clients.replies(self.crowd, 0.2)
        (row.notes if served == slots else row.problems).append(
            "%d were served at the same time, of %d, the last after %.2f s"
            % (served, slots, seconds))
        with Clients(server.address, "-n", self.crowd, "-c", self.crowd, "-i",
                     0, "-W", 2 * PATIENCE, "--json", "-q") as clients:
            row.add(clients.go().figures(2 * PATIENCE))

    def exhaust_all(self) -> None:
        """Take descriptors, memory, threads and processes away."""
        befores: List[int] = []
        with self.server() as server:
            for what, limit, most in (
                    ("descriptors", "NOFILE", (server.descriptors() or 0) + 2),
                    ("memory", "AS", server.address_space())):
                self.row("no " + what, server, self.exhaust,
                         lambda: befores.append(server.limit(limit, most)),
                         lambda: server.limit(limit, befores[-1]))
        with self.server(program=LIMITABLE) as server:
            self.row("no threads, no processes", server, self.exhaust,
                     lambda: server.send_signal(signal.SIGUSR1),
                     lambda: server.send_signal(signal.SIGUSR2))

    def exhaust(self, row: Row, server: Server, take: Callable[[], Any],
                give: Callable[[], Any]) -> None:
        """Let the running server be without something for a while.

        Ten clients are inside, if there is room, and are to be served on;
        thirty come and have to wait, or to be turned away visibly.
        """
        with contextlib.ExitStack() as stack:
            if self.room > 1:
                inside = stack.enter_context(Clients(
                    server.address, "-n", 10, "-i", 0.1, *MEASURED)).go()
                sleep(0.5)      # more than they need to be inside
            take()
            log, cpu, began = server.log_size(), server.cpu() or 0, monotonic()
            outside = start(server.address, ONCE._replace(high=2 << 20), 30,
                            self.seed, ["reset"])
            sleep(3 * self.part)
            lines = server.log(log).count(" ERROR ")
            cpu, seconds = (server.cpu() or 0) - cpu, monotonic() - began
            give()
            row.problems += finish(outside)
            row.times, waited = len(outside), monotonic() - began - seconds
            if self.room > 1:
                row.add(inside.stop())
        resets = sum("reset" in caller.ends for caller in outside)
        row.notes += [
            "%s in the log and %.1f %% of a processor in %.1f s"
            % (counted(lines, "line"), 100 * cpu / seconds, seconds),
            "%d were served and %d turned away, the last %.2f s after it was "
            "over" % (sum(caller.done for caller in outside), resets, waited)]
        # one a second, and one for each that was let in and cut
        if lines > seconds + 1 + resets:
            row.problems.append(counted(lines, "line") + " in the log")

    # Stopping.

    def stops(self, row: Row, _: None) -> None:
        """Stop servers under full load, until the time is over."""
        cut = 0
        while not row.times or monotonic() < self.end:
            with self.server("--grace", "1") as server:
                cut += self.stop(row, server)
        row.notes.append("%d of %s cut replies, after the grace: exit status 1"
                         % (cut, counted(row.times, "stop")))

    def stop(self, row: Row, server: Server) -> int:
        """Stop a server under full load; return its exit status."""
        seed, room = "%d/%d" % (self.seed, row.times), self.room
        callers: List[Caller] = []
        for kind, count in FULL:
            callers += start(server.address, kind, min(count, room), seed)
            room -= min(count, room)
        sleep(self.random.uniform(0.2, 0.5))
        late = start(server.address, ONCE, 10, seed)
        end = monotonic() + PATIENCE
        while monotonic() < end and not all(
                caller.connected or caller.ends for caller in late):
            sleep(0.001)
        for caller in callers + late:
            caller.marked, caller.cut = caller.sent, monotonic() + 0.5
        server.stop()
        self.probe(row, server, callers)
        row.problems += finish(callers + late)
        status = server.wait()
        row.times += 1
        row.read_log(server.log())
        if status not in {0, any("reset" in caller.ends
                                 for caller in callers + late)}:
            row.problems.append("exit status %d" % status)
        return status

    def probe(self, row: Row, server: Server, callers: List[Caller]) -> None:
        """Let no client come when the server has ended a connection.

        (One at a time, the end of a connection comes before all else.)
        """
        end = monotonic() + PATIENCE
        while monotonic() < end and not any(
                how in caller.ends for how in ("eof", "reset")
                for caller in callers):
            sleep(0.001)
        with socket.socket() as s:
            if self.room > 1 and s.connect_ex(server.address) == 0:
                row.problems.append(
                    "a connection was taken in the middle of a drain")


def main(argv: Optional[List[str]] = None) -> int:
    """Run the program; return its exit status."""
    models = list(ask_models())
    arguments = parser(HELP)
    add = arguments.add_argument
    add("--seconds", type=above_zero(10**6), default=60.0,
        help="for each model (default %(default)g)")
    add("--model", choices=models + ["all"], default="threads",
        help="(default %(default)s)")
    add("--seed", type=int, default=random.randrange(10 ** 6),
        help="repeats a run's random choices")
    args = arguments.parse_args(argv)
    print("Python %s, %s, seed %d" % (platform.python_version(),
                                      platform.platform(), args.seed))
    failed = False
    for model in models if args.model == "all" else [args.model]:
        soak = Soak(model, args.seconds, args.seed)
        try:
            soak.run()
            words = verdict(soak.rows, soak.left_out)
        except (Failure, OSError) as error:
            words = "FAILED: %s" % error
        print(words)
        if soak.left_out:
            print("Left out, for want of time: " + "; ".join(soak.left_out))
        failed = failed or words.startswith("FAILED")
    return int(failed)
