"""The client program at a terminal, which is a pseudo-terminal here."""

import io
import os
import select
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

from echoserver.client.output import encoded
from echoserver.client.prompt import shown

from . import peers
from .faces import ENVIRONMENT, ClientTestCase, Terminal, at_rest
from .support import PATIENCE, until

try:
    import pty
    import readline
    import termios
except ImportError:
    pty = readline = None

UTF_8 = {"LC_ALL": "C.UTF-8"}
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


def once(script, then=peers.echo):
    """Return a script for the first connection; others have then."""
    scripts = [script]
    return lambda connection: (scripts.pop() if scripts else then)(connection)


class Session:
    """The program at a terminal of its own, with standard error apart.

    Attributes: process; shown, what the terminal has shown and no expect()
    has passed by.
    """

    def __init__(self, test, *args, env=(), stdout=None, **options):
        self.test = test
        self.shown = b""
        self.master, slave = pty.openpty()
        environment = dict(ENVIRONMENT, TERM="dumb", INPUTRC=os.devnull)
        environment.update(env)
        self.process = test.client(
            *args, stdin=slave, stdout=stdout or slave, env=environment,
            **options)
        os.close(slave)
        test.addCleanup(lambda: self.master and os.close(self.master))

    def close(self):
        os.close(self.master)
        self.master = None

    def expect_quiet_keys(self):
        """Wait until the line editor has turned the echo off."""
        until(lambda: not termios.tcgetattr(self.master)[3] & termios.ECHO,
              "the line editor")

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

    def interrupt(self, number=signal.SIGINT):
        """Send a signal when the program waits.

        One that comes between the last key and the select() after it stays
        unnoticed until the next key, in every readline of CPython.
        """
        until(lambda: at_rest(self.process), "the program to wait")
        self.process.send_signal(number)

    def ends(self, code):
        """Check the exit code, and that nothing is left unsaid."""
        self.test.assertEqual(self.process.wait(PATIENCE), code)
        self.test.assertEqual(self.notices(), "")


