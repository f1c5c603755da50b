"""The server program: its signals, its exit status, what becomes of it when
it is killed or stuck, and the socket that it is handed."""

import itertools
import os
import signal
import subprocess
import sys
import threading
from unittest import mock

from echoserver.server import signals

from .models import (PATIENCE, ModelTestCase, children,
                     has_ipv6, linux_only, needs_fork, posix_only, python)


def container():
    """Return a command that makes another one process 1 of a container, or
    none where that is not allowed."""
    command = ["unshare", "-pf", "--mount-proc"]
    try:
        subprocess.check_output(command + ["true"], stderr=subprocess.STDOUT)
    except (OSError, subprocess.CalledProcessError):
        return []
    return command


@posix_only
class StopTest(ModelTestCase):

    def test_signal(self):
        """Each that asks for an end drains, from the ready line on, and the
        exit status is 0; a terminal tells all processes."""
        begun = [(number, self.run_server(
            "0", *args, "--grace", 10 * PATIENCE, start_new_session=True))
            for args, number in (([], signal.SIGINT),
                                 (["-m", "processes"], signal.SIGHUP),
                                 (["--workers", "2"], signal.SIGTERM))]
        for number, process in begun:
            with self.subTest(number):
                address = self.ready(process)
                s = self.asking(address)
                os.killpg(process.pid, number)
                self.ends(s, data=b"HELLO")
                code, lines = self.outcome(process)
                self.assertEqual(code, 0, lines)
                self.assertIn("INFO served 1 connections, 5 bytes in, 5 bytes "
                              "out (1 drain)", "\n".join(lines))
                self.refused(address)

    def test_many_signals(self):
        """After nohup, a hangup means nothing; and however many come, there
        is no traceback."""
        process, address = self.start_server(prelude="""
import signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)""")
        process.send_signal(signal.SIGHUP)
        self.client(address)
        for _ in range(20):
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGINT)
        self.assertIn(self.outcome(process)[0], (0, 1))

    def test_second_signal(self):
        """It ends the drain, whatever grace was given, with a reset and an
        exit status of 1; workers have their time from then on."""
        begun = [self.run_server(
            "0", *args, "--grace", 10 * PATIENCE, prelude="from echoserver"
            ".server import workers\nworkers.CUT_TIMEOUT = 0.2")
            for args in ([], ["--workers", "1"])]
        stuffed = []
        for process in begun:
            address = self.ready(process)
            stuffed.append(self.stuff(address)[0])
            process.send_signal(signal.SIGTERM)
            self.refused(address)
        threading.Event().wait(0.3)     # longer than they have
        for process, s in zip(begun, stuffed):
            self.assertIs(process.poll(), None)
            code, lines = self.outcome(process, signal.SIGTERM)
            self.assertEqual(code, 1)
            self.assertRegex(lines[-1], r" INFO served .*\(1 drain\b")
            self.assertEqual(self.rest(s)[1], "reset")

    def test_signals_in_this_process(self):
        """Those after the second do not put off the end, which needs no
        thread to spare; one that another thread takes wakes the loop."""
        for error in None, RuntimeError:
            stop = mock.Mock()
            with mock.patch.object(signals, "CALLS", itertools.count()), \
                    mock.patch("faulthandler.dump_traceback_later",
                               side_effect=error) as end, \
                    signals.stop_on([signal.SIGUSR1], stop, -1):
                for _ in range(4):
                    os.kill(os.getpid(), signal.SIGUSR1)
            self.assertEqual(end.call_count, 1)
            self.assertEqual(stop.call_args_list,
                             [mock.call(), mock.call(grace=0)])
        server, go = self.make(), threading.Event()
        self.in_thread(lambda: go.wait(PATIENCE) and os.kill(
            os.getpid(), signal.SIGUSR1))
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        try:
            with signals.stop_on([signal.SIGUSR1], server.stop,
                                 server.loop.wakeup_fd()):
                server.loop.call_at(0, go.set)
                server.serve_forever()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])

    @needs_fork
    def test_killed(self):
        """All processes of a server end with it, at once, and reset what is
        not whole."""
        begun = [self.run_server("0", *args) for args in (
            [], ["-m", "processes"], ["--workers", "2", "-m", "processes"])]
        for process in begun:
            with self.subTest(process.args[-4:]):
                address = self.ready(process)
                idle, (s, _) = self.client(address), self.stuff(address)
                process.kill()
                self.ends(idle, "reset")
                self.assertEqual(self.rest(s)[1], "reset")
                # the last process that ends closes it
                self.assertEqual(self.read_line(process.stdout), b"")
                self.refused(address)

    def stuck(self, *args, signals=1, **options):
        """Let a program hang in a log that nobody reads, and fail unless so
        many signals end it and all of its processes, and reset what was not
        answered."""
        import fcntl
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        process = self.run_server(
            "0", *args, stderr=writer, prelude="from echoserver.server import "
            "signals, workers\n"
            "workers.CUT_TIMEOUT = signals.LAST_SECONDS = 0.05", **options)
        address = self.ready(process)
        s, _ = self.stuff(address)
        os.write(writer, bytes(fcntl.fcntl(writer, 1032)))  # F_GETPIPE_SZ
        os.close(writer)
        self.answers(address)       # whose line is one too many
        pid = process.pid
        if options.get("inside"):
            (pid,) = map(int, children(pid))
        for number in [signal.SIGTERM, signal.SIGINT][:signals]:
            os.kill(pid, number)
        self.assertEqual(process.wait(PATIENCE), 1)
        self.assertEqual(self.rest(s)[1], "reset")
        while os.read(reader, 1 << 20):     # until the last has closed it
            self.readable(reader, "the end of all processes")

    @linux_only
    def test_log_that_nobody_reads(self):
        """It stops the server, but not its end: a second signal is enough;
        also as process 1 of a container, where a signal with its default
        action does nothing."""
        for args, inside in ((["-m", "events"], []),
                             (["-m", "processes"], container())):
            with self.subTest(args):
                self.stuck(*args, signals=2, inside=inside)

    @linux_only
    def test_log_of_workers_that_nobody_reads(self):
        """They are killed when the grace is over, as are their children."""
        self.stuck("--workers", "1", "-m", "processes", "--grace", "0",
                   inside=container())


