"""Measure the models of this folder on this host, and draw what they do.

    python3 scripts/bench.py --svg scripts/bench.svg

Each model serves growing numbers of connections that all ask, again at each
reply, and compare every byte; then growing numbers of idle connections beside
ten busy ones.

In the percentiles each connection has the same weight, and a question that
got no answer counts with the time it has waited.  Its wait is longer than
that, and so is a percentile with a ">" before it.

The load is written in Python, too, and on a host of two CPUs it may be what
limits the fastest models: compare what a reply costs either side.
"""

import sys

if __name__ == "__main__":
    from lab.program import run as run_program
    sys.exit(run_program("bench"))

import argparse
import contextlib
import json
import math
import os
import platform
import shlex
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional

from lab import chart
from lab.arguments import above_zero
from lab.beside import Beside
from lab.load import Kind
from lab.server import (Failure, Server, ask_models, field,
                        raise_descriptor_limit)
from lab.tally import Tally

__all__ = ["main"]

BUSY = 10               # busy connections beside the idle ones
MOST = 20000            # connections in a point
SPARE = 64              # descriptors for other things than connections
CHILD_MEMORY = 3 << 20  # bytes of a process for a connection, which has
                        # a descriptor more for that

Point = Dict[str, Any]


class Plan(NamedTuple):

    """What is to be measured for a row of the table."""

    model: str
    size: int
    connections: int
    idle: int

    def __str__(self) -> str:
        return "%s, %d connections%s, %d bytes" % (
            self.model, self.connections,
            " + %d idle" % self.idle if self.idle else "", self.size)


def plans(args: argparse.Namespace) -> Iterator[Plan]:
    """Yield what is to be measured, in the order of the table."""
    for size in args.size:
        for busy, idle in ([(count, 0) for count in args.connections]
                           + [(BUSY, count) for count in args.idle]):
            for model in args.models:
                yield Plan(model, size, busy, idle)


# A point.

def hindrance(plan: Plan, model: Dict[str, int], descriptors: float) -> str:
    """Return why this host, which allows so many descriptors, cannot make a
    point; "" if nothing is known."""
    connections = plan.connections + plan.idle
    needed = connections * model["descriptors"] + SPARE
    if connections > MOST:
        return "more than %d connections" % MOST
    if needed > descriptors:
        return ("%d descriptors are needed, %d allowed (ulimit -Hn)"
                % (needed, descriptors))
    memory = connections * CHILD_MEMORY * (model["descriptors"] - 1)
    if memory > (field("/proc/meminfo", "MemAvailable:") or math.inf) / 2:
        return "it could take %.1f GiB of memory" % (memory / 2**30)
    return ""


def measure(plan: Plan, seconds: float, processes: int) -> Point:
    """Start a server and its load, and return what they did.

    The loads connect one after the other: none takes the time that the server
    needs for another's connections for a sign that nothing will come.
    """
    hold = Kind("busy", plan.size, plan.size, pause=math.inf)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(
            plan.model, "-q", "--max-connections", str(MOST)))
        groups = [plan.idle, *shares(plan.connections, processes)]
        idle, *loads = [stack.enter_context(Beside(
            server.address, [(hold, count)], seed=number))
            for number, count in enumerate(groups)]
        warm_up = [load.take_tally() for load in [idle, *loads]]
        before = server.cpu()
        for load in loads:
            load.tell("measure", hold._replace(pause=0), seconds)
        tallies = [load.hear(seconds) for load in loads]
        after, memory = server.cpu(), server.memory()
        *_, complaint = ["", *server.log().splitlines()]
        return dict(plan._asdict(), memory=memory, complaint=complaint,
                    idle_unanswered=plan.idle - len(warm_up[0].first),
                    **summary(plan.connections, tallies, warm_up,
                              after and after - (before or 0)))


