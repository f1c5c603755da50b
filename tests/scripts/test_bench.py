"""The benchmark: its arithmetic, its table, its chart, and one short run."""

import array
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
from unittest import mock
from xml.etree import ElementTree

from tests.support import PATIENCE, ROOT, TestCase, python

SCRIPTS = os.path.join(ROOT, "scripts")
sys.path.insert(0, SCRIPTS)
try:
    import bench
    from lab import chart
    from lab.tally import Tally
finally:
    sys.path.remove(SCRIPTS)

SVG = "{http://www.w3.org/2000/svg}"


def seen(waits, still_open=(), seconds=1.0, **ends):
    """Return the tally of a load whose connections have had such waits."""
    tally = Tally()
    tally.waits = [array.array("d", each) for each in waits]
    tally.open = list(still_open) or [0.0] * len(waits)
    tally.seconds, tally.cpu = seconds, 0.5
    tally.ends.update(ends)
    return tally


def measured(model, connections, *tallies, **others):
    """Return the point that bench makes of such tallies."""
    made = dict(bench.Plan(model, 64, connections, 0)._asdict(),
                idle_unanswered=0, memory=12000000, complaint="",
                **bench.summary(connections, list(tallies), [], 0.25))
    made.update(others)
    return made


def starving(connections=4):
    """Return a point in which one connection got everything."""
    return measured("pinned", connections, seen(
        [[0.001] * 1000] + [[]] * (connections - 1),
        [0] + [3.0] * (connections - 1)))


def report(*points):
    """Return what bench.py gives to chart.draw() for these points."""
    return {"command": "python3 scripts/bench.py --svg 'a & b.svg'",
            "python": "CPython 3.6.15", "system": "Linux", "cpus": 2,
            "seconds": 2.0, "workers": 64, "points": list(points)}


class FiguresTest(unittest.TestCase):
    """What is made of the waits."""

    def test_starvation_has_lower_bounds(self):
        """Connections without an answer do not vanish from a percentile."""
        made = starving()
        self.assertEqual(made["unanswered"], 3)
        for name in "p50", "p99":
            self.assertAlmostEqual(made[name], 3, delta=0.03)
            self.assertTrue(made[name + "_at_least"])

    def test_loads_are_added(self):
        """Rates, faults and processor seconds are sums over the loads."""
        made = measured("events", 2, seen([[0.1, 0.1]], seconds=2.0),
                        seen([[0.1, 0.2, 0.3]], wrong=1, eof=2, reset=1))
        self.assertAlmostEqual(made["rate"], 4)
        self.assertAlmostEqual(made["server_cpu"], 0.05)
        self.assertAlmostEqual(made["load_cpu"], 0.2)
        self.assertEqual((made["wrong"], made["errors"]), (1, 3))
        self.assertFalse(made["p99_at_least"])

    def test_no_reply_is_json(self):
        """There is no NaN and no infinity in it."""
        made = measured("events", 1, seen([[]]))
        self.assertIn('"p99": null', json.dumps(made, allow_nan=False))

    def test_shares_are_all_of_the_connections(self):
        """Each has one load; a load without a connection is not started."""
        self.assertEqual(bench.shares(1, 2), [1])
        self.assertEqual(bench.shares(10, 3), [3, 3, 4])

    def test_hindrance_names_the_limit(self):
        """What cannot be made is known before it is tried."""
        for busy, idle, each, told in (
                (100, 0, 1, "$"), (10, 10 ** 6, 1, "more than"),
                (1000, 0, 1, "1064 desc"), (500, 0, 2, "1064 desc")):
            plan = bench.Plan("any", 64, busy, idle)
            self.assertRegex(bench.hindrance(
                plan, {"descriptors": each}, 1000), "^" + told)


