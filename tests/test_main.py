"""The server program, as a process: what it says, how it ends."""

import contextlib
import errno
import io
import os
import re
import select
import signal
import socket
import sys
import unittest
from unittest import mock

import echoserver
from echoserver import program
from echoserver.models import MODELS

from .support import PATIENCE, TestCase, python, until
from .test_server import NOWHERE, needs_ipv6, posix_only

READY = re.compile(r"^Serving uppercase echo on (\S+) port (\d+) "
                   r"\((.+)\) \.\.\.\n$")

# An environment in which nothing flushes, or speaks UTF-8, by itself.
PLAIN = {name: value for name, value in os.environ.items()
         if name not in ("PYTHONUNBUFFERED", "PYTHONUTF8", "PYTHONIOENCODING",
                         "COLUMNS", "LISTEN_PID", "LISTEN_FDS")}

# What follows a prelude.
RUN = "import sys; from echoserver.__main__ import main; sys.exit(main())"


class ProgramTestCase(TestCase):

    def serve(self, *args, **options):
        """Start the program on a free port; return (process, address)."""
        process = self.run_main("0", *args, **options)
        return process, self.ready(process)

    def ready(self, process):
        """Return the address in the ready line of process."""
        line = self.read_line(process.stdout, "the ready line").decode()
        match = READY.match(line)
        if not match:
            process.kill()
            self.fail("ready line %r, and %r" % (line, process.communicate()))
        self.model = match.group(3)
        return match.group(1), int(match.group(2))

    def run_main(self, *args, prelude="", **options):
        """Start the program; prelude is code to run before."""
        options.setdefault("env", PLAIN)
        if not prelude:
            return self.run_program("echoserver", *args, **options)
        return self.run_instead(python("-c", prelude + "\n" + RUN, *args),
                                **options)

    def run_each(self, *choices, more=()):
        """Start the program on free ports, once with each of the choices."""
        return [self.run_main("0", *more, *args) for args in choices]

    def run_instead(self, command, **options):
        """Start command in the way of run_program()."""
        with mock.patch(__package__ + ".support.python",
                        lambda *ignored: command):
            return self.run_program("echoserver", **options)

    def outcome(self, process, number=None):
        """Send a signal, if given; return the exit code and the lines of
        standard error, among which is no traceback."""
        if number is not None:
            process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
        self.assertEqual(out, b"")
        self.assertNotIn(b"Traceback", err)
        self.assertNotIn(b"Exception ignored", err)
        return process.returncode, err.decode().splitlines()

    def echo(self, address, data=b"hello"):
        """Return a connection to address over which data has come back."""
        s = self.connect(address)
        s.sendall(data)
        self.assertEqual(self.receive(s, len(data)), data.upper())
        return s

    def refused(self, address):
        """Wait until address is listened on no more."""
        def refused():
            try:
                socket.create_connection(address, 0.05).close()
            except ConnectionError:
                return True
            except socket.timeout:
                pass  # ignored, in the moment before the listener closes
        until(refused, "the listener to close")


