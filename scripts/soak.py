"""Prove, on this host, that the server holds: python3 scripts/soak.py

Starts the server of this folder, as a program, on a free port of the loopback
interface, and does to it what goes wrong in the field: too many clients at
once, too few descriptors, threads or memory, peers that reset, vanish, dawdle
or never read, and stops under full load.  Honest clients beside them verify
every byte of every reply.

Each line of the table is a fault, printed when it is over:

- times: how often the fault was injected
- lost: bytes that an honest client was owed and did not get, or got wrong
- traceb.: tracebacks in the server's log
- stall: the longest that an honest client waited for a reply, and p99: what
  99 % of the replies kept to, in milliseconds, while the fault lasted
- descr. and memory (MB, resident) of the server, before and after

Under it stands (-) what else was seen, and (!) what was promised and not kept.
The exit status is 1 if there is any such thing, or any loss or traceback;
times are only reported, since they are the host's as much as the server's.
130 is Ctrl-C.

It needs Python 3.6 on a POSIX system, and as many descriptors as it has
clients; to take descriptors, threads and memory away, Linux.  Faults for which
the time does not suffice are left out, aloud.
"""

import sys

if __name__ == "__main__":
    from lab.program import run as run_program
    sys.exit(run_program("soak"))

import argparse
import collections
import contextlib
import math
import platform
import random
import select
import signal
import socket
from time import monotonic, sleep
from typing import Any, Callable, Counter, List, Optional, Tuple

from lab import faults
from lab.arguments import above_zero
from lab.beside import Beside
from lab.load import ENDLESS, Kind, Load
from lab.report import HEAD, Row, counted, verdict
from lab.server import (Failure, Server, ask_models, can_limit,
                        raise_descriptor_limit)
from lab.tally import PATIENCE, judge_turned_away

__all__ = ["Soak", "main"]

PING = Kind("ping", 1, 4096, pause=0.02)
SLOW = Kind("slow", 1, 4096, pause=0.1)
ONCE = Kind("once", 1, 4096, messages=1)
FUZZ = Kind("fuzz", 1, 1 << 20, pause=0.02, messages=5, again=True, fuzz=True)

COMING = ONCE._replace(name="coming", again=True)
HELD = Kind("held", 1, 1, pause=math.inf)

Kinds = List[Tuple[Kind, int]]

# Those who measure while others misbehave; where few are served at the same
# time, they come and go.
BESIDE: Kinds = [(PING, 10)]
BESIDE_IN_TURN: Kinds = [(COMING._replace(pause=0.05), 2)]

# The load under which servers are stopped.
FULL: Kinds = [(Kind("busy", 1, 4096), 12),
               (Kind("large", 256 << 10, 2 << 20), 4),
               (Kind("stream", ENDLESS, ENDLESS), 4), (COMING, 10)]

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

# What an exit status says of a drain.
STATUSES = {0: "no reply was cut",
            1: "replies were cut when the grace was over"}


