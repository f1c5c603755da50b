"""The server program, as a process: what it says, and what it refuses."""

import contextlib
import io
import math
import os
import signal
import socket
import sys
import unittest
from unittest import mock

import echoserver
from echoserver.server import arguments, program
from echoserver.server.models import MODELS

from .models import NOWHERE, needs_ipv6, posix_only
from .support import PATIENCE, PLAIN, ProgramTestCase, children, until


class ReadyTests(ProgramTestCase):

    def test_ready_line(self):
        """It comes through a pipe at once, and names port and model, which
        serves."""
        begun = {name: self.run_server("0", "-m", name) for name in MODELS
                 if name != "threads"}
        begun["threads"] = self.run_server("0")
        for name, process in begun.items():
            with self.subTest(name):
                address = self.ready(process)
                self.assertEqual(address[0], "127.0.0.1")
                self.assertEqual((self.model, self.who),
                                 (name, "only this host can connect"))
                self.echo(address).close()
                self.assertEqual(self.outcome(process, signal.SIGTERM)[0], 0)

    @needs_ipv6
    def test_ready_line_of_ipv6(self):
        """The address is the one that was bound; :: takes IPv4, too."""
        begun = {host: self.run_server("0", "--bind", host)
                 for host in ("::1", "::")}
        for host, process in begun.items():
            address = self.ready(process)
            self.assertEqual(address[0], host)
            self.assertEqual("only" in self.who, host == "::1")
            self.echo(("::1", address[1]))
        self.echo(("127.0.0.1", address[1]))

    def test_ready_line_of_a_name(self):
        """A name is shown as the address that it stands for."""
        process, address = self.start_server("--bind", "localhost")
        self.assertIn(address[0], ("127.0.0.1", "::1"))
        self.echo(address)

    def test_ready_line_and_a_crowd(self):
        """A connect after it is never refused, nor are many; and the end of
        standard input means nothing."""
        process, address = self.start_server("-q")
        process.stdin.close()
        process.stdin = None  # communicate() would flush it
        clients = [self.connect(address) for _ in range(50)]
        for s in clients:
            s.sendall(b"x")
            self.assertEqual(self.receive(s, 1), b"X")
            s.close()
        self.assertEqual(self.outcome(process, signal.SIGTERM), (0, []))

    @posix_only
    def test_ready_line_that_nobody_reads(self):
        """A closed or full stdout is no reason not to serve."""
        reader, writer = os.pipe()
        os.close(reader)
        writers = [writer]
        if os.path.exists("/dev/full"):
            writers.append(os.open("/dev/full", os.O_WRONLY))
        begun = [self.run_server("0", stdout=writer) for writer in writers]
        for writer, process in zip(writers, begun):
            os.close(writer)
            line = self.read_line(process.stderr)
            self.assertIn(b"cannot write to stdout: ", line)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=PATIENCE)
            self.assertRegex(err, rb"^\S+ INFO served 0 connections[^\n]*\n$")
            self.assertEqual(process.returncode, 0)

    @posix_only
    def test_stdout_that_is_closed(self):
        """Started with no descriptor 1 at all, it serves."""
        process = self.run_server("0", prelude="import os, sys\n"
                                "os.close(1); sys.stdout = None")
        address = self.listening(process)
        self.echo(address).close()
        self.assertEqual(self.outcome(process, signal.SIGTERM)[0], 0)

    def listening(self, process):
        """Return the address that process listens on, asked of the system."""
        def ask():
            inodes = set()
            for fd in os.listdir("/proc/%d/fd" % process.pid):
                with contextlib.suppress(OSError):
                    inodes.add(os.readlink("/proc/%d/fd/%s"
                                           % (process.pid, fd)))
            with open("/proc/net/tcp") as table:
                for line in table:
                    fields = line.split()
                    if (fields[3] == "0A"
                            and "socket:[%s]" % fields[9] in inodes):
                        return int(fields[1].split(":")[1], 16)

        if not os.path.exists("/proc/net/tcp"):
            self.skipTest("there is no /proc/net/tcp to ask")
        return "127.0.0.1", until(ask, "a listener")