@unittest.skipIf(pty is None, "no pseudo-terminals or no readline")
class TerminalTests(ClientTestCase):

    def start(self, script, *args, **options):
        """Return a session with a peer that plays script, after its prompt."""
        address = self.play(script)
        session = Session(self, *args + address, **options)
        session.expect("echo> ")
        self.assertEqual(session.notice(),
                         "Connected to %s:%d; Ctrl-D leaves." % address)
        return session

    def test_lines(self):
        """Each line is sent as it was typed and answered, blank ones are
        not; history comes back with a key, and from no file."""
        received = []

        def script(connection):
            for _ in range(3):
                received.append(connection.recv(1024))
                connection.sendall(received[-1].upper())
            received.append(connection.recv(1024))
        with tempfile.TemporaryDirectory() as home:
            session = self.start(script, env={"HOME": home})
            session.type("  hello world \n")
            session.expect("  HELLO WORLD \r\necho> ")
            session.type("\n")
            session.expect("echo> ")
            session.type("  \n")
            session.expect("echo> ")
            session.type("again\n")
            session.expect("AGAIN\r\necho> ")
            session.type(b"\x10\n")             # Ctrl-P
            session.expect("AGAIN\r\necho> ")
            session.type(b"\x04")
            session.ends(0)
            self.assertEqual(os.listdir(home), [])
        self.assertEqual(received, [b"  hello world ", b"again", b"again",
                                    b""])

    def test_text_and_what_is_none(self):
        """Blocks of 1024 bytes may cut a message and its characters; what is
        not UTF-8 is sent as it is typed."""
        def lesson(connection):
            data = connection.recv(1024)
            while data:
                connection.send(data.upper())
                data = connection.recv(1024)
        text = "x" + "äöü€😀" * 100
        session = self.start(lesson, env=dict(
            UTF_8, PYTHONIOENCODING="utf-8:strict"))
        session.type(text + "\n")
        session.expect("X" + text[1:] + "\r\necho> ")
        session.type(b"a\xffb\n")
        session.expect("\r\nA\\xffB\r\necho> ")
        session.type(b"\x04")
        session.ends(0)

    def test_terminal_that_shows_only_ascii(self):
        """UTF-8 is sent as it is typed, and its reply escaped; so is the
        prompt."""
        address = self.play(peers.echo)
        session = Session(self, "--prompt", "é: ", *address, env=ASCII)
        session.expect("\\xe9: ")
        session.type("é€\n")
        session.expect("\r\n\\xe9\\u20ac\r\n\\xe9: ")
        session.type(b"\xff\n")
        session.expect("\r\n\\xff\r\n\\xe9: ")
        session.notice()
        session.type(b"\x04")
        session.ends(0)

    def test_output_that_is_no_terminal(self):
        """No prompt, no notice: the replies and nothing else.  If nobody
        reads them, 141, quietly."""
        session = Session(self, *self.play(peers.echo),
                          stdout=subprocess.PIPE, env=UTF_8)
        session.type("é\n")
        self.assertEqual(self.read_line(session.process.stdout),
                         "é\n".encode())
        session.process.stdout.close()
        session.type("abc\n")
        session.ends(141)

    def test_signals_that_end_it(self):
        """The terminal has its mode back, and then the signal has its
        effect."""
        for number in signal.SIGTERM, signal.SIGQUIT:
            session = self.start(peers.echo)
            session.expect_quiet_keys()
            session.interrupt(number)
            self.assertEqual(session.process.wait(PATIENCE), -number)
            self.assertTrue(termios.tcgetattr(session.master)[3]
                            & termios.ECHO)

    def test_terminal_that_closes(self):
        """It is the end of input, where SIGHUP is ignored."""
        for options in {}, {"stdout": subprocess.PIPE}:
            address = self.play(peers.echo)
            session = Session(self, *address, preexec_fn=lambda: signal.signal(
                signal.SIGHUP, signal.SIG_IGN), **options)
            session.type("abc\n")
            if options:
                self.assertEqual(self.read_line(session.process.stdout),
                                 b"ABC\n")
            else:
                session.expect("ABC")
                session.notice()
            session.close()
            session.ends(0)

    def test_line_that_is_too_long(self):
        """A terminal without a line editor cuts it, which is told."""
        session = Session(self, *self.play(peers.echo),
                          stdout=subprocess.PIPE)
        session.type("a" * 5000 + "\n")
        self.assertRegex(session.notice(), "passes on 4095 bytes of a line, "
                         "and may have cut this one")
        self.assertEqual(self.read_line(session.process.stdout),
                         b"A" * 4095 + b"\n")

    def test_control_c(self):
        """A line that has begun is dropped, and the session goes on; on an
        empty one it is the end: 130."""
        session = self.start(peers.echo)
        session.type("abc")
        session.expect("abc")
        session.interrupt()
        session.expect("echo> ")
        session.type("def\n")
        self.assertNotIn(b"ABC", session.expect("DEF\r\necho> "))
        session.type("abc")
        session.expect("abc")
        session.interrupt()
        session.expect("echo> ")
        session.interrupt()
        session.ends(130)

    @unittest.skipUnless(hasattr(signal, "SIGCONT"), "no job control")
    def test_stopped_and_continued(self):
        """After Ctrl-Z and fg, what was typed is shown and edited as before,
        whatever mode the shell has left the terminal in."""
        session = self.start(peers.echo)
        session.type("half a li")
        session.expect("half a li")
        cooked = termios.tcgetattr(session.master)
        cooked[3] |= termios.ECHO | termios.ICANON
        until(lambda: at_rest(session.process), "the program to wait")
        session.process.send_signal(signal.SIGSTOP)
        termios.tcsetattr(session.master, termios.TCSANOW, cooked)
        session.process.send_signal(signal.SIGCONT)
        session.expect("echo> half a li")
        session.expect_quiet_keys()
        session.type("ne\n")
        session.expect("HALF A LINE\r\necho> ")
        session.type(b"\x04")
        session.ends(0)

    def test_control_c_while_waiting_for_a_reply(self):
        """The reply is given up, and the next line connects again."""
        taken = threading.Event()

        def mute(connection):
            connection.recv(1024)
            taken.set()
            connection.recv(1024)
        session = self.start(once(mute))
        session.type("mute\n")
        self.assertTrue(taken.wait(PATIENCE))
        session.interrupt()
        self.assertRegex(session.notice(), "may have arrived.*connects again")
        session.expect("echo> ")
        session.type("abc\n")
        self.assertRegex(session.notice(), "^Connected to ")
        session.expect("ABC\r\necho> ")
        session.type(b"\x04")
        session.ends(1)

    def test_loss_at_the_prompt(self):
        """It is told when a line is entered, which goes over a new
        connection: nothing is lost."""
        for then, word in (lambda connection: connection.shutdown(
                socket.SHUT_WR), "CLOSED "), (peers.cut, "RESET "):
            gone = threading.Event()

            def script(connection):
                peers.after(3, then)(connection)
                gone.set()
                if connection.fileno() > 0:
                    peers.mute(connection)
            session = self.start(once(script))
            session.type("one\n")
            session.expect("ONE\r\necho> ")
            session.type("tw")
            session.expect("tw")
            self.assertTrue(gone.wait(PATIENCE))
            session.type("o\n")
            self.assertRegex(session.notice(), "^%s.* after at most .*, with "
                             "nothing unanswered" % word)
            self.assertRegex(session.notice(), "^Connected to ")
            session.expect("TWO\r\necho> ")
            session.type(b"\x04")
            session.ends(0)


