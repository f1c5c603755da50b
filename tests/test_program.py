"""The server program: its arguments, its streams, and what it refuses."""

import contextlib
import io
import os
import signal
import sys
import unittest
from unittest import mock

import echoserver
from echoserver import console
from echoserver.server import arguments, program

from .models import (MODELS, NOWHERE, PATIENCE, PLAIN, ModelTestCase, has_ipv6,
                     linux_only, posix_only)


class MadeTest(ModelTestCase):
    """What the arguments make, in this process."""

    def make_server(self, *args):
        """Return a server and the CPUs that it chooses, as numbers."""
        with mock.patch.object(program, "share_one_cpu") as share, \
                mock.patch("os.urandom", return_value=b"\0\0\1\2"):
            server = program.make_server(arguments.parse(list(args)))
        self.addCleanup(server.server_close)
        return server, [call[0][0] for call in share.call_args_list]

    def test_options(self):
        """Each flag sets what it is called after, in every model; those with
        threads share a CPU, which chance chooses."""
        options = ["0", "-c", "7", "--grace", "1.5", "--idle-timeout", "8.5",
                   "--delay", "0.5"]
        for name in MODELS:
            size = ["--pool-size", "3"] if name in ("pinned", "pool") else []
            server, cpus = self.make_server("-m", name, *options, *size)
            self.assertEqual(
                (server.model, server.max_connections, server.grace,
                 server.idle_timeout, server.delay),
                (name, 7, 1.5, 8.5, 0.5))
            self.assertEqual(cpus, [258] if size or name == "threads" else [])
            self.assertEqual(server.pool_size, 3 if size else 0)
        self.assertEqual(self.make_server("0")[0].model, "threads")

    def test_ready_line(self):
        """It names the address that was bound, the model, and whether only
        this host can connect."""
        only = "; only this host can connect"
        hosts = [("127.0.0.1", only), ("0.0.0.0", "")]
        if has_ipv6():
            hosts += [("::1", only), ("::", "")]
        for host, who in hosts:
            for workers, how in (0, "events"), (2, "events, 2 workers"):
                args = arguments.parse(["0", "-b", host, "-m", "events"])
                with program.make_server(args) as server, \
                        contextlib.redirect_stdout(io.StringIO()) as out:
                    args.workers = workers
                    program.announce(server, args)
                self.assertEqual(
                    out.getvalue(), "Serving uppercase echo on %s port %d "
                    "(%s%s) ...\n" % (host, server.server_address[1], how,
                                      who))

    @posix_only
    def test_limit_of_descriptors(self):
        """It is raised as far as it may be, and no further than needed; the
        log says if it is less."""
        import resource
        none = resource.RLIM_INFINITY
        for soft, hard, wanted, raised in (
                (40, 500, 150, 150), (40, 60, 150, 60), (150, 500, 150, None),
                (40, none, 150, 150), (none, none, 150, None),
                (40, 500, 0, 500)):
            with mock.patch.object(resource, "getrlimit",
                                   return_value=(soft, hard)), \
                    mock.patch.object(resource, "setrlimit") as put:
                allowed = console.allow_descriptors(wanted)
                self.assertEqual([call[0][1] for call in put.call_args_list],
                                 [(raised, hard)] if raised else [])
                self.assertIn(allowed, (raised or soft, float("inf")))
        with mock.patch.object(program, "allow_descriptors",
                               return_value=60) as allow:
            program.serve(arguments.parse(["-c", "150", "-b", NOWHERE]))
        allow.assert_called_once_with(150 + program.SPARE_DESCRIPTORS)
        self.assertRegex(self.log()[0], "^WARNING only 60 descriptors")

    def test_one_cpu(self):
        """It is one of those that are allowed, taken in turn so that workers
        are spread; without the interpreter lock it is all of them."""
        for number, gil, expected in (
                (6, True, [{3}]), (7, True, [{5}]), (8, True, [{7}]),
                (9, True, [{3}]), (0, False, [])):
            with mock.patch("os.sched_getaffinity", lambda pid: {7, 3, 5},
                            create=True), \
                    mock.patch("os.sched_setaffinity", create=True) as put, \
                    mock.patch("sys._is_gil_enabled", lambda: gil,
                               create=True):
                program.share_one_cpu(number)
            self.assertEqual([call[0][1] for call in put.call_args_list],
                             expected)