class ReadyTests(ProgramTestCase):

    def test_ready_line(self):
        """It comes through a pipe at once, and names port and model, which
        serves."""
        begun = {name: self.run_main("0", "-m", name) for name in MODELS
                 if name != "threads"}
        begun["threads"] = self.run_main("0")
        for name, process in begun.items():
            with self.subTest(name):
                address = self.ready(process)
                self.assertEqual(address[0], "127.0.0.1")
                self.assertEqual(self.model, name)
                self.echo(address).close()
                self.assertEqual(self.outcome(process, signal.SIGTERM)[0], 0)

    @needs_ipv6
    def test_ready_line_of_ipv6(self):
        """The address is the one that was bound; :: takes IPv4, too."""
        begun = {host: self.run_main("0", "--bind", host)
                 for host in ("::1", "::")}
        for host, process in begun.items():
            address = self.ready(process)
            self.assertEqual(address[0], host)
            self.echo(("::1", address[1]))
        self.echo(("127.0.0.1", address[1]))

    def test_ready_line_of_a_name(self):
        """A name is shown as the address that it stands for."""
        process, address = self.serve("--bind", "localhost")
        self.assertIn(address[0], ("127.0.0.1", "::1"))
        self.echo(address)

    def test_ready_line_and_a_crowd(self):
        """A connect after it is never refused, nor are many; and the end of
        standard input means nothing."""
        process, address = self.serve("-q")
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
        begun = [self.run_main("0", stdout=writer) for writer in writers]
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
        process = self.run_main("0", prelude="import os, sys\n"
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


@posix_only
class StopTests(ProgramTestCase):

    def test_signal(self):
        """Both that ask for an end drain and exit with 0."""
        numbers = signal.SIGTERM, signal.SIGINT
        begun = []
        for process, number in zip(self.run_each((), ()), numbers):
            address = self.ready(process)
            begun.append((process, address, self.echo(address)))
            process.send_signal(number)
        for process, address, s in begun:
            code, lines = self.outcome(process)
            self.assertEqual(code, 0)
            self.assertEqual(s.recv(1), b"")
            self.assertIn(": drain after ", lines[0])
            self.assertTrue(lines[-1].endswith(
                "INFO served 1 connections, 5 bytes in, 5 bytes out "
                "(1 drain)"), lines)
            self.refused(address)

    def test_signal_right_after_the_ready_line(self):
        """From that line on it is a wish to drain."""
        for process in self.run_each((), ("--workers", "2"),
                                     more=("--grace", 10 * PATIENCE)):
            self.ready(process)
            self.assertEqual(self.outcome(process, signal.SIGTERM)[0], 0)

    def test_signal_that_another_thread_takes(self):
        """The loop wakes up for it, though no call of its own does.

        The system may hand a signal to any thread, and Python runs the
        handler in the first, when that runs again.
        """
        process, address = self.serve(prelude="""
import signal, threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})""")
        self.assertEqual(self.outcome(process, signal.SIGTERM)[0], 0)

    def test_signal_to_an_idle_server(self):
        """It is gone soon, whoever is connected and silent."""
        process, address = self.serve("--grace", 10 * PATIENCE)
        idle = [self.connect(address), self.echo(address)]
        self.assertEqual(self.outcome(process, signal.SIGTERM)[0], 0)
        for s in idle:
            self.assertEqual(s.recv(1), b"")

    def test_signal_with_a_reply_on_its_way(self):
        """A reader that is slow gets all of it before the end."""
        begun = self.run_each((), ("--workers", "2"),
                              more=("--grace", PATIENCE))
        for process in begun:
            address = self.ready(process)
            s = self.connect(address)
            s.sendall(b"a" * 300000)
            self.assertEqual(self.receive(s, 1), b"A")
            process.send_signal(signal.SIGTERM)
            self.refused(address)
            self.assertEqual(self.receive(s, 299999), b"A" * 299999)
        for process in begun:
            self.assertEqual(self.outcome(process)[0], 0)

    def stuff(self, address):
        """Return a connection whose reply the server cannot get rid of."""
        s = socket.socket()
        self.addCleanup(s.close)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(address)
        s.settimeout(0.1)
        with contextlib.suppress(socket.timeout):
            while True:
                s.send(bytes(1 << 20))
        s.settimeout(PATIENCE)
        self.assertEqual(s.recv(1, socket.MSG_PEEK), b"\0")
        return s

    def test_grace_that_runs_out(self):
        """A reply that was cut is an exit code of 1, and not hidden from
        who should have had it."""
        process, address = self.serve("--grace", "0.1")
        s = self.stuff(address)
        code, lines = self.outcome(process, signal.SIGTERM)
        self.assertEqual(code, 1)
        self.assertIn("1 drain", lines[-1])
        with self.assertRaises(ConnectionError):
            while s.recv(1 << 20):
                pass

    def test_second_signal(self):
        """It ends the drain, whatever grace was given."""
        for process in self.run_each((), ("--workers", "2"),
                                     more=("--grace", 10 * PATIENCE)):
            address = self.ready(process)
            self.stuff(address)
            process.send_signal(signal.SIGINT)
            self.refused(address)
            self.assertIs(process.poll(), None)
            self.assertEqual(self.outcome(process, signal.SIGTERM)[0], 1)

    def test_many_signals(self):
        """However they come, there is no traceback."""
        process, address = self.serve()
        self.echo(address)
        for _ in range(20):
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGINT)
        self.assertIn(self.outcome(process)[0], (0, 1))