class Soak:

    """All faults against one model.

    Class variables that may be overridden:

    - crowd: clients that come at once
    - idle_timeout: of the server, in seconds, for peers that are silent
    """

    crowd = 1000
    idle_timeout = 2.0

    def __init__(self, model: str, seconds: float, seed: int) -> None:
        self.model, self.seconds, self.seed = model, seconds, seed
        self.end = monotonic() + seconds
        self.random = random.Random("%d/%s" % (seed, model))
        self.rows: List[Row] = []
        self.left_out: List[str] = []
        self.beside: Optional[Beside] = None
        # How many are served at the same time; a model may have others wait.
        self.room = self.crowd
        self.crowd_time = 0.0   # seconds that a crowd may take

    def run(self) -> None:
        """Do all of it, and print a row of the table for each fault."""
        print("%s:\n%s" % (self.model, HEAD), flush=True)
        self.find_room()
        with self.server("--idle-timeout", str(self.idle_timeout)) as server:
            with Beside(server.address, BESIDE if self.room >= FEW // 2
                        else BESIDE_IN_TURN, self.seed) as beside:
                self.beside = beside
                self.row("quiet", server, self.quiet)
                self.row("fuzz", server, self.fuzz)
                for fault in faults.RUDE:
                    self.row(fault.name, server, self.rude, fault)
                self.row("quiet again", server, self.quiet)
                self.beside = None
        for slots, kind in ((self.crowd, PING._replace(pause=PATIENCE)),
                            (self.crowd // 5, PING._replace(messages=3))):
            if slots > self.room:
                kind = kind._replace(messages=1)  # and makes room
            with self.server("--max-connections", str(slots)) as server:
                self.row("%d at once, %d slots" % (self.crowd, slots), server,
                         self.come, kind, min(slots, self.room),
                         needs=self.crowd_time)
        self.exhaust_all()
        self.row("SIGTERM under load", None, self.stops)

    def server(self, *options: str, **how: Any) -> Server:
        return Server(self.model, *options, **how)

    def find_room(self) -> None:
        """See how many connections are served at the same time."""
        with self.server() as server, Load(server.address) as load:
            load.open(HELD, FEW)
            first = load.tally.first
        served = len(first)
        # Four times that of these few: each of many processes is slower to
        # begin, and they end, too.
        self.crowd_time = 4 * max(first, default=0.0) * self.crowd / FEW
        if served < FEW:
            self.room = served
            print("  - connections served at the same time: %d" % served)

    def fitting(self, kinds: Kinds) -> Kinds:
        """Return so many of these clients as can be served at once."""
        room, fit = self.room, []
        for kind, count in kinds:
            fit.append((kind, min(count, room)))
            room -= fit[-1][1]
        return fit

    def share(self, part: float) -> float:
        """Return so many seconds of a soak of a minute."""
        return part * self.seconds / 60

    def row(self, name: str, server: Optional[Server],
            fault: Callable[..., None], *args: Any,
            needs: float = 0.0) -> None:
        """Call fault(row, server, *args), and print the row.

        It is left out if there are not the seconds that it needs.
        """
        if monotonic() + needs > self.end:
            self.left_out.append(name)
            return
        row = Row(name)
        self.rows.append(row)
        try:
            if self.beside:
                self.beside.take_tally()
            if server:
                row.before = server.descriptors(), server.memory()
                log_size = server.log_size()
            fault(row, server, *args)
            if self.beside:
                row.tally.add(self.beside.take_tally())
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
        before = row.before[0] or 0
        end = monotonic() + self.idle_timeout + 10
        while (server.descriptors() or 0) > before and monotonic() < end:
            sleep(0.02)
        row.after = server.descriptors(), server.memory()
        if (row.after[0] or 0) > before:
            row.problems.append("%d descriptors have not come back"
                                % ((row.after[0] or 0) - before))
        if server.status() is not None:
            row.problems.append("the server has ended, with exit status %s: %s"
                                % (server.status(), server.log()[-300:]))

    # The faults against a server that is to go on.

    def quiet(self, row: Row, server: Server) -> None:
        """Measure what the others are compared with."""
        sleep(self.share(3))

    def fuzz(self, row: Row, server: Server) -> None:
        """Split, delay and end at random; numbered from the seed."""
        with Load(server.address, self.seed) as load:
            load.add(FUZZ, 20)
            load.run(self.share(4))
            tally = load.finish()
        row.times = tally.ends["done"]
        row.lose(tally)

    def rude(self, row: Row, server: Server, fault: faults.Fault) -> None:
        """Have the server treated rudely.

        It may log how each of the connections ended, and nothing else.
        """
        row.may_log = " bytes out"
        row.times, row.problems = faults.inject(
            fault, server.address, max(int(self.share(fault.times)), 2),
            self.room, self.share(5), self.seed)

    def come(self, row: Row, server: Server, kind: Kind, slots: int) -> None:
        """Have a crowd connect at once, of whom so many are let in.

        Each stays until all have had an answer, unless its kind leaves: who
        has one message is gone before it can be counted.
        """
        with Load(server.address, self.seed) as load:
            load.add(kind, self.crowd)
            most, end = 0, monotonic() + PATIENCE
            while (load.clients and len(load.tally.first) < self.crowd
                   and monotonic() < end):
                load.turn(0.1)
                most = max(most, sum(client.received > 0 for client
                                     in load.clients.values()))
            tally = load.finish(10)
        row.times = self.crowd
        row.tally.add(tally)
        row.notes.append(
            "%d were served and %d refused, %sthe last after %.2f s" % (
                len(tally.first), tally.ends["refused"],
                "" if kind.messages == 1 else "at most %d at the same time, "
                % most, max(tally.first, default=0.0)))
        if most > slots:
            row.problems.append("%d at the same time" % most)

    def exhaust_all(self) -> None:
        """Take descriptors, memory, threads and processes away."""
        if not can_limit():
            self.left_out.append("exhaustion, which needs Linux")
            return
        with self.server() as server:
            for what in "descriptors", "memory":
                self.row("no " + what, server, self.take_away, what)
        with self.server(program=LIMITABLE) as server:
            self.row("no threads, no processes", server, self.exhaust,
                     lambda: server.send_signal(signal.SIGUSR1),
                     lambda: server.send_signal(signal.SIGUSR2))

    def take_away(self, row: Row, server: Server, what: str) -> None:
        """Let the server have no more of it than it has."""
        which, most = (("AS", server.address_space()) if what == "memory"
                       else ("NOFILE", (server.descriptors() or 0) + 2))
        before = server.limit(which)
        self.exhaust(row, server, lambda: server.limit(which, most),
                     lambda: server.limit(which, before))

    def exhaust(self, row: Row, server: Server, take: Callable[[], Any],
                give: Callable[[], Any]) -> None:
        """Let the running server be without something for a while.

        Ten clients are inside, if there is room, and are to be served on;
        thirty come and have to wait, or to be turned away visibly.
        """
        def go_on(seconds: float, while_any: bool) -> float:
            began = monotonic()
            while (monotonic() < began + seconds
                   and (outside.clients or not while_any)):
                outside.turn(0)
                inside.turn(0.005)
            return monotonic() - began

        with Load(server.address, self.seed) as inside, \
                Load(server.address, self.seed, judge_turned_away) as outside:
            inside.open(SLOW, min(10, self.room - 1))
            take()
            start, cpu = server.log_size(), server.cpu() or 0
            outside.add(ONCE._replace(high=2 << 20), 30)
            seconds = go_on(self.share(3), while_any=False)
            lines = server.log(start).count(" ERROR ")
            # which is less, if threads have ended
            cpu = max((server.cpu() or 0) - cpu, 0)
            give()
            waited = go_on(PATIENCE, while_any=True)
            tally = outside.finish(0)
            row.times = 30
            row.lose(tally)
            row.tally.add(inside.finish())
        row.notes += [
            "%s in the log and %.1f %% of a processor in %.1f s"
            % (counted(lines, "line"), 100 * cpu / seconds, seconds),
            "%d were served and %d turned away, the last %.2f s after it was "
            "over" % (tally.ends["done"], tally.ends["reset"], waited)]
        # one a second, and one for each that was let in and cut
        if lines > seconds + 1 + tally.ends["reset"]:
            row.problems.append(counted(lines, "line") + " in the log")

    # Stopping.

    def stops(self, row: Row, _: None) -> None:
        """Stop servers under full load, until the time is over."""
        statuses: Counter[int] = collections.Counter()
        while not row.times or monotonic() < self.end:
            with self.server("--grace", "1") as server:
                statuses[self.stop(row, server)] += 1
        row.notes += ["exit status %d after %s: %s" % (
            status, counted(count, "stop"),
            STATUSES.get(status, "it should be 0 or 1"))
            for status, count in sorted(statuses.items())]

    def stop(self, row: Row, server: Server) -> int:
        """Stop a server under full load; return its exit status."""
        seed = "%d/%d" % (self.seed, row.times)
        with Load(server.address, seed) as load:
            for kind, count in self.fitting(FULL):
                load.add(kind, count)
            load.run(self.random.uniform(0.2, 0.5))
            for client in load.add(ONCE, 10):
                select.select([], [client.socket], [], PATIENCE)
            load.mark_stop()
            server.stop()
            self.watch_stop(row, server, load)
            tally = load.finish(0)
        status = server.wait()
        row.times += 1
        row.tally.add(tally)
        row.read_log(server.log())
        if status not in STATUSES:
            row.problems.append("exit status %d" % status)
        if status == 1 and not tally.ends["reset"]:
            row.problems.append("exit status 1, and no client was cut")
        return status

    def watch_stop(self, row: Row, server: Server, load: Load) -> None:
        """Let all clients meet their end; none may come when one has.

        (One at a time, the end of a connection comes before all else.)
        """
        end = monotonic() + PATIENCE
        probed = self.room == 1
        while monotonic() < end and any(client.connected for client
                                        in load.clients.values()):
            load.turn(0.1)
            if not probed and (load.tally.ends["eof"]
                               or load.tally.ends["reset"]):
                probed = True
                with socket.socket() as s:
                    if s.connect_ex(server.address) == 0:
                        row.problems.append(
                            "a connection was taken in the middle of a drain")


def main(argv: Optional[List[str]] = None) -> int:
    """Run the program; return its exit status."""
    models = list(ask_models())
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=above_zero(10**6), default=60.0,
                        help="for each model (default %(default)g)")
    parser.add_argument("--model", choices=models + ["all"],
                        default="threads", help="(default %(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(10 ** 6),
                        help="repeats a run's random choices")
    args = parser.parse_args(argv)
    raise_descriptor_limit()
    print("Python %s, %s, seed %d" % (platform.python_version(),
                                      platform.platform(), args.seed))
    worst = 0
    for model in models if args.model == "all" else [args.model]:
        soak = Soak(model, args.seconds, args.seed)
        try:
            soak.run()
        except (Failure, OSError) as error:
            print("FAILED: %s" % error)
            worst = 1
            continue
        words, status = verdict(soak.rows, soak.left_out)
        print(words)
        if soak.left_out:
            print("Left out, for want of time: " + "; ".join(soak.left_out))
        worst = max(worst, status)
    return worst
