"""The benchmark: one short run, its arguments, and the scales of its chart."""

import json
import os
import subprocess
import tempfile
import unittest
from xml.etree import ElementTree

from tests.support import (PATIENCE, ROOT, SCRIPTS, TestCase, python,
                           scripts_importable)

with scripts_importable():
    import bench
    from lab import chart

TEXT = "{http://www.w3.org/2000/svg}text"


def load(connections, replies, least, longest, unanswered=0, wrong=0):
    """Return what a client program tells of a second."""
    return {"replies_verified": replies, "replies_per_s": float(replies),
            "replies_least": least, "connections": connections,
            "wait_max_us": longest, "wait_p50_us": 10.0, "first_max_us": None,
            "messages_unanswered": unanswered, "messages_unsent": 0,
            "replies_wrong": wrong, "messages_lost": 0}


def report(*points):
    """Return what bench.py gives to chart.draw() for these points."""
    return {"command": "python3 scripts/bench.py --svg 'a & b.svg'",
            "host": "CPython 3.6.15, Linux, 2 CPUs",
            "size": 64, "seconds": 2.0, "points": list(points),
            "workers": {"threads": 0, "pinned": 64}}


def point(model, connections, *loads):
    """Return the point that bench makes of such loads."""
    return dict(bench.summary(list(loads), 1.0, server_cpu=1.0, load_cpu=2.0),
                model=model, connections=connections, idle=0, memory=None,
                idle_unanswered=0)


class FiguresTest(unittest.TestCase):
    """What is made of the figures of several client programs."""

    def test_summary(self):
        """Counts are sums; the least and the longest are of all."""
        made = point("events", 4, load(2, 30, 14, 500.0),
                     load(2, 10, 1, 800.0, wrong=1))
        self.assertEqual(
            [made[name] for name in ("rate", "fair", "longest", "starved",
                                     "wrong", "server_cpu", "first")],
            [40, 0.1, 800, False, 1, 25000, None])

    def test_starvation(self):
        """Who waits until the end is told, be it answered after that or not;
        so it is where nobody got a reply."""
        for each in (load(9, 9, 0, 950000.0), load(9, 9, 0, 5.0, unanswered=1),
                     load(9, 0, 0, None, unanswered=9)):
            made = point("pinned", 9, each)
            self.assertTrue(made["starved"])
            self.assertRegex(bench.row(made), ">(950 ms|5 us|-)")


class ChartTest(unittest.TestCase):
    """The chart, which has to be XML and to say what was measured."""

    def texts(self, *points):
        """Return all that the chart of these points has as text."""
        drawn = chart.draw(report(*points))
        self.assertNotRegex(drawn, r"\bnan\b|paint-order")
        return [element.text for element in ElementTree.fromstring(
            drawn.encode("utf-8")).iter(TEXT)]

    def test_texts(self):
        """Models, axes, limits, the command and the ceiling stand there."""
        texts = self.texts(
            point("threads", 1, load(1, 9000, 9000, 90.0)),
            point("threads", 256, load(256, 9000, 30, 9000.0)),
            point("pinned", 256, load(256, 9000, 0, 990000.0)))
        for wanted in ("threads", "pinned", "connections", "64 workers",
                       "1 ms", "1 s", "256", "python3 scripts/bench.py --svg "
                       "'a & b.svg'"):
            self.assertIn(wanted, texts)
        self.assertIn("(connections: pinned from 256)", texts[1])
        self.assertIn("manages 4,500 replies/s at most", texts[-1])

    def test_scales(self):
        """An axis contains what it measures; names are apart, and inside."""
        self.assertEqual(chart.apart([0, 1, 50, 99, 100], 0, 100),
                         [0, 15, 50, 85, 100])
        for high in 0.5, 1, 7, 99, 100, 12345, 80000:
            ticks = chart.steps(high)
            self.assertTrue(ticks[-1] >= high and 3 <= len(ticks) <= 6, ticks)
            ticks = chart.decades(high / 3, high)
            self.assertTrue(ticks[0] <= high / 3 and ticks[-1] >= high, ticks)


class RunTest(TestCase):

    def run_it(self, *args):
        """Return the exit status, the output and the complaints."""
        run = subprocess.run(
            python(os.path.join(SCRIPTS, "bench.py"), *args),
            timeout=3 * PATIENCE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE)
        return run.returncode, run.stdout.decode(), run.stderr.decode()

    def test_short_run(self):
        """Table, numbers and chart say the same."""
        with tempfile.TemporaryDirectory() as folder:
            svg, numbers = (os.path.join(folder, name) for name in "ab")
            status, table, error = self.run_it(
                "--models", "events", "--connections", "3", "--idle", "2",
                "--seconds", "0.5", "--load-processes", "2", "--json", numbers,
                "--svg", svg)
            self.assertEqual((status, error), (0, ""))
            drawn = ElementTree.parse(svg).getroot()
            with open(numbers) as f:
                busy, beside_idle = json.load(f)["points"]
        self.assertEqual(drawn.get("role"), "img")
        self.assertEqual((busy["wrong"], busy["errors"]), (0, 0))
        self.assertEqual(beside_idle["idle_unanswered"], 0)
        self.assertRegex(table, r"\nevents +3 +%s " % "{:,.0f}".format(
            busy["rate"]))

    def test_nothing_to_measure(self):
        """It is no success that a point was left out, nor a wrong word."""
        for words, expected, told in (
                (["--connections", "1000000", "--idle", ""], 1, "more than"),
                (["--models", "fibers"], 2, "the models are: "),
                (["--svg", os.path.join(ROOT, "no", "x.svg")], 2, "No such")):
            status, _, error = self.run_it(*words)
            self.assertEqual(status, expected, error)
            self.assertIn(told, error)
