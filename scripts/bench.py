#!/usr/bin/env python3
"""Measure the models of this checkout on this host, and draw what they do.

    python scripts/bench.py --svg scripts/bench.svg

It runs each model against growing numbers of connections that all ask, again
at each reply, and compare every byte; then against growing numbers of idle
connections beside ten busy ones.  Beside the package's models stands the
lesson's pool, "pinned": the same code and as many workers, but a worker stays
with its connection until that ends.

In the percentiles each connection has the same weight, and a question that
got no answer counts with the time it has waited.  Its wait is longer than
that, and so is a percentile with a ">" before it.

The load is written in Python, too, and on a host of two CPUs it may be what
limits the fastest models: compare what a reply costs either side.

    bench.py    the program: arguments, table, files
    chart.py    the chart
    point.py    one measured point: a server and its load
    load.py     the load, a program of its own
    pinned.py   the lesson's pool, a program of its own
"""

import argparse
import json
import os
import platform
import shlex
import signal
import sys
from typing import Any, Dict, Iterator, List, Optional

import chart
from point import (Failure, MODELS, Plan, Point, hindrance, measure,
                   raise_descriptor_limit)
from pinned import WORKERS

__all__ = ["main"]

BUSY = 10           # busy connections beside the idle ones


# The table.

HEAD = ("                connections               reply after   "
        "CPU us/reply    server\n"
        "model         busy   idle  replies/s     p50      p99  "
        "server   load  memory  faults")

NOTE = """\
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


def table_row(point: Point) -> str:
    """Return a line of the table."""
    cpu = ["-" if point[name] is None else "%.1f" % (point[name] * 1e6)
           for name in ("server_cpu", "load_cpu")]
    size = ("-" if point["memory"] is None else
            "%.0f MB" % (point["memory"] / 1e6))
    return "%-10s %7d %6s %10s %8s %8s %7s %6s %7s  %s" % (
        point["model"], point["connections"], point["idle"] or "",
        "{:,.0f}".format(point["rate"]),
        duration(point["p50"], point["p50_at_least"]),
        duration(point["p99"], point["p99_at_least"]),
        cpu[0], cpu[1], size, faults(point))


def faults(point: Point) -> str:
    """Return what a point's connections had to bear; "" is nothing."""
    names = ("wrong", "errors", "unanswered", "idle_unanswered")
    return ", ".join("%d %s" % (point[name], name.replace("_", " "))
                     for name in names if point[name])


def table(points: List[Point]) -> str:
    """Return the whole table, in groups of equal connections."""
    lines = []  # type: List[str]
    group = size = None  # type: Any
    for point in points:
        if point["size"] != size:
            size = point["size"]
            lines += ["", "messages of %d bytes" % size, HEAD]
        elif group != (point["connections"], point["idle"]):
            lines.append("")
        group = point["connections"], point["idle"]
        lines.append(table_row(point).rstrip())
    if any(point["p99_at_least"] for point in points):
        lines += ["", NOTE]
    return "\n".join(lines)


# The program.

def counts(text: str) -> List[int]:
    """An argparse type: numbers above 0 with commas between; "" is none."""
    values = [int(part) for part in text.split(",") if part]
    if min(values, default=1) < 1:
        raise ValueError
    return values


def models(text: str) -> List[str]:
    """An argparse type: models with commas between."""
    names = text.split(",")
    for name in names:
        if name not in MODELS:
            raise argparse.ArgumentTypeError("%r is none of: %s" % (
                name, ", ".join(MODELS)))
    return names


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 3600:
        raise ValueError
    return value


