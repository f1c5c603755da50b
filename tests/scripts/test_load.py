"""The load of the scripts: no wrong byte passes, and each end is judged."""

import contextlib
import math
import os
import socket
import sys
import threading
import unittest
from unittest import mock

from tests.support import PATIENCE, ROOT, TestCase

SCRIPTS = os.path.join(ROOT, "scripts")
sys.path.insert(0, SCRIPTS)
try:
    from lab import tally
    from lab.load import ENDLESS, RIGHT, Kind, Load
finally:
    sys.path.remove(SCRIPTS)

HELD = Kind("held", 64, 64, pause=math.inf)


class LoadTests(TestCase):
    """Clients of servers that are right, and that are not."""

    def serve(self, *answers):
        """Return a Load of a server that takes a connection for each answer,
        and sends answer(what came), until that is shorter than what came."""
        listener = socket.socket()
        self.addCleanup(listener.close)
        listener.bind(("127.0.0.1", 0))
        listener.listen(len(answers))
        listener.settimeout(PATIENCE)

        def run():
            for answer in answers:
                s = listener.accept()[0]
                s.settimeout(PATIENCE)
                with s, contextlib.suppress(OSError):
                    for data in iter(lambda: s.recv(1 << 16), b""):
                        reply = answer(data)
                        s.sendall(reply)
                        if len(reply) < len(data):
                            break

        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(thread.join, PATIENCE)
        load = Load(listener.getsockname())
        self.addCleanup(load.__exit__)
        return load

    def ends(self, answer, kind):
        """Return how a client of that kind ends, and what is said of it."""
        load = self.serve(answer)
        load.open(kind, 1)
        tally = load.finish(PATIENCE)
        (how, count), = tally.ends.items()
        self.assertEqual(count, 1)
        self.assertEqual(bool(tally.lost), bool(tally.problems))
        return how, tally.problems

    def test_a_right_echo_is_counted(self):
        """Held until it is told otherwise, then as fast as replies come."""
        load = self.serve(bytes.upper)
        load.open(HELD, 1)
        first = load.take_tally()
        self.assertEqual((first.replies, len(first.first)), (1, 1))
        busy = load.measure(HELD._replace(pause=0, messages=100), PATIENCE)
        self.assertEqual((busy.replies, dict(busy.ends)), (99, {"done": 1}))
        self.assertEqual(busy.problems, [])

    def test_messages_of_any_size(self):
        """Also those that do not fit into any buffer."""
        for kind in (Kind("varied", 1, 1 << 20, messages=5),
                     Kind("fuzz", 1, 1 << 18, 0.001, messages=5, fuzz=True)):
            with self.subTest(kind.name):
                self.assertEqual(self.ends(bytes.upper, kind), ("done", []))

    def test_a_message_without_end(self):
        """What comes back of it is compared all the same."""
        load = self.serve(bytes.upper)
        client, = load.add(Kind("stream", ENDLESS, ENDLESS))
        while client.received < 3 << 20:
            load.turn(PATIENCE)
        self.assertEqual(load.take_tally().open, [0])

    def test_a_wrong_byte_is_seen(self):
        """One bit, in the last byte; a byte too many; another's reply."""
        for answer in (lambda data: data.upper()[:-1] + bytes([data[-1] ^ 1]),
                       lambda data: data.upper() + b"\\n",
                       lambda data: data[1:].upper() + data[:1].upper()):
            how, problems = self.ends(answer, HELD)
            self.assertEqual(how, "wrong")
            self.assertRegex(problems[0], "held 1 .*: the reply is wrong")

    def test_a_right_byte_too_early_is_seen(self):
        """A reply is as long as what was sent, whatever comes next."""
        offset = []
        load = self.serve(lambda data: RIGHT[offset[0]:offset[0] + 65])
        client, = load.add(HELD)
        offset.append(client.offset)
        load.run(PATIENCE)
        self.assertEqual(dict(load.take_tally().ends), {"wrong": 1})

    def test_an_end_is_seen(self):
        """Before the reply, or in its midst."""
        for answer in (lambda data: b"", lambda data: data[:-1].upper()):
            how, problems = self.ends(answer, HELD)
            self.assertEqual(how, "eof")
            self.assertRegex(problems[0], "held 1 after .*: the server ended")

    def test_nobody_listens(self):
        """It is refused, which is a loss unless it is judged otherwise."""
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            for judge, lost in (tally.judge, 1), (tally.judge_retrying, 0):
                with Load(s.getsockname(), judge=judge) as load:
                    load.open(HELD, 1)
                    seen = load.take_tally()
                self.assertEqual((dict(seen.ends), seen.lost),
                                 ({"refused": 1}, lost))


class QuantileTests(unittest.TestCase):
    """What is made of the waits."""

    def quantile(self, part, waits, still_open=()):
        seen = tally.Tally()
        seen.waits = waits
        seen.open = list(still_open) or [0.0] * len(waits)
        return seen.quantile(part)

    def test_it_is_right_within_a_percent(self):
        """The steps are narrow enough to be called exact."""
        for part in 0.5, 0.99:
            value, more = self.quantile(
                part, [[number / 1000 for number in range(1, 1001)]])
            self.assertAlmostEqual(value, part, delta=part / 99)
            self.assertFalse(more)

    def test_nothing_is_none(self):
        """No wait is not a wait of 0 seconds."""
        self.assertEqual(self.quantile(0.99, [[]]), (None, False))

    def test_each_connection_has_the_same_weight(self):
        """A thousand quick replies weigh no more than one slow one."""
        waits = [[0.001] * 1000, [1.0]]
        self.assertAlmostEqual(self.quantile(0.49, waits)[0], 0.001, 4)
        self.assertAlmostEqual(self.quantile(0.51, waits)[0], 1.0, 1)

    def test_an_open_question_counts_if_it_is_the_longest(self):
        """It tells something; one shorter than others before tells nothing."""
        waits = [[0.1], [0.1], []]
        self.assertEqual(self.quantile(0.7, waits, [0.2, 0.05, 3])[1], True)
        self.assertEqual(self.quantile(0.5, waits, [0.2, 0.05, 3])[1], False)
        self.assertEqual(self.quantile(0.9, waits[:2], [0.05, 0])[1], False)


class JudgeTests(unittest.TestCase):
    """A server that was stopped is judged by what its clients can see."""

    def judged(self, how, messages=0, **state):
        return tally.judge_stopped(
            mock.Mock(kind=HELD._replace(messages=messages), **state), how)

    def test_clean_end_before_the_reply(self):
        """Ten bytes that were sent in time are lost."""
        self.assertTrue(self.judged("eof", sent=20, received=10, base=10,
                                    marked=20))

    def test_clean_end_in_the_midst_of_a_reply(self):
        """Half of a reply is no reply, whenever it was asked for."""
        self.assertTrue(self.judged("eof", sent=20, received=15, base=10,
                                    marked=10))

    def test_clean_end_before_a_later_message(self):
        """What was sent after the stop need not be answered."""
        self.assertEqual("", self.judged("eof", sent=20, received=10, base=10,
                                         marked=10))

    def test_reset_is_visible(self):
        """Whoever is reset knows that something is missing."""
        self.assertEqual("", self.judged("reset", sent=20, received=15,
                                         base=10, marked=20))

    def test_connected_but_not_served(self):
        """A connection that the kernel has accepted is to be served."""
        self.assertTrue(self.judged("reset", sent=0, received=0, base=0,
                                    marked=0, messages=1))


if __name__ == "__main__":
    unittest.main()
