"""The benchmark: its arithmetic, its table, its chart, and one short run."""

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
from xml.etree import ElementTree

from .support import PATIENCE, ROOT, TestCase, python

SCRIPTS = os.path.join(ROOT, "scripts")
sys.path.append(SCRIPTS)
try:
    import bench
    import chart
    import load
    import point
finally:
    sys.path.remove(SCRIPTS)

SVG = "{http://www.w3.org/2000/svg}"


def result(waits, still_open=(), **others):
    """Return what a load process says of connections with such waits."""
    still_open = still_open or [0] * len(waits)
    weights, unfinished = load.spread(waits, still_open)
    counts = [len(each) for each in waits]
    said = {"replies": sum(counts), "seconds": 1.0, "cpu": 0.5, "errors": 0,
            "wrong": 0, "unanswered": counts.count(0), "fewest": min(counts),
            "most": max(counts), "waits": weights, "unfinished": unfinished}
    said.update(others)
    return json.loads(json.dumps(said))


def measured(model, connections, *results, **others):
    """Return the point that bench makes of such results."""
    made = dict(point.summary(list(results), 0.25), model=model, size=64,
                connections=connections, idle=0, idle_unanswered=0,
                memory=12000000, complaint="")
    made.update(others)
    return made


def starving(connections=4):
    """Return a point in which one connection got everything."""
    return measured("pinned", connections, result(
        [[0.001] * 1000] + [[]] * (connections - 1),
        [0] + [3.0] * (connections - 1)))


def report(*points):
    """Return what bench.py gives to chart.draw() for these points."""
    return {"command": "python scripts/bench.py --svg 'a & b.svg'",
            "python": "CPython 3.6.15", "system": "Linux", "cpus": 2,
            "seconds": 2.0, "workers": 64, "remarks": [],
            "points": list(points)}


class StatisticsTest(unittest.TestCase):
    """What is made of the waits."""

    def test_quantile_is_right_within_a_percent(self):
        """The buckets are narrow enough to be called exact."""
        weights, _ = load.spread([[n / 1000 for n in range(1, 1001)]], [0])
        for part in 0.5, 0.99:
            self.assertAlmostEqual(load.quantile(weights, part), part,
                                   delta=part / 99)

    def test_quantile_of_nothing_is_none(self):
        """No wait is not a wait of 0 seconds."""
        self.assertIsNone(load.quantile({}, 0.99))

    def test_spread_gives_each_connection_the_same_weight(self):
        """A thousand quick replies weigh no more than one slow one."""
        weights, unfinished = load.spread([[0.001] * 1000, [1.0]], [0, 0])
        self.assertEqual([round(each, 6) for each in weights.values()], [1, 1])
        self.assertEqual(unfinished, 0)

    def test_spread_counts_an_open_question_that_is_the_longest(self):
        """It tells something; one shorter than others before tells nothing."""
        weights, unfinished = load.spread([[0.1], [0.1], []], [0.2, 0.05, 3])
        self.assertEqual(len(weights), 3)
        self.assertAlmostEqual(unfinished, 1.5)

    def test_summary_of_starvation_has_lower_bounds(self):
        """Connections without an answer do not vanish from a percentile."""
        made = starving()
        self.assertEqual((made["unanswered"], made["fewest"], made["most"]),
                         (3, 0, 1000))
        for name in "p50", "p99":
            self.assertAlmostEqual(made[name], 3, delta=0.03)
            self.assertTrue(made[name + "_at_least"])

    def test_summary_adds_the_loads(self):
        """Rates, faults and CPU seconds are sums over the load processes."""
        made = measured("events", 2, result([[0.1, 0.1]], seconds=2.0),
                        result([[0.1, 0.2, 0.3]], wrong=1))
        self.assertAlmostEqual(made["rate"], 4)
        self.assertAlmostEqual(made["server_cpu"], 0.05)
        self.assertAlmostEqual(made["load_cpu"], 0.2)
        self.assertEqual(made["wrong"], 1)
        self.assertFalse(made["p99_at_least"])

    def test_summary_without_a_reply_is_json(self):
        """There is no NaN and no infinity in it."""
        made = measured("events", 1, result([[]]))
        self.assertIn('"p99": null', json.dumps(made, allow_nan=False))

    def test_shares_are_all_of_the_connections(self):
        """Each has one load; a load without a connection is not started."""
        self.assertEqual(point.shares(1, 2), [(0, 1)])
        self.assertEqual(point.shares(10, 3), [(0, 3), (3, 3), (6, 4)])

    def test_hindrance_names_the_limit(self):
        """What cannot be made is known before it is tried."""
        self.assertEqual(point.hindrance("events", 1), "")
        self.assertIn("more than", point.hindrance("events", 10 ** 6))


