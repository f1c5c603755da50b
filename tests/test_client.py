"""The client program as a filter: what comes out, and the exit codes."""

import contextlib
import errno
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import unittest
from unittest import mock

from echoserver.client import __main__ as client
from echoserver.client import connection, diagnosis

from . import peers
from .support import PATIENCE, ROOT, TestCase, python


# What the tests are run with must not decide what they see.
ENVIRONMENT = {name: value for name, value in os.environ.items()
               if name not in ("COLUMNS", "PYTHONUNBUFFERED")}


class ClientTestCase(TestCase):
    """A TestCase with a scripted server and the program to try on it."""

    def play(self, script):
        """Return the host and port of a peer that plays script."""
        return peers.play(self, script).address

    def client(self, *args, **options):
        # Unbuffered: select() knows nothing of lines in a buffer.
        options.setdefault("bufsize", 0)
        options.setdefault("env", ENVIRONMENT)
        return self.run_program("echoserver.client", *args, **options)

    def hurried(self, statement, *args, **options):
        """Start the program after a statement, which shortens a wait."""
        process = subprocess.Popen(python(
            "-c", "import sys\nfrom echoserver.client import (__main__ as "
            "client, pipe,\ncounting as roundtrips)\n%s\n"
            "sys.exit(client.main())" % statement,
            *map(str, args)), cwd=ROOT, env=ENVIRONMENT, bufsize=0,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            **dict({"stderr": subprocess.PIPE}, **options))
        self.addCleanup(self._end, process)
        return process

    def here(self, *args, encoding="ascii"):
        """Run the program in this process; return its outcome."""
        out = io.TextIOWrapper(io.BytesIO(), encoding, write_through=True)
        with contextlib.redirect_stdout(out), \
                contextlib.redirect_stderr(io.StringIO()) as err:
            code = client.main([str(arg) for arg in args])
        return code, out.buffer.getvalue(), err.getvalue().splitlines()

    def outcome(self, process, data=None):
        """Return exit code, output and the lines of standard error."""
        out, err = process.communicate(data, PATIENCE)
        self.assertNotIn(b"Traceback", err)
        return process.returncode, out, err.decode().splitlines()

    def assertFails(self, outcome, code, word, address, out=b""):
        """Check an outcome with one line: word, host:port, a sentence."""
        self.assertEqual(outcome[:2], (code, out), outcome)
        self.assertEqual(len(outcome[2]), 1, outcome)
        self.assertRegex(outcome[2][0],
                         r"^%s %s:%d:? \w.*; \w" % ((word,) + address))
        return outcome[2][0]


