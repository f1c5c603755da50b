"""The client program as an idle probe."""

import os
import select
import signal
import threading
import unittest

from . import peers
from .faces import ClientTestCase, pty
from .support import PATIENCE


def cuts(then, longest="0.01"):
    """Return a script that bears silences up to the longest, and plays then
    in the others."""
    def script(connection):
        data = connection.recv(100)
        connection.sendall(data.upper())
        if b" %s " % longest.encode() in data:
            peers.echo(connection)
        else:
            select.select([], [], [], 0.1)
            then(connection)
    return script


class IdleTests(ClientTestCase):

    def lines(self, code, *args):
        """Return the lines of the program, which reports no error."""
        outcome = self.here(*args)
        self.assertEqual((outcome[0], outcome[2]), (code, []), outcome)
        return outcome[1].decode().splitlines()

    def test_alive(self):
        """0: nothing was cut; with -q the end of it says that, and with -D the
        time."""
        address = self.play(peers.echo)
        self.assertEqual(self.lines(0, *address, "--idle", "0.05,0.01"), [
            "silent for 0.01 s: alive", "silent for 0.05 s: alive",
            "alive after all of them"])
        line, = self.lines(0, *address, "-q", "-D", "--idle", "0.01")
        self.assertRegex(line, "^[0-9]{4}-[^ ]* alive after all of them$")

    def test_cut_that_shows(self):
        """4: it is told at once, after how much silence and how."""
        for then, word in (peers.end, "CLOSED"), (peers.cut, "RESET"):
            lines = self.lines(4, *self.play(cuts(then)), "--idle",
                               "0.01,600,700")
            self.assertEqual((lines[0], len(lines)),
                             ("silent for 0.01 s: alive", 4))
            for line in lines[1:3]:
                self.assertRegex(line, r"^silent for [67]00 s: cut after "
                                 r"\d+[.]\d s \(%s\)$" % word)
            self.assertRegex(lines[3], "^cut between 0.01 and 600 s, after "
                             r"\d+\.\d( and \d+\.\d)? s; .*--idle-timeout 0.*,"
                             " something in between")

    def test_cut_that_does_not_show(self):
        """4: it is found by asking again."""
        lines = self.lines(4, *self.play(peers.after(len("before 0.01 s"))),
                           "--idle", "0.01", "-W", "0.1")
        self.assertEqual(lines[0], "silent for 0.01 s: lost, as was found "
                         "when it was asked again (TIMEOUT)")
        self.assertRegex(lines[1], "^cut within 0.01 s; ")

    def test_cut_for_another_reason(self):
        """A silence that was borne for longer refutes a limit."""
        self.assertEqual(self.lines(4, *self.play(cuts(peers.end, "0.2")),
                                    "--idle", "0.01,0.2")[-1],
                         "alive after 0.2 s: what was cut sooner has another "
                         "reason")

    def test_silence_that_was_not_tried(self):
        """It is not called alive, and the line on standard error says why."""
        address = self.play(peers.cut, peers.echo)
        outcome = self.here(*address, "--idle", "0.01,0.02")
        self.assertFails(outcome, 1, "RESET", address)
        self.assertRegex(outcome[1].decode().splitlines()[-1],
                         "^alive after 0.0. s$")

    def test_no_silence_begins(self):
        """What comes before and after the silence is verified, and no silence
        is told of what was not tried."""
        for script, code, error in (
                (peers.cut, 1, "RESET"),
                (peers.verbatim, 3, "WRONG .*sent b'before 0.01 s'"),
                (peers.after(len("before 0.01 s"), peers.verbatim), 3,
                 "WRONG .*sent b'after 0.01 s'")):
            outcome = self.here(*self.play(script), "-D", "--idle", "0.01")
            self.assertEqual((outcome[:2], len(outcome[2])), ((code, b""), 1))
            self.assertRegex(outcome[2][0], "^[0-9]{4}-[^ ]* " + error)

    def test_json(self):
        """One object, with a unit in the name of every figure."""
        host, port = self.play(cuts(peers.end))
        outcome = self.here(host, port, "--idle", "600,0.01", "--json")
        self.assertEqual((outcome[0], outcome[2]), (4, []))
        figures = self.figures(outcome)
        self.assertRegex(figures.pop("started"), "^[0-9]{4}-")
        after = figures["cuts"][0].pop("after_seconds")
        self.assertTrue(0 < after < 600, after)
        self.assertEqual(figures, {
            "host": host, "port": port, "alive_after_seconds": 0.01,
            "cut_within_seconds": 600, "failures": {}, "first_failure": None,
            "asked_seconds": [0.01, 600], "alive_seconds": [0.01],
            "unfinished_seconds": [], "stopped_seconds": 0,
            "cuts": [{"seconds": 600, "word": "CLOSED"}]})

    def interrupting(self, number):
        """Return the address of a peer that sends a signal when the silence
        of 0.01 s is over."""
        def script(connection):
            connection.sendall(connection.recv(100).upper())
            data = connection.recv(100)
            connection.sendall(data.upper())
            if data and not connection.recv(100):
                os.kill(os.getpid(), number)
        return self.play(script)

    def test_interrupted_json(self):
        """143, with the silences that have not come to their end."""
        outcome = self.here(*self.interrupting(signal.SIGTERM), "--idle",
                            "0.01,600", "--json")
        figures = self.figures(outcome)
        self.assertEqual((outcome[0], outcome[2], [figures[
            name + "_seconds"] for name in ("asked", "alive", "unfinished")]),
            (143, [], [[0.01, 600], [0.01], [600]]))

    @unittest.skipIf(pty is None, "no pseudo-terminals")
    def test_interrupted(self):
        """130, with what is known; a terminal has shown how it went, and
        keeps the line in which it shows ^C."""
        outcome, shown = self.progress(*self.interrupting(signal.SIGINT),
                                       "--idle", "0.01,600")
        self.assertEqual(outcome[0], 130)
        self.assertRegex(shown, b"s: of 2 connections 2 alive, 0 cut, 0 failed")
        self.assertEqual(shown.count(b"\n"), 1)
        self.assertRegex(outcome[1], b"\nafter .* s: of 2 connections 2 alive, "
                         b"0 cut, 0 failed\nalive after 0.01 s\n$")

    def test_standstill(self):
        """A silence in which this program was stopped counts as what it was,
        whether or not it was cut."""
        begun, stopped = threading.Barrier(3), threading.Event()
        stop = self.stoppable_clock()

        def script(connection):
            data = connection.recv(100)
            begun.wait(PATIENCE)
            connection.sendall(data.upper())
            begun.wait(PATIENCE)
            if b"0.01" in data:
                data = connection.recv(100)     # all have begun
                stop(1000)
                stopped.set()
                connection.sendall(data.upper())
            if b"600" in data:
                self.assertTrue(stopped.wait(PATIENCE))
            else:
                peers.echo(connection)
        outcome = self.here(*self.play(script), "--idle", "0.01,0.25,600",
                            "--json", "-D")
        self.assertRegex(outcome[2][0], "^[0-9]{4}-.* this program stood "
                         "still for 1[0-9]{3}[.][0-9] s; ")
        figures = self.figures(outcome)
        for seconds in (figures["stopped_seconds"], figures["alive_seconds"][
                -1], figures["cuts"][0]["seconds"]):
            self.assertGreater(seconds, 999)
