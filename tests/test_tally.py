"""The figures of a counting run."""

import json
import random
import unittest

from echoserver.client.figures import Histogram, Tally


def histogram(times):
    result = Histogram()
    for ns in times:
        result.add(ns)
    return result


class HistogramTests(unittest.TestCase):

    def test_empty(self):
        """Without a time there is no figure, and no failure either."""
        empty = Histogram()
        self.assertEqual(
            (empty.count, empty.min, empty.mean, empty.percentile(50),
             empty.max, empty.chart(80, 20)), (0, None, None, None, None, []))

    def test_one_time(self):
        """A single time is every figure, exactly."""
        one = histogram([123456789])
        for percent in 1, 50, 99, 100:
            self.assertEqual(one.percentile(percent), 123456789)
        self.assertEqual((one.min, one.mean, one.max), (123456789,) * 3)

    def test_percentile_by_nearest_rank(self):
        """The p-th is the smallest that p percent do not exceed."""
        ten = histogram(range(10, 110, 10))
        for percent, ns in (1, 10), (10, 10), (11, 20), (50, 50), (90, 90), \
                (91, 100), (99, 100), (100, 100):
            with self.subTest(percent):
                self.assertEqual(ten.percentile(percent), ns)

    def test_percentile_within_a_half_percent(self):
        """From nanoseconds to minutes, the error stays below 0.4 %."""
        source = random.Random(1)
        times = sorted(int(10 ** source.uniform(0, 11)) for _ in range(5000))
        result = histogram(times)
        for percent in 1, 10, 50, 90, 99:
            exact = times[-(-len(times) * percent // 100) - 1]
            self.assertLessEqual(abs(result.percentile(percent) - exact),
                                 exact * 0.004 + 0.5)
        self.assertEqual((result.min, result.max), (times[0], times[-1]))
        self.assertEqual(result.mean, round(sum(times) / len(times)))

    def test_memory_is_bounded(self):
        """A hundred thousand different times need some hundred counters."""
        result = histogram(range(20000, 1020000, 10))
        self.assertEqual(result.count, 100000)
        self.assertLess(len(result._counters), 1000)

    def test_keys_and_their_least_times(self):
        """Keys are in the order of times, without a gap or an overlap."""
        for key in range(3000):
            least = Histogram._least(key)
            self.assertEqual(Histogram._key(least), key)
            if least:
                self.assertEqual(Histogram._key(least - 1), key - 1)

    def test_chart_fits(self):
        """No line is longer than the width, and there are few enough."""
        source = random.Random(2)
        result = histogram(int(10 ** source.gauss(5, 1)) for _ in range(9999))
        for width, height in (120, 40), (79, 20), (40, 8), (10, 1):
            for blocks in True, False:
                lines = result.chart(width, height, blocks)
                self.assertLessEqual(len(lines), height)
                self.assertLessEqual(max(map(len, lines)), width)
                self.assertEqual(all(c < "\x7f" for c in "".join(lines)),
                                 not blocks or width < 23)

    def test_chart_shows_all(self):
        """The counts add up, and the longest bar fills the width."""
        result = histogram([100000] * 50 + [200000] * 25 + [900000])
        lines = result.chart(60, 8, blocks=False)
        self.assertEqual(sum(int(line.split()[2]) for line in lines), 76)
        self.assertEqual(max(map(len, lines)), 60)
        self.assertTrue(lines[-1].endswith(" 1 #"))

    def test_chart_of_equal_times(self):
        """One row, which is full."""
        self.assertEqual(histogram([1000000] * 3).chart(24, 8),
                         ["       0.999 ms 3 " + "\u2588" * 6])


class TallyTests(unittest.TestCase):

    def test_figures(self):
        """Every figure, by a name with its unit."""
        tally = Tally()
        tally.add_verified(64, 100000)
        tally.add_verified(64, 300000)
        tally.lost, tally.wrong, tally.unanswered = 3, 1, 2
        self.assertEqual(tally.figures(0.5), {
            "messages_sent": 8, "replies_verified": 2, "messages_lost": 3,
            "replies_wrong": 1, "messages_unanswered": 2,
            "seconds": 0.5, "replies_per_s": 4.0,
            "bytes_per_s": 256.0, "rtt_min_us": 100.0, "rtt_mean_us": 200.0,
            "rtt_p50_us": 100.0, "rtt_p90_us": 300.0, "rtt_p99_us": 300.0,
            "rtt_max_us": 300.0})

    def test_figures_of_nothing(self):
        """What has no value is null, never NaN."""
        text = json.dumps(Tally().figures(0.0), allow_nan=False)
        self.assertIn('"rtt_p99_us": null', text)
        self.assertIn('"replies_per_s": null', text)

    def test_summary(self):
        """The same for a person."""
        tally = Tally()
        tally.add_verified(1000, 1234567)
        tally.lost = 1
        self.assertEqual(tally.summary(2.0), [
            "2 sent, 1 verified, 1 lost, 0 wrong in 2.00 s",
            "0.5 replies/s, 500 bytes/s",
            "RTT min/mean/p50/p90/p99/max "
            "1.235/1.235/1.235/1.235/1.235/1.235 ms"])

    def test_summary_of_what_is_unanswered(self):
        """It is there only if there is any."""
        tally = Tally()
        tally.unanswered = 2
        self.assertEqual(
            tally.summary(2.0)[0],
            "2 sent, 0 verified, 0 lost, 0 wrong, 2 unanswered in 2.00 s")

    def test_summary_of_nothing(self):
        """Dashes stand for what has no value."""
        self.assertEqual(Tally().summary(0.0), [
            "0 sent, 0 verified, 0 lost, 0 wrong in 0.00 s",
            "- replies/s, - bytes/s",
            "RTT min/mean/p50/p90/p99/max -/-/-/-/-/- ms"])
