"""The client program as an idle probe."""

import json
import os
import signal
import socket
import sys
import threading
import unittest
from unittest import mock

from echoserver.client.waiting import Tasks

from . import peers
from .faces import ClientTestCase
from .support import PATIENCE, until

try:
    import pty
except ImportError:
    pty = None


def cuts(then, after=0.1):
    """Return a script that echoes, and plays then after so much silence."""
    def script(connection):
        connection.settimeout(after)
        try:
            peers.echo(connection)
        except socket.timeout:
            connection.settimeout(PATIENCE)
            then(connection)
    return script


class IdleTests(ClientTestCase):

    def setUp(self):
        super().setUp()
        patch = mock.patch.object(Tasks, "tick", 0.02)
        patch.start()
        self.addCleanup(patch.stop)

    def test_alive(self):
        """0: nothing was cut."""
        code, out, err = self.here(*self.play(peers.echo),
                                   "--idle", "0.05,0.01")
        self.assertEqual((code, out.decode().splitlines(), err), (0, [
            "silent for 0.01 s: alive", "silent for 0.05 s: alive",
            "alive after all of them"], []))

    def test_cut_that_shows(self):
        """4: it is told at once, after how much silence and how."""
        for then, word in (peers.end, "CLOSED"), (peers.cut, "RESET"):
            code, out, err = self.here(*self.play(cuts(then)),
                                       "--idle", "0.01,600,700")
            lines = out.decode().splitlines()
            self.assertEqual((code, err, len(lines)), (4, [], 4))
            self.assertEqual(lines[0], "silent for 0.01 s: alive")
            for line in lines[1:3]:
                self.assertRegex(line, r"^silent for [67]00 s: cut after "
                                 r"\d+[.]\d s \(%s\)$" % word)
            self.assertRegex(lines[3], "^cut between 0.01 and 600 s, after "
                             r"0\.\d( and 0\.\d)? s; .*--idle-timeout 0.*, "
                             "something in between")

    def test_cut_that_does_not_show(self):
        """4: it is found by asking again."""
        code, out, err = self.here(*self.play(peers.after(len("before 0.01 s"),
                                                          peers.mute)),
                                   "--idle", "0.01", "-W", "0.05")
        lines = out.decode().splitlines()
        self.assertEqual((code, err), (4, []))
        self.assertEqual(lines[0], "silent for 0.01 s: lost, as was found "
                         "when it was asked again (TIMEOUT)")
        self.assertRegex(lines[1], "^cut within 0.01 s; ")

    def test_wrong_after_the_silence(self):
        """3: what comes then is verified, too."""
        code, out, err = self.here(*self.play(peers.after(
            len("before 0.01 s"), peers.verbatim)), "--idle", "0.01")
        self.assertEqual((code, out, len(err)), (3, b"", 1))
        self.assertRegex(err[0], "^WRONG .*sent b'after 0.01 s'")
        self.assertNotIn("silence", err[0])

    def test_cut_for_another_reason(self):
        """A silence that was borne for longer refutes a limit."""
        def script(connection):
            data = connection.recv(100)
            connection.sendall(data.upper())
            if b"0.1" not in data:
                peers.echo(connection)
        code, out, err = self.here(*self.play(script), "--idle", "0.1,0.2")
        self.assertEqual((code, err), (4, []))
        self.assertEqual(out.splitlines()[-1], b"alive after 0.2 s: what was "
                         b"cut sooner has another reason")

    def test_silence_that_was_not_tried(self):
        """It is not called alive."""
        scripts = [peers.echo, peers.cut]
        address = self.play(lambda connection: scripts.pop()(connection))
        code, out, err = self.here(*address, "--idle", "0.01,0.02", "--json")
        self.assertEqual((code, len(err)), (1, 1))
        figures = json.loads(out.decode())
        self.assertEqual((figures["cuts"], figures["failures"],
                          figures["first_failure"]), (
            [], {"RESET": 1}, err[0]))
        scripts = [peers.echo, peers.cut]
        code, out, err = self.here(*address, "--idle", "0.01,0.02")
        self.assertRegex(out.decode().splitlines()[-1], "^alive after 0.0. s$")

    def test_no_silence_begins(self):
        """The line on standard error says why."""
        address = peers.nobody()
        outcome = self.here(*address, "--idle", "0.01")
        self.assertFails(outcome, 1, "REFUSED", address)
        code, out, err = self.here(*self.play(peers.verbatim), "-D",
                                   "--idle", "0.01")
        self.assertEqual((code, out), (3, b""))
        self.assertRegex(err[0], "^[0-9]{4}-.* WRONG ")
        self.assertEqual(self.here("nosuch.invalid", "--idle", 1)[0], 1)

    def test_json(self):
        """One object, with a unit in the name of every figure."""
        host, port = self.play(cuts(peers.end))
        code, out, err = self.here(host, port, "--idle", "600,0.01", "--json")
        self.assertEqual((code, out.count(b"\n"), err), (4, 1, []))
        figures = json.loads(out.decode())
        self.assertRegex(figures.pop("started"), "^[0-9]{4}-")
        after = figures["cuts"][0].pop("after_seconds")
        self.assertTrue(0 < after < 600, after)
        self.assertEqual(figures, {
            "host": host, "port": port, "alive_after_seconds": 0.01,
            "cut_within_seconds": 600, "failures": {}, "first_failure": None,
            "asked_seconds": [0.01, 600], "alive_seconds": [0.01],
            "unfinished_seconds": [], "stopped_seconds": 0,
            "cuts": [{"seconds": 600, "word": "CLOSED"}]})

    def test_quiet(self):
        """Only the end of it."""
        code, out, err = self.here(*self.play(peers.echo), "-q",
                                   "--idle", "0.01")
        self.assertEqual((code, out, err), (
            0, b"alive after all of them\n", []))
        self.assertRegex(self.here(*self.play(peers.echo), "-q", "-D", "--idle"
                                   , "0.01")[1], b"^[0-9]{4}-.* alive after ")

    @unittest.skipUnless(hasattr(signal, "SIGQUIT"), "no SIGQUIT")
    def test_state_so_far(self):
        """SIGQUIT shows it once, on standard error."""
        def script(connection):
            connection.sendall(peers.take(connection, 12).upper())
            os.kill(os.getpid(), signal.SIGQUIT)
            until(lambda: " alive, " in sys.stderr.getvalue(), "it")
            peers.echo(connection)
        code, out, err = self.here(*self.play(script), "--idle", "0.10")
        self.assertEqual((code, len(err)), (0, 1))
        self.assertRegex(err[0], "^after 0.0 s: of 1 connections 1 alive, 0 "
                         "cut, 0 failed$")

    def test_seconds_that_are_none(self):
        """2: each must be a number."""
        for text in "", "1,", "1,soon":
            code, out, err = self.here("--idle=" + text)
            self.assertEqual(code, 2)
            self.assertIn("must be a number of seconds", err[-1])

    def test_interrupted_json(self):
        """The object says which silences have not come to their end."""
        asked = threading.Event()

        def script(connection):
            connection.sendall(connection.recv(100).upper())
            data = connection.recv(100)
            connection.sendall(data.upper())
            if data:
                connection.recv(100)
                asked.set()
        process = self.client(*self.play(script), "--idle", "0.01,600",
                              "--json")
        self.assertTrue(asked.wait(PATIENCE))
        process.send_signal(signal.SIGTERM)
        code, out, err = self.outcome(process)
        figures = json.loads(out.decode())
        self.assertEqual((code, err, [figures[name + "_seconds"] for name in (
            "asked", "alive", "unfinished")]), (
            143, [], [[0.01, 600], [0.01], [600]]))

    @unittest.skipUnless(hasattr(signal, "SIGSTOP"), "no SIGSTOP")
    def test_standstill(self):
        """A silence in which this program was stopped counts as what it was,
        whether or not it was cut."""
        def script(connection):
            data = connection.recv(100)
            if b"0.05" in data:
                self.assertTrue(begun.wait(PATIENCE))
            connection.sendall(data.upper())
            begun.set()
            if b"0.05" in data:
                data = connection.recv(100)     # both have begun
                os.kill(process.pid, signal.SIGSTOP)
                os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
                stopped.set()
                threading.Event().wait(1.6)
                os.kill(process.pid, signal.SIGCONT)
                connection.sendall(data.upper())
            elif cut:
                self.assertTrue(stopped.wait(PATIENCE))
                return
            peers.echo(connection)
        for cut, code in (True, 4), (False, 0):
            begun, stopped = threading.Event(), threading.Event()
            process = self.client(*self.play(script), "--idle", "0.05,0.6",
                                  "--json", "-D")
            outcome = self.outcome(process)
            figures = json.loads(outcome[1].decode())
            self.assertEqual((outcome[0], len(outcome[2])), (code, 1))
            self.assertRegex(outcome[2][0], "^[0-9]{4}-.* this program stood "
                             "still for [0-9.]+ s")
            self.assertGreaterEqual(figures["stopped_seconds"], 1)
            self.assertGreaterEqual(figures["cut_within_seconds" if cut else
                                            "alive_after_seconds"], 1.6)

    @unittest.skipIf(pty is None, "no pseudo-terminals")
    def test_interrupted(self):
        """130, with what is known; a terminal has shown how it went."""
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        process = self.client(*self.play(peers.echo), "--idle", "0.01,600",
                              stderr=slave)
        os.close(slave)
        self.read_line(process.stdout)
        shown = b""
        while b"s: of 2 connections 2 alive, 0 cut, 0 failed" not in shown:
            self.readable(master, "progress, after %r" % shown)
            shown += os.read(master, 1 << 16)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(PATIENCE), 130)
        self.assertRegex(process.stdout.read(), b"^after .* s: of 2 "
                         b"connections 2 alive, 0 cut, 0 failed\n"
                         b"alive after 0.01 s\n$")