class UsageTest(unittest.TestCase):

    # Arguments, and words of the line about them.
    WRONG = {
        "99999": ["port", "99999", "0-65535"],
        "8080 8081": ["8081"],
        "localhost:http": ["port", "http", "0-65535"],
        "localhost:": ["port", "''"],
        ":8080": [":8080", "0.0.0.0"],
        "http://localhost:80": ["http://", "HOST:PORT"],
        "-b [::1": ["--bind", "[::1", "[V6]:PORT"],
        "-b ": ["--bind", "0.0.0.0"],
        "localhost:1 -b ::1": ["one address or port too many"],
        "--\x1b[31m": [r"--\x1b[31m"],
        "-m \n": [r"\n"],
        "-c -1": ["--max-connections", "-1"],
        "-c 1 --workers 2": ["--max-connections", "--workers"],
        "--grace nan": ["--grace", "nan"],
        "--grace inf": ["--grace", "inf"],
        "-m asyncio": ["--model", "asyncio"] + list(MODELS),
        "-m pool --pool-size 0": ["--pool-size", "0"],
        "--pool-size 4": ["--pool-size", "--model pool"],
        "-b": ["--bind"],
        "-q -v": ["--quiet", "--verbose"]}

    def exits(self, status, *args):
        """Fail unless the program exits with status; return what it shows."""
        with contextlib.redirect_stderr(io.StringIO()) as err, \
                contextlib.redirect_stdout(io.StringIO()) as out, \
                self.assertRaises(SystemExit) as caught:
            program.run(list(args))
        self.assertEqual(caught.exception.code or 0, status)
        return (err if status else out).getvalue()

    def test_wrong_arguments(self):
        """The line names what is wrong with which."""
        for args, words in self.WRONG.items():
            with self.subTest(args):
                line = self.exits(2, *args.split(" ")).splitlines()[-1]
                for word in words:
                    self.assertIn(word, line)

    def test_help(self):
        """Each flag is in it, and the defaults; and how the programs are
        called here.  The version is the package's."""
        flags = [flag for action in arguments.make_parser()._actions
                 for flag in action.option_strings]
        for name, usage in (("/x/echoserver", "echoserver"),
                            ("/x/e.pyz", "e.pyz"),
                            ("__main__.py", "python -m echoserver")):
            with mock.patch.object(sys, "argv", [name]):
                text = self.exits(0, "--help")
            for word in flags + list(MODELS) + [
                    "usage: %s [-h]" % usage, "[port]", "8080",
                    "127.0.0.1", "1000", "300", "SIGTERM", "upper case",
                    "exit status"]:
                self.assertIn(word, text)
            self.assertLessEqual(max(map(len, text.splitlines())), 80)
        self.assertEqual(self.exits(0, "--version"),
                         "echoserver %s\n" % echoserver.__version__)

    def test_arguments(self):
        """An address is said as to the client, or with -b."""
        for args, address in {
                "": ("127.0.0.1", 8080), "0": ("127.0.0.1", 0),
                "::1": ("::1", 8080), "localhost:7": ("localhost", 7),
                "[::1]:7": ("::1", 7),
                "-b :: 7": ("::", 7), "-b [::1]": ("::1", 8080),
                "-b fe80::1%eth0": ("fe80::1%eth0", 8080),
                "-b localhost:7": ("localhost", 7)}.items():
            with self.subTest(args):
                self.assertEqual(arguments.parse(args.split()).address,
                                 address)
        self.assertEqual([arguments.parse(args).level for args in
                          ([], ["-q"], ["-v"])], ["INFO", "ERROR", "DEBUG"])