@posix_only
class ActivationTest(ModelTestCase):

    # The name of this process is known when it runs; execv() keeps it.
    LAUNCHER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
if sys.argv[2] != "-":
    os.close(1)
os.execv(sys.argv[3], sys.argv[3:])"""

    # Each file in turn as descriptor 3, and what is said of it.
    MISTAKES = """
import os, socket
from echoserver.server.listening import handed_listener
good, deaf = socket.socket(), socket.socket()
good.bind(("127.0.0.1", 0))
good.listen(5)
datagrams = socket.socket(type=socket.SOCK_DGRAM)
nothing = open(os.devnull)
pid = os.getpid()
for file, handed in ((good, (pid, 2)), (good, (1, 1)), (deaf, (pid, 1)),
                     (datagrams, (pid, 1)), (nothing, (pid, 1)),
                     (None, (pid, 1))):
    os.environ["LISTEN_PID"], os.environ["LISTEN_FDS"] = map(str, handed)
    if file:
        os.dup2(file.fileno(), 3)
    else:
        os.close(3)
    try:
        handed_listener()
    except OSError as error:
        print(error, flush=True)
os._exit(0)"""

    def activate(self, host, closed, *args):
        """Start the program as a service manager does; return its process
        and the address that it was handed."""
        handed = self.make(address=(host, 0)).socket
        return self.run_command(
            [sys.executable, "-S", "-c", self.LAUNCHER, str(handed.fileno()),
             closed] + python("-m", "echoserver", *args),
            pass_fds=[handed.fileno()]), handed.getsockname()

    def test_listener_that_is_handed_over(self):
        """It is served, of whatever family, with its address in the ready
        line, or with no stdout at all; one that was asked for is ignored, and
        the log says so."""
        for host, closed, args in (
                ("::1" if has_ipv6() else "127.0.0.1", "-", ["8.8.8.8:9"]),
                ("127.0.0.1", "stdout", ["--workers", "2"])):
            with self.subTest(args):
                process, address = self.activate(host, closed, *args)
                s = self.asking(address)
                if closed == "-":
                    self.assertEqual(self.ready(process), address[:2])
                self.assertEqual(self.receive(s, 5), b"HELLO")
                s.close()
                code, lines = self.outcome(process, signal.SIGTERM)
                self.assertEqual(code, 0)
                self.assertEqual(" 8.8.8.8 and port 9 is ignored" in lines[0],
                                 closed == "-")

    def test_handed_over_by_mistake(self):
        """What cannot be served is refused in one sentence."""
        out, err = self.run_python("-c", self.MISTAKES).communicate(
            timeout=PATIENCE)
        lines = out.decode().splitlines()
        self.assertEqual(err, b"")
        self.assertIn("LISTEN_FDS is 2", lines[0])
        self.assertIn("LISTEN_PID is 1, ", lines[1])
        self.assertEqual(lines[2:], [
            "descriptor 3 is not a listening TCP socket"] * 4)
