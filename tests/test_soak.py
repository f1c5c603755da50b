"""A short version of every fault of scripts/soak.py, against every model.

They run at the same time, in threads: most of the time is spent waiting.
"""

import importlib
import os
import sys
import threading
import unittest
from unittest import mock

from .support import ROOT, TestCase

sys.path.insert(0, os.path.join(ROOT, "scripts"))
try:
    faults = importlib.import_module("faults")
    honest = importlib.import_module("honest")
    served = importlib.import_module("served")
    soak = importlib.import_module("soak")
    verdict = importlib.import_module("verdict")
finally:
    sys.path.pop(0)


class Short(soak.Soak):

    """All is smaller, and nothing is shown."""

    crowd = 80
    idle = 0.3

    def __init__(self, model):
        super().__init__(model, 1.0, 0)
        self.progress = lambda name, done=0, times=0: None


    def be_rude(self):
        with self.server("--idle-timeout", str(self.idle)) as server:
            for fault in faults.RUDE:
                self.rude(fault, server)

    def be_many_and_stop(self):
        with self.server("--max-connections", "50",
                         "--grace", "0.6") as server:
            self.come(server, honest.PING._replace(messages=2), 50)
            self.fuzz(server, 0.1)
            if hasattr(soak.resource, "prlimit"):
                self.take_away("descriptors", server, 0.1)
                self.take_away("memory", server, 0.1)
            with self.row("stop") as row:
                self.stop(row, server)


@unittest.skipUnless(os.name == "posix", "needs signals")
class SoakTest(TestCase):

    def test_no_fault_loses_a_byte(self):
        """Nor does any draw a traceback or a line in the log that is not due,
        or leave a descriptor behind."""
        soaks = [Short(model) for model in served.MODELS]
        threads = [threading.Thread(target=inject) for short in soaks
                   for inject in (short.be_rude, short.be_many_and_stop)]
        with mock.patch.multiple(faults, SECOND=0.05, MUCH=1 << 20):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        for short in soaks:
            self.assertEqual(len(faults.RUDE) + 3 + 2 * hasattr(
                soak.resource, "prlimit"), len(short.rows), short.model)
            for row in short.rows:
                with self.subTest("%s: %s" % (short.model, row.name)):
                    self.assertEqual([], row.problems[:5])
                    self.assertEqual((0, 0), (row.lost, row.tracebacks))


class VerdictTest(unittest.TestCase):
    """A server that was stopped is judged by what its clients can see."""

    def judged(self, how, **state):
        client = mock.Mock(kind=state.pop("kind", honest.PING),
                           owed=state["sent"] - state["received"], **state)
        return verdict.judge_stopped(client, how)

    def test_clean_end_before_the_reply(self):
        """Ten bytes that were sent in time are lost."""
        self.assertEqual(10, self.judged("eof", sent=20, received=10, base=10,
                                         marked=20)[0])

    def test_clean_end_in_the_midst_of_a_reply(self):
        """Half of a reply is no reply, whenever it was asked for."""
        self.assertEqual(5, self.judged("eof", sent=20, received=15, base=10,
                                        marked=10)[0])

    def test_clean_end_before_a_later_message(self):
        """What was sent after the stop need not be answered."""
        self.assertEqual((0, ""), self.judged("eof", sent=20, received=10,
                                              base=10, marked=10))

    def test_reset_is_visible(self):
        """Whoever is reset knows that something is missing."""
        self.assertEqual((0, ""), self.judged("reset", sent=20, received=15,
                                              base=10, marked=20))

    def test_connected_but_not_served(self):
        """A connection that the kernel has accepted is to be served."""
        self.assertTrue(self.judged("reset", sent=0, received=0, base=0,
                                    marked=0, kind=honest.ONCE)[1])


if __name__ == "__main__":
    unittest.main()
