"""The server program: how it ends, and the socket that it is handed."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import unittest
from unittest import mock

from echoserver.server import signals
from echoserver.server.models import MODELS

from .models import needs_ipv6, posix_only
from .support import (PATIENCE, PLAIN, RUN, ProgramTestCase, children, python)

linux_only = unittest.skipUnless(sys.platform.startswith("linux"),
                                 "fills a pipe of a known size")


@posix_only
class StopTests(ProgramTestCase):

    def test_signal(self):
        """Each that asks for an end drains, in every model, and the exit
        status is 0.  A terminal that is gone tells all processes."""
        begun = []
        for args, number in [(("-m", name), signal.SIGHUP) for name in MODELS
                             ] + [(("--workers", "2"), signal.SIGHUP),
                                  ((), signal.SIGTERM), ((), signal.SIGINT)]:
            process, address = self.start_server(*args, start_new_session=True)
            begun.append((args, process, address, self.echo(address)))
            os.killpg(process.pid, number)
        for args, process, address, s in begun:
            with self.subTest(args):
                code, lines = self.outcome(process)
                self.assertEqual(code, 0, lines)
                self.assertEqual(s.recv(1), b"")
                self.assertIn(": drain after ", "\n".join(lines))
                self.assertIn("INFO served 1 connections, 5 bytes in, 5 bytes "
                              "out (1 drain)", "\n".join(lines))
                self.refused(address)

    def test_hangup_that_is_ignored(self):
        """After nohup it means nothing."""
        for args in (), ("--workers", "1"):
            process, address = self.start_server(*args, prelude="""
import signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)""", start_new_session=True)
            os.killpg(process.pid, signal.SIGHUP)
            s = self.echo(address)
            s.sendall(b"on")
            self.assertEqual(self.receive(s, 2), b"ON")
            self.assertEqual(self.outcome(process, signal.SIGTERM)[0], 0)

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
        process, address = self.start_server(prelude="""
import signal, threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})""")
        self.assertEqual(self.outcome(process, signal.SIGTERM)[0], 0)

    def test_signal_to_an_idle_server(self):
        """It is gone soon, whoever is connected and silent."""
        process, address = self.start_server("--grace", 10 * PATIENCE)
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

    def test_reply_that_was_cut_as_idle(self):
        """The exit code is about the drain, and that was clean."""
        process, address = self.start_server("--idle-timeout", "0.05",
                                             bufsize=0)
        self.stuff(address)
        self.assertIn(b": idle after ", self.read_line(process.stderr))
        self.assertEqual(self.outcome(process, signal.SIGTERM)[0], 0)

    def fill(self, pipe):
        """Let a pipe take no more."""
        import fcntl
        os.write(pipe, bytes(fcntl.fcntl(pipe, 1032)))  # F_GETPIPE_SZ

    def reset(self, s):
        """Fail unless s receives a reset, after what is on its way."""
        with self.assertRaises(ConnectionError):
            while s.recv(1 << 20):
                pass

    @linux_only
    def test_log_that_nobody_reads(self):
        """It stops the server, but not its end: a second signal is enough,
        and what was not answered is reset."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        begun = []
        for model in "events", "threads":
            process, address = self.start_server(
                "-m", model, stderr=writer, prelude="from echoserver.server "
                "import signals\nsignals.LAST_SECONDS = 0.2")
            begun.append((process, self.stuff(address)))
        self.fill(writer)
        os.close(writer)
        for process, s in begun:
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGINT)
        for process, s in begun:
            self.assertEqual(process.wait(PATIENCE), 1)
            self.reset(s)

    @linux_only
    def test_first_process_of_a_container(self):
        """There a signal with its default action does nothing: the first one
        drains, and a second one ends a program that is stuck, with whatever
        processes it has."""
        inside = ["unshare", "-pf", "--mount-proc"]
        try:
            subprocess.check_output(inside + ["true"],
                                    stderr=subprocess.STDOUT)
        except (OSError, subprocess.CalledProcessError) as error:
            self.skipTest("a container cannot be made: %s"
                          % getattr(error, "output", error))

        def start(*args, **options):
            process = self.run_command(inside + python(
                "-c", "from echoserver.server import signals\n"
                "signals.LAST_SECONDS = 0.2\n" + RUN, "0", *args), **options)
            return process, self.ready(process), int(children(process.pid)[0])

        process, address, pid = start()
        s = self.echo(address)
        os.kill(pid, signal.SIGTERM)
        self.assertEqual(self.outcome(process)[0], 0)
        self.assertEqual(s.recv(1), b"")
        for args in ("-m", "events"), ("-m", "processes"), ("--workers", "2"):
            with self.subTest(args):
                reader, writer = os.pipe()
                self.addCleanup(os.close, reader)
                process, address, pid = start(*args, stderr=writer)
                s = self.stuff(address)
                self.fill(writer)
                os.close(writer)
                self.echo(address).close()  # whose line is one too many
                os.kill(pid, signal.SIGTERM)
                os.kill(pid, signal.SIGINT)
                self.assertEqual(process.wait(PATIENCE), 1)
                self.reset(s)
                while os.read(reader, 1 << 20):     # no process has it open
                    self.readable(reader, "the end of all processes")

    @linux_only
    def test_log_of_workers_that_nobody_reads(self):
        """They are killed, and reset what they have, before: no end passes
        for that of a whole reply, and no process is left behind."""
        for model in "threads", "processes":
            reader, writer = os.pipe()
            process, address = self.start_server(
                "--workers", "1", "-m", model, "--grace", "0", stderr=writer,
                prelude="from echoserver.server import signals, workers\n"
                "workers.CUT_TIMEOUT = signals.LAST_SECONDS = 0.2")
            s = self.stuff(address)
            self.fill(writer)
            os.close(writer)
            self.echo(address).close()      # whose line is one too many
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(PATIENCE), 1)
            self.reset(s)
            while os.read(reader, 1 << 20):     # until the last has closed it
                self.readable(reader, "the end of all processes")
            os.close(reader)

    def test_second_signal_that_is_late(self):
        """The workers have their time from then on."""
        process, address = self.start_server(
            "--workers", "1", "--grace", 10 * PATIENCE,
            prelude="from echoserver.server import workers\n"
            "workers.CUT_TIMEOUT = 0.2")
        s = self.stuff(address)
        process.send_signal(signal.SIGTERM)
        self.refused(address)
        threading.Event().wait(0.5)     # longer than workers have at the end
        code, lines = self.outcome(process, signal.SIGTERM)
        self.assertEqual(code, 1)
        self.assertRegex(lines[-1], r" INFO served .*\(1 drain\b")
        self.reset(s)

    def test_signals_after_the_second(self):
        """They do not put off the end."""
        stop = mock.Mock()
        with mock.patch("faulthandler.dump_traceback_later") as end:
            with signals.stop_on([signal.SIGUSR1], stop, -1):
                for _ in range(4):
                    os.kill(os.getpid(), signal.SIGUSR1)
        self.assertEqual(end.call_count, 1)
        self.assertEqual(stop.call_args_list,
                         [mock.call(), mock.call(grace=0)])

    def test_second_signal_without_a_thread_to_spare(self):
        """The drain ends all the same."""
        stop = mock.Mock()
        with mock.patch("faulthandler.dump_traceback_later",
                        side_effect=RuntimeError):
            with signals.stop_on([signal.SIGUSR1], stop, -1):
                for _ in range(2):
                    os.kill(os.getpid(), signal.SIGUSR1)
        self.assertEqual(stop.call_count, 2)

    def test_grace_that_runs_out(self):
        """A reply that was cut is an exit code of 1, and not hidden from
        who should have had it."""
        process, address = self.start_server("--grace", "0.1")
        s = self.stuff(address)
        code, lines = self.outcome(process, signal.SIGTERM)
        self.assertEqual(code, 1)
        self.assertIn("1 drain", lines[-1])
        self.reset(s)

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
        process, address = self.start_server()
        self.echo(address)
        for _ in range(20):
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGINT)
        self.assertIn(self.outcome(process)[0], (0, 1))


