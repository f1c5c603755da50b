"""The client program at a terminal, which is a pseudo-terminal here."""

import contextlib
import io
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import warnings
from unittest import mock

from echoserver.client import prompt as repl
from echoserver.client.connection import Connection

from . import peers
from .support import PATIENCE, TestCase, until
from .test_client import ENVIRONMENT
from .test_connectionpool import striking_in

try:
    import pty
    import readline
except ImportError:
    pty = readline = None


class Session:
    """The program at a terminal of its own, with standard error apart.

    Attributes: process; shown, what the terminal has shown and no expect()
    has passed by.
    """

    def __init__(self, test, *args, env=(), stdout=None):
        self.test = test
        self.shown = b""
        self.master, slave = pty.openpty()
        environment = dict(ENVIRONMENT, TERM="dumb", INPUTRC=os.devnull)
        environment.update(env)
        self.process = test.run_program(
            "echoserver.client", *args, stdin=slave, stdout=stdout or slave,
            env=environment, bufsize=0)
        os.close(slave)
        test.addCleanup(os.close, self.master)

    def type(self, text):
        os.write(self.master, text if isinstance(text, bytes)
                 else text.encode())

    def expect(self, text):
        """Read until the terminal shows text; return what came before."""
        text = text if isinstance(text, bytes) else text.encode()
        deadline = time.monotonic() + PATIENCE
        while text not in self.shown:
            left = max(0, deadline - time.monotonic())
            more = b""
            if select.select([self.master], [], [], left)[0]:
                try:
                    more = os.read(self.master, 1 << 16)
                except OSError:
                    pass        # EIO: the program has ended
            if not more:
                self.test.fail("expected %r, got %r and %r" % (
                    text, self.shown, self.notices()))
            self.shown += more
        before, _, self.shown = self.shown.partition(text)
        return before

    def notices(self):
        """End the program if need be, and return its standard error."""
        self.process.kill()
        return self.process.stderr.read().decode()

    def notice(self):
        """Return the next line on standard error."""
        return self.test.read_line(self.process.stderr).decode().rstrip()

    def interrupt(self):
        """Send SIGINT when the program waits.

        One that comes between the last key and the select() after it stays
        unnoticed until the next key, in every readline of CPython.
        """
        until(self.at_rest, "the program to wait")
        self.process.send_signal(signal.SIGINT)

    def at_rest(self):
        """Return whether the main thread sleeps, or true if nobody knows."""
        try:
            with open("/proc/%d/stat" % self.process.pid) as f:
                return f.read().rpartition(")")[2].split()[0] == "S"
        except OSError:
            return True

    def ends(self, code):
        """Check the exit code, and that nothing is left unsaid."""
        self.test.assertEqual(self.process.wait(PATIENCE), code)
        self.test.assertEqual(self.notices(), "")


