"""The client program's arguments and standard streams."""

import os
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

import echoserver

from . import peers
from .faces import ENVIRONMENT, ClientTestCase
from .support import PATIENCE, ROOT, python


class UsageTests(ClientTestCase):

    def refuses(self, *args):
        """Check exit code 2, and return the sentence."""
        code, out, err = self.here(*args)
        self.assertEqual((code, out), (2, b""))
        return err[-1]

    def test_port_out_of_range(self):
        """2: a port that cannot be is one clear sentence."""
        for port in "0", "65536", "-1", "http", "8080.0", "9" * 5000:
            with self.subTest(port):
                self.assertIn("is not a port (1-65535)",
                              self.refuses("--", "localhost", port))

    def test_slips(self):
        """2: each has its hint."""
        for args, hint in ((["8080"], "127.0.0.1 8080"),
                           (["http://host:8080/"], "HOST:PORT"),
                           (["host:"], "is not a port"),
                           (["host:http"], "is not a port"),
                           ([":8080"], "the host is missing"),
                           ([" "], "the host is missing"),
                           (["8080:8080"], "127.0.0.1 8080"),
                           (["[::1"], "[V6]:PORT"),
                           (["[::1]8080"], "[V6]:PORT"),
                           (["[]:80"], "[V6]:PORT"),
                           (["a:b:c"], "[V6]:PORT"),
                           (["::1:18080"], "[V6]:PORT"),
                           (["fe80::1%nosuch"], "no network interface nosuch"),
                           (["-c1", "-n999999"], "this host does not allow"),
                           (["h", "1", "a\r\n\33[2J"], "a\\r\\n\\x1b[2J"),
                           (["host:1", "2"], "two ports")):
            with self.subTest(args):
                self.assertIn(hint, self.refuses(*args))

    def test_host_and_port_in_one(self):
        """HOST:PORT and [V6]:PORT are one argument."""
        for args, expected in ((["host:80"], ("host", 80)),
                               (["[::1]:80"], ("::1", 80)),
                               (["[fe80::1%lo]"], ("fe80::1%lo", 8080)),
                               (["[::1]", "80"], ("::1", 80)),
                               (["::1"], ("::1", 8080)),
                               (["fe80::1", "80"], ("fe80::1", 80)),
                               (["host"], ("host", 8080))):
            with self.subTest(args), mock.patch(
                    "echoserver.client.pipe.run", return_value=0) as run:
                self.assertEqual(self.pipe(b"", *args)[0], 0)
                args, = run.call_args[0]
                self.assertEqual((args.host, args.port), expected)

    def test_host_in_the_locale_c(self):
        """A name with other letters is looked up as it was typed."""
        env = dict(ENVIRONMENT, LC_ALL="C", PYTHONUTF8="0",
                   PYTHONCOERCECLOCALE="0")
        process = self.client("m\u00fc\u00fc.invalid", env=env)
        code, out, err = self.outcome(process)
        self.assertEqual((code, len(err)), (1, 1))
        self.assertIn("m\\xfc\\xfc.invalid", err[0])

    def test_seconds_that_are_none(self):
        """2: no infinite, negative or undefined time."""
        for text in "nan", "inf", "-1", "1e9", "soon":
            with self.subTest(text):
                self.assertIn("must be a number of seconds",
                              self.refuses("--timeout=" + text))

    def test_numbers_at_their_limits(self):
        """2: none, or more than can be."""
        for flag, least, most in (("-c", 0, 10 ** 12), ("-s", 1, 1 << 26),
                                  ("-n", 1, 10 ** 6)):
            for value in least - 1, most + 1:
                self.assertIn("must be a whole number from %d to %d, not '%d'"
                              % (least, most, value),
                              self.refuses("-c1", "%s%d" % (flag, value)))
            with mock.patch("echoserver.client.counting.run", return_value=0):
                for value in (least, most)[:1 + (flag != "-n")]:
                    self.assertEqual(
                        self.here("-c1", "%s%d" % (flag, value))[0], 0)

    def test_usage_of_a_process(self):
        """2: usage on standard error, nothing on standard output."""
        process = self.client("--nonsense",
                              env=dict(ENVIRONMENT, FORCE_COLOR="1"))
        code, out, err = self.outcome(process, b"")
        self.assertEqual((code, out), (2, b""))
        self.assertTrue(err[0].startswith("usage: python -m echoserver.client "
                                          "["), err)
        self.assertNotIn("\x1b", "".join(err))

    def test_name_of_a_command(self):
        """A console command, or a file with both programs, is named as it was
        typed."""
        for name in "echoserver-client", "echoserver.pyz client":
            with mock.patch("sys.argv", ["/opt/bin/" + name]):
                out = self.here("--help")[1].decode()
            self.assertTrue(out.startswith("usage: %s [" % name), out)

    def test_words_that_do_not_go_together(self):
        """2: what measures needs --count, and shows no prompt."""
        self.assertIn("--reconnect goes with --count",
                      self.refuses("--reconnect", "--idle", "1"))
        self.assertIn("--json goes with --count or --idle",
                      self.refuses("--json"))
        self.assertIn("--deadline goes with --count",
                      self.refuses("-w1", "--idle", "1"))
        self.assertIn("--prompt goes with neither --count nor --idle",
                      self.refuses("--prompt", "> ", "--count", "1"))
        for both in ["-c1", "--json", "--histogram"], ["-c1", "--idle=1"]:
            self.assertIn("not allowed with", self.refuses(*both))

    def test_version(self):
        """--version prints the version on standard output."""
        self.assertEqual(self.here("--version"), (
            0, b"echoserver %s\n" % echoserver.__version__.encode(), []))

    def test_help(self):
        """--help is manual enough, and names the defaults."""
        out = self.here("--help")[1].decode()
        for word in ("REFUSED", "UNREACHABLE", "141", "143", "Ctrl-D",
                     "--count", "--idle", "--deadline", "--timestamps",
                     "HOST:PORT", "(127.0.0.1)", "(8080)", "(64)", "(1)",
                     "(10, but none at the prompt)"):
            self.assertIn(word, " ".join(out.split()))

    def test_defaults(self):
        """They are what --help says."""
        called = []

        def run(args):
            called.append(args)
            return 0
        for face in "counting", "pipe", "prompt":
            with mock.patch("echoserver.client.%s.run" % face, run):
                {"counting": lambda: self.here("--count", 1),
                 "pipe": lambda: self.pipe(b""),
                 "prompt": lambda: self.converse(b"")}[face]()
        self.assertEqual([(args.host, args.port) for args in called],
                         [("127.0.0.1", 8080)] * 3)
        self.assertEqual([args.timeout for args in called], [10, 10, None])
        counting = called[0]
        self.assertEqual((counting.size, counting.interval,
                          counting.connections, called[2].prompt),
                         (64, 1, 1, "echo> "))