class PromptTests(ClientTestCase):
    """What is the same without a terminal."""

    def test_line_is_lost(self):
        """A line without its reply is not sent again by itself."""
        lines = []

        def script(connection):
            lines.append(connection.recv(1024))
            if len(lines) > 1:
                connection.sendall(lines[-1].upper())
                connection.recv(1024)
        code, out, err = self.converse(b"one\ntwo\n", *self.play(script))
        self.assertEqual((code, lines), (1, [b"one", b"two"]))
        self.assertIn(b"TWO\n", out)
        self.assertRegex("\n".join(err), "(?s)^Connected .*\nCLOSED .*\n"
                         "The line .* is not sent again.*\nConnected ")

    def test_server_stays_away(self):
        """A line that cannot be sent is told so, and the session goes on."""
        peer = peers.play(self, peers.echo)

        class Typing(io.BytesIO):
            def read1(self, *args):
                peer.stop()
                return super().read1(*args)
        code, out, err = self.here(
            *peer.address, stdin=Terminal(Typing(b"one\ntwo\n")),
            stdout=Terminal())
        self.assertEqual((code, [line.split()[0] for line in err]), (
            1, ["Connected", "CLOSED", "REFUSED", "The", "REFUSED", "The"]))
        self.assertIn("was not sent", err[3])

    def test_no_server(self):
        """Without a server there is no prompt: REFUSED, 1."""
        address = peers.nobody()
        self.assertFails(self.converse(b"abc\n", *address), 1, "REFUSED",
                         address)

    def test_wrong_echo(self):
        """WRONG is told at once, and 3 at the end, whatever follows."""
        code, out, err = self.converse(
            b"a\nb\n", *self.play(once(peers.corrupt)))
        self.assertEqual(code, 3)
        self.assertIn(b"B\n", out)
        self.assertIn("sent b'a', got b'Q'", err[1])
        self.assertEqual(err[2], "The line may have arrived and is not sent "
                         "again; the next one connects again.")

    def test_banner(self):
        """A service that speaks first is found out at the end at least."""
        code, out, err = self.converse(b"", *self.play(peers.banner))
        self.assertEqual(code, 3)
        self.assertIn("sent nothing, got b'220 mail", err[1])

    def test_control_d_when_the_server_does_not_end(self):
        """The farewell is not waited for; nothing else was owed."""
        over = threading.Event()
        address = self.play(lambda connection: over.wait(PATIENCE))
        self.addCleanup(over.set)
        code, out, err = self.converse(b"", "-W", "0.05", *address)
        self.assertEqual((code, len(err)), (0, 1))

    def test_control_d_and_a_last_word(self):
        """Bytes that come instead of the end are wrong: 3."""
        def script(connection):
            peers.mute(connection)
            connection.sendall(b"bye")
        code, out, err = self.converse(b"", *self.play(script))
        self.assertEqual(code, 3)
        self.assertIn("sent nothing, got b'bye'", err[1])


class TextTests(unittest.TestCase):

    def test_shown_control_characters(self):
        """A terminal is not told to do anything, but a tab is text."""
        self.assertEqual(shown(b"a\tb\x1b[2J\x7f\xc2\x9b"),
                         "a\tb\\x1b[2J\\x7f\\x9b")

    def test_encoded(self):
        """Undecoded bytes come back, and half a pair does not raise."""
        self.assertEqual(encoded("é\udcff"), b"\xc3\xa9\xff")
        self.assertEqual(encoded("a\ud83d"), b"a?")
