"""The lesson as a play: verdicts that follow from the figures, and its end."""

import io
import os
import re
import signal
import subprocess
import sys
import unittest
from unittest import mock

from tests.support import (PATIENCE, PLAIN, SCRIPTS, TestCase, children,
                           python, scripts_importable, until)

with scripts_importable():
    import lesson
    from lab.screen import Screen

ENVIRONMENT = dict(PLAIN, COLUMNS="80", LC_ALL="C")
SHORT = "--stretch", "0.4"

# The play, with a change.
CHANGED = """\
import sys
import lesson
from lab import stage
from lab.server import Server
stage.Scene.run.__defaults__ = 0.5,
%s
from lab.program import run
sys.exit(run("lesson"))
"""

# Each server is of this model, whatever it is said to be.
SERVED_BY = """\
def serve(play, model, *more, instead=%r):
    fits = "--pool-size" not in more or instead in ("pinned", "pool")
    return Server(instead, *more if fits else ())
lesson.Play.server = serve"""
OWN_IS_OURS = """\
lesson.own_server = lambda play: Server("threads")"""
POOL_THAT_DIALS = """\
class Dials(lesson.ConnectionPool):
    def connection(self):
        return lesson.Connection(self.address)
lesson.ConnectionPool = Dials"""

# What makes the claim of an act false.
FALSE = {"many": SERVED_BY % "events", "connections": POOL_THAT_DIALS,
         "parts": OWN_IS_OURS, "pool": SERVED_BY % "pinned",
         "pinned": SERVED_BY % "pool", "threads": SERVED_BY % "blocking",
         "blocking": SERVED_BY % "events", "events": SERVED_BY % "threads"}

TELL_OF_THE_SCENE = """\
def say(client, say=stage.Client.say):
    say(client)
    print("Said.", flush=True)
stage.Client.say = say"""


def joined(text):
    """Return text with all its white space alike."""
    return " ".join(text.split())


class LessonTest(TestCase):

    def start(self, change, *args):
        """Start a play that is changed in some way."""
        return self.run_command(python("-c", CHANGED % change, *args),
                                env=dict(ENVIRONMENT, PYTHONPATH=SCRIPTS),
                                stderr=subprocess.STDOUT)

    def says(self, status, play):
        """Return what a play prints, which ends with status."""
        output = play.communicate(timeout=5 * PATIENCE)[0].decode()
        self.assertEqual(play.returncode, status, output)
        return output


@unittest.skipUnless(os.path.isdir("/proc/self/task"), "needs Linux")
class ActsTest(unittest.TestCase):
    """All acts, in short: the verdict of each follows from its figures."""

    @classmethod
    def setUpClass(cls):
        run = subprocess.run(
            python(os.path.join(SCRIPTS, "lesson.py"), *SHORT),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ENVIRONMENT,
            timeout=10 * PATIENCE)
        cls.status, cls.output = run.returncode, run.stdout.decode("ascii")
        cls.acts = dict(re.findall(r"\n\d (\w+): (.*?)\n(?=\n)", cls.output,
                                   re.S))

    def verdict(self, name):
        """Return the verdict of an act, what was printed before it, and what
        the rows of its clients end with."""
        before, found, words = self.acts[name].partition("\nShown: ")
        self.assertTrue(found, self.output)
        return joined(words), before, dict(re.findall(
            r"^(client \d) .*?  +(\S+ \S+)$", before, re.M))

    def test_status(self):
        """All is shown, with a command line for each server."""
        self.assertEqual(self.status, 0, self.output)
        self.assertEqual(list(self.acts), [act.name for act in lesson.ACTS])
        self.assertTrue(self.output.endswith(
            "\n9 shown, 0 not shown on this host, 0 left out\n"))
        for name in self.acts:
            self.assertRegex(self.acts[name], r"\n\$ python3 (-m echoserver "
                             "--model |scripts/lesson.py --serve)")
        self.assertLessEqual(max(map(len, self.output.splitlines())), 80)

    def test_waits(self):
        """The words tell of the waits that are drawn."""
        for name, client, end in (
                ("blocking", "client 2", "for client 1 to leave; "),
                ("blocking", "client 3", "for client 2 to leave; "),
                ("pinned", "client 3", "for client 1 to leave; client 4 got no"
                 " reply; the server had 3 threads"),
                ("pool", "client 4", "with client 2 still there; the server "
                 "had 3 threads")):
            words, _, waits = self.verdict(name)
            self.assertIn("%s waited %s" % (client, waits[client]), words)
            self.assertIn(end, words)

    def test_blocking(self):
        """A client that is not accepted has a sign; phase two is short."""
        self.assertRegex(self.verdict("processes")[1], r"\nclient 1  .*x ")
        words, picture, waits = self.verdict("blocking")
        self.assertRegex(picture, r"\nclient 2  +:+-*#\.+ ")
        self.assertRegex(words, r"waited %s for data \(phase one\), and took "
                         r"\S+ \S+ to copy them" % waits["client 2"])

    def test_many(self):
        """Newcomers are drawn for each server; the table has its figures."""
        words, table, _ = self.verdict("many")
        rows = re.findall(r"(?m)^(\S+) +>?(\S+ m?s) +(\S+ m?s) +\S+ MB$",
                          table)
        self.assertEqual([row[0] for row in rows], [
            "lesson's", "threads", "processes", "pool", "events"])
        self.assertEqual(len(re.findall("(?m)^newcomer [123] ", table)), 15)
        self.assertIn(" %s with pool" % max(rows[3][1:], key=seconds), words)

    def test_connections(self):
        """One dial does for all."""
        words, table, _ = self.verdict("connections")
        self.assertRegex(table, r"\npool +[\d,]+ +1$")
        self.assertRegex(words, r"dials: 1 instead of [\d,]+$")

    def test_events(self):
        """One thread is enough, until something blocks it."""
        self.assertIn("the server had 1 thread; with a delay",
                      self.verdict("events")[0])

    def test_parts(self):
        """Three lines tell what came; what is lost is what did not."""
        words, table, _ = self.verdict("parts")
        self.assertRegex(table, r"\nsent: .*\nshould come: .* HELLO\ncame: +"
                         r"1,024 A +then: AAAAA\n")
        lost = re.search(r"(?m)^lesson's +\S+ +\S+ +(\S+)$", table).group(1)
        self.assertIn("lost %s bytes, --model threads 0" % lost, words)