class CannotServeTests(ProgramTestCase):

    def assertFails(self, outcome, *words):
        """Check an outcome: 1, and one sentence with these words."""
        code, lines = outcome
        self.assertEqual((code, len(lines)), (1, 1), outcome)
        self.assertRegex(lines[0], r"^\S+ ERROR [^\n]+$")
        for word in words:
            self.assertIn(word, lines[0])

    def test_port_taken(self):
        """The sentence names the port, and the way out; -q keeps it."""
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            s.listen(1)
            port = s.getsockname()[1]
            process = self.run_server(port, "-q")
            self.assertFails(self.outcome(process), str(port), "taken")

    def test_no_such_address(self):
        """An address of another host is named as such."""
        records = self.capture_log()
        with mock.patch.object(program, "allow_descriptors",
                               return_value=math.inf), \
                mock.patch.object(program, "stop_on", side_effect=KeyError):
            self.assertEqual(program.serve(arguments.parse(
                ["0", "-m", "events", "-b", NOWHERE])), 1)
        self.assertEqual([record.levelname for record in records], ["ERROR"])
        self.assertIn(NOWHERE, records[0].getMessage())

    def test_no_name_in_no_locale(self):
        """What cannot even be shown is no traceback."""
        name = "\xfc" * 64
        process = self.run_server(
            "0", "-b", os.fsencode(name) if os.name == "posix" else name,
            env=dict(PLAIN, LC_ALL="C", PYTHONCOERCECLOCALE="0",
                     PYTHONUTF8="0"))
        self.assertFails(self.outcome(process), "name")


class UsageTests(ProgramTestCase):

    # Arguments, and words of the line about them.
    WRONG = {
        ("99999",): ["port", "99999", "0-65535"],
        ("-1",): ["-1"],
        ("8080", "8081"): ["8081"],
        ("localhost:http",): ["port", "http", "0-65535"],
        ("localhost:",): ["port", "''"],
        (":8080",): [":8080", "0.0.0.0"],
        ("http://localhost:80",): ["http://", "HOST:PORT"],
        ("-p", "http"): ["--port", "http"],
        ("-b", "[::1"): ["--bind", "[::1", "[V6]:PORT"],
        ("-b", ""): ["--bind", "0.0.0.0"],
        ("-p", "1", "2"): ["one address or port too many"],
        ("localhost:1", "-p", "1"): ["one address or port too many"],
        ("localhost:1", "-b", "::1"): ["one address or port too many"],
        ("--\x1b[31m",): [r"--\x1b[31m"],
        ("-m", "\n"): [r"\n"],
        ("-c", "-1"): ["--max-connections", "-1"],
        ("-c", "1.5"): ["--max-connections", "1.5"],
        ("--grace", "nan"): ["--grace", "nan"],
        ("--grace", "-1"): ["--grace", "-1"],
        ("--grace", "inf"): ["--grace", "inf"],
        ("--idle-timeout", "soon"): ["--idle-timeout", "soon"],
        ("-m", "asyncio"): ["--model", "asyncio"] + list(MODELS),
        ("-m", "pool", "--pool-size", "0"): ["--pool-size", "0"],
        ("--pool-size", "4"): ["--pool-size", "--model pool"],
        ("--delay", "-1"): ["--delay", "-1"],
        ("--workers", "-1"): ["--workers", "-1"],
        ("--workers", "many"): ["--workers", "many"],
        ("--any-cpu",): ["--any-cpu"],
        ("-b",): ["--bind"],
        ("-q", "-v"): ["--quiet", "--verbose"],
        ("--fast",): ["--fast"]}

    def usage(self, *args):
        """Return the last line about arguments that are refused."""
        with contextlib.redirect_stderr(io.StringIO()) as err, \
                self.assertRaises(SystemExit) as caught:
            program.run(list(args))
        self.assertEqual(caught.exception.code, 2)
        self.assertNotIn("Traceback", err.getvalue())
        return err.getvalue().splitlines()[-1]

    def test_wrong_arguments(self):
        """The line names what is wrong with which."""
        for args, words in self.WRONG.items():
            with self.subTest(" ".join(args)):
                line = self.usage(*args)
                for word in words:
                    self.assertIn(word, line)

    def test_wrong_arguments_of_the_program(self):
        """As a process, it exits with 2 and says nothing on stdout."""
        code, lines = self.outcome(self.run_server("99999"))
        self.assertEqual(code, 2)
        self.assertEqual(lines[-1], "python -m echoserver: error: argument "
                         "port: '99999' is not a port (0-65535)")

    @posix_only
    def test_model_that_the_system_has_not(self):
        """Without fork() there is one model less, and one line about it."""
        process = self.run_server("-m", "processes", prelude="""
import os; del os.fork""")
        code, lines = self.outcome(process)
        self.assertEqual(code, 2)
        self.assertIn("invalid choice: 'processes'", lines[-1])
        process, address = self.start_server("-m", "pool", prelude="""
import os; del os.fork""")
        self.echo(address)

    def show(self, *args):
        """Return what the program prints and then exits with 0."""
        with contextlib.redirect_stdout(io.StringIO()) as out, \
                self.assertRaises(SystemExit) as caught:
            program.run(list(args))
        self.assertIn(caught.exception.code, (None, 0))
        return out.getvalue()

    def test_version(self):
        """The version is the package's."""
        self.assertEqual(self.show("--version"),
                         "echoserver %s\n" % echoserver.__version__)

    def test_help(self):
        """Each keyword of the classes is a flag, and has its default."""
        text = self.show("--help")
        flags = [flag for action in arguments.make_parser()._actions
                 for flag in action.option_strings]
        for word in flags + ["[port]", "8080", "127.0.0.1", "1000", "300",
                             "SIGTERM", "echoserver.client"]:
            self.assertIn(word, text)
        for name in MODELS:
            self.assertIn(name, text)
        self.assertLessEqual(max(map(len, text.splitlines())), 80)

    def test_help_without_docstrings(self):
        """An interpreter that drops them helps all the same."""
        code, lines = self.outcome(self.run_python(
            "-OO", "-c", "import sys\nsys.stdout = sys.stderr\n"
            "from echoserver.__main__ import main\nmain(['--help'])"))
        self.assertEqual(code, 0)
        for word in "upper case", "SIGTERM", "exit status":
            self.assertIn(word, "\n".join(lines))

    def test_address(self):
        """It is said as to the client, or with flags."""
        for args, address in {
                (): ("127.0.0.1", 8080),
                ("0",): ("127.0.0.1", 0),
                ("-p", "7"): ("127.0.0.1", 7),
                ("::1",): ("::1", 8080),
                ("localhost:7",): ("localhost", 7),
                ("localhost", "-p", "7"): ("localhost", 7),
                ("[::1]:7",): ("::1", 7),
                ("-b", "::", "7"): ("::", 7),
                ("-b", "[::1]"): ("::1", 8080),
                ("-b", "fe80::1%eth0"): ("fe80::1%eth0", 8080),
                ("-b", "localhost:7"): ("localhost", 7)}.items():
            with self.subTest(" ".join(args)):
                self.assertEqual(arguments.parse(list(args)).address, address)

    def test_options_arrive(self):
        """Each flag sets what it is called after."""
        args = arguments.parse(
            ["0", "-b", "127.0.0.1", "-m", "pool", "-c", "7", "--grace", "1.5",
             "--idle-timeout", "8.5", "--pool-size", "3", "--delay", "0.5"])
        with mock.patch.object(program, "share_one_cpu"), \
                program.make_server(args) as server:
            self.assertEqual(
                (server.model, server.max_connections, server.grace,
                 server.idle_timeout, server.pool_size, server.delay),
                ("pool", 7, 1.5, 8.5, 3, 0.5))