class StreamTests(ClientTestCase):
    """Standard streams that are not what one expects."""

    def shell(self, command, *args):
        """Return the outcome of command in a shell, with the program's words
        as "$@" and three bytes of input."""
        process = subprocess.Popen(
            ["sh", "-c", command, sys.executable]
            + python("-m", "echoserver.client", *map(str, args)),
            cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(self._end, process)
        return self.outcome(process, b"abc")

    def test_no_input(self):
        """2: nothing is read, nobody is called."""
        code, out, err = self.shell('"$@" <&-', *peers.nobody())
        self.assertEqual((code, out, len(err)), (2, b"", 1))
        self.assertIn("standard input is closed; ", err[0])

    def test_no_output(self):
        """2: nobody is called."""
        code, out, err = self.shell('"$@" >&-', *peers.nobody())
        self.assertEqual((code, out, len(err)), (2, b"", 1))
        self.assertIn("standard output is closed; ", err[0])

    def test_no_error_output(self):
        """No standard error hides the line, which goes nowhere else."""
        for args in peers.nobody(), ["--nonsense"]:
            code, out, err = self.shell('"$@" 2>&-', *args)
            self.assertEqual((code, out, err),
                             (1 if len(args) > 1 else 2, b"", []))

    def test_unreadable_input(self):
        """2: standard input is open for writing only."""
        code, out, err = self.shell('"$@" 0>/dev/null',
                                    *self.play(peers.echo))
        self.assertEqual((code, out, len(err)), (2, b"", 1))
        self.assertIn("standard input cannot be read", err[0])

    @unittest.skipUnless(os.path.exists("/dev/full"), "no full device")
    def test_unwritable_output(self):
        """2: standard output is full, for all that writes there."""
        for words in (self.play(peers.echo), ["--help"],
                      [*self.play(peers.echo), "--count", "1"]):
            code, out, err = self.shell('"$@" >/dev/full', *words)
            self.assertEqual((code, len(err)), (2, 1), err)
            self.assertIn("standard output cannot be written", err[0])
        code, out, err = self.shell('PYTHONUNBUFFERED=1 "$@" >/dev/full',
                                    "--version")
        self.assertEqual((code, len(err)), (2, 1), err)

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


class StartTests(ClientTestCase):

    def test_interrupted_import(self):
        """130, quietly: Ctrl-C while the program is still being loaded."""
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "argparse.py"), "w") as f:
                f.write("import os, signal\n"
                        "os.kill(os.getpid(), signal.SIGINT)\n")
            process = self.client(env=dict(ENVIRONMENT, PYTHONPATH=folder))
            self.assertEqual(self.outcome(process), (130, b"", []))

    def test_import_without_memory(self):
        """2, with a sentence."""
        with mock.patch("echoserver.client.program.main",
                        side_effect=MemoryError):
            self.assertEqual(self.here(), (
                2, b"", ["this host is out of memory"]))

    def test_light_import(self):
        """The package loads no program, and neither loads the server."""
        code = """if True:
            import sys
            import echoserver.client
            assert "argparse" not in sys.modules
            from echoserver.client import program, counting, pipe, prompt
            print(*[name for name in sorted(sys.modules)
                    if name.partition(".client")[0] == name
                    and name.startswith("echoserver.")])
        """
        self.assertEqual(
            subprocess.check_output(python("-c", code), cwd=ROOT).split(),
            [b"echoserver.address", b"echoserver.console"])