@posix_only
class WorkersTests(ProgramTestCase):

    def test_worker_that_is_killed(self):
        """Another takes its place; log lines tell one from the other."""
        process, address = self.serve(
            "--workers", "1", "-m", "events", bufsize=0,
            prelude="from echoserver.server.workers import Workers; Workers.restart_interval = 0.1")
        pids = []
        for _ in range(2):
            self.echo(address).close()
            line = self.read_line(process.stderr).decode()
            pids.append(int(re.search(r" \[(\d+)\] INFO .* eof ",
                                      line).group(1)))
            if len(pids) == 1:
                os.kill(pids[0], signal.SIGKILL)
                self.assertIn(b"ERROR worker %d was ended by signal 9" % pids[0],
                              self.read_line(process.stderr))
        self.assertNotIn(process.pid, pids)
        self.assertNotEqual(*pids)
        self.assertEqual(self.outcome(process, signal.SIGTERM)[0], 0)

    def test_poller_that_is_not_inherited(self):
        """A kqueue is not, and its number may be another file's."""
        process, address = self.serve("--workers", "1", prelude="""if 1:
            import os
            from echoserver.server.loop import Loop
            from tests.support import not_inherited
            Loop.poller_class, os.fork = not_inherited()""")
        self.echo(address).close()
        self.assertEqual(self.outcome(process, signal.SIGTERM)[0], 0)

    def test_limit_of_workers(self):
        """It is divided, so that in total it is what was asked for."""
        process, address = self.serve("--workers", "2", "-c", "2", bufsize=0)
        clients = [self.connect(address) for _ in range(3)]
        for s in clients:
            s.sendall(b"x")
        for _ in range(2):
            self.assertIn(b"WARNING at the limit of 1 connections",
                          self.read_line(process.stderr))
        for _ in range(3):
            served = select.select(clients, [], [], PATIENCE)[0]
            self.assertLessEqual(len(served), 2)
            self.assertEqual(self.receive(served[0], 1), b"X")
            clients.remove(served[0])
            if len(clients) < 2:  # two were served at a time
                served[0].close()

    def test_workers_whose_parent_is_killed(self):
        """They drain, and the port is free again."""
        process, address = self.serve("--workers", "2")
        s = self.echo(address)
        process.kill()
        self.assertEqual(self.receive(s, 1), b"")
        self.refused(address)
        process.communicate(timeout=PATIENCE)  # ends when all have ended


