"""The client program's arguments and standard streams."""

import os
import subprocess
import sys
import tempfile
from unittest import mock

import echoserver

from . import peers
from .faces import ClientTestCase
from .support import PLAIN, ROOT, python


class UsageTests(ClientTestCase):

    def refuses(self, sentence, *args):
        """Check exit code 2, and the sentence."""
        with self.subTest(args):
            code, out, err = self.here(*args)
            self.assertEqual((code, out), (2, b""))
            self.assertIn(sentence, err[-1])

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
            self.refuses(hint, *args)

    def test_host_and_port_in_one(self):
        """HOST:PORT and [V6]:PORT are one argument."""
        for args, expected in ((["host:80"], ("host", 80)),
                               (["[::1]:80"], ("::1", 80)),
                               (["[fe80::1%lo]"], ("fe80::1%lo", 8080)),
                               (["[::1]", "80"], ("::1", 80)),
                               (["::1"], ("::1", 8080)),
                               (["fe80::1", "80"], ("fe80::1", 80)),
                               (["host"], ("host", 8080))):
            args = self.called("pipe", self.pipe, b"", *args)
            self.assertEqual((args.host, args.port), expected)

    def called(self, face, function, *args):
        """Return what the face was called with by function(*args)."""
        with mock.patch("echoserver.client.%s.run" % face,
                        return_value=0) as run:
            self.assertEqual(function(*args)[0], 0)
        return run.call_args[0][0]

    def test_numbers_that_cannot_be(self):
        """2: no port, no time, no list of times, none or more than can be."""
        for port in "0", "65536", "-1", "http", "8080.0", "9" * 5000:
            self.refuses("is not a port (1-65535)", "--", "localhost", port)
        for flag in "--timeout=", "--idle=", "--idle=1,":
            for text in "nan", "inf", "-1", "1e9", "soon", "":
                self.refuses("must be a number of seconds", flag + text)
        for flag, least, most in (("-c", 0, 10 ** 12), ("-s", 1, 1 << 26),
                                  ("-n", 1, 10 ** 6)):
            for value in least - 1, most + 1:
                self.refuses("must be a whole number from %d to %d, not '%d'"
                             % (least, most, value),
                             "-c1", "%s%d" % (flag, value))
            for value in (least, most)[:1 + (flag != "-n")]:
                self.called("counting", self.here, "-c1",
                            "%s%d" % (flag, value))

    def test_words_that_do_not_go_together(self):
        """2: what measures needs --count, and shows no prompt."""
        for sentence, *args in (
                ("--reconnect goes with --count", "--reconnect", "--idle=1"),
                ("--json goes with --count or --idle", "--json"),
                ("--deadline goes with --count", "-w1", "--idle=1"),
                ("--prompt goes with neither --count nor --idle",
                 "--prompt", "> ", "--count=1"),
                ("not allowed with", "-c1", "--json", "--histogram"),
                ("not allowed with", "-c1", "--idle=1")):
            self.refuses(sentence, *args)

    def test_usage(self):
        """2: usage on standard error, nothing on standard output."""
        with mock.patch("sys.argv", ["__main__.py"]), mock.patch.dict(
                os.environ, FORCE_COLOR="1"):
            code, out, err = self.here("--nonsense")
        self.assertEqual((code, out), (2, b""))
        self.assertTrue(err[0].startswith("usage: python -m echoserver.client "
                                          "["), err)
        self.assertNotIn("\x1b", "".join(err))

    def test_help_and_version(self):
        """--help is manual enough, names the defaults, and the command as it
        was typed; --version is one line."""
        for name in "echoserver-client", "echoserver.pyz client":
            with mock.patch("sys.argv", ["/opt/bin/" + name]):
                self.assertTrue(self.here("--help")[1].decode().startswith(
                    "usage: %s [" % name))
        self.assertEqual(self.here("--version"), (
            0, b"echoserver %s\n" % echoserver.__version__.encode(), []))
        out = self.here("--help")[1].decode()
        for word in ("REFUSED", "UNREACHABLE", "141", "143", "Ctrl-D",
                     "--count", "--idle", "--deadline", "--timestamps",
                     "HOST:PORT", "(127.0.0.1)", "(8080)", "(64)", "(1)",
                     "(10, but none at the prompt)"):
            self.assertIn(word, " ".join(out.split()))

    def test_defaults(self):
        """They are what --help says."""
        count = self.called("counting", self.here, "--count", 1)
        prompt = self.called("prompt", self.converse, b"")
        for args, timeout in ((count, 10), (prompt, None), (
                self.called("pipe", self.pipe, b""), 10)):
            self.assertEqual((args.host, args.port, args.timeout),
                             ("127.0.0.1", 8080, timeout))
        self.assertEqual((count.size, count.interval, count.connections,
                          prompt.prompt), (64, 1, 1, "echo> "))

    def test_host_in_the_locale_c(self):
        """A name with other letters is looked up as it was typed."""
        process = self.client("m\u00fc\u00fc.invalid", env=dict(
            PLAIN, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"))
        code, out, err = self.outcome(process)
        self.assertEqual((code, len(err)), (1, 1))
        self.assertIn("m\\xfc\\xfc.invalid", err[0])


class StreamTests(ClientTestCase):
    """Standard streams that are not what one expects."""

    def shells(self, rows):
        """Yield the outcome of each command in a shell, with the program's
        words as "$@" and three bytes of input, and its row, which begins with
        command and words."""
        begun = [self.run_command(
            ["sh", "-c", "exec " + command, sys.executable] + python(
                "-m", "echoserver.client", *map(str, words)))
            for command, words, _ in rows]
        for process, row in zip(begun, rows):
            yield (*self.outcome(process, b"abc"), *row)

    def test_streams_that_fail(self):
        """2: the stream that fails is named; where it is closed, nobody is
        called."""
        nobody, echo = peers.nobody(), self.play(peers.echo)
        rows = [('"$@" <&-', nobody, "input is closed; "),
                ('"$@" >&-', nobody, "output is closed; "),
                ('"$@" 0>/dev/null', echo, "input cannot be read")]
        if os.path.exists("/dev/full"):
            rows += [('"$@" >/dev/full', words, "output cannot be written")
                     for words in (echo, ["--help"], [*echo, "--count", "1"])]
            rows += [('env PYTHONUNBUFFERED=1 "$@" >/dev/full', ["--version"],
                      "output cannot be written")]
        for code, out, err, command, words, text in self.shells(rows):
            with self.subTest(command, words=words):
                self.assertEqual((code, out, len(err)), (2, b"", 1), err)
                self.assertIn("standard " + text, err[0])

    def test_no_error_output(self):
        """No standard error hides the line, which goes nowhere else."""
        for found, out, err, _, _, code in self.shells([
                ('"$@" 2>&-', peers.nobody(), 1),
                ('"$@" 2>&-', ["--nonsense"], 2)]):
            self.assertEqual((found, out, err), (code, b"", []))


class StartTests(ClientTestCase):

    def test_interrupted_import(self):
        """130, quietly: Ctrl-C while the program is still being loaded."""
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "argparse.py"), "w") as f:
                f.write("import os, signal\n"
                        "os.kill(os.getpid(), signal.SIGINT)\n")
            process = self.client(env=dict(PLAIN, PYTHONPATH=folder))
            self.assertEqual(self.outcome(process), (130, b"", []))

    def test_import_without_memory(self):
        """2, with a sentence."""
        with mock.patch("echoserver.client.program.main",
                        side_effect=MemoryError):
            self.assertEqual(self.here(), (
                2, b"", ["this host is out of memory"]))

    def test_error_of_another_kind(self):
        """2, with what the system says."""
        with mock.patch("echoserver.client.program._run",
                        side_effect=OSError(5, "Input/output error")):
            self.assertEqual(self.here(), (2, b"", [
                "this program cannot go on: [Errno 5] Input/output error"]))

    def test_light_import(self):
        """The package loads no program, and neither loads the server."""
        code = """if True:
            import sys
            import echoserver.client
            print("argparse" in sys.modules)
            from echoserver.client import program, counting, pipe, prompt
            print(*[name for name in sorted(sys.modules)
                    if name.partition(".client")[0] == name
                    and name.startswith("echoserver.")])
        """
        self.assertEqual(
            subprocess.check_output(python("-c", code), cwd=ROOT).split(),
            [b"False", b"echoserver.address", b"echoserver.console"])
