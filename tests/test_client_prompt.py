"""The client program at a terminal, which is a pseudo-terminal here."""

import io
import os
import signal
import socket
import subprocess
import tempfile
import threading
import unittest
from unittest import mock

from echoserver.client.output import encoded
from echoserver.client.prompt import shown

from . import peers
from .faces import ClientTestCase, Terminal, at_rest
from .support import PATIENCE, PLAIN, until

try:
    import pty
    import readline
    import termios
except ImportError:
    pty = readline = None

UTF_8 = {"LC_ALL": "C.UTF-8"}
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


class Session:
    """The program at a terminal of its own, with standard error apart.

    Attributes: process; shown, what the terminal has shown and no expect()
    has passed by.
    """

    def __init__(self, test, *args, env=(), stdout=None, **options):
        self.test = test
        self.shown = b""
        self.master, slave = pty.openpty()
        self.process = test.client(
            *args, stdin=slave, stdout=stdout or slave, env=dict(
                dict(PLAIN, TERM="dumb", INPUTRC=os.devnull), **dict(
                    env)), **options)
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
        os.write(self.master, encoded(text))

    def expect(self, text):
        """Read until the terminal shows text; return what came before."""
        while encoded(text) not in self.shown:
            self.test.readable(self.master, "%r, after %r" % (
                text, self.shown))
            try:
                self.shown += os.read(self.master, 1 << 16)
            except OSError:     # EIO: the program has ended
                self.test.fail("expected %r, got %r and %r" % (
                    text, self.shown, self.notices()))
        before, _, self.shown = self.shown.partition(encoded(text))
        return before

    def converse(self, typed, shown):
        """Type a line, and expect what is shown before the next prompt."""
        self.type(typed + "\n")
        return self.expect(shown + "\r\necho> ")

    def notices(self):
        """End the program if need be, and return its standard error."""
        self.process.kill()
        return self.process.stderr.read().decode()

    def notice(self):
        """Return the next line on standard error."""
        return self.test.read_line(self.process.stderr).decode().rstrip()

    def interrupt(self, *numbers):
        """Send signals when the program waits.

        One that comes between the last key and the select() after it stays
        unnoticed until the next key, in every readline of CPython.
        """
        until(lambda: at_rest(self.process), "the program to wait")
        for number in numbers or [signal.SIGINT]:
            self.process.send_signal(number)

    def ends(self, code, key="\x04"):
        """Check the exit code after Ctrl-D, and that nothing is left
        unsaid."""
        if key:
            self.type(key)
        self.test.assertEqual(self.process.wait(PATIENCE), code)
        self.test.assertEqual(self.notices(), "")