class LogTests(ProgramTestCase):

    def test_log(self):
        """Who has talked is in it, and with -v who has not."""
        logs = []
        for process in self.run_each((), ("-v",), ("-q",)):
            address = self.ready(process)
            silent = self.connect(address)
            self.echo(address).close()
            silent.close()
            code, lines = self.outcome(process, signal.SIGTERM)
            self.assertEqual(code, 0)
            logs.append(lines)
        normal, verbose, quiet = logs
        self.assertEqual(len(normal), 2, normal)
        for line in normal:
            self.assertRegex(line, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"
                             r"[+-]\d{4} INFO \S")
        self.assertRegex(normal[0], r" 127\.0\.0\.1:\d+: (eof|drain) after "
                         r"\d+\.\d{3} s, 5 bytes in, 5 bytes out$")
        self.assertRegex(normal[1], r" served 2 connections, 5 bytes in, "
                         r"5 bytes out \(.*\)$")
        self.assertEqual(len([line for line in verbose if "DEBUG" in line
                              and " 0 bytes in, 0 bytes out" in line]), 1)
        self.assertEqual(quiet, [])

    @unittest.skipUnless(os.path.exists("/dev/full"), "there is no /dev/full")
    def test_log_that_cannot_be_written(self):
        """It is lost, and the exit status is about the drain."""
        with open("/dev/full", "wb") as full:
            process, address = self.start_server(stderr=full)
        self.echo(address).close()
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(PATIENCE), 0)

    def test_log_of_the_limit(self):
        """-c holds the next one back and says so, once each way."""
        process, address = self.start_server("-c", "1")
        first = self.echo(address)
        second = self.connect(address)
        second.sendall(b"second")
        first.close()
        self.assertEqual(self.receive(second, 6), b"SECOND")
        second.close()
        code, lines = self.outcome(process, signal.SIGTERM)
        self.assertIn(" WARNING at the limit of 1 connections; others wait",
                      "\n".join(lines))

    def test_log_of_the_idle_timeout(self):
        """--idle-timeout ends who says nothing, and says so."""
        process, address = self.start_server("--idle-timeout", "0.05")
        s = self.echo(address)
        self.assertEqual(s.recv(1), b"")
        code, lines = self.outcome(process, signal.SIGTERM)
        self.assertIn(": idle after ", lines[0])

    @unittest.skipUnless(sys.platform.startswith("linux"),
                         "fills a pipe of a known size")
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
        for _ in range(150):
            self.echo(("127.0.0.1", port)).close()
        process.send_signal(signal.SIGTERM)
        log = b""
        for part in iter(lambda: os.read(reader, size), b""):
            log += part
            self.readable(reader, "the rest of the log")
        self.assertEqual(log.count(b" 5 bytes in, 5 bytes out"), 150)
        self.assertIn(b" served 150 connections", log)
        self.assertEqual(process.wait(PATIENCE), 0)

    @posix_only
    def test_limit_of_descriptors(self):
        """It raises its own as far as it may, and says where that ends."""
        limit = """
import resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (%s))"""
        enough, short = [
            self.run_server("0", "-m", "events", "-c", "150",
                          prelude=limit % numbers)
            for numbers in ("40, hard", "40, 60")]
        address = self.ready(enough)
        clients = [self.echo(address) for _ in range(100)]
        for s in clients:
            s.close()
        code, lines = self.outcome(enough, signal.SIGTERM)
        self.assertEqual([line for line in lines if " INFO " not in line], [])
        self.assertEqual(len(lines), len(clients) + 1)
        self.ready(short)
        code, lines = self.outcome(short, signal.SIGTERM)
        self.assertIn(" WARNING only 60 descriptors", lines[0])


