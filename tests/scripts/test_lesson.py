"""The lesson as a play: verdicts that follow from the figures, and its end."""

import contextlib
import errno
import io
import os
import re
import signal
import subprocess
import sys
import unittest
from unittest import mock

from tests.support import (PATIENCE, PLAIN, ROOT, TestCase, children, python,
                           until)

SCRIPTS = os.path.join(ROOT, "scripts")
sys.path.insert(0, SCRIPTS)
try:
    import lesson
    from lab import cost
    from lab.scene import Client, show_time
    from lab.screen import Screen
finally:
    sys.path.remove(SCRIPTS)

ENVIRONMENT = dict(PLAIN, COLUMNS="80", LC_ALL="C")
SHORT = "--stretch", "0.2"

# The play, after a line of its own.
CHANGED = """\
import sys
import lab.scene
import lesson
from lab.server import Server
lab.scene.OVERTIME = 0.5
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

POOL_THAT_DIALS = """\
class Dials(lesson.ConnectionPool):
    def connection(self):
        return lesson.Connection(self.address)
lesson.ConnectionPool = Dials"""

NO_LOSS = """\
lesson.OWN_SERVER = "from echoserver.__main__ import main; main(['0'])\""""

# What makes the claim of an act false; the others are false of each model but
# that of their name.
FALSE = {"many": SERVED_BY % "events", "connections": POOL_THAT_DIALS,
         "parts": NO_LOSS}

TELL_OF_THE_SCENE = """\
from lab.scene import Client
def say(client, say=Client.say):
    say(client)
    print("Said.", flush=True)
Client.say = say"""