@posix_only
class ActivationTests(ProgramTestCase):

    # The name of this process is known when it runs; execv() keeps it.
    LAUNCHER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.setdefault("LISTEN_PID", str(os.getpid()))
if "CLOSED" in os.environ:
    os.close(3)
os.execv(sys.argv[2], sys.argv[2:])"""

    def activate(self, handed, *args, **variables):
        """Start the program as a service manager does, with one file."""
        env = dict(PLAIN, LISTEN_FDS="1")
        env.update(variables)
        command = [sys.executable, "-S", "-c", self.LAUNCHER,
                   str(handed.fileno())] + python("-m", "echoserver", *args)
        return self.run_command(command, env=env, pass_fds=[handed.fileno()])

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
        """What cannot be served is refused in one sentence."""
        deaf = socket.socket()
        nothing = open(os.devnull)
        for file in deaf, nothing:
            self.addCleanup(file.close)
        wrong = "descriptor 3 is not a listening TCP socket"
        for handed, variables, words in (
                (self.listener(), {"LISTEN_FDS": "2"}, "LISTEN_FDS is 2"),
                (self.listener(), {"LISTEN_PID": "1"}, "LISTEN_PID is 1, "),
                (self.listener(socket.SOCK_DGRAM), {}, wrong),
                (deaf, {}, wrong), (nothing, {}, wrong),
                (nothing, {"CLOSED": "3"}, wrong)):
            with self.subTest(words, handed=handed):
                code, lines = self.outcome(self.activate(handed, **variables))
                self.assertEqual((code, len(lines)), (1, 1), lines)
                self.assertIn(words, lines[0])

    def test_address_beside_what_is_handed_over(self):
        """It is ignored, and the log says so."""
        process = self.activate(self.listener(), "::1", "-p", "9")
        self.assertEqual(self.ready(process)[0], "127.0.0.1")
        code, lines = self.outcome(process, signal.SIGTERM)
        self.assertEqual((code, len(lines)), (0, 2))
        self.assertIn(" ::1 and 9 is ignored", lines[0])


if __name__ == "__main__":
    unittest.main()