@posix_only
class ActivationTests(ProgramTestCase):

    # The name of this process is known when it runs; execv() keeps it.
    LAUNCHER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.setdefault("LISTEN_PID", str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])"""

    def activate(self, handed, *args, **variables):
        """Start the program as a service manager does, with one socket."""
        env = dict(PLAIN, LISTEN_FDS="1")
        env.update(variables)
        command = [sys.executable, "-S", "-c", self.LAUNCHER,
                   str(handed.fileno())] + python("-m", "echoserver", *args)
        return self.run_instead(command, env=env, pass_fds=[handed.fileno()])

    def listener(self, kind=socket.SOCK_STREAM, host="127.0.0.1"):
        """Return a socket that listens, if its kind can."""
        s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET,
                          kind)
        self.addCleanup(s.close)
        s.bind((host, 0))
        if kind == socket.SOCK_STREAM:
            s.listen(5)
        return s

    def test_listener_that_is_handed_over(self):
        """It is served, and its address is what the ready line says."""
        begun = [(handed, self.activate(handed, *args)) for handed, args in (
            (self.listener(), ()), (self.listener(), ("--workers", "2")))]
        for handed, process in begun:
            early = self.connect(handed.getsockname())
            self.assertEqual(self.ready(process), handed.getsockname())
            early.sendall(b"early")
            self.assertEqual(self.receive(early, 5), b"EARLY")
            early.close()
            self.assertEqual(self.outcome(process, signal.SIGTERM)[0], 0)

    @needs_ipv6
    def test_listener_of_ipv6_that_is_handed_over(self):
        """Its family is asked of the system."""
        handed = self.listener(host="::1")
        process = self.activate(handed)
        self.assertEqual(self.ready(process), handed.getsockname()[:2])
        self.echo(handed.getsockname())

    def test_handed_over_by_mistake(self):
        """More than one socket, or one of another kind, is refused in one
        sentence."""
        several = self.activate(self.listener(), LISTEN_FDS="2")
        datagrams = self.activate(self.listener(socket.SOCK_DGRAM))
        for process, words in ((several, "LISTEN_FDS is 2"),
                               (datagrams, "not a listening TCP socket")):
            code, lines = self.outcome(process)
            self.assertEqual((code, len(lines)), (1, 1), lines)
            self.assertIn(words, lines[0])

    def test_handed_over_to_another_process(self):
        """What was meant for another process is not taken."""
        handed = self.listener()
        process = self.activate(handed, "0", LISTEN_PID="1")
        self.assertNotEqual(self.ready(process), handed.getsockname())


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
            process = self.run_main(port, "-q")
            self.assertFails(self.outcome(process), str(port), "taken")

    def assertExplains(self, args, *words):
        """Check the same of the program in this process."""
        records = self.capture_log()
        with mock.patch.object(program, "raise_descriptor_limit"), \
                mock.patch.object(program, "stop_on", side_effect=KeyError):
            code = program.serve(program.parse(["--any-cpu"] + args))
        self.assertEqual(code, 1)
        self.assertEqual([record.levelname for record in records], ["ERROR"])
        for word in words:
            self.assertIn(word, records[0].getMessage())

    def test_no_permission(self):
        """Who may not have the port is told which anyone may."""
        with mock.patch("socketserver.TCPServer.server_bind",
                        side_effect=PermissionError(errno.EACCES, "denied")):
            self.assertExplains(["80"], "permission", "80", "1024")

    def test_no_such_address(self):
        """An address of another host is named as such."""
        self.assertExplains(["0", "-b", NOWHERE], NOWHERE, "this host")

    def test_no_such_name(self):
        """A name that nobody knows is shown."""
        with mock.patch("socket.getaddrinfo", side_effect=socket.gaierror(
                socket.EAI_NONAME, "Name or service not known")):
            self.assertExplains(["0", "-b", "nowhere.invalid"],
                                "nowhere.invalid", "not known")

    def test_no_name(self):
        """What cannot be a name at all is told as well."""
        for name in "a" * 64 + ".invalid", "a..b":
            self.assertExplains(["0", "-b", name], name)

    def test_no_name_in_no_locale(self):
        """What cannot even be shown is no traceback."""
        name = "\xfc" * 64
        process = self.run_main(
            "0", "-b", os.fsencode(name) if os.name == "posix" else name,
            env=dict(PLAIN, LC_ALL="C", PYTHONCOERCECLOCALE="0",
                     PYTHONUTF8="0"))
        self.assertFails(self.outcome(process), "name")

    def test_no_ipv6(self):
        """An IPv6 address where there is no IPv6 is one sentence, too."""
        with mock.patch("socketserver.TCPServer.__init__", side_effect=OSError(
                errno.EAFNOSUPPORT, "Address family not supported")):
            self.assertExplains(["0", "-b", "::1"], "::1")


class UsageTests(ProgramTestCase):

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
        for args, words in {
                ("99999",): ["port", "99999", "0-65535"],
                ("-1",): ["-1"],
                ("http",): ["port", "http"],
                ("8080", "8081"): ["8081"],
                ("-c", "-1"): ["--max-connections", "-1"],
                ("-c", "1.5"): ["--max-connections", "1.5"],
                ("--grace", "nan"): ["--grace", "nan"],
                ("--grace", "-1"): ["--grace", "-1"],
                ("--grace", "inf"): ["--grace", "inf"],
                ("--idle-timeout", "soon"): ["--idle-timeout", "soon"],
                ("-m", "asyncio"): ["--model", "asyncio"] + list(MODELS),
                ("-m", "pool", "--pool-size", "0"): ["--pool-size", "0"],
                ("--pool-size", "4"): ["--pool-size", "--model pool"],
                ("--workers", "-1"): ["--workers", "-1"],
                ("--workers", "many"): ["--workers", "many"],
                ("--any-cpu=1",): ["--any-cpu"],
                ("-b",): ["--bind"],
                ("-q", "-v"): ["--quiet", "--verbose"],
                ("--fast",): ["--fast"]}.items():
            with self.subTest(" ".join(args)):
                line = self.usage(*args)
                for word in words:
                    self.assertIn(word, line)

    def test_wrong_arguments_of_the_program(self):
        """As a process, it exits with 2 and says nothing on stdout."""
        code, lines = self.outcome(self.run_main("99999"))
        self.assertEqual(code, 2)
        self.assertEqual(lines[-1], "python -m echoserver: error: argument "
                         "port: 99999 is not a port (0-65535)")

    @posix_only
    def test_model_that_the_system_has_not(self):
        """Without fork() there are three models, and one line about it."""
        process = self.run_main("-m", "processes", prelude="""