class PipeTests(ClientTestCase):

    def test_pipe_bytes(self):
        """Every byte value comes through, and the exit code is 0."""
        data = bytes(range(256)) * 3
        process = self.client(*self.play(peers.echo))
        self.assertEqual(self.outcome(process, data), (0, data.upper(), []))

    def test_pipe_empty(self):
        """No input is answered by no output."""
        process = self.client(*self.play(peers.echo))
        self.assertEqual(self.outcome(process, b""), (0, b"", []))

    def test_pipe_large(self):
        """More than all buffers hold passes."""
        data = os.urandom(1 << 20) * 16
        process = self.client(*self.play(peers.echo))
        code, out, err = self.outcome(process, data)
        self.assertEqual((code, err), (0, []))
        self.assertTrue(out == data.upper())

    def test_pipe_interactive(self):
        """A reply is written when it is there, not at the end."""
        process = self.client(*self.play(peers.echo))
        for word in b"one\n", b"two\n":
            process.stdin.write(word)
            process.stdin.flush()
            self.assertEqual(self.read_line(process.stdout), word.upper())
        self.assertEqual(self.outcome(process)[0], 0)

    def test_pipe_tail(self):
        """A server that waits for the end of input may reply then."""
        def script(connection):
            data = b""
            while True:
                more = connection.recv(1 << 16)
                if not more:
                    break
                data += more
            connection.sendall(data.upper())
        process = self.hurried("pipe.LINGER = .01", *self.play(script))
        self.assertEqual(self.outcome(process, b"abc"), (0, b"ABC", []))

    def test_refused(self):
        """REFUSED, 1: nobody listens there."""
        address = peers.nobody()
        self.assertFails(self.outcome(self.client(*address), b"abc"),
                         1, "REFUSED", address)

    def test_no_such_host(self):
        """DNS, 1: the name has no address."""
        for host in "nosuch.invalid", "a..b":
            self.assertFails(self.here(host, 80), 1, "DNS", (host, 80))

    def test_unreachable(self):
        """REFUSED, 1: the system's words for an address it cannot dial."""
        self.assertFails(self.here("255.255.255.255", 80),
                         1, "REFUSED", ("255.255.255.255", 80))

    def test_mute(self):
        """TIMEOUT, 1: silence for longer than -W."""
        address = self.play(peers.mute)
        process = self.client("-W", "0.1", *address)
        process.stdin.write(b"abc")
        process.stdin.flush()
        self.assertEqual(process.wait(PATIENCE), 1)
        line = self.assertFails(self.outcome(process), 1, "TIMEOUT", address)
        self.assertIn("3 bytes unanswered", line)

    def lost(self, then):
        """Send three lines to a server that answers one and plays then.

        Standard input stays open: the loss must be noticed all the same.
        """
        go = threading.Event()
        address = self.play(peers.after(4, then, go, request=12))
        process = self.client(*address)
        process.stdin.write(b"one\ntwo\nsix\n")
        process.stdin.flush()
        self.assertEqual(self.read_line(process.stdout), b"ONE\n")
        go.set()
        self.assertEqual(process.wait(PATIENCE), 1)
        return self.outcome(process), address

    def test_end_after_one_of_three(self):
        """CLOSED, 1: the stream ends after one reply of three."""
        outcome, address = self.lost(peers.end)
        line = self.assertFails(outcome, 1, "CLOSED", address)
        self.assertIn("8 bytes unanswered", line)

    def test_cut_after_one_of_three(self):
        """RESET, 1: the connection is cut after one reply of three."""
        outcome, address = self.lost(peers.cut)
        line = self.assertFails(outcome, 1, "RESET", address)
        self.assertIn("8 bytes unanswered", line)

    def test_end_while_idle(self):
        """CLOSED, 1: the stream ends before our input does."""
        address = self.play(peers.end)
        process = self.client(*address)
        self.assertEqual(process.wait(PATIENCE), 1)
        self.assertFails(self.outcome(process), 1, "CLOSED", address)

    def test_cut_while_sending(self):
        """RESET or CLOSED, 1: what was answered before is not lost."""
        def script(connection):
            connection.sendall(peers.take(connection, 4).upper())
        address = self.play(script)
        code, out, err = self.outcome(self.client(*address),
                                      b"one\n" + bytes(1 << 24))
        self.assertEqual(code, 1)
        self.assertIn(out, (b"", b"ONE\n"))     # a reset may overtake it
        self.assertRegex(err[0], "^(RESET|CLOSED) ")

    def test_corrupt(self):
        """WRONG, 3: offset, sent and got are told."""
        address = self.play(peers.corrupt)
        line = self.assertFails(self.outcome(self.client(*address), b"\xffa"),
                                3, "WRONG", address)
        self.assertIn(r"offset 1: sent b'a', got b'Q'", line)

    def test_verbatim(self):
        """WRONG, 3: a plain echo is not an uppercase echo."""
        address = self.play(peers.verbatim)
        self.assertFails(self.outcome(self.client(*address), b"abc"),
                         3, "WRONG", address)

    def test_banner(self):
        """WRONG, 3: a service that speaks first, asked or not."""
        address = self.play(peers.banner)
        both = self.client(*address), self.client(*address)
        for process, data in zip(both, (b"abc", b"")):
            line = self.assertFails(self.outcome(process, data),
                                    3, "WRONG", address)
            self.assertIn("got b'220 mail", line)

    def test_addition(self):
        """WRONG, 3: bytes after the reply, at the end of the stream."""
        def script(connection):
            peers.after(3, lambda connection: peers.take(connection, 1))(
                connection)
            connection.sendall(b"bye")
        address = self.play(script)
        outcome = self.outcome(self.client(*address), b"abc")
        self.assertIn(outcome[1], (b"", b"ABC"))    # came together or not
        line = self.assertFails(outcome, 3, "WRONG", address, outcome[1])
        self.assertIn("offset 3: sent nothing, got b'bye'", line)

    def test_interrupted(self):
        """130, quietly: Ctrl-C."""
        process = self.client(*self.play(peers.echo))
        process.stdin.write(b"one\n")
        process.stdin.flush()
        self.read_line(process.stdout)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(PATIENCE), 130)
        self.assertEqual(self.outcome(process), (130, b"", []))

    def test_closed_output(self):
        """141, quietly: nobody reads the replies any more."""
        process = self.client(*self.play(peers.echo))
        process.stdin.write(b"one\n")
        process.stdin.flush()
        self.assertEqual(self.read_line(process.stdout), b"ONE\n")
        process.stdout.close()
        process.stdin.write(b"two\n")
        process.stdin.flush()
        self.assertEqual(process.wait(PATIENCE), 141)
        self.assertEqual(process.stderr.read(), b"")


