"""Prove, on this host, that the server holds: python scripts/soak.py

Starts the server of this folder, as a program, on a free port of the loopback
interface, and does to it what goes wrong in the field: too many clients at
once, too few descriptors, threads or memory, peers that reset, vanish, dawdle
or never read, and stops under full load.  Honest clients beside them verify
every byte of every reply.

At the end stands a table:

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
clients; to take descriptors, threads and memory away, Linux.
"""

import argparse
import contextlib
import platform
import random
import re
import select
import signal
import socket
import sys
from time import monotonic, sleep
from typing import Any, Callable, Dict, Iterator, List, Optional

import faults
from beside import Beside
from honest import BUSY, FUZZ, LARGE, ONCE, PING, SLOW, STREAM, Load
from report import Progress, Row, table
from served import MODELS, Server, ServerFailed
from verdict import PATIENCE, judge_turned_away

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore

__all__ = ["Soak", "main"]

FULL = 300.0            # seconds of a run with all that was promised:
RUDE = 10000            # rude peers
STOPS = 100             # stops under load


class Soak:

    """All faults against one model.

    Class variables that may be overridden:

    - crowd: clients that come at once
    - idle: the server's idle timeout, in seconds, for peers that are silent
    """

    crowd = 1000
    idle = 2.0

    def __init__(self, model: str, seconds: float, seed: int) -> None:
        self.model = model
        self.seconds = seconds
        self.seed = seed
        self.random = random.Random("%d/%s" % (seed, model))
        self.rows = []  # type: List[Row]
        self.beside = None  # type: Optional[Beside]
        self.progress = Progress(model, seconds)  # type: Any

    def run(self) -> None:
        end = monotonic() + self.seconds
        with self.server("--max-connections", str(self.crowd + 100),
                         "--idle-timeout", str(self.idle)) as server:
            with Beside(server.address, [(PING, 10)], self.seed) as beside:
                self.beside = beside
                before = self.quiet("quiet", server)
                self.fuzz(server, max(self.scaled(20), 3))
                for fault in faults.RUDE:
                    self.rude(fault, server)
                after = self.quiet("quiet again", server)
                after.notes.append("p99 is %.2f of what it was at first"
                                   % (after.p99 / (before.p99 or 1)))
                self.beside = None
            self.come(server, PING._replace(pause=20.0), self.crowd)
        slots = self.crowd // 5
        with self.server("--max-connections", str(slots)) as server:
            self.come(server, PING._replace(messages=3), slots)
        self.exhaust_all()
        self.stops(end)

    def server(self, *options: str, **how: Any) -> Server:
        return Server(self.model, *options, **how)

    def scaled(self, full: float) -> float:
        """Return so many of what a full run has."""
        return full * self.seconds / FULL

    @contextlib.contextmanager
    def row(self, name: str, server: Optional[Server] = None) -> Iterator[Row]:
        """Fill a line of the table with what happens in the with block."""
        row = Row(name)
        self.rows.append(row)
        self.progress(name)
        try:
            if self.beside:
                self.beside.take_tally()
            if server:
                row.before = server.descriptors(), server.memory()
                log_size = server.log_size()
            yield row
            if self.beside:
                row.count(self.beside.take_tally())
            if server:
                self.settle(row, server)
                row.read_log(server.log(log_size))
        except (ServerFailed, EOFError, OSError) as error:
            row.problems.append("%s: %s" % (type(error).__name__, error))

    def settle(self, row: Row, server: Server) -> None:
        """Wait for the server's descriptors to come back.

        First for a last client, who says nothing, to be let in and out: those
        before it are no longer in the backlog then.
        """
        with contextlib.suppress(OSError, faults.Broken):
            with faults.connect(server.address) as s:
                s.shutdown(socket.SHUT_WR)
                faults.expect(s, b"", then_end=True)
        end = monotonic() + self.idle + 3
        while monotonic() < end:
            row.after = server.descriptors(), server.memory()
            if row.before[0] is None or row.after[0] <= row.before[0]:
                break
            sleep(0.02)
        else:
            row.problems.append("%d descriptors have not come back" % (
                row.after[0] - row.before[0]))
        if server.process.poll() is not None:
            row.problems.append("the server has ended, with exit status %d: %s"
                                % (server.process.poll(), server.log()[-300:]))

    # The faults against a server that is to go on.

    def quiet(self, name: str, server: Server) -> Row:
        """Measure what the others are compared with."""
        with self.row(name, server) as row:
            sleep(max(self.scaled(15), 3))
        return row

    def come(self, server: Server, kind: Any, slots: int) -> None:
        """Have a crowd connect at once, of whom so many are let in.

        Each stays until all have had an answer, unless its kind leaves.
        """
        name = "%d at once, %d slots" % (self.crowd, slots)
        with self.row(name, server) as row, \
                Load(server.address, self.seed) as load:
            load.add(kind, self.crowd)
            most, end = 0, monotonic() + PATIENCE
            while (load.clients and len(load.tally.first) < self.crowd
                   and monotonic() < end):
                load.turn(0.1)
                most = max(most, sum(client.received > 0
                                     for client in load.clients))
            tally = load.finish(10)
            row.times = self.crowd
            row.count(tally)
            row.notes.append(
                "%d were served and %d refused, at most %d at the same time, "
                "the last after %.2f s" % (
                    len(tally.first), tally.ends["refused"], most,
                    max(tally.first or [0])))
            if most > slots:
                row.problems.append("%d at the same time" % most)

    def rude(self, fault: Any, server: Server) -> None:
        """Have the server treated rudely.

        It may log how each of the connections ended, and nothing else.
        """
        times = max(int(self.scaled(fault.share * RUDE / 10000)), 2)
        start = server.log_size()
        with self.row(fault.name, server) as row:
            row.times = times
            row.problems += faults.inject(
                fault, server.address, times, self.seed,
                lambda done: self.progress(fault.name, done, times))
        row.problems += ["in the log: " + line for line
                         in server.log(start).splitlines()
                         if not line.endswith(" bytes out")]

    def fuzz(self, server: Server, seconds: float) -> None:
        """Split, delay and end at random; numbered from the seed."""
        with self.row("fuzz", server) as row:
            with Load(server.address, self.seed) as load:
                load.add(FUZZ, 20)
                load.run(seconds)
                tally = load.finish()
            row.times = tally.ends["done"]
            row.lose(tally)

    def exhaust_all(self) -> None:
        """Take descriptors, memory, threads or processes away."""
        if not hasattr(resource, "prlimit"):
            self.rows.append(Row("exhaustion", "skipped: needs Linux"))
            return
        seconds = max(self.scaled(10), 3)
        with self.server() as server:
            self.take_away("descriptors", server, seconds)
            self.take_away("memory", server, seconds)
        if self.model in ("threads", "processes"):
            with self.server(limitable=True) as server:
                self.exhaust(
                    "no " + self.model, server, seconds,
                    lambda: server.process.send_signal(signal.SIGUSR1),
                    lambda: server.process.send_signal(signal.SIGUSR2))

    def take_away(self, what: str, server: Server, seconds: float) -> None:
        """Let the server have no more of it than it has."""
        which = (resource.RLIMIT_AS if what == "memory"
                 else resource.RLIMIT_NOFILE)
        before = []  # type: List[int]
        self.exhaust(
            "no " + what, server, seconds,
            lambda: before.append(server.limit(
                which, server.memory("VmSize") if what == "memory"
                else (server.descriptors() or 0) + 2)),
            lambda: server.limit(which, before[0]))

    def exhaust(self, name: str, server: Server, seconds: float,
                take: Callable[[], Any], give: Callable[[], Any]) -> None:
        """Let the running server be without something for a while.

        Ten clients are inside and are to be served on; thirty come and have
        to wait, or to be turned away visibly.
        """
        with self.row(name, server) as row, \
                Load(server.address, self.seed) as inside, \
                Load(server.address, self.seed) as outside:
            inside.add(SLOW, 10)
            end = monotonic() + PATIENCE
            while len(inside.tally.first) < 10 and monotonic() < end:
                inside.turn(0.1)
            take()
            outside.judge = judge_turned_away
            outside.add(ONCE._replace(high=2 << 20), 30)
            self.starve(row, server, inside, outside, seconds)
            give()
            began = monotonic()
            while outside.clients and monotonic() < began + PATIENCE:
                outside.turn(0)
                inside.turn(0.005)
            waited = monotonic() - began
            tally = outside.finish(0)
            row.times = 30
            row.lose(tally)
            row.count(inside.finish())
            row.notes.append(
                "%d were served and %d turned away, the last %.2f s after it "
                "was over" % (tally.ends["done"], tally.ends["reset"], waited))

    def starve(self, row: Row, server: Server, inside: Load, outside: Load,
               seconds: float) -> None:
        """Look at log and processor while the limit is low."""
        start, cpu = server.log_size(), server.cpu()
        end = monotonic() + seconds
        while monotonic() < end:
            outside.turn(0)
            inside.turn(0.005)
        lines = len(re.findall(" ERROR ", server.log(start)))
        row.notes.append("%d lines in the log and %.1f %% of a processor in "
                         "%.1f s" % (lines, 100 * (server.cpu() - cpu)
                                     / seconds, seconds))
        if lines > seconds + 1:
            row.problems.append("%d lines in the log" % lines)

    # Stopping.

    def stops(self, end: float) -> None:
        """Stop servers under full load, until the time is over."""
        statuses = {}  # type: Dict[int, int]
        with self.row("SIGTERM under load") as row:
            while row.times < 3 or (monotonic() < end and row.times < STOPS):
                with self.server("--grace", "1") as server:
                    status = self.stop(row, server)
                statuses[status] = statuses.get(status, 0) + 1
                self.progress(row.name, row.times, STOPS)
            row.notes.append("exit statuses: " + ", ".join(
                "%d (%d times)" % pair for pair in sorted(statuses.items())))

    def stop(self, row: Row, server: Server) -> int:
        """Stop a server under full load; return its exit status."""
        seed = "%d/%d" % (self.seed, row.times)
        with Load(server.address, seed) as load:
            coming = ONCE._replace(again=True)
            for kind, count in ((BUSY, 12), (LARGE, 4), (STREAM, 4),
                                (coming, 10)):
                load.add(kind, count)
            load.run(self.random.uniform(0.2, 0.5))
            for client in load.add(ONCE, 10):
                select.select([], [client.socket], [], 1)
            load.mark_stop()
            server.stop()
            self.watch_stop(row, server, load)
            row.count(load.finish(0))
        row.times += 1
        status = server.wait()
        row.read_log(server.log())
        if status not in (0, 1):
            row.problems.append("exit status %d" % status)
        return status

    def watch_stop(self, row: Row, server: Server, load: Load) -> None:
        """Let all clients meet their end; none may come when one has."""
        end = monotonic() + 10
        probed = False
        while monotonic() < end and any(client.connected
                                        for client in load.clients):
            load.turn(0.1)
            if not probed and (load.tally.ends["eof"]
                               or load.tally.ends["reset"]):
                probed = True
                with socket.socket() as s:
                    if s.connect_ex(server.address) == 0:
                        row.problems.append(
                            "a connection was taken in the middle of a drain")


def raise_descriptor_limit(wanted: int) -> None:
    """Let this process have as many sockets as it needs."""
    if resource:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < wanted:
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        description="Prove that the server holds.",
        epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0,
                        help="for each model (default %(default)g)")
    parser.add_argument("--model", choices=MODELS + ["all"],
                        default="threads", help="(default %(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(10 ** 6),
                        help="repeats a run's random choices")
    args = parser.parse_args(argv)
    raise_descriptor_limit(Soak.crowd + 200)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print("Python %s, %s, seed %d" % (platform.python_version(),
                                      platform.platform(), args.seed))
    bad = False
    for model in MODELS if args.model == "all" else [args.model]:
        soak = Soak(model, args.seconds, args.seed)
        try:
            soak.run()
        except KeyboardInterrupt:
            soak.progress.end()
            print("interrupted\n" + table(soak.rows))
            return 130
        soak.progress.end()
        print("%s:\n%s" % (model, table(soak.rows)))
        bad |= any(row.bad for row in soak.rows)
    print("Something was lost." if bad else
          "Nothing was lost, and there was no traceback.")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
