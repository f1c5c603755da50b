"""What a counting run sends, counts and shows."""

import json
import random
import unittest

from echoserver.client.counting import message
from echoserver.client.figures import Histogram, Tally, bars, summary


def histogram(times):
    result = Histogram()
    result.add(list(times))
    return result


class MessageTests(unittest.TestCase):

    def test_size_and_values(self):
        """Any size can be had, and no byte value is spared, even in short
        messages."""
        for size in 1, 2, 64, 255, 256, 257, 10000:
            for number in 0, 1, 25, 26, 10 ** 12:
                self.assertEqual(len(message(number, size)), size)
        sent = b"".join(message(n, 8) for n in range(1, 257))
        self.assertEqual(set(sent), set(range(256)))

    def test_all_differ(self):
        """A stale reply is a wrong one, even with one byte, and so is a reply
        to whichever other message."""
        for number in range(1000):
            self.assertNotEqual(message(number, 1).upper(),
                                message(number + 1, 1).upper())
        for size in 5, 64:
            self.assertEqual(len({message(number, size).upper()
                                  for number in range(20000)}), 20000)

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
        """The p-th is the smallest that p percent do not exceed, within 0.4 %;
        others are exact."""
        ten = histogram(range(10, 110, 10))
        for percent, seconds in (1, 10), (10, 10), (11, 20), (50, 50), \
                (90, 90), (91, 100), (99, 100), (100, 100):
            with self.subTest(percent):
                self.assertAlmostEqual(ten.percentile(percent), seconds,
                                       delta=seconds * 0.004)
        self.assertEqual((ten.min, ten.max, ten.sum), (10, 100, 550))

    def test_percentiles_lie_between_min_and_max(self):
        """However few and near to each other the times are; a coarse clock
        may see none pass."""
        for times in [1.0, 1.0001], [0.00999, 0.01], [5e-5, 5.001e-5, 5e-5], [
                0.0, 0.0]:
            least, _, p50, p90, p99, most = histogram(times).figures(
                "rtt").values()
            self.assertEqual([least, p50, p90, p99, most],
                             sorted([least, p50, p90, p99, most]))
            self.assertEqual((least, most), (
                round(min(times) * 1e6, 1), round(max(times) * 1e6, 1)))

    def test_chart_fits(self):
        """No line is longer than the width, and there are few enough; where
        there is no place for bars, the counts stay."""
        source = random.Random(2)
        result = histogram(10 ** source.gauss(-4, 1) for _ in range(9999))
        for width, height in (120, 40), (79, 20), (40, 8), (10, 1):
            for blocks in True, False:
                lines = result.chart(width, height, blocks)
                self.assertLessEqual(len(lines), height)
                self.assertLessEqual(max(map(len, lines)), max(width, 20))
                self.assertEqual(all(c < "\x7f" for c in "".join(lines)),
                                 not blocks or width < 20)
                self.assertEqual(sum(int(line.split()[2]) for line in lines),
                                 9999)

    def test_chart_shows_all(self):
        """The longest bar fills the width, and the least is one mark; equal
        times are one row."""
        lines = histogram([1e-4] * 50 + [2e-4] * 25 + [9e-4]).chart(
            60, 8, blocks=False)
        self.assertEqual(max(map(len, lines)), 60)
        self.assertTrue(lines[-1].endswith(" 1 #"))
        line, = histogram([1e-3] * 3).chart(17, 8)
        self.assertRegex(line, "^(0.99[0-9]|1.000) ms 3 \u2588{6}$")