import os; del os.fork""")
        code, lines = self.outcome(process)
        self.assertEqual(code, 2)
        self.assertIn("processes needs fork()", lines[-1])
        process, address = self.serve("-m", "pool", prelude="""
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
        flags = [flag for action in program.make_parser()._actions
                 for flag in action.option_strings]
        for word in flags + ["[port]", "8080", "127.0.0.1", "1000", "300",
                             "SIGTERM", "echoserver.client"]:
            self.assertIn(word, text)
        for name in MODELS:
            self.assertIn(name, text)
        self.assertLessEqual(max(map(len, text.splitlines())), 80)

    def test_options_arrive(self):
        """Each flag sets what it is called after."""
        args = program.make_parser().parse_args(
            ["0", "-b", "127.0.0.1", "-m", "pool", "-c", "7", "--grace", "1.5",
             "--idle-timeout", "8.5", "--pool-size", "3", "--any-cpu"])
        with program.make_server(args) as server:
            self.assertEqual(
                (server.model, server.max_connections, server.grace,
                 server.idle_timeout, server.pool_size),
                ("pool", 7, 1.5, 8.5, 3))


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

    def test_log_of_the_limit(self):
        """-c holds the next one back and says so, once each way."""
        process, address = self.serve("-c", "1")
        first = self.echo(address)
        second = self.connect(address)
        second.sendall(b"second")
        first.close()
        self.assertEqual(self.receive(second, 6), b"SECOND")
        second.close()
        code, lines = self.outcome(process, signal.SIGTERM)
        self.assertIn(" WARNING at the limit of 1 connections", lines[0])

    def test_log_of_the_idle_timeout(self):
        """--idle-timeout ends who says nothing, and says so."""
        process, address = self.serve("--idle-timeout", "0.05")
        s = self.echo(address)
        self.assertEqual(s.recv(1), b"")
        code, lines = self.outcome(process, signal.SIGTERM)
        self.assertIn(": idle after ", lines[0])

    @unittest.skipUnless(hasattr(os, "sched_setaffinity")
                         and getattr(sys, "_is_gil_enabled", lambda: True)(),
                         "threads need not be kept on one CPU")
    def test_any_cpu(self):
        """Threads are kept on one CPU, with a word of it, unless told not
        to be."""
        for process, kept in zip(self.run_each(
                ("-v",), ("-v", "--any-cpu")), (True, False)):
            self.ready(process)
            cpus = os.sched_getaffinity(process.pid)
            self.assertEqual(len(cpus) if kept else cpus,
                             1 if kept else os.sched_getaffinity(0))
            code, lines = self.outcome(process, signal.SIGTERM)
            self.assertEqual("the threads share CPU" in lines[0], kept, lines)

    @unittest.skipUnless(hasattr(program, "resource"), "there are no limits")
    def test_limit_of_descriptors(self):
        """It raises its own as far as it may, and says where that ends."""
        limit = """
import resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (%s))"""
        enough, short = [
            self.run_main("0", "-m", "events", "-c", "150",
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


if __name__ == "__main__":
    unittest.main()
