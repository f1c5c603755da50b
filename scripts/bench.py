"""Measure the models of this folder on this host, and draw what they do.

    python3 scripts/bench.py --svg scripts/bench.svg

Each model serves growing numbers of connections that all ask, again at each
reply; then growing numbers of idle connections beside ten busy ones.  The
client program of this folder asks, compares every byte, and tells what it has
measured (--json).  Connecting is in all of that: a model that is slow to let
a thousand clients in has few replies in two seconds.

The load is written in Python, too, and on a host of two CPUs it may be what
limits the fastest models: compare what a reply costs either side.
"""

import sys

if __name__ == "__main__":
    try:
        from lab.program import run as run_program
    except ImportError:
        sys.exit("no lab here: drop -I and PYTHONSAFEPATH, or take the .pyz")
    sys.exit(run_program("bench"))

import argparse
import contextlib
import json
import math
import os
import platform
import shlex
from time import sleep
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

from lab import chart
from lab.arguments import above_zero, parser
from lab.clients import HOLD, PATIENCE, Clients
from lab.report import show_time
from lab.server import Failure, Server, ask_models, field

from echoserver.console import allow_descriptors

__all__ = ["main"]

HELP = """\
What does each model of the server cost on this host, and who has to wait?

least/mean: replies of the connection that was served least, beside the mean.
p50 is of the waits for a reply, connecting included; then come the longest,
for a first reply and for any; ">": somebody waited until the load ended.  If a
reply costs the load more CPU than the server, the rate is the load's."""

MOST = 20000            # connections in a point
CHILD_MEMORY = 3 << 20  # bytes of a process for a connection, which has
                        # a descriptor more for that

Point = Dict[str, Any]


class Plan(NamedTuple):

    """What is to be measured for a row of the table."""

    model: str
    connections: int
    idle: int


# A point.

def hindrance(plan: Plan, descriptors: int) -> str:
    """Return why this host cannot make a point of a model that needs so many
    descriptors for a connection; "" if nothing is known."""
    connections = plan.connections + plan.idle
    if connections > MOST:
        return "more than %d connections" % MOST
    needed = connections * descriptors + 64
    if allow_descriptors(needed) < needed:
        return "%d descriptors are needed (ulimit -Hn)" % needed
    memory = connections * CHILD_MEMORY * (descriptors - 1)
    if memory > (field("/proc/meminfo", "MemAvailable:") or math.inf) / 2:
        return "it could take %.1f GiB of memory" % (memory / 2**30)
    return ""


def measure(plan: Plan, args: argparse.Namespace) -> Point:
    """Start a server and its load, and return what they did."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(
            plan.model, "-q", "--max-connections", str(MOST)))
        idle = 0
        if plan.idle:
            idle = stack.enter_context(Clients(
                server.address, *HOLD, "-n", plan.idle)).go().replies(
                    plan.idle, news=2)
        most = min(args.load_processes, plan.connections)
        loads = [stack.enter_context(Clients(
            server.address, "-n", (plan.connections + number) // most, "-c", 0,
            "-i", 0, "-w", args.seconds, "-s", args.size, "-W", PATIENCE,
            "--json", "-q")) for number in range(most)]
        before = server.cpu() or 0
        for load in loads:
            load.go()
        sleep(args.seconds * 0.9)   # all are there, if they ever come
        memory, cpu = server.memory(), sum(load.cpu() for load in loads) / 0.9
        figures = [load.figures(args.seconds) for load in loads]
        *_, complaint = ["", *server.log().splitlines()]
        return dict(plan._asdict(), memory=memory, complaint=complaint,
                    idle_unanswered=plan.idle - idle, **summary(
                        figures, args.seconds, server_cpu=max(
                            (server.cpu() or 0) - before, 0), load_cpu=cpu))


def summary(loads: List[Dict[str, Any]], seconds: float,
            **costs: float) -> Point:
    """Return the figures of a point: what its loads have seen.

    Starved is true if somebody waited until the load ended; what was served
    after that, when others had left, counts as that.
    """
    def total(name: str) -> int:
        return sum(load[name] or 0 for load in loads)

    def most(name: str) -> Optional[float]:
        return max([load[name] for load in loads if load[name]], default=None)

    replies, longest = total("replies_verified"), most("wait_max_us")
    unanswered = total("messages_unanswered") + total("messages_unsent")
    return dict(
        {name: cost / replies * 1e6 if cost and replies else None
         for name, cost in costs.items()}, rate=total("replies_per_s"),
        fair=min(load["replies_least"] for load in loads)
        * total("connections") / max(replies, 1), p50=most("wait_p50_us"),
        first=most("first_max_us"), longest=longest, unanswered=unanswered,
        starved=unanswered > 0 or (longest or 0) > seconds * 0.9e6,
        wrong=total("replies_wrong"), errors=total("messages_lost"))


# The table.

HEAD = """\
             connections            least    reply after     longest CPU us/r\
