"""The figures of a counting run."""

import json
import random
import unittest

from echoserver.client.figures import Histogram, Tally
from echoserver.client.report import summary


def histogram(times):
    result = Histogram()
    for seconds in times:
        result.add(seconds)
    return result


class HistogramTests(unittest.TestCase):

    def test_empty(self):
        """Without a time there is no figure, and no failure either."""
        self.assertEqual(set(Histogram().figures("rtt").values()), {None})
        self.assertEqual(Histogram().chart(80, 20), [])

    def test_one_time(self):
        """A single time is every figure, exactly."""
        self.assertEqual(histogram([0.1234567]).figures("rtt"), {
            "rtt_%s_us" % name: 123456.7
            for name in ("min", "mean", "p50", "p90", "p99", "max")})

    def test_percentile_by_nearest_rank(self):
        """The p-th is the smallest that p percent do not exceed."""
        ten = histogram(range(10, 110, 10))
        for percent, seconds in (1, 10), (10, 10), (11, 20), (50, 50), \
                (90, 90), (91, 100), (99, 100), (100, 100):
            with self.subTest(percent):
                self.assertAlmostEqual(ten.percentile(percent), seconds,
                                       delta=seconds * 0.004)

    def test_percentile_within_a_half_percent(self):
        """From nanoseconds to minutes, the error stays below 0.4 %, and none
        is outside of what there was."""
        source = random.Random(1)
        times = sorted(10 ** source.uniform(-9, 2) for _ in range(5000))
        result = histogram(times)
        for percent in 1, 10, 50, 90, 99:
            exact = times[-(-len(times) * percent // 100) - 1]
            self.assertAlmostEqual(result.percentile(percent), exact,
                                   delta=exact * 0.004 + 1e-12)
        for percent in 0.001, 100:
            self.assertTrue(
                times[0] <= result.percentile(percent) <= times[-1])
        self.assertEqual((result.min, result.max), (times[0], times[-1]))
        self.assertAlmostEqual(result.sum, sum(times))

    def test_percentiles_lie_between_min_and_max(self):
        """However few and near to each other the times are."""
        for times in [1.0, 1.0001], [0.00999, 0.01], [5e-5, 5.001e-5, 5e-5]:
            figures = list(histogram(times).figures("rtt").values())
            least, _, p50, p90, p99, most = figures
            self.assertEqual([least, p50, p90, p99, most],
                             sorted([least, p50, p90, p99, most]))

    def test_no_time_at_all(self):
        """A coarse clock may see none pass."""
        self.assertEqual(histogram([0.0, 0.0]).percentile(50), 0.0)

    def test_chart_fits(self):
        """No line is longer than the width, and there are few enough."""
        source = random.Random(2)
        result = histogram(10 ** source.gauss(-4, 1) for _ in range(9999))
        for width, height in (120, 40), (79, 20), (40, 8), (10, 1):
            for blocks in True, False:
                lines = result.chart(width, height, blocks)
                self.assertLessEqual(len(lines), height)
                self.assertLessEqual(max(map(len, lines)), width)
                self.assertEqual(all(c < "\x7f" for c in "".join(lines)),
                                 not blocks or width < 23)

    def test_chart_shows_all(self):
        """The counts add up, and the longest bar fills the width."""
        result = histogram([1e-4] * 50 + [2e-4] * 25 + [9e-4])
        lines = result.chart(60, 8, blocks=False)
        self.assertEqual(sum(int(line.split()[2]) for line in lines), 76)
        self.assertEqual(max(map(len, lines)), 60)
        self.assertTrue(lines[-1].endswith(" 1 #"))

    def test_chart_of_equal_times(self):
        """One row, which is full."""
        line, = histogram([1e-3] * 3).chart(24, 8)
        self.assertRegex(line, "^       (0.99|1.00)[0-9] ms 3 \u2588{6}$")

    def test_bars(self):
        """They are drawn in eighths, and show that there is something."""
        result = histogram([1e-3] * 16 + [1e-2] * 3 + [1e-1])
        lines = [line for line in result.chart(27, 600) if " 0 " not in line]
        self.assertEqual([line.split()[3] for line in lines],
                         ["\u2588" * 8, "\u2588\u258c", "\u258c"])


class TallyTests(unittest.TestCase):

    def test_figures(self):
        """Every figure, by a name with its unit."""
        tally = Tally()
        tally.verified = 2
        tally.times = histogram([1e-4, 3e-4])
        tally.lost, tally.wrong, tally.unanswered = 3, 1, 2
        figures = tally.figures(64, 0.5)
        self.assertAlmostEqual(figures.pop("rtt_p50_us"), 100, delta=0.4)
        self.assertAlmostEqual(figures.pop("rtt_p90_us"), 300, delta=1.2)
        self.assertAlmostEqual(figures.pop("rtt_p99_us"), 300, delta=1.2)
        self.assertEqual(figures, {
            "messages_sent": 8, "replies_verified": 2, "messages_lost": 3,
            "replies_wrong": 1, "messages_unanswered": 2,
            "seconds": 0.5, "replies_per_s": 4.0,
            "bytes_per_s": 256.0, "rtt_min_us": 100.0, "rtt_mean_us": 200.0,
            "rtt_max_us": 300.0})

    def test_figures_of_nothing(self):
        """What has no value is null, never NaN."""
        text = json.dumps(Tally().figures(64, 0.0), allow_nan=False)
        self.assertIn('"rtt_p99_us": null', text)
        self.assertIn('"replies_per_s": null', text)

    def test_summary(self):
        """The same for a person."""
        tally = Tally()
        tally.verified = tally.lost = 1
        tally.times.add(0.001234567)
        self.assertEqual(summary(tally.figures(1000, 2.0)), [
            "2 sent, 1 verified, 1 lost, 0 wrong in 2.00 s",
            "0.5 replies/s, 500 bytes/s",
            "RTT min/mean/p50/p90/p99/max "
            "1.235/1.235/1.235/1.235/1.235/1.235 ms"])

    def test_summary_of_what_is_unanswered(self):
        """It is there only if there is any."""
        tally = Tally()
        tally.unanswered = 2
        self.assertEqual(
            summary(tally.figures(64, 2.0))[0],
            "2 sent, 0 verified, 0 lost, 0 wrong, 2 unanswered in 2.00 s")

    def test_summary_of_nothing(self):
        """Dashes stand for what has no value."""
        self.assertEqual(summary(Tally().figures(64, 0.0)), [
            "0 sent, 0 verified, 0 lost, 0 wrong in 0.00 s",
            "- replies/s, - bytes/s",
            "RTT min/mean/p50/p90/p99/max -/-/-/-/-/- ms"])