def spare_cpus() -> int:
    """Return how many CPUs the load may have: all but the server's.

    With one process more it takes turns with the server: on two CPUs that is
    the difference between 141,000 and 105,000 replies/s of the events model.
    """
    return min(max((os.cpu_count() or 2) - 1, 1), 4)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Measure the models of this checkout, on the loopback "
        "interface of this host.  As it stands it takes about three minutes.")
    add = parser.add_argument
    add("--models", type=models, default=",".join(MODELS), metavar="NAMES",
        help="which to run (default %(default)s)")
    add("--connections", type=counts, default="1,8,64,256,1000",
        metavar="N,...", help="busy connections (default %(default)s)")
    add("--idle", type=counts, default="10,100,1000,10000", metavar="N,...",
        help='idle connections beside %d busy ones; "" is none (default '
        "%%(default)s)" % BUSY)
    add("--size", type=counts, default="64", metavar="BYTES,...",
        help="of a message (default %(default)s)")
    add("--seconds", type=positive, default=2.0,
        help="that a point is measured (default %(default)g)")
    add("--load-processes", type=int, default=spare_cpus(), metavar="N",
        choices=range(1, 65), help="that ask (default %(default)s, the CPUs "
        "but one, at most 4)")
    add("--json", metavar="FILE", help="write all numbers to FILE; - is "
        "standard output, and the table goes to standard error then")
    add("--svg", metavar="FILE", help="draw a chart into FILE")
    return parser


def plans(args: argparse.Namespace) -> Iterator[Plan]:
    """Yield what is to be measured, in the order of the table."""
    for size in args.size:
        for busy, idle in ([(count, 0) for count in args.connections]
                           + [(BUSY, count) for count in args.idle]):
            for model in args.models:
                yield model, size, busy, idle


def describe(plan: Plan) -> str:
    model, size, connections, idle = plan
    return "%s, %d connections%s, %d bytes" % (
        model, connections, " + %d idle" % idle if idle else "", size)


class Progress:

    """What is measured now, on standard error; one line at a terminal."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.terminal = sys.stderr.isatty()

    def show(self, text: str) -> None:
        """Say what is measured next."""
        self.done += 1
        text = "[%d/%d] %s" % (self.done, self.total, text)
        print("\r%-78s" % text if self.terminal else text,
              end="" if self.terminal else "\n", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Let what is printed next have a line of its own."""
        if self.terminal:
            print("\r%78s\r" % "", end="", file=sys.stderr, flush=True)


def run(args: argparse.Namespace, report: Dict[str, Any]) -> None:
    """Measure every point into the report; say which are left out."""
    todo = list(plans(args))
    progress = Progress(len(todo))
    for plan in todo:
        progress.show(describe(plan))
        reason = hindrance(plan[0], plan[2] + plan[3])
        try:
            if reason:
                raise Failure("left out: " + reason)
            point = measure(plan, args.seconds, args.load_processes)
        except Failure as error:
            reason = str(error)
        else:
            report["points"].append(point)
            reason = point["complaint"]
        if reason:
            progress.clear()
            report["remarks"].append("%s: %s" % (describe(plan), reason))
            print(report["remarks"][-1], file=sys.stderr, flush=True)
    progress.clear()


def write(args: argparse.Namespace, report: Dict[str, Any]) -> None:
    """Write the table, and the files that were asked for."""
    print(table(report["points"]).lstrip("\n"),
          file=sys.stderr if args.json == "-" else sys.stdout, flush=True)
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    if args.json == "-":
        sys.stdout.write(text)
    elif args.json:
        with open(args.json, "w") as f:
            f.write(text)
    if args.svg and report["points"]:
        with open(args.svg, "w", encoding="utf-8") as f:
            f.write(chart.draw(report))


def parse(argv: Optional[List[str]]) -> argparse.Namespace:
    """Return the arguments; say now if a file cannot be written."""
    parser = make_parser()
    args = parser.parse_args(argv)
    for name in args.json, args.svg:
        if name and name != "-":
            try:
                open(name, "a").close()
            except OSError as error:
                parser.error(str(error))
    return args


def main(argv: Optional[List[str]] = None) -> int:
    """Run the program; return its exit status: 1 if a byte was wrong."""
    args = parse(argv)
    words = map(shlex.quote, sys.argv[1:] if argv is None else argv)
    report = {
        "command": " ".join(["python scripts/bench.py", *words]),
        "python": "%s %s" % (platform.python_implementation(),
                             platform.python_version()),
        "system": platform.system(), "cpus": os.cpu_count(),
        "seconds": args.seconds, "load_processes": args.load_processes,
        "workers": WORKERS,
        "remarks": [], "points": []}  # type: Dict[str, Any]
    raise_descriptor_limit()
    status = 0
    try:
        run(args, report)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        status = 130
    write(args, report)
    if any(point["wrong"] for point in report["points"]):
        status = 1
    return status


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