@unittest.skipIf(pty is None, "no pseudo-terminals or no readline")
class TerminalTests(ClientTestCase):

    def start(self, script, *args, **options):
        """Return a session with a peer that plays script, after its prompt."""
        address = self.play(script, peers.echo)
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
            for data in iter(lambda: connection.recv(1024), b""):
                received.append(data)
                connection.sendall(data.upper())
        with tempfile.TemporaryDirectory() as home:
            session = self.start(script, env={"HOME": home})
            session.converse("  hello world ", "  HELLO WORLD ")
            session.converse("", "")
            session.converse("  ", "")
            session.converse("again", "AGAIN")
            session.converse("\x10", "AGAIN")       # Ctrl-P
            session.ends(0)
            self.assertEqual(os.listdir(home), [])
        self.assertEqual(received, [b"  hello world ", b"again", b"again"])

    def test_text_and_what_is_none(self):
        """Blocks of 1024 bytes may cut a message and its characters; what is
        not UTF-8 is sent as it is typed."""
        def lesson(connection):
            for data in iter(lambda: connection.recv(1024), b""):
                connection.send(data.upper())
        text = "x" + "äöü€😀" * 100
        session = self.start(lesson, env=dict(
            UTF_8, PYTHONIOENCODING="utf-8:strict"))
        session.converse(text, "X" + text[1:])
        session.converse("a\udcffb", "\r\nA\\xffB")
        session.ends(0)

    def test_terminal_that_shows_only_ascii(self):
        """UTF-8 is sent as it is typed, and its reply escaped; so is the
        prompt."""
        session = Session(self, "--prompt", "é: ", *self.play(peers.echo),
                          env=ASCII)
        session.expect("\\xe9: ")
        session.type("é€\n")
        session.expect("\r\n\\xe9\\u20ac\r\n\\xe9: ")
        session.type("\udcff\n")
        session.expect("\r\n\\xff\r\n\\xe9: ")
        session.notice()
        session.ends(0)

    def test_output_that_is_no_terminal(self):
        """No prompt, no notice: the replies and nothing else, and a line that
        a terminal without a line editor has cut is told.  If nobody reads
        them, 141, quietly."""
        for code in 0, 141:
            session = Session(self, *self.play(peers.echo),
                              stdout=subprocess.PIPE, env=UTF_8)
            stdout = session.process.stdout
            session.type("é\n")
            self.assertEqual(self.read_line(stdout), "é\n".encode())
            if code:
                stdout.close()
                session.type("abc\n")
                session.ends(141, key="")
                break
            session.type("a" * 5000 + "\n")
            self.assertRegex(session.notice(), "passes on 4095 bytes of a "
                             "line, and may have cut this one")
            self.assertEqual(self.read_line(stdout), b"A" * 4095 + b"\n")
            session.type("\x04")
            self.assertEqual(stdout.read(), b"")
            session.ends(0, key="")

    def test_signals_that_end_it(self):
        """The terminal has its mode back, and then the signal has its
        effect."""
        for number in signal.SIGTERM, signal.SIGQUIT:
            # A background job of a script has SIGQUIT ignored.
            session = self.start(peers.echo, preexec_fn=lambda: signal.signal(
                number, signal.SIG_DFL))
            session.expect_quiet_keys()
            session.interrupt(number)
            self.assertEqual(session.process.wait(PATIENCE), -number)
            self.assertTrue(termios.tcgetattr(session.master)[3]
                            & termios.ECHO)

    def test_terminal_that_closes(self):
        """It is the end of input, where SIGHUP is ignored."""
        for options in {}, {"stdout": subprocess.PIPE}:
            session = Session(self, *self.play(peers.echo), preexec_fn=(
                lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)),
                **options)
            session.type("abc\n")
            if options:
                self.assertEqual(self.read_line(session.process.stdout),
                                 b"ABC\n")
            else:
                session.expect("ABC")
                session.notice()
            session.close()
            session.ends(0, key="")

    def test_control_c(self):
        """A line that has begun is dropped, a reply that does not come is
        given up, and the session goes on; on an empty line it is the end."""
        taken = threading.Event()

        def script(connection):
            connection.sendall(connection.recv(1024).upper())
            connection.recv(1024)
            taken.set()
            peers.mute(connection)
        session = self.start(script)
        session.type("abc")
        session.expect("abc")
        session.interrupt()
        session.expect("echo> ")
        self.assertNotIn(b"ABC", session.converse("def", "DEF"))
        session.type("mute\n")
        self.assertTrue(taken.wait(PATIENCE))
        session.interrupt()
        self.assertRegex(session.notice(), "may have arrived.*connects again")
        session.expect("echo> ")
        session.converse("abc", "ABC")
        self.assertRegex(session.notice(), "^Connected to ")
        session.interrupt()
        session.ends(130, key="")

    @unittest.skipUnless(hasattr(signal, "SIGCONT"), "no job control")
    def test_stopped_and_continued(self):
        """After Ctrl-Z and fg, what was typed is shown and edited as before,
        whatever mode the shell has left the terminal in; a reply is waited
        for as before."""
        taken, go = threading.Event(), threading.Event()

        def script(connection):
            connection.sendall(connection.recv(1024).upper())
            data = connection.recv(1024)
            taken.set()
            go.wait(PATIENCE)
            connection.sendall(data.upper())
            peers.mute(connection)
        session = self.start(script)
        session.type("half a li")
        session.expect("half a li")
        cooked = termios.tcgetattr(session.master)
        cooked[3] |= termios.ECHO | termios.ICANON
        session.interrupt(signal.SIGSTOP)
        termios.tcsetattr(session.master, termios.TCSANOW, cooked)
        session.process.send_signal(signal.SIGCONT)
        session.expect("echo> half a li")
        session.expect_quiet_keys()
        session.converse("ne", "HALF A LINE")
        session.type("wait\n")
        self.assertTrue(taken.wait(PATIENCE))
        session.interrupt(signal.SIGSTOP, signal.SIGCONT)
        go.set()
        session.expect("WAIT\r\necho> ")
        session.ends(0)