class StreamTests(ClientTestCase):
    """Standard streams that are not what one expects."""

    def shell(self, command, *args):
        """Run command in a shell, with the program's words as "$@"."""
        process = subprocess.Popen(
            ["sh", "-c", command, sys.executable]
            + python("-m", "echoserver.client", *map(str, args)),
            cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
        self.addCleanup(self._end, process)
        return process

    def test_no_input(self):
        """2: nothing is read, nobody is called."""
        code, out, err = self.outcome(self.shell('"$@" <&-', *peers.nobody()))
        self.assertEqual((code, out, len(err)), (2, b"", 1))
        self.assertIn("standard input is closed; ", err[0])

    def test_no_output(self):
        """2: nobody is called."""
        process = self.shell('"$@" >&-', *peers.nobody())
        code, out, err = self.outcome(process, b"abc")
        self.assertEqual((code, out, len(err)), (2, b"", 1))
        self.assertIn("standard output is closed; ", err[0])

    def test_no_output_in_every_face(self):
        """2, at a terminal and with --count, too."""
        for args in [], ["--count=1"]:
            with mock.patch("sys.stdin", mock.Mock(**{
                    "isatty.return_value": True})), \
                    mock.patch("sys.stdout", None), \
                    contextlib.redirect_stderr(io.StringIO()) as err:
                self.assertEqual(client.main(args), 2)
            self.assertIn("standard output is closed; ", err.getvalue())

    def test_no_error_output_in_every_face(self):
        """There is one afterwards, for input() and argparse need it."""
        for args, code in (["--nonsense"], 2), (["-c1"] + [
                str(word) for word in peers.nobody()], 1):
            with mock.patch("sys.stderr", None), \
                    contextlib.redirect_stdout(io.StringIO()):
                self.assertEqual(client.main(args), code)
                self.assertEqual(sys.stderr.name, os.devnull)
                sys.stderr.close()

    def test_no_error_output(self):
        """No standard error hides the line, which goes nowhere else."""
        process = self.shell('"$@" 2>&-', *peers.nobody())
        self.assertEqual(self.outcome(process, b"abc"), (1, b"", []))

    def test_unreadable_input(self):
        """2: standard input is open for writing only."""
        code, out, err = self.outcome(
            self.shell('"$@" 0>/dev/null', *self.play(peers.echo)))
        self.assertEqual((code, out, len(err)), (2, b"", 1))
        self.assertIn("standard input cannot be read", err[0])

    @unittest.skipUnless(os.path.exists("/dev/full"), "no full device")
    def test_unwritable_output(self):
        """2: standard output is full, for the replies and for --help."""
        for process in [self.shell('"$@" >/dev/full', *words)
                        for words in (self.play(peers.echo), ["--help"])]:
            code, out, err = self.outcome(process, b"abc")
            self.assertEqual((code, len(err)), (2, 1), err)
            self.assertIn("standard output cannot be written", err[0])

    def test_nonblocking_streams(self):
        """Descriptors that somebody has set to O_NONBLOCK work too."""
        data = os.urandom(1 << 20)
        process = self.shell(
            '"$0" -c "import os\nfor fd in 0, 1: os.set_blocking(fd, False)"'
            ' && "$@"', *self.play(peers.echo))
        process.stdin.write(b"first\n")
        process.stdin.flush()
        self.assertEqual(self.read_line(process.stdout), b"FIRST\n")
        code, out, err = self.outcome(process, data)
        self.assertEqual((code, out == data.upper(), err), (0, True, []))


class UsageTests(ClientTestCase):

    def refuses(self, *args):
        """Check exit code 2, and return the sentence."""
        with contextlib.redirect_stderr(io.StringIO()) as err:
            self.assertEqual(client.main(args), 2)
        return err.getvalue().splitlines()[-1]

    def test_port_out_of_range(self):
        """2: a port that cannot be is one clear sentence."""
        for port in "0", "65536", "-1", "http", "8080.0":
            with self.subTest(port):
                self.assertIn("must be a whole number from 1 to 65535",
                              self.refuses("--", "localhost", port))

    def test_port_without_host(self):
        """2: a lone number is taken for the slip that it is."""
        self.assertIn("127.0.0.1 8080", self.refuses("8080"))

    def test_seconds_that_are_none(self):
        """2: no infinite, negative or undefined time."""
        for text in "nan", "inf", "-1", "1e9", "soon":
            with self.subTest(text):
                self.assertIn("must be a number of seconds",
                              self.refuses("--timeout=" + text))

    def test_usage_of_a_process(self):
        """2: usage on standard error, nothing on standard output."""
        code, out, err = self.outcome(self.client("--nonsense"), b"")
        self.assertEqual((code, out, err[0][:6]), (2, b"", "usage:"))

    def test_measure_without_count(self):
        """2: what measures needs --count, and shows no prompt."""
        self.assertIn("--json goes with --count", self.refuses("--json"))
        self.assertIn("--prompt does not go with --count",
                      self.refuses("--prompt", "> ", "--count", "1"))

    def test_version(self):
        """--version prints the version on standard output."""
        self.assertEqual(self.here("--version"), (
            0, b"echoserver %s\n" % client.__version__.encode(), []))

    def test_help_into_a_closed_pipe(self):
        """141: | true"""
        reader, writer = os.pipe()
        os.close(reader)
        try:
            process = self.client("--help", stdout=writer)
        finally:
            os.close(writer)
        self.assertEqual(process.communicate(b"", PATIENCE)[1], b"")
        self.assertEqual(process.returncode, 141)

    def test_help_names_the_exit_codes(self):
        """--help is manual enough."""
        out = self.here("--help")[1]
        for word in b"REFUSED", b"141", b"--count", b"Ctrl-D":
            self.assertIn(word, out)


class ShortageTests(ClientTestCase):
    """What this host is short of is no fault of the server's."""

    def test_shortage_in_every_face(self):
        """2, and a sentence about this host."""
        error = OSError(errno.EMFILE, "Too many open files")
        for args in [], ["--count=2", "--interval=0"]:
            for stdin in io.StringIO(), mock.Mock():     # a Mock is a tty
                with mock.patch.object(connection, "_dial",
                                       side_effect=error), \
                        mock.patch("sys.stdin", stdin):
                    code, out, err = self.here(*args)
                self.assertEqual((code, len(err)), (2, 1), err)
                self.assertRegex(err[0], "^this host is out of descriptors; ")

    def test_shortage_before_dialling(self):
        """So too where the first descriptor is missing."""
        with mock.patch("socket.socketpair", side_effect=OSError(
                errno.ENFILE, "Too many open files in system")):
            code, out, err = self.here("--count", 1)
        self.assertEqual((code, len(err)), (2, 1), err)
        self.assertRegex(err[0], "^this host is out of descriptors; ")

    def test_shortage_of_threads(self):
        """The filter and the count need one."""
        for args in [], ["--count=1"]:
            with mock.patch("threading.Thread.start",
                            side_effect=RuntimeError("can't start")), \
                    mock.patch.object(connection, "_dial",
                                      lambda *args: socket.socket()), \
                    mock.patch("sys.stdin", io.StringIO()):
                code, out, err = self.here(*args)
            self.assertEqual((code, len(err)), (2, 1), err)
            self.assertRegex(err[0], "^this host is out of threads")

    def test_numbers_of_the_resolver(self):
        """They mean something else, whatever they are."""
        error = socket.gaierror(errno.ENOMEM, "Not known")
        self.assertEqual(diagnosis.diagnose(error, ("name", 80))[0], 1)