@unittest.skipIf(pty is None, "no pseudo-terminals or no readline")
class ReplTests(TestCase):

    def start(self, script, *args, **options):
        """Return a session with a peer that plays script, after its prompt."""
        address = peers.play(self, script).address
        session = Session(self, *args + address, **options)
        session.expect("echo> ")
        return session

    def test_lines(self):
        """Each line is stripped, sent and answered; empty ones are not."""
        received = []

        def script(connection):
            for _ in range(2):
                received.append(connection.recv(1024))
                connection.sendall(received[-1].upper())
            received.append(connection.recv(1024))
        session = self.start(script)
        session.type("  hello world \n")
        session.expect("HELLO WORLD\r\necho> ")
        session.type("\n")
        session.expect("echo> ")
        session.type(" \t \n")
        session.expect("echo> ")
        session.type("again\n")
        session.expect("AGAIN\r\necho> ")
        session.type(b"\x04")
        session.ends(0)
        self.assertEqual(received, [b"hello world", b"again", b""])

    def test_long_text_in_small_reads(self):
        """Blocks of 1024 bytes may cut a message and its characters."""
        def lesson(connection):
            while True:
                data = connection.recv(1024)
                if not data:
                    break
                connection.send(data.upper())
        text = "x" + "äöü€😀" * 100
        session = self.start(lesson, env={"LC_ALL": "C.UTF-8"})
        session.type(text + "\n")
        session.expect("X" + text[1:] + "\r\necho> ")
        session.type(b"\x04")
        session.ends(0)

    def test_prompt(self):
        """--prompt is what is shown, escaped where it must be."""
        address = peers.play(self, peers.echo).address
        session = Session(self, "--prompt", "é: ", *address,
                          env={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0",
                               "PYTHONUTF8": "0"})
        session.expect("\\xe9: ")
        session.type(b"\x04")
        session.ends(0)

    def test_locale_that_shows_only_ascii(self):
        """UTF-8 is sent as it is typed, and its reply escaped."""
        for typed, shown in (("é€".encode(), r"\xe9\u20ac"),
                             (b"\xff", r"\xff")):
            session = self.start(
                peers.echo, env={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0",
                                 "PYTHONUTF8": "0"})
            session.type(typed + b"\n")
            session.expect("\r\n" + shown + "\r\necho> ")
            session.type(b"\x04")
            session.ends(0)

    def test_bytes_that_are_no_text(self):
        """What is not UTF-8 is sent as it is typed, too."""
        session = self.start(peers.echo, env={"LC_ALL": "C.UTF-8"})
        session.type(b"a\xffb\n")
        session.expect("\r\nA\\xffB\r\necho> ")
        session.type(b"\x04")
        session.ends(0)

    def test_output_that_is_no_terminal(self):
        """No prompt, no notice: the replies and nothing else."""
        session = Session(self, *peers.play(self, peers.echo).address,
                          stdout=subprocess.PIPE, env={"LC_ALL": "C.UTF-8"})
        session.type("é\n")
        self.assertEqual(self.read_line(session.process.stdout),
                         "é\n".encode())
        session.type(b"\x04")
        session.ends(0)
        self.assertEqual(session.process.stdout.read(), b"")

    def test_output_that_nobody_reads(self):
        """141, quietly."""
        session = Session(self, *peers.play(self, peers.echo).address,
                          stdout=subprocess.PIPE)
        session.process.stdout.close()
        session.type("abc\n")
        session.ends(141)

    def test_control_c_clears_the_line(self):
        """A line that has begun is dropped, and the session goes on."""
        session = self.start(peers.echo)
        session.type("abc")
        session.expect("abc")
        session.interrupt()
        session.expect("echo> ")
        session.type("def\n")
        self.assertNotIn(b"ABC", session.expect("DEF\r\necho> "))
        session.type(b"\x04")
        session.ends(0)

    def test_control_c_on_an_empty_line(self):
        """130, also after a line that Ctrl-C has cleared."""
        session = self.start(peers.echo)
        session.type("abc")
        session.expect("abc")
        session.interrupt()
        session.expect("echo> ")
        session.interrupt()
        session.ends(130)

    def test_control_c_while_waiting_for_a_reply(self):
        """The reply is given up, and the next line dials again."""
        taken = threading.Event()

        def script(connection):
            if connection.recv(1024) == b"mute":
                taken.set()
                connection.recv(1024)
            else:
                connection.sendall(b"ABC")
                connection.recv(1024)
        session = self.start(script)
        session.type("mute\n")
        self.assertTrue(taken.wait(PATIENCE))
        session.interrupt()
        self.assertRegex(session.notice(), "may have arrived.*dials again")
        session.expect("echo> ")
        session.type("abc\n")
        self.assertEqual(session.notice(), "Connected again.")
        session.expect("ABC\r\necho> ")
        session.type(b"\x04")
        session.ends(1)

    def test_server_goes_away_at_the_prompt(self):
        """It is told at once, the typed text stays, the next line dials."""
        for then, word in (peers.end, "CLOSED "), (peers.cut, "RESET "):
            go = threading.Event()
            first = [peers.after(3, then, go)]
            session = self.start(
                lambda connection: (first.pop() if first else peers.echo)(
                    connection))
            session.type("one\n")
            session.expect("ONE\r\necho> ")
            session.type("tw")
            session.expect("tw")
            go.set()
            notice = session.notice()
            self.assertTrue(notice.startswith(word), notice)
            self.assertEqual(session.notice(), "The next line dials again.")
            session.expect("echo> tw")
            session.type("o\n")
            self.assertEqual(session.notice(), "Connected again.")
            session.expect("TWO\r\necho> ")
            session.type(b"\x04")
            session.ends(0)

    def test_line_is_lost(self):
        """A line without its reply is not sent again by itself."""
        lines = []

        def script(connection):
            lines.append(connection.recv(1024))
            if len(lines) > 1:
                connection.sendall(lines[-1].upper())
                connection.recv(1024)
        session = self.start(script)
        session.type("one\n")
        self.assertTrue(session.notice().startswith("CLOSED "))
        self.assertIn("is not sent again", session.notice())
        session.expect("echo> ")
        session.type("two\n")
        self.assertEqual(session.notice(), "Connected again.")
        session.expect("TWO\r\necho> ")
        session.type(b"\x04")
        session.ends(1)
        self.assertEqual(lines, [b"one", b"two"])

    def test_server_stays_away(self):
        """A line that cannot be sent is told so, and the session goes on."""
        peer = peers.play(self, peers.echo)
        session = Session(self, *peer.address)
        session.expect("echo> ")
        peer.stop()
        self.assertRegex(session.notice(), "^(CLOSED|RESET) ")
        session.notice()
        session.expect("echo> ")
        session.type("one\n")
        self.assertTrue(session.notice().startswith("REFUSED "))
        self.assertIn("was not sent", session.notice())
        session.expect("echo> ")
        session.type(b"\x04")
        session.ends(1)

    def test_refused(self):
        """Without a server there is no prompt: REFUSED, 1."""
        session = Session(self, *peers.nobody())
        self.assertTrue(session.notice().startswith("REFUSED "))
        session.ends(1)
        self.assertEqual(session.shown, b"")

    def test_silence(self):
        """-W limits the wait for a reply: TIMEOUT, 1."""
        session = self.start(peers.mute, "-W", "0.05")
        session.type("abc\n")
        self.assertTrue(session.notice().startswith("TIMEOUT "))
        session.notice()
        session.expect("echo> ")
        session.type(b"\x04")
        session.ends(1)

    def test_wrong_echo(self):
        """WRONG is told at once, and 3 at the end, whatever follows."""
        first = [peers.corrupt]
        session = self.start(
            lambda connection: (first.pop() if first else peers.echo)(
                connection))
        session.type("a\n")
        self.assertIn("sent b'a', got b'Q'", session.notice())
        self.assertEqual(session.notice(), "The line was answered, but "
                         "wrongly; the next one dials again.")
        session.type("b\n")
        self.assertEqual(session.notice(), "Connected again.")
        session.expect("\r\nB\r\necho> ")
        session.type(b"\x04")
        session.ends(3)

    def test_banner(self):
        """A service that speaks first is found out at the prompt."""
        go = threading.Event()
        session = self.start(peers.after(0, peers.banner, go))
        go.set()
        self.assertIn("sent nothing, got b'220 mail", session.notice())
        session.notice()
        session.expect("echo> ")
        session.type(b"\x04")
        session.ends(3)

    def test_control_d_when_the_server_does_not_end(self):
        """The farewell is not waited for; nothing else was owed."""
        go = threading.Event()
        session = self.start(lambda connection: go.wait(PATIENCE),
                             "-W", "0.05")
        self.addCleanup(go.set)
        session.type(b"\x04")
        session.ends(0)

    def test_control_d_and_a_last_word(self):
        """Bytes that come instead of the end are wrong: 3."""
        def script(connection):
            peers.mute(connection)
            connection.sendall(b"bye")
        session = self.start(script)
        session.type(b"\x04")
        self.assertIn("sent nothing, got b'bye'", session.notice())
        session.ends(3)

    def test_history(self):
        """The last line comes back with a key, and from no file."""
        with tempfile.TemporaryDirectory() as home:
            session = self.start(peers.echo, env={"HOME": home})
            session.type("first\n")
            session.expect("FIRST\r\necho> ")
            session.type(b"\x10\n")             # Ctrl-P
            session.expect("FIRST\r\necho> ")
            session.type(b"\x04")
            session.ends(0)
            self.assertEqual(os.listdir(home), [])

    def test_no_more_threads_than_prompts(self):
        """The watcher of a prompt ends with it."""
        session = self.start(peers.echo)
        for _ in range(5):
            session.type("abc\n")
            session.expect("ABC\r\necho> ")
        tasks = "/proc/%d/task" % session.process.pid
        if os.path.isdir(tasks):
            until(lambda: len(os.listdir(tasks)) <= 2, "the threads' end")
        session.type(b"\x04")
        session.ends(0)