class StreamTest(ModelTestCase):
    """The program as a process."""

    def test_log(self):
        """Connections and the end have a line each, with date and level; the
        end of standard input means nothing."""
        process, address = self.start_server()
        process.stdin.close()
        process.stdin = None    # communicate() would flush it
        silent = self.connect(address)
        self.answers(address)
        silent.close()
        code, lines = self.outcome(process, signal.SIGTERM)
        self.assertEqual((code, len(lines)), (0, 2), lines)
        for line, end in zip(lines, (
                r"127\.0\.0\.1:\d+: (eof|drain) after \d+\.\d{3} s, 5 bytes "
                "in, 5 bytes out", r"served 2 connections, 5 bytes in, 5 "
                r"bytes out \(.*\)")):
            self.assertRegex(line, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"
                             r"[+-]\d{4} INFO %s$" % end)

    @posix_only
    def test_output_that_nobody_takes(self):
        """A closed stdout, or a full disk under the log, is no reason not to
        serve, and does not change the exit status."""
        reader, writer = os.pipe()
        os.close(reader)
        process = self.run_server("0", stdout=writer)
        os.close(writer)
        self.assertIn(b"cannot write to stdout: ",
                      self.read_line(process.stderr))
        code, lines = self.outcome(process, signal.SIGTERM)
        self.assertEqual((code, len(lines)), (0, 1))
        if os.path.exists("/dev/full"):
            with open("/dev/full", "wb") as full:
                process, address = self.start_server(stderr=full)
            self.answers(address)
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(PATIENCE), 0)

    @linux_only
    def test_output_that_a_neighbour_has_made_non_blocking(self):
        """Nothing is lost, however late it is read."""
        import fcntl
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        size = fcntl.fcntl(writer, 1031, 4096)  # F_SETPIPE_SZ
        os.set_blocking(writer, False)
        os.write(writer, bytes(size))
        process = self.run_server("0", stdout=writer, stderr=writer)
        os.close(writer)
        self.assertEqual(len(os.read(reader, size)), size)
        self.readable(reader, "the ready line")
        line = os.read(reader, size).decode()
        port = int(line.split(" port ")[1].split()[0])
        for _ in range(80):
            self.answers(("127.0.0.1", port))
        process.send_signal(signal.SIGTERM)
        log = b""
        for part in iter(lambda: os.read(reader, size), b""):
            log += part
            self.readable(reader, "the rest of the log")
        self.assertEqual(log.count(b" 5 bytes in, 5 bytes out"), 80)
        self.assertIn(b" served 80 connections", log)
        self.assertEqual(process.wait(PATIENCE), 0)

    def test_cannot_serve(self):
        """One sentence says why, also with -q, and with a name that cannot
        even be shown; the exit status is 1."""
        port = self.make().server_address[1]
        begun = [("port %d .*taken" % port, self.run_server(port, "-q")),
                 ("name", self.run_server(
                     "0", "-b", "\xfc" * 64, env=dict(
                         PLAIN, LC_ALL="C", PYTHONCOERCECLOCALE="0",
                         PYTHONUTF8="0")))]
        for words, process in begun:
            code, lines = self.outcome(process)
            self.assertEqual((code, len(lines)), (1, 1), lines)
            self.assertRegex(lines[0], r"^\S+ ERROR [^\n]*" + words)

    def test_system_without_epoll(self):
        """There is one model less, and one line about it, on standard error:
        a wrong argument, for which the exit status is 2."""
        code, lines = self.outcome(self.run_server(
            "-m", "pool", prelude="import select\ndel select.epoll"))
        self.assertEqual(code, 2)
        self.assertRegex(lines[-1], "^python -m echoserver: error: argument -m"
                         ".*invalid choice: 'pool'")