class TableTest(unittest.TestCase):
    """The table and the arguments."""

    def test_duration_has_three_digits_and_a_unit(self):
        """Whatever the scale."""
        for seconds, shown in ((0.0000123, "12.3 us"), (0.00099, "990 us"),
                               (0.0015, "1.50 ms"), (0.2496, "250 ms"),
                               (0.9999, "1.00 s"), (12.34, "12.3 s"),
                               (None, "-")):
            self.assertEqual(bench.duration(seconds), shown)
        self.assertEqual(bench.duration(2, True), ">2.00 s")

    def test_rows_come_one_by_one(self):
        """Each is printed before the next point is measured; those of equal
        connections stand together, and ">" has its note."""
        printed = io.StringIO()
        points = iter([measured("threads", 4, seen([[0.1]])), starving(),
                       measured("threads", 8, seen([[0.1]]), memory=None)])
        rows = iter(range(3))

        def measure(*plan):
            shown = re.findall("(?m)^(?:threads|pinned)  ", printed.getvalue())
            self.assertEqual(len(shown), next(rows))
            return next(points)

        with contextlib.redirect_stdout(printed), \
                mock.patch.object(bench, "measure", measure):
            bench.main(["--connections", "4,8,16", "--idle", "",
                        "--models", "threads"])
        lines = printed.getvalue().split("\n")
        self.assertEqual([line.split()[:2] for line in lines[4:8]], [
            ["threads", "4"], ["pinned", "4"], [], ["threads", "8"]])
        self.assertTrue(lines[5].endswith("3 unanswered"))
        self.assertIn("longer than", lines[-3])

    def test_nothing_measured(self):
        """It is no success that each point was left out."""
        with contextlib.redirect_stderr(io.StringIO()) as err:
            self.assertEqual(bench.main(["--connections", "1000000", "--idle",
                                         "", "--models", "events"]), 1)
        self.assertIn("left out: more than", err.getvalue())

    def test_wrong_arguments_are_refused(self):
        """Before anything is started."""
        for words in (["--models", "fibers"], ["--connections", "0"],
                      ["--seconds", "0"], ["--seconds", "nan"],
                      ["--connections", "", "--idle", ""],
                      ["--load-processes", "0"],
                      ["--svg", os.path.join(ROOT, "no", "such", "x.svg")]):
            with contextlib.redirect_stderr(io.StringIO()):
                with self.assertRaises(SystemExit) as caught:
                    bench.main(words)
            self.assertEqual(caught.exception.code, 2)

    def test_numbers_of_something_else(self):
        """They are refused, in one sentence."""
        for text in "{}", "[]", "5", "no", '{"points": [{}]}':
            with tempfile.NamedTemporaryFile("w") as file, \
                    contextlib.redirect_stderr(io.StringIO()) as err:
                file.write(text)
                file.flush()
                with self.assertRaises(SystemExit) as caught:
                    bench.main(["--redraw", file.name])
            self.assertEqual(caught.exception.code, 2)
            self.assertIn(file.name + " was not written by --json",
                          err.getvalue())


class ChartTest(unittest.TestCase):
    """The chart, which has to be XML and to say what was measured."""

    def texts(self, *points):
        """Return all that the chart of these points has as text."""
        drawn = chart.draw(report(*points))
        self.assertNotRegex(drawn, r"\bnan\b")
        root = ElementTree.fromstring(drawn.encode("utf-8"))
        self.assertEqual(root.tag, SVG + "svg")
        return [element.text for element in root.iter(SVG + "text")]

    def test_chart_names_models_axes_and_command(self):
        """As text, not as shapes."""
        texts = self.texts(
            measured("threads", 1, seen([[0.001] * 9])),
            measured("threads", 256, seen([[0.01] * 9] * 4)),
            measured("pinned", 1, seen([[0.001] * 9])), starving(256))
        for wanted in ("threads", "pinned", "connections", "64 workers",
                       "255 of 256 unanswered", "1 ms", "256",
                       "python3 scripts/bench.py --svg 'a & b.svg'"):
            self.assertIn(wanted, texts)

    def test_chart_of_one_point(self):
        """An axis from a number to itself has a length, too."""
        self.assertIn("events", self.texts(
            measured("events", 7, seen([[0.001]]))))

    def test_chart_without_a_reply(self):
        """There is nothing to draw, which is no reason to fail."""
        self.texts(measured("events", 7, seen([[]])))

    def test_chart_has_a_row_for_each_size(self):
        """Sizes are not mixed in a line."""
        texts = self.texts(*[measured("pool", 1, seen([[0.1]]), size=size)
                             for size in (64, 4096)])
        self.assertEqual(texts.count("connections"), 4)

    def test_names_are_apart(self):
        """No name lies on another, and none outside."""
        places = chart.apart([0, 1, 50, 99, 100], 0, 100)
        self.assertTrue(all(b - a >= chart.LINE - 1e-9
                            for a, b in zip(places, places[1:])))
        self.assertTrue(0 <= places[0] and places[-1] <= 100)

    def test_scales_contain_what_they_measure(self):
        """The last mark of an axis is not below the highest point."""
        for high in 0.5, 1, 7, 99, 100, 12345, 80000:
            ticks = chart.steps(high)
            self.assertTrue(ticks[-1] >= high and 3 <= len(ticks) <= 6, ticks)
            ticks = chart.decades(high / 3, high)
            self.assertTrue(ticks[0] <= high / 3 and ticks[-1] >= high, ticks)


class RunTest(TestCase):
    """The whole of it, in a fraction of a second."""

    def test_a_short_run_writes_table_numbers_and_chart(self):
        """Every file is there and says the same."""
        with tempfile.TemporaryDirectory() as folder:
            svg = os.path.join(folder, "chart.svg")
            run = subprocess.run(
                python(os.path.join(SCRIPTS, "bench.py"), "--models", "pinned",
                       "--connections", "2", "--idle", "", "--seconds", "0.1",
                       "--json", "-", "--svg", svg), timeout=PATIENCE,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            drawn = ElementTree.parse(svg).getroot()
        self.assertEqual(run.returncode, 0, run.stderr)
        made = json.loads(run.stdout.decode())["points"][0]
        self.assertGreater(made["rate"], 0)
        self.assertEqual(made["wrong"] + made["errors"], 0)
        self.assertIn(b"pinned", run.stderr)
        self.assertEqual(drawn.get("role"), "img")


if __name__ == "__main__":
    unittest.main()