eply   server
model        busy   idle replies/s   /mean      p50    first  for any  server\
  load   memory  faults"""

def row(point: Point) -> str:
    """Return a line of the table."""
    def cell(name: str, form: str, scale: float = 1) -> str:
        return form % (point[name] * scale) if point[name] else "-"

    times = [show_time(point[name] / 1e6) if point[name] else "-"
             for name in ("p50", "first", "longest")]
    times[2] = ">" * point["starved"] + times[2]
    faults = ["%d %s" % (point[name], name.replace("_", " ")) for name in (
        "wrong", "errors", "unanswered", "idle_unanswered") if point[name]]
    return "%-10s%7d%7s%10s%8.2f%9s%9s%9s%8s%6s%9s  %s" % (
        point["model"], point["connections"], point["idle"] or "",
        "{:,.0f}".format(point["rate"]), point["fair"], *times,
        cell("server_cpu", "%.1f"), cell("load_cpu", "%.1f"),
        cell("memory", "%.0f MB", 1e-6), ", ".join(faults))


# The program.

def counts(text: str) -> List[int]:
    """An argparse type: numbers above 0 with commas between; "" is none."""
    values = [int(part) for part in text.split(",") if part]
    if min(values, default=1) < 1:
        raise ValueError
    return values


# CPUs that the load may have: all but the server's.  With one process more it
# takes turns with the server.
SPARE_CPUS = min(max((os.cpu_count() or 2) - 1, 1), 4)


def parse(argv: Optional[List[str]],
          models: List[str]) -> argparse.Namespace:
    """Return the arguments; say now if a file cannot be opened."""
    arguments = parser(HELP)
    add = arguments.add_argument
    add("--models", type=lambda text: text.split(","), default=models,
        metavar="NAME,...", help="which to measure (default: all)")
    add("--connections", type=counts, default="1,8,64,256,1000",
        metavar="N,...", help="busy connections (default %(default)s)")
    add("--idle", type=counts, default="10,100,1000,10000", metavar="N,...",
        help='idle connections beside ten busy ones; "" is none (default '
        "%(default)s)")
    add("--size", type=above_zero(1 << 26, int), default=64, metavar="BYTES",
        help="of a message (default %(default)d)")
    add("--seconds", type=above_zero(3600), default=2.0,
        help="that a point is measured (default %(default)g)")
    add("--load-processes", type=above_zero(64, int), default=SPARE_CPUS,
        metavar="N", help="client programs (default %(default)d)")
    add("--json", metavar="FILE", help="write all numbers to FILE")
    add("--svg", metavar="FILE", help="draw a chart into FILE")
    args = arguments.parse_args(argv)
    try:
        if not set(args.models) <= set(models):
            raise ValueError("the models are: " + ", ".join(models))
        for name in filter(None, (args.json, args.svg)):
            open(name, "a").close()
    except (OSError, ValueError) as error:
        arguments.error(str(error))
    return args


def run(args: argparse.Namespace,
        models: Dict[str, Dict[str, int]]) -> Iterator[Point]:
    """Measure and yield each point; say which are left out."""
    for plan in (Plan(model, *counts) for counts in [
            *((count, 0) for count in args.connections),
            *((10, count) for count in args.idle)] for model in args.models):
        reason = hindrance(plan, models[plan.model]["descriptors"])
        try:
            if reason:
                raise Failure("left out: " + reason)
            point = measure(plan, args)
            reason = point["complaint"]
            yield point
        except Failure as error:
            reason = str(error)
        if reason:
            print("%s, %d + %d idle: %s" % (*plan, reason), file=sys.stderr)


def main(argv: Optional[List[str]] = None) -> int:
    """Run the program; return its exit status."""
    models = ask_models()
    args = parse(argv, list(models))
    points: List[Point] = []
    words = map(shlex.quote, sys.argv[1:] if argv is None else argv)
    report = {
        "command": " ".join(["python3 scripts/bench.py", *words]),
        "host": "%s %s, %s, %s CPUs" % (
            platform.python_implementation(), platform.python_version(),
            platform.system(), os.cpu_count()), "seconds": args.seconds,
        "size": args.size, "points": points,
        "workers": {name: each["pool_size"] for name, each in models.items()}}
    print(HEAD)
    try:
        for point in run(args, models):
            if points and points[-1]["model"] == args.models[-1]:
                print()
            points.append(point)
            print(row(point).rstrip(), flush=True)
        if any(point["starved"] for point in points):
            print("\n> somebody waited for a reply until the load ended.")
    finally:
        if args.json:
            with open(args.json, "w") as file:
                json.dump(report, file, indent=1, allow_nan=False)
        if args.svg and points:
            with open(args.svg, "w", encoding="utf-8") as file:
                file.write(chart.draw(report))
    return int(not points or any(point["wrong"] for point in points))