def main(*args):
    """Return the exit status of lesson.py, and what it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out, \
            contextlib.redirect_stderr(out), \
            mock.patch.dict(os.environ, ENVIRONMENT):
        try:
            status = lesson.main(list(args))
        except SystemExit as error:
            status = error.code
    return status, out.getvalue()


def joined(text):
    """Return text with all its white space alike."""
    return " ".join(text.split())


class LessonTest(TestCase):

    def start(self, change, *args):
        """Start a play that is changed in some way."""
        return self.run_command(python("-c", CHANGED % change, *args),
                                env=dict(ENVIRONMENT, PYTHONPATH=SCRIPTS),
                                stderr=subprocess.STDOUT)


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
        """Return the verdict of an act, and what was printed before it."""
        before, found, words = self.acts[name].partition("\nShown: ")
        self.assertTrue(found, self.output)
        return joined(words), before

    def waits(self, picture):
        """Return what the rows of clients end with."""
        return dict(re.findall(r"^(client \d) .*?  +(\S+ \S+)$", picture,
                               re.M))

    def test_status(self):
        """All is shown, with a command line for each server."""
        self.assertEqual(self.status, 0, self.output)
        self.assertEqual(list(self.acts), [act.name for act in lesson.ACTS])
        self.assertTrue(self.output.endswith(
            "\n9 shown, 0 not shown on this host, 0 left out\n"))
        for name in self.acts:
            self.assertRegex(self.acts[name], r"\n\$ python3 (-m echoserver "
                             "--model |scripts/lesson.py --serve)")

    def test_blocking(self):
        """Each waits for the one before."""
        words, picture = self.verdict("blocking")
        waits = self.waits(picture)
        self.assertIn("client 2 waited %s for client 1 to leave; "
                      "client 3 waited %s for client 2 to leave"
                      % (waits["client 2"], waits["client 3"]), words)
        self.assertIn("the recv() of client 2 had data after %s, and copied "
                      "them in " % waits["client 2"], words)
        self.assertRegex(picture, r"\nclient 2  +-+#\.+ ")

    def test_threads(self):
        """Nobody waits."""
        words, picture = self.verdict("threads")
        waits = self.waits(picture)
        for client in "client 2", "client 3":
            self.assertIn("%s waited %s, with client 1 still there"
                          % (client, waits[client]), words)
        self.assertIn("; the server had 4 threads", words)

    def test_processes(self):
        """One is killed, and its client is cut."""
        words, picture = self.verdict("processes")
        self.assertRegex(picture, r"\nclient 1  .*x ")
        self.assertEqual(words, "one of 4 processes was killed; cut: client "
                         "1; served before and after: client 2 and client 3")

    def test_many(self):
        """What 10,000 would need is what each needs."""
        words, table = self.verdict("many")
        for model, memory, cpu in re.findall(
                r"^(\w+) +(\S+) KiB +(\S+) us .*s$", table, re.M):
            self.assertIn("%s %s us" % (model, cpu), words)
            needed = float(re.search(model + r" (\S+) GB", words).group(1))
            self.assertAlmostEqual(needed, float(memory) * 1.024e-2,
                                   delta=0.006)
        self.assertEqual(words.count(" GB"), 4)
        self.assertRegex(words, r", of the [1-9]\d*\.\d\d GB here; ")

    def test_turns_of_many(self):
        """What a busy host adds to one turn does not count."""
        seen = iter([(2.0, 5.0), (9.0, 9.0), (1.0, 6.0), (3.0, 4.0)])
        with mock.patch.object(cost, "Beside") as beside, \
                mock.patch.object(cost, "ask", lambda *turn: next(seen)):
            load = beside.return_value.__enter__.return_value
            load.take_tally.return_value.first = [0.0] * cost.MANY
            costs = cost.measure(mock.MagicMock(stretch=1), ["one", "two"])
        self.assertEqual({name: each[1:] for name, each in costs.items()},
                         {"one": (1.0, 5.0), "two": (3.0, 4.0)})

    def test_pinned(self):
        """It has a ceiling."""
        words, picture = self.verdict("pinned")
        waits = self.waits(picture)
        self.assertEqual(waits["client 4"], "no reply")
        self.assertEqual(
            words, "with 2 workers and 2 silent clients, client 3 waited %s "
            "for client 1 to leave; client 4 got no reply; the server had 3 "
            "threads" % waits["client 3"])

    def test_pool(self):
        """It has none."""
        words, picture = self.verdict("pool")
        waits = self.waits(picture)
        self.assertEqual(
            words, "with 2 workers and 2 silent clients, client 3 waited %s, "
            "with client 1 still there; client 4 waited %s, with client 2 "
            "still there; the server had 3 threads"
            % (waits["client 3"], waits["client 4"]))

    def test_connections(self):
        """One dial does for all."""
        words, table = self.verdict("connections")
        rows = [[float(number.replace(",", "")) for number in row]
                for row in re.findall(r" ([\d,]+) +([\d,]+)$", table, re.M)]
        (rate, dials), (pooled, one) = rows
        self.assertAlmostEqual(float(re.search(
            r"(\S+) times", words).group(1)), pooled / rate, delta=0.051)
        self.assertTrue(words.endswith("dials: {:,.0f} instead of {:,.0f}"
                                       .format(one, dials)), words)

    def test_events(self):
        """One thread is enough, until something blocks it."""
        words, pictures = self.verdict("events")
        plain, threads, events = [
            self.waits(picture) for picture in pictures.split("\n$ ")[1:]]
        self.assertIn("client 3 waited %s, with client 1 still there; the "
                      "server had 1 thread" % plain["client 3"], words)
        self.assertIn("was %s with threads, and %s with events" % tuple(
            max(waits.values(), key=seconds) for waits in (threads, events)),
            words)

    def test_parts(self):
        """What is lost is what did not come back."""
        words, table = self.verdict("parts")
        sent, came, lost = re.search(
            r"^lesson's +(\S+) +(\S+) +(\S+)$", table, re.M).groups()
        self.assertEqual(*(int(text.replace(",", "")) for text in (
            sent, str(int(came.replace(",", ""))
                      + int(lost.replace(",", ""))))))
        self.assertIn("lesson's server lost %s bytes, --model threads lost 0"
                      % lost, words)
        self.assertIn("and 'AAAAA'... as the reply to hello", words)
        self.assertIn("3,000 times the letter a", table)

    def test_alone(self):
        """No claim leans on another act."""
        for act in lesson.ACTS:
            self.assertNotRegex(act.claim, "as in act|this cost|the same pool")


def seconds(text):
    """Return the seconds that show_time() has written so."""
    number, unit = text.split()
    return float(number) * {"s": 1, "ms": 1e-3, "us": 1e-6}[unit]


@unittest.skipUnless(os.path.isdir("/proc/self/task"), "needs Linux")
class FalseTest(LessonTest):
    """A claim that does not show."""

    def test_false_claims(self):
        """Each act sees that, says what there was instead, and fails."""
        plays = [(name, self.start(change, *SHORT, name))
                 for name, change in FALSE.items()]
        for name, play in plays:
            output = play.communicate(timeout=5 * PATIENCE)[0].decode()
            self.assertEqual(play.returncode, 1, output)
            self.assertRegex(output, "\nNot shown on this host: .*[a-z]")
            self.assertIn("\n0 shown, 1 not shown on this host, 0", output)

    def test_other_models(self):
        """No act takes another model for its own."""
        acts = [act.name for act in lesson.ACTS if act.name not in FALSE]
        plays = [(model, self.start(SERVED_BY % model, *SHORT, *acts))
                 for model in lesson.ask_models()]
        for model, play in plays:
            output = play.communicate(timeout=5 * PATIENCE)[0].decode()
            shown = re.findall(r"\n\d (\w+): (?:.+\n)*Shown: ", output)
            self.assertEqual(output.count("Shown: "), len(shown), output)
            self.assertLessEqual(set(shown), {model}, output)

    def test_server_that_does_not_start(self):
        """That is said, and fails."""
        change = SERVED_BY % "fibers"
        play = self.start(change, "blocking")
        output = play.communicate(timeout=PATIENCE)[0].decode()
        self.assertEqual(play.returncode, 1, output)
        self.assertIn("on this host: the server did not start: ", output)

    def test_wrong_reply(self):
        """It is no reply."""
        with mock.patch("lab.scene.Client.say", lambda client: None):
            client = Client(mock.Mock(), "client 1")
        client.socket, client._due = mock.Mock(), b"HELLO"
        client.socket.recv.return_value = b"hello"
        with self.assertRaisesRegex(Exception, "client 1 got a wrong reply"):
            client.hear()


class InputTest(LessonTest):
    """What cannot be played."""

    def test_wrong_arguments(self):
        """They are refused, in one sentence, before anything is started."""
        for words, told in (
                (["10"], "no act '10'; there are 1 to 9: blocking, threads,"),
                (["fibers"], "no act 'fibers'"),
                (["--stretch", "nan"], "nan is not a number above 0, at most"),
                (["--serve", "0", "pool"], "--serve plays no act"),
                (["--serve", "-1"], "port must be 0-65535")):
            status, output = main(*words)
            self.assertEqual(status, 2, output)
            self.assertIn(told, output)

    def test_narrow_terminal(self):
        """One that is too narrow for pictures is refused for them."""
        with mock.patch.dict(ENVIRONMENT, COLUMNS="39"):
            status, output = main("1")
            self.assertEqual(main("--list")[0], 0)
        self.assertEqual((status, output.splitlines()[-1]), (
            2, "%s: error: the terminal has 39 columns, and 40 are needed"
            % os.path.basename(sys.argv[0])))

    def test_list(self):
        """Each act has a line that says what it claims."""
        status, output = main("--list")
        self.assertEqual(status, 0)
        for number, act in enumerate(lesson.ACTS, 1):
            self.assertIn("%d %s: %s" % (number, act.name, act.claim),
                          joined(output))
        status, output = main("--list", "5", "pool")
        self.assertEqual(re.findall("(?m)^[0-9]", output), ["5", "6"])

    def left_out(self, name, reason):
        """See that an act is left out, aloud and without a failure."""
        status, output = main(name)
        self.assertEqual(status, 0, output)
        self.assertIn("Left out: " + reason, joined(output))
        self.assertIn("0 shown, 0 not shown on this host, 1 left out", output)

    def test_no_fork(self):
        """The act of the processes is left out."""
        with mock.patch.object(lesson, "ask_models", return_value={
                act.name: {} for act in lesson.ACTS
                if act.name != "processes"}):
            self.left_out("processes", "this system has no model processes, "
                          "since it has no fork()")

    def test_few_descriptors(self):
        """An act that needs more is left out, be it known before or not."""
        with mock.patch.object(lesson, "raise_descriptor_limit",
                               return_value=30):
            self.left_out("many", "264 descriptors are needed, 30 allowed")
        few = OSError(errno.EMFILE, "Too many open files")
        with mock.patch.object(lesson.Play, "server", side_effect=few):
            self.left_out("blocking", "[Errno %d] Too many open files"
                          % errno.EMFILE)

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

    def test_nobody_reads(self):
        """The end of a pipe is no traceback."""
        play = self.start("", "--list")
        play.stdout.close()
        self.assertEqual(play.wait(PATIENCE), 141)


class ScreenTest(unittest.TestCase):
    """The picture."""

    def screen(self, encoding, locale, tty=True, plain=False):
        """Return a screen, and the bytes that were printed."""
        raw = io.BytesIO()
        raw.isatty = lambda: tty
        out = io.TextIOWrapper(raw, encoding, write_through=True)
        self.enter(mock.patch.object(sys, "stdout", out))
        self.enter(mock.patch.dict(os.environ, ENVIRONMENT, LC_ALL=locale,
                                   TERM="xterm"))
        return Screen(plain), raw

    def enter(self, patch):
        patch.start()
        self.addCleanup(patch.stop)

    def test_terminal(self):
        """Rows are drawn over those before, in colours."""
        screen, raw = self.screen("utf-8", "C.UTF-8")
        screen.draw([screen.cells("--#")], last=False)
        screen.draw(["two"])
        screen.draw(["three"])
        self.assertEqual(raw.getvalue().decode("utf-8"), (
            "\033[K\033[33m\u2591\u2591\033[m\033[32m\u2588\033[m\n"
            "\r\033[1A\033[Ktwo\n\033[Kthree\n"))

    def test_continued(self):
        """After Ctrl-Z and fg a picture begins anew."""
        screen, raw = self.screen("utf-8", "C.UTF-8")
        self.addCleanup(signal.signal, signal.SIGCONT,
                        signal.getsignal(signal.SIGCONT))

        def perform(play):
            screen.draw(["one"], last=False)
            os.kill(os.getpid(), signal.SIGCONT)
            screen.draw(["two"])
            return True, ""

        act = lesson.ACTS[0]._replace(perform=perform)
        with mock.patch.object(lesson, "ACTS", [act]):
            lesson.run(mock.Mock(acts=[], stretch=1), screen)
        self.assertIn(b"one\n\033[Ktwo\n", raw.getvalue())

    def test_narrow(self):
        """A command is parted where it has a space."""
        screen, raw = self.screen("ascii", "C", tty=False)
        screen.width = 40
        with mock.patch("lab.play.Server"):
            lesson.Play(screen, [], 1).server("pinned", "--pool-size", "2")
        self.assertEqual(raw.getvalue(), b"$ python3 -m echoserver --model "
                         b"pinned\n--pool-size 2\n")

    def test_pipe(self):
        """Rows are printed when they are complete; so with --plain."""
        for tty, plain in (False, False), (True, True):
            screen, raw = self.screen("utf-8", "C", tty, plain)
            screen.draw([screen.cells("--#")], last=False)
            screen.draw([screen.cells("--#x")])
            screen.say("words", "Shown:", "1")
            self.assertEqual(raw.getvalue(), b"--#x\nShown: words\n")

    def test_better_characters(self):
        """Both the encoding and the locale have to have them."""
        for encoding, locale, shown in (
                ("utf-8", "en_GB.UTF-8", "\u2591"), ("utf-8", "C", "-"),
                ("ascii", "C.UTF-8", "-"), ("latin-1", "C.UTF-8", "-")):
            self.assertEqual(self.screen(encoding, locale)[0].symbol("-"),
                             shown)

    def test_row(self):
        """A mark is seen, however short what it marks was."""
        client = Client(mock.Mock(**{"now.return_value": 8.5}), "client 1")
        client._states = [(1, "-"), (5.1, "."), (7, " ")]
        client._marks = [(5.1, "#")]
        self.assertEqual(client.cells(10, 10), " ----#.   ")

    def test_time(self):
        """It has three digits and a unit."""
        for seconds, shown in ((1.304, "1.30 s"), (0.9996, "1.00 s"),
                               (0.0123456, "12.3 ms"), (1e-5, "10 us")):
            self.assertEqual(show_time(seconds), shown)


if __name__ == "__main__":
    unittest.main()