class TallyTests(unittest.TestCase):

    def setUp(self):
        self.tally = Tally()

    def summary(self, seconds, size=64, **others):
        return summary(dict(dict(
            self.tally.figures(size, 0, seconds), stopped_seconds=0,
            connections=1, reconnect=False), **others))

    def test_figures(self):
        """Every figure, by a name with its unit."""
        self.tally = Tally(10)
        self.tally.succeed(10, 1e-4, 0.5)
        self.tally.succeed(10.2, 3e-4, 0.5)
        for is_sent, is_wrong in (True, False), (True, True), (False, False):
            self.tally.fail(is_sent, is_wrong)
        self.tally.unanswered = {6: 18, 7: 19.5}
        self.tally.unconnected = {8: 17}
        self.tally.connects.add([1e-3])
        self.tally.firsts.add([2e-3])
        self.tally.replies = [0, 2]
        self.tally.addresses = {"192.0.2.2", "192.0.2.1"}
        figures = self.tally.figures(64, 10, 20)
        for name, us in (("rtt_min", 100), ("rtt_mean", 200), ("rtt_p50", 100),
                         ("rtt_p90", 300), ("rtt_p99", 300), ("rtt_max", 300),
                         ("connect_max", 1000), ("first_max", 2000),
                         ("wait_min", 5e5), ("wait_max", 3e6)):
            self.assertAlmostEqual(figures[name + "_us"], us, delta=us * 0.004)
        self.assertEqual(
            {name: value for name, value in figures.items()
             if not name.endswith("_us")}, {
                "messages_sent": 6, "replies_verified": 2, "messages_lost": 1,
                "replies_wrong": 1, "messages_unanswered": 2,
                "messages_unsent": 2, "oldest_unanswered_seconds": 2,
                "outages": 1, "longest_outage_seconds": 9.8,
                "seconds": 10, "replies_per_s": 0.2, "bytes_per_s": 12.8,
                "replies_least": 0, "replies_most": 2,
                "addresses": ["192.0.2.1", "192.0.2.2"],
                "tcp_retransmissions": None})
        self.assertEqual(self.tally.waits.count, 2)

    def test_outages(self):
        """An outage is a time in which no connection got a reply, between the
        last one before a failure, or the start, and the next or the end."""
        for what, events, outages in (      # a failure has a minus
                ("one of three is mute", [2.0, -2.0, 2.1], [0.1]),
                ("from the start", [-1, 3], [3]),
                ("two failures are one", [1, -2, -3, 4, 6], [3]),
                ("several", [-1, 1, 5, -5, 9], [1, 4]),
                ("it goes on", [8, -9], [2]),
                ("one message", [-1], []),
                ("none", [1, 9], [])):
            tally = Tally(0)
            for event in events:
                tally.fail(True) if event < 0 else tally.succeed(event)
            figures = tally.figures(64, 0, 10)
            with self.subTest(what):
                self.assertEqual(figures["outages"], len(outages))
                self.assertAlmostEqual(figures["longest_outage_seconds"],
                                       max(outages, default=0))

    def test_figures_of_nothing(self):
        """What has no value is null, never NaN; a single message has no
        rate."""
        text = json.dumps(self.tally.figures(64, 0, 0), allow_nan=False)
        for name in "rtt_p99_us", "replies_per_s", "tcp_retransmissions":
            self.assertIn('"%s": null' % name, text)
        self.tally.succeed(1)
        self.assertIsNone(self.tally.figures(64, 0, 1)["bytes_per_s"])
        self.tally = Tally()
        self.assertEqual(self.summary(0), [
            "0 sent, 0 verified, 0 lost, 0 wrong in 0.00 s"])

    def test_summary(self):
        """The same for a person."""
        for _ in range(2):
            self.tally.times.add([0.001234567])
            self.tally.succeed(1)
        self.assertEqual(self.summary(2.0, 100000), [
            "2 sent, 2 verified, 0 lost, 0 wrong in 2.00 s",
            "1.0 replies/s, 100000 bytes/s (0.8 Mbit/s)",
            "RTT min/mean/p50/p90/p99/max "
            "1.235/1.235/1.235/1.235/1.235/1.235 ms"])

    def test_summary_of_what_is_not_always_there(self):
        """It has a place if there is any."""
        self.tally.unanswered[1] = 0.5
        self.tally.fail(True)
        self.tally.fail(False)
        self.tally.replies = [0, 3]
        self.tally.retransmissions = 4
        for histogram in self.tally.firsts, self.tally.connects:
            histogram.add([1])
        times = "/".join(["1000.000"] * 6)
        self.assertEqual(self.summary(2.0, stopped_seconds=3, connections=2,
                                      reconnect=True), [
            "2 sent, 0 verified, 1 lost, 0 wrong, 1 not sent, 1 unanswered "
            "for up to 1.500 s in 2.00 s",
            "outages: 1, the longest 2.000 s",
            "this program stood still for 3.0 s",
            "TCP segments sent again: 4",
            "replies of a connection: least 0, most 3",
            "connect min/mean/p50/p90/p99/max %s ms" % times,
            "first reply min/mean/p50/p90/p99/max %s ms" % times,
            "wait min/mean/p50/p90/p99/max %s ms (connecting is in the first)"
            % times.replace("1000", "1500")])

    def test_bars(self):
        """Each is as high as its time beside the longest, in UTF-8 or not."""
        times = [0, 1, 4, 8]
        self.assertEqual(bars(times, True), "\u2581\u2582\u2585\u2588")
        self.assertEqual(bars(times, False), "_.-#")
        self.assertEqual(bars([], True) + bars([0], False), "_")