class LoadTest(TestCase):
    """The load against servers that are not right."""

    def serve(self, answer):
        """Answer one message with answer(message) and end the connection."""
        listener = socket.socket()
        self.addCleanup(listener.close)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        listener.settimeout(PATIENCE)

        def run():
            s = listener.accept()[0]
            with s, contextlib.suppress(OSError):
                s.sendall(answer(s.recv(64)))
                s.recv(64)

        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(thread.join, PATIENCE)
        made = load.Load(listener.getsockname()[1], 1, 64)
        self.addCleanup(made.close)
        return made

    def test_a_right_echo_is_answered(self):
        """The warm-up ends at once when everything is as it should be."""
        made = self.serve(bytes.upper)
        self.assertEqual(made.warm_up(), {"unanswered": 0})

    def test_a_wrong_byte_is_counted(self):
        """One bit, in the last byte."""
        made = self.serve(lambda data: data.upper()[:-1]
                          + bytes([data[-1] ^ 1]))
        self.assertEqual(made.warm_up()["wrong"], 1)
        self.assertEqual(made.run(0.01)["wrong"], 1)

    def test_a_byte_too_many_is_wrong(self):
        """A reply is as long as the message."""
        made = self.serve(lambda data: data.upper() + b"\n")
        self.assertEqual(made.warm_up()["wrong"], 1)

    def test_an_end_is_an_error(self):
        """And a connection without an answer is told as such, too."""
        made = self.serve(lambda data: b"")
        made.connections[next(iter(made.connections))].socket.shutdown(
            socket.SHUT_WR)
        made.warm_up()
        said = made.run(0.01)
        self.assertEqual((said["errors"], said["unanswered"]), (1, 1))


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

    def test_table_groups_and_explains(self):
        """Equal connections stand together; ">" has its note."""
        lines = bench.table([
            measured("threads", 4, result([[0.1]])), starving(),
            measured("threads", 8, result([[0.1]]), memory=None)]).split("\n")
        rows = [line.split()[:2] for line in lines[4:8]]
        self.assertEqual(rows, [["threads", "4"], ["pinned", "4"], [],
                                ["threads", "8"]])
        self.assertTrue(lines[5].endswith("3 unanswered"))
        self.assertIn("longer than", lines[-2])

    def test_wrong_arguments_are_refused(self):
        """Before anything is started."""
        for words in (["--models", "fibers"], ["--connections", "0"],
                      ["--seconds", "0"], ["--load-processes", "0"],
                      ["--svg", os.path.join(ROOT, "no", "such", "x.svg")]):
            with contextlib.redirect_stderr(io.StringIO()):
                with self.assertRaises(SystemExit) as caught:
                    bench.main(words)
            self.assertEqual(caught.exception.code, 2)


class ChartTest(unittest.TestCase):
    """The chart, which has to be XML and to say what was measured."""

    def texts(self, *points):
        """Return all that the chart of these points has as text."""
        drawn = chart.draw(report(*points))
        self.assertNotIn("nan", drawn)
        root = ElementTree.fromstring(drawn.encode("utf-8"))
        self.assertEqual(root.tag, SVG + "svg")
        return [element.text for element in root.iter(SVG + "text")]

    def test_chart_names_models_axes_and_command(self):
        """As text, not as shapes."""
        texts = self.texts(
            measured("threads", 1, result([[0.001] * 9])),
            measured("threads", 256, result([[0.01] * 9] * 4)),
            measured("pinned", 1, result([[0.001] * 9])), starving(256))
        for wanted in ("threads", "pinned pool", "connections", "64 workers",
                       "255 of 256 got no answer", "1 ms", "256",
                       "python scripts/bench.py --svg 'a & b.svg'"):
            self.assertIn(wanted, texts)

    def test_chart_of_one_point(self):
        """An axis from a number to itself has a length, too."""
        self.assertIn("events", self.texts(
            measured("events", 7, result([[0.001]]))))

    def test_chart_without_a_reply(self):
        """There is nothing to draw, which is no reason to fail."""
        self.texts(measured("events", 7, result([[]])))

    def test_chart_has_a_row_for_each_size(self):
        """Sizes are not mixed in a line."""
        texts = self.texts(*[measured("pool", 1, result([[0.1]]), size=size)
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