class WatchTests(TestCase):
    """The prompt's companion, without a terminal."""

    def repl(self, script):
        """Return a Repl that is connected to a peer that plays script."""
        result = repl.Repl(peers.play(self, script).address, PATIENCE, "")
        result._connection = Connection(result.address, PATIENCE)
        self.addCleanup(result._drop)
        return result

    def test_server_that_is_quicker_than_the_prompt(self):
        """It is told before the prompt, which is then shown once."""
        for script, worst in (peers.banner, 3), (peers.end, 0):
            session = self.repl(script)
            until(session._connection.is_stale, "the server's first word")
            with mock.patch.object(repl, "input", create=True, side_effect=(
                    lambda prompt: self.assertIsNone(session._connection))), \
                    contextlib.redirect_stderr(io.StringIO()) as err:
                session._ask()
            self.assertEqual((session._worst, err.getvalue().count("\n")),
                             (worst, 2))

    def test_interrupted_at_every_line(self):
        """Ctrl-C at any line of the module leaves no watcher behind."""
        # What socketpair() returns may be lost before it has a name.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            self.assertGreater(self.strike_one_line_after_the_other(), 20)

    def strike_one_line_after_the_other(self):
        session = self.repl(peers.echo)
        connection = session._connection
        for line in range(1000):
            countdown = [line]
            with mock.patch.object(repl, "input", create=True,
                                   side_effect=["", EOFError]), \
                    mock.patch.object(session, "_leave", return_value=0):
                sys.settrace(striking_in(repl.__file__, countdown))
                try:
                    code = session._loop()
                except KeyboardInterrupt:
                    code = 130
                finally:
                    sys.settrace(None)
            until(lambda: "_run" not in [
                frame.f_code.co_name
                for frame in sys._current_frames().values()
                if frame.f_code.co_filename == repl.__file__], "its end")
            if not code:
                self.assertFalse(connection.is_stale())
                return line

    def test_no_thread_or_descriptor_for_it(self):
        """The prompt does without."""
        session = self.repl(peers.echo)
        session._connection.echo(b"abc")        # the peer has its thread
        for what, error in (("threading.Thread.start", RuntimeError),
                            ("socket.socketpair", OSError)):
            with mock.patch(what, side_effect=error), \
                    mock.patch.object(repl, "input", create=True,
                                      return_value="abc"):
                self.assertEqual(session._ask(), "abc")


class TextTests(unittest.TestCase):

    def test_shown_control_characters(self):
        """A terminal is not told to do anything, but a tab is text."""
        self.assertEqual(repl.shown(b"a\tb\x1b[2J\x7f\xc2\x9b", "utf-8"),
                         "a\tb\\x1b[2J\\x7f\\x9b")

    def test_shown_in_other_encodings(self):
        """What the encoding has is shown, the rest escaped."""
        self.assertEqual(repl.shown("é€".encode(), "latin-1"), "é\\u20ac")

    def test_encoded(self):
        """Undecoded bytes come back, and half a pair does not raise."""
        self.assertEqual(repl.encoded("é\udcff"), b"\xc3\xa9\xff")
        self.assertEqual(repl.encoded("a\ud83d"), b"a?")