class OneCpuTests(ProgramTestCase):

    def share(self, number, gil=True):
        """Return the CPUs that are left to a process that had 3, 5 and 7."""
        with mock.patch("os.sched_getaffinity", lambda pid: {7, 3, 5},
                        create=True), \
                mock.patch("os.sched_setaffinity", create=True) as choose, \
                mock.patch("sys._is_gil_enabled", lambda: gil, create=True):
            program.share_one_cpu(number)
        return [call[0][1] for call in choose.call_args_list]

    def test_one_of_those_that_are_allowed(self):
        """They are taken in turn, so that workers are spread."""
        self.assertEqual([self.share(number) for number in (6, 7, 8, 9)],
                         [[{3}], [{5}], [{7}], [{3}]])

    def test_without_the_interpreter_lock(self):
        """Threads that can use every CPU are left to do so."""
        self.assertEqual(self.share(0, gil=False), [])

    def test_at_random(self):
        """Where every process has the same number, chance spreads them; a
        model without threads has no need of it."""
        for model, calls in (("threads", [mock.call(258)]), ("events", [])):
            with mock.patch("os.urandom", return_value=b"\0\0\1\2"), \
                    mock.patch.object(program, "share_one_cpu") as share, \
                    program.make_server(arguments.parse(["0", "-m", model])):
                self.assertEqual(share.call_args_list, calls)

    @unittest.skipUnless(hasattr(os, "sched_setaffinity")
                         and getattr(sys, "_is_gil_enabled", lambda: True)()
                         and len(os.sched_getaffinity(0)) > 1,
                         "there is one CPU, or no need to share one")
    def test_workers(self):
        """Two have a CPU each, and not the same."""
        process, address = self.start_server("--workers", "2")
        cpus = [os.sched_getaffinity(int(pid))
                for pid in children(process.pid)]
        self.assertEqual([len(found) for found in cpus], [1, 1])
        self.assertNotEqual(*cpus)
        self.assertEqual(self.outcome(process, signal.SIGTERM)[0], 0)


if __name__ == "__main__":
    unittest.main()