def seconds(text):
    """Return the seconds that show_time() has written so."""
    number, unit = text.split()
    return float(number) * {"s": 1, "ms": 1e-3, "us": 1e-6}[unit]


@unittest.skipUnless(os.path.isdir("/proc/self/task"), "needs Linux")
class FalseTest(LessonTest):
    """A claim that does not show."""

    def test_false_claims(self):
        """Each act sees that, says what there was instead, and fails."""
        for play in [self.start(change, *SHORT, name)
                     for name, change in FALSE.items()]:
            self.assertRegex(self.says(1, play),
                             "\nNot shown on this host: .*[a-z]")

    def test_left_out(self):
        """An act that a host cannot play is no failure."""
        for change, told in (
                ("lesson.ask_models = lambda: ['threads']", "no model events"),
                ("lesson.allow_descriptors = lambda count: False",
                 "900 descriptors are needed")):
            self.assertRegex(self.says(0, self.start(change, "many")),
                             "Left out: .*" + told)


class EndTest(LessonTest):

    def test_wrong_arguments(self):
        """They are refused, in one sentence, before anything is started."""
        for words, told in ((["10"], "no act '10'"),
                            (["--stretch", "nan"], "nan is not a number abo"),
                            (["--serve", "-1"], "-1 is not a number abo")):
            self.assertIn(told, self.says(2, self.start("", *words)))

    @unittest.skipUnless(children(os.getppid()), "needs Linux")
    def test_interrupt(self):
        """Ctrl-C in the midst of an act ends its server, too."""
        play = self.start(TELL_OF_THE_SCENE, "--stretch", "100", "blocking")
        while self.read_line(play.stdout) != b"Said.\n":
            pass
        servers = until(lambda: children(play.pid))
        play.send_signal(signal.SIGINT)
        output = play.communicate(timeout=PATIENCE)[0]
        self.assertEqual(play.returncode, 130)
        self.assertIn(b"\nclient 1  ", output)
        self.assertTrue(output.endswith(b"\ninterrupted\n"), output)
        for server in servers:
            self.assertFalse(os.path.exists("/proc/%s" % server))


class ScreenTest(unittest.TestCase):
    """The picture."""

    def test_terminal(self):
        """Rows are drawn over those before, in colours, but not after Ctrl-Z
        and fg."""
        raw = io.BytesIO()
        raw.isatty = lambda: True
        with mock.patch.object(sys, "stdout", io.TextIOWrapper(
                raw, "utf-8", write_through=True)), mock.patch.dict(
                    os.environ, LC_ALL="C.UTF-8", TERM="xterm"):
            screen = Screen()
            screen.draw([screen.cells("--#")], last=False)
            screen.draw(["two"])
            screen.draw(["three"], last=False)
            screen.begin()
            screen.draw(["four"])
            shown = raw.getvalue().decode("utf-8")
        self.assertEqual(shown, (
            "\033[K\033[33m\u2592\u2592\033[m\033[32m\u2588\033[m\n"
            "\r\033[1A\033[Ktwo\n\033[Kthree\n\033[Kfour\n"))