def shares(connections: int, processes: int) -> List[int]:
    """Return how many of the connections each load process gets."""
    bounds = [connections * part // processes for part in range(processes + 1)]
    return [last - first for first, last in zip(bounds, bounds[1:])
            if last > first]


def summary(connections: int, tallies: List[Tally], warm_up: List[Tally],
            cpu: Optional[float]) -> Point:
    """Return the figures of a point: what its loads have seen."""
    total = Tally()
    for tally in tallies:
        total.add(tally)
    ends = sum((tally.ends for tally in warm_up), total.ends)
    p50, p99 = total.quantile(0.5), total.quantile(0.99)
    return {
        "rate": sum(tally.replies / tally.seconds for tally in tallies),
        "p50": p50[0], "p50_at_least": p50[1],
        "p99": p99[0], "p99_at_least": p99[1],
        "server_cpu": cpu / total.replies if cpu and total.replies else None,
        "load_cpu": total.cpu / total.replies if total.replies else None,
        "wrong": ends["wrong"], "errors": sum(ends.values()) - ends["wrong"],
        "unanswered": connections - len(list(filter(len, total.waits)))}


# The table.

HEAD = """\
                connections               reply after   CPU us/reply    server
model         busy   idle  replies/s     p50      p99  server   load  memory\
  faults"""

NOTE = """
> longer than this: each connection has the same weight, and one without an
answer counts with the time that it has waited."""


def duration(seconds: Optional[float], at_least: bool = False) -> str:
    """Return a time in three digits and its unit."""
    if seconds is None:
        return "-"
    for unit, scale in ("us", 1e6), ("ms", 1e3), ("s", 1.0):
        if seconds * scale < 999.5 or unit == "s":
            break
    value = seconds * scale
    digits = 0 if value >= 99.5 else 1 if value >= 9.95 else 2
    return "%s%.*f %s" % (">" if at_least else "", digits, value, unit)


def scaled(value: Optional[float], scale: float, form: str) -> str:
    return "-" if value is None else form % (value * scale)


def row(point: Point) -> str:
    """Return a line of the table."""
    faults = ["%d %s" % (point[name], name.replace("_", " ")) for name in (
        "wrong", "errors", "unanswered", "idle_unanswered") if point[name]]
    return "%-10s %7d %6s %10s %8s %8s %7s %6s %7s  %s" % (
        point["model"], point["connections"], point["idle"] or "",
        "{:,.0f}".format(point["rate"]),
        duration(point["p50"], point["p50_at_least"]),
        duration(point["p99"], point["p99_at_least"]),
        scaled(point["server_cpu"], 1e6, "%.1f"),
        scaled(point["load_cpu"], 1e6, "%.1f"),
        scaled(point["memory"], 1e-6, "%.0f MB"), ", ".join(faults))


def lines(point: Point, before: Optional[Point]) -> List[str]:
    """Return a point's part of the table, which comes after another's.

    Points of the same load stand together.
    """
    head = []
    if before is None or before["size"] != point["size"]:
        head = ["", "messages of %d bytes" % point["size"], HEAD]
    elif any(before[name] != point[name] for name in ("connections", "idle")):
        head = [""]
    return head + [row(point).rstrip()]


# The program.

def counts(text: str) -> List[int]:
    """An argparse type: numbers above 0 with commas between; "" is none."""
    values = [int(part) for part in text.split(",") if part]
    if min(values, default=1) < 1:
        raise ValueError
    return values


def spare_cpus() -> int:
    """Return how many CPUs the load may have: all but the server's.

    With one process more it takes turns with the server: on two CPUs that is
    the difference between 141,000 and 105,000 replies/s of the events model.
    """
    return min(max((os.cpu_count() or 2) - 1, 1), 4)


def make_parser(models: List[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--models", type=lambda text: text.split(","), default=models,
        metavar="NAME,...", help="which to measure (default %s)"
        % ",".join(models))
    add("--connections", type=counts, default="1,8,64,256,1000",
        metavar="N,...", help="busy connections (default %(default)s)")
    add("--idle", type=counts, default="10,100,1000,10000", metavar="N,...",
        help='idle connections beside %d busy ones; "" is none (default '
        "%%(default)s)" % BUSY)
    add("--size", type=counts, default="64", metavar="BYTES,...",
        help="of a message (default %(default)s)")
    add("--seconds", type=above_zero(3600), default=2.0,
        help="that a point is measured (default %(default)g)")
    add("--load-processes", type=int, default=spare_cpus(), metavar="N",
        choices=range(1, 65), help="that ask (default %(default)s, the CPUs "
        "but one, at most 4)")
    add("--json", metavar="FILE", help="write all numbers to FILE; - is "
        "standard output, and the table goes to standard error then")
    add("--svg", metavar="FILE", help="draw a chart into FILE")
    add("--redraw", metavar="FILE", help="show what --json has written to "
        "FILE, and measure nothing")
    return parser


def parse(argv: Optional[List[str]],
          models: List[str]) -> argparse.Namespace:
    """Return the arguments; say now if a file cannot be opened."""
    parser = make_parser(models)
    args = parser.parse_args(argv)
    for name in args.models:
        if name not in models:
            parser.error("%r is none of: %s" % (name, ", ".join(models)))
    if not args.redraw and not list(plans(args)):
        parser.error("there is nothing to measure")
    try:
        for name in args.json, args.svg:
            if name and name != "-":
                open(name, "a").close()
        if args.redraw:
            args.redraw = read(args.redraw)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return args


def read(name: str) -> Dict[str, Any]:
    """Return what --json has written to a file."""
    with open(name) as f:
        try:
            report: Dict[str, Any] = json.load(f)
            if [row(point) for point in report["points"]]:
                chart.draw(report)
            return report
        except (AttributeError, LookupError, TypeError, ValueError):
            raise ValueError("%s was not written by --json" % name)


def run(args: argparse.Namespace,
        models: Dict[str, Dict[str, int]]) -> Iterator[Point]:
    """Measure and yield each point; say which are left out."""
    descriptors = raise_descriptor_limit()
    for plan in plans(args):
        reason = hindrance(plan, models[plan.model], descriptors)
        try:
            if reason:
                raise Failure("left out: " + reason)
            point = measure(plan, args.seconds, args.load_processes)
            reason = point["complaint"]
            yield point
        except Failure as error:
            reason = str(error)
        if reason:
            print("%s: %s" % (plan, reason), file=sys.stderr, flush=True)


def show(points: Iterable[Point], args: argparse.Namespace,
         shown: List[Point]) -> None:
    """Print a line for each point as it comes, and add it to those shown."""
    file = sys.stderr if args.json == "-" else sys.stdout
    for point in points:
        before = shown[-1] if shown else None
        shown.append(point)
        print("\n".join(lines(point, before)), file=file, flush=True)
    if any(point["p99_at_least"] for point in shown):
        print(NOTE, file=file)


def write(args: argparse.Namespace, report: Dict[str, Any]) -> None:
    """Write the files that were asked for."""
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    if args.json == "-":
        print(text, end="")
    elif args.json:
        with open(args.json, "w") as f:
            f.write(text)
    if args.svg and report["points"]:
        with open(args.svg, "w", encoding="utf-8") as f:
            f.write(chart.draw(report))


def main(argv: Optional[List[str]] = None) -> int:
    """Run the program; return its exit status: 1 if a byte was wrong, or
    nothing was measured."""
    models = ask_models()
    args = parse(argv, list(models))
    if args.redraw:
        report = args.redraw
        points = report["points"]
    else:
        words = map(shlex.quote, sys.argv[1:] if argv is None else argv)
        report = {
            "command": " ".join(["python3 scripts/bench.py", *words]),
            "python": "%s %s" % (platform.python_implementation(),
                                 platform.python_version()),
            "system": platform.system(), "cpus": os.cpu_count(),
            "seconds": args.seconds,
            "workers": max(each["pool_size"] for each in models.values())}
        points = run(args, models)
    shown: List[Point] = []
    report["points"] = shown
    try:
        show(points, args, shown)
    finally:
        write(args, report)
    return int(not shown or any(point["wrong"] for point in shown))