class PromptTests(ClientTestCase):
    """What is the same without a terminal."""

    def converse_after(self, look, typed, *args):
        """Return the outcome of typing lines, with look() before each but the
        first."""
        class Typing(io.BytesIO):
            def read1(self, *args):
                if self.tell():
                    look()
                return self.readline()
        return self.here(*args, stdin=Terminal(Typing(typed)),
                         stdout=Terminal())

    def test_loss_at_the_prompt(self):
        """It is told when a line is entered, which goes over a new
        connection: nothing is lost."""
        for then, word in (lambda connection: connection.shutdown(
                socket.SHUT_WR), "CLOSED"), (peers.cut, "RESET"):
            gone = threading.Event()

            def script(connection):
                peers.after(3, then)(connection)
                gone.set()
            code, out, err = self.converse_after(
                lambda: gone.wait(PATIENCE), b"one\ntwo\n",
                *self.play(script, peers.echo))
            self.assertEqual(code, 0)
            self.assertRegex("\n".join(err), "(?s)^Connected [^\n]*\n%s [^\n]*"
                             " after at most [^\n]*, with nothing unanswered[^"
                             "\n]*\nConnected [^\n]*$" % word)
            self.assertRegex(out, b"ONE\n.*TWO\n")

    def test_line_is_lost(self):
        """A line without its reply, or with a wrong one, is told at once, and
        not sent again by itself; the exit code tells the worst."""
        def script(connection):
            lines.append(connection.recv(1024))
            connection.sendall(lines[-1].upper())
        for first, worst, words in (
                (lambda connection: connection.recv(1024), 1, "CLOSED"),
                (peers.corrupt, 3, "WRONG")):
            lines = []
            code, out, err = self.converse(b"a\nb\n", *self.play(
                first, script))
            self.assertEqual((code, lines), (worst, [b"b"]))
            self.assertIn(b"B\n", out)
            self.assertEqual([line.split()[0] for line in err],
                             ["Connected", words, "The", "Connected"])
            self.assertIn("may have arrived and is not sent again", err[2])

    def test_server_stays_away(self):
        """A line that cannot be sent is told so, and the session goes on."""
        peer = peers.play(self, peers.echo)
        code, out, err = self.converse_after(peer.stop, b"one\ntwo\nsix\n",
                                             *peer.address)
        self.assertEqual((code, [line.split()[0] for line in err]), (
            1, ["Connected", "CLOSED", "REFUSED", "The", "REFUSED", "The"]))
        self.assertIn("was not sent", err[3])

    def test_last_word(self):
        """What a service says before the first line, or at the end, is found
        out at the end at least: 3."""
        def bye(connection):
            peers.mute(connection)
            connection.sendall(b"bye")
        for script, word in (peers.banner, "220 mail"), (bye, "bye"):
            code, out, err = self.converse(b"", *self.play(script))
            self.assertEqual(code, 3)
            self.assertIn("sent nothing, got b'" + word, err[1])

    def test_control_d_when_the_server_does_not_end(self):
        """The farewell is not waited for; nothing else was owed."""
        for limit, farewell in ("0", 0.05), ("600", 0.05), ("0.1", 600):
            with mock.patch("echoserver.client.prompt.FAREWELL", farewell):
                code, out, err = self.converse(b"", "-W", limit, *self.play(
                    peers.hold))
            self.assertEqual((code, len(err)), (0, 1))


class TextTests(unittest.TestCase):

    def test_shown_control_characters(self):
        """A terminal is not told to do anything, but a tab is text."""
        for code in range(256):
            self.assertEqual(shown(chr(code).encode()), chr(code) if (
                code == 9 or chr(code).isprintable() or code in (160, 173))
                else "\\x%02x" % code)

    def test_encoded(self):
        """Undecoded bytes come back."""
        self.assertEqual(encoded("é\udcff"), b"\xc3\xa9\xff")
