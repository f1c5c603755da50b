"""The client program as a counter of round trips."""

import contextlib
import glob
import os
import re
import select
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
import unittest
import zipfile
from unittest import mock

from echoserver.client.counting import Count

from . import peers
from .faces import ENVIRONMENT, CountTestCase, at_rest
from .support import PATIENCE, ROOT, until

try:
    import fcntl
    import pty
    import termios
except ImportError:
    pty = None
try:
    import resource
except ImportError:
    resource = None


class CountTests(CountTestCase):

    def test_count(self):
        """A line for each reply, then the summary; exit code 0."""
        peer = self.play(peers.echo)
        code, out, err = self.slowly(*peer, "-c", 2, "-s", 100)
        lines = out.decode().splitlines()
        self.assertEqual((code, err, len(lines)), (0, [], 7), out)
        for number, line in enumerate(lines[:2], 1):
            self.assertRegex(line, r"^100 bytes from 127\.0\.0\.1:%d: seq=%d "
                             r"time=\d+\.\d\d\d ms$" % (peer[1], number))
        self.assertEqual(lines[2], "--- 127.0.0.1:%d, 100 bytes a message, "
                         "1 connection" % peer[1])
        self.assertRegex(lines[3], "^2 sent, 2 verified, 0 lost, 0 wrong in "
                         r"[0-9.]+ s$")
        self.assertRegex(lines[4], "^[0-9.]+ replies/s, [0-9.]+ bytes/s "
                         r"\([0-9.]+ Mbit/s\)$")
        for line, name in zip(lines[5:], ["RTT", "wait"]):
            self.assertRegex(line, "^%s min/mean/p50/p90/p99/max "
                             "([0-9.]+/){5}[0-9.]+ ms" % name)

    def test_interval(self):
        """It is the time between two messages, and kept."""
        times = []

        def script(connection):
            data = connection.recv(1 << 16)
            while data:
                times.append(time.monotonic())
                connection.sendall(data.upper())
                data = connection.recv(1 << 16)
        start = time.monotonic()
        self.assertEqual(self.here(*self.play(script), "-q", "-i", "0.05",
                                   "-c", 3)[0], 0)
        self.assertGreaterEqual(times[1] - start, 0.05)
        self.assertGreaterEqual(times[2] - start, 0.1)

    def test_fast(self):
        """Without an interval there is no line for each, and no progress
        where there is no terminal."""
        code, out, err = self.count(*self.play(peers.echo), "-c", 500)
        self.assertEqual((code, out.count(b"\n"), err), (0, 5, []))
        self.assertIn(b"500 sent, 500 verified, 0 lost, 0 wrong", out)

    def test_connections(self):
        """The connections share the count, and are that many at a time."""
        together = threading.Barrier(3)

        def script(connection):
            data = connection.recv(1 << 16)
            together.wait(PATIENCE)
            connection.sendall(data.upper())
            peers.echo(connection)
        code, out, err = self.count(
            *self.play(script), "-c", 100, "-n", 3, "--json")
        figures = self.figures(out)
        self.assertEqual((code, err, figures["messages_sent"],
                          figures["connections"]), (0, [], 100, 3))

    def test_large_messages(self):
        """What no buffer holds moves both ways at once."""
        code, out, err = self.count(*self.play(peers.echo), "-c", 2, "-n", 2,
                                    "-s", 1 << 23)
        self.assertEqual((code, err), (0, []))

    def test_json(self):
        """One object, with a unit in the name of every figure."""
        code, out, err = self.count(
            *self.play(peers.echo), "-c", 20, "-s", 1000, "--json")
        figures = self.figures(out)
        self.assertEqual((code, err), (0, []))
        self.assertEqual(set(figures), {
            "host", "port", "connections", "size_bytes", "interval_seconds",
            "messages_sent", "replies_verified", "messages_lost",
            "messages_unanswered", "replies_wrong", "seconds", "replies_per_s",
            "bytes_per_s", "failures", "first_failure", "outages",
            "longest_outage_seconds", "tcp_retransmissions",
            "oldest_unanswered_seconds", "messages_unsent", "reconnect",
            "replies_least", "replies_most", "started", "stopped_seconds",
            "addresses"} | {
            "%s_%s_us" % (what, which)
            for what in ("rtt", "wait", "connect", "first")
            for which in ("min", "mean", "p50", "p90", "p99", "max")})
        self.assertEqual([figures[name] for name in (
            "replies_verified", "size_bytes", "interval_seconds", "failures",
            "first_failure", "outages", "longest_outage_seconds",
            "stopped_seconds", "addresses", "replies_least", "reconnect")],
            [20, 1000, 0, {}, None, 0, 0, 0, ["127.0.0.1"], 20, False])
        self.assertRegex(figures["started"], "^[0-9]{4}-[0-9T:.-]+[+][0-9:]+$")
        self.assertAlmostEqual(figures["bytes_per_s"],
                               figures["replies_per_s"] * 1000,
                               delta=figures["bytes_per_s"] / 100)
        for what in "rtt", "wait", "connect", "first":
            times = [figures["%s_%s_us" % (what, name)]
                     for name in ("min", "p50", "p90", "p99", "max")]
            self.assertEqual(times, sorted(times))
            self.assertGreater(times[0], 0)
        if sys.platform == "linux":
            self.assertEqual(figures["tcp_retransmissions"], 0)

    def test_json_when_everything_fails(self):
        """The object is written all the same: REFUSED, 1."""
        address = peers.nobody()
        outcome = self.count(*address, "-c", 3, "--json")
        figures = self.figures(outcome[1])
        line = self.assertFails(outcome, 1, "REFUSED", address, outcome[1])
        self.assertEqual([figures[name] for name in (
            "messages_sent", "messages_lost", "messages_unsent",
            "rtt_p99_us")], [0, 0, 3, None])
        self.assertEqual(figures["failures"], {"REFUSED": 3})
        self.assertTrue(line.startswith(figures["first_failure"]))
        self.assertEqual(figures["outages"], 1)
        self.assertLessEqual(figures["longest_outage_seconds"],
                             figures["seconds"])

    def test_every_failure_is_told(self):
        """At a pace that allows it, each lost message has its line, with its
        number and how long it took."""
        code, out, err = self.slowly(*peers.nobody(), "-c", 2)
        self.assertEqual((code, len(err)), (1, 2))
        for number, line in enumerate(err, 1):
            self.assertRegex(line, r"^REFUSED .* \(seq=%d time=[0-9.]+ ms\)$"
                             % number)
        self.assertIn(b"0 sent, 0 verified, 0 lost, 0 wrong, 2 not sent", out)

    def test_one_message_without_a_connection(self):
        """One line for one fault; nothing was sent, and there are no figures
        of one message."""
        for host, word in ("127.0.0.1", "REFUSED"), ("nosuch.invalid", "DNS"):
            port = peers.nobody()[1]
            outcome = self.here(host, port, "-c", 1)
            self.assertFails(outcome, 1, word, (host, port), outcome[1])
            self.assertRegex(outcome[1].decode(), "^--- .*\n0 sent, 0 verified"
                             ", 0 lost, 0 wrong, 1 not sent in [0-9.]+ s\n$")

    def test_every_word_is_told(self):
        """Though quiet, the first failure of each kind has its line, so that
        the exit code has one that explains it."""
        first = [peers.end]
        address = self.play(lambda connection: (
            first.pop() if first else peers.verbatim)(connection))
        code, out, err = self.count(*address, "-q", "-c", 4)
        self.assertEqual((code, [line.split()[0] for line in err]),
                         (3, ["CLOSED", "WRONG"]))

    def lost(self, script, *args):
        """Return the outcome of three messages, the second of which script
        does not answer; the connection after that is served."""
        scripts = [peers.echo, script]
        address = self.play(lambda connection: scripts.pop()(connection))
        outcome = self.count(*address, "-c", 3, "-s", 8, "--json", *args)
        figures = self.figures(outcome[1])
        self.assertEqual(figures["replies_verified"], 2)
        return outcome, address, figures

    def test_loss_after_one_of_three(self):
        """It is counted, and the next message connects again."""
        def end(connection):
            peers.take(connection, 8)

        def cut(connection):
            peers.take(connection, 8)
            peers.cut(connection)
        for then, word in (end, "CLOSED"), (cut, "RESET"), (
                peers.mute, "TIMEOUT"):
            outcome, address, figures = self.lost(peers.after(8, then),
                                                  "-W", "0.2")
            self.assertFails(outcome, 1, word, address, outcome[1])
            self.assertEqual(figures["messages_lost"], 1)

    def test_stale_reply(self):
        """WRONG, 3: the reply to the message before is not taken."""
        def script(connection):
            reply = peers.take(connection, 8).upper()
            connection.sendall(reply)
            peers.take(connection, 8)
            connection.sendall(reply)
            peers.mute(connection)
        outcome, address, figures = self.lost(script)
        self.assertFails(outcome, 3, "WRONG", address, outcome[1])
        self.assertEqual(figures["replies_wrong"], 1)

    def test_loss_while_idle(self):
        """A server that cuts idle connections is found out, not hidden, and
        at once: nobody waits for the next message."""
        def script(connection):
            connection.sendall(peers.take(connection, 8).upper())
        outcome = self.here(
            *self.play(script), "-c", 2, "-s", 8, "-i", 600, "-q")
        self.assertEqual(outcome[0], 1)
        self.assertIn(b"1 sent, 1 verified, 0 lost, 0 wrong, 1 not sent",
                      outcome[1])

    def test_turn_after_a_loss_while_idle(self):
        """The next message goes in its place, and the outage began with the
        last reply."""
        def script(connection):
            connection.sendall(peers.take(connection, 8).upper())
            select.select([connection], [], [], 0.1)
        scripts = [peers.echo, script]
        outcome = self.here(
            *self.play(lambda connection: scripts.pop()(connection)),
            "-c", 3, "-s", 8, "-i", "0.2", "-q", "--json")
        figures = self.figures(outcome[1])
        self.assertEqual((figures["replies_verified"],
                          figures["messages_unsent"]), (2, 1))
        self.assertGreaterEqual(figures["longest_outage_seconds"], 0.1)

    def test_failures_are_no_storm(self):
        """After a failure a connection waits before it connects again."""
        start = time.monotonic()
        self.count(*peers.nobody(), "-c", 4)
        self.assertGreaterEqual(time.monotonic() - start,
                                3 * Count.failure_pause)

    def test_nothing_was_sent(self):
        """A deadline that came first is no success."""
        address = self.play(peers.echo)
        outcome = self.count(*address, "-c", 5, "-w", "0.000001")
        self.assertFails(outcome, 1, "TIMEOUT", address, outcome[1])

    def test_closed_output(self):
        """141, quietly."""
        process = self.client(*self.play(peers.echo), "-c", 0, "-i", "0.2")
        self.read_line(process.stdout)
        process.stdout.close()
        self.assertEqual(process.wait(PATIENCE), 141)
        self.assertEqual(process.stderr.read(), b"")

    @unittest.skipIf(resource is None, "no limit of memory")
    def test_out_of_memory(self):
        """2, with its sentence and the summary."""
        process = self.client(
            *self.play(peers.echo), "-c", 9, "-n", 9, "-s", 1 << 26,
            preexec_fn=lambda: resource.setrlimit(
                resource.RLIMIT_AS, (1 << 27, resource.RLIM_INFINITY)))
        code, out, err = self.outcome(process)
        self.assertEqual(code, 2)
        self.assertRegex(err[0], "^this host is out of memory; ")
        self.assertIn(b" verified, ", out)

    def test_name_that_standard_output_has_not(self):
        """It is escaped."""
        code, out, err = self.count(
            "b\xfccher.invalid", 80, "-c", 1,
            encoding="ascii")
        self.assertEqual((code, len(err)), (1, 1))
        self.assertIn(b"--- b\\xfccher.invalid:80, ", out)

    def test_full_output(self):
        """A pipe that is full, and set to O_NONBLOCK by another, gets all."""
        for stream, address, lines in (
                ("stdout", self.play(peers.echo), 7),
                ("stderr", peers.nobody(), 1)):
            reader, writer = os.pipe()
            os.set_blocking(writer, False)
            size = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    size += os.write(writer, bytes(1 << 12))
            process = self.client(*address, "-c", 1 + lines // 5, "-i", "0.2",
                                  **{stream: writer})
            os.close(writer)
            until(lambda: at_rest(process), "the program to wait")
            with open(reader, "rb") as out:
                self.assertEqual(len(out.read()[size:].splitlines()), lines)
            self.assertEqual(process.wait(PATIENCE), stream == "stderr")

    def test_timestamps(self):
        """-D puts the time of day before each line."""
        scripts = [peers.echo, peers.end]
        address = self.play(lambda connection: scripts.pop()(connection))
        code, out, err = self.slowly(*address, "-D", "-c", 2)
        stamp = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.]\d{3}[+-]\d\d:\d\d "
        self.assertRegex(err[0], stamp + "CLOSED ")
        self.assertEqual(re.sub("(?m)" + stamp, "", out.decode()).count("\n"),
                         len(re.findall("(?m)" + stamp, out.decode())))

    def test_deadline(self):
        """It ends the count, which is right if all replies have come."""
        code, out, err = self.count(*self.play(peers.echo), "-c", 0,
                                    "-w", "0.1")
        self.assertEqual((code, err), (0, []))
        self.assertIn(b" 0 lost, 0 wrong in ", out)
        self.assertIs(signal.getsignal(signal.SIGTERM), signal.SIG_DFL)

    def test_deadline_with_too_few_replies(self):
        """TIMEOUT, 1, as of ping: fewer came than were asked for."""
        address = self.play(peers.echo)
        outcome = self.here(*address, "-c", 10, "-i", 5, "-w", "0.1", "-q")
        self.assertIn("answered too few messages (1)", self.assertFails(
            outcome, 1, "TIMEOUT", address, outcome[1]))

    def test_reconnect(self):
        """Each message has a connection, whose times are in its line."""
        peer = peers.play(self, peers.echo)
        code, out, err = self.slowly(*peer.address, "-c", 3, "--reconnect")
        self.assertEqual((code, err, peer.accepted), (0, [], 3))
        self.assertEqual(len(re.findall(br"seq=\d connect=[0-9.]+ ms time="
                                        br"[0-9.]+ ms\n", out)), 3)
        self.assertIn(b"\nconnect min/mean/", out)
        figures = self.figures(self.count(
            *peer.address, "-c", 20, "-n", 2, "--reconnect", "--json")[1])
        self.assertEqual((figures["reconnect"], peer.accepted), (True, 23))
        self.assertGreater(figures["first_min_us"], figures["connect_min_us"])

    def test_connection_that_starves(self):
        """It shows in the replies of a connection, and in the waits, though
        there is no interval."""
        scripts = [peers.mute]
        address = self.play(lambda connection: (
            scripts.pop() if scripts else peers.echo)(connection))
        code, out, err = self.count(*address, "-c", 0, "-n", 3, "-w", "0.2",
                                    "--json")
        figures = self.figures(out)
        self.assertEqual((code, figures["replies_least"],
                          figures["messages_unanswered"]), (1, 0, 1))
        self.assertGreater(figures["replies_most"], 1)
        self.assertGreaterEqual(figures["wait_max_us"], 2e5)
        self.assertGreaterEqual(figures["wait_max_us"], figures["rtt_max_us"])

    def test_address_that_changes(self):
        """After a loss the name is looked up again; the addresses that were
        measured are told."""
        old = self.play(lambda connection: connection.sendall(
            peers.take(connection, 64).upper()))
        places = [self.play(peers.echo), old]

        def resolve(host, *args):
            if args[-1] == socket.AI_NUMERICHOST:
                raise socket.gaierror
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", places.pop())]
        with mock.patch("socket.getaddrinfo", resolve):
            code, out, err = self.count("name", 1, "-c", 3)
        self.assertEqual((code, places), (1, []))
        self.assertIn(b"--- name:1 (127.0.0.1), ", out)
        self.assertIn(b" 2 verified, ", out)

    @unittest.skipIf(resource is None, "no limit of descriptors")
    def test_many_connections(self):
        """As many as the hard limit of descriptors allows."""
        peer = peers.play(self, peers.echo)
        process = self.client(
            *peer.address, "-c", 2000, "-n", 200, "-i", 0, preexec_fn=(
                lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (
                    64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))))
        code, out, err = self.outcome(process)
        self.assertEqual((code, err), (0, []))
        self.assertGreater(peer.accepted, 64)

    @unittest.skipUnless(hasattr(signal, "SIGSTOP"), "no SIGSTOP")
    def test_standstill(self):
        """The time in which this program was stopped is told, and is in no
        wait, round trip or outage."""
        process = self.client(*self.play(peers.echo), "-c", 0, "-i", "0.05",
                              "--json", "-n", 2)
        until(lambda: at_rest(process), "the program to wait")
        process.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        select.select([process.stderr], [], [], 2)
        process.send_signal(signal.SIGCONT)
        line = self.read_line(process.stderr).decode()
        process.send_signal(signal.SIGINT)
        code, out, err = self.outcome(process)
        figures = self.figures(out)
        self.assertRegex(line, "^this program stood still for [0-9.]+ s")
        self.assertLess(1.5, figures["stopped_seconds"])
        for name in "rtt_max_us", "wait_max_us":
            self.assertLess(figures[name], 1.5e6)
        self.assertLess(figures["longest_outage_seconds"], 1.5)

    def test_program_that_is_replaced(self):
        """What may be needed at the end is imported at the start."""
        with tempfile.TemporaryDirectory() as folder:
            name = os.path.join(folder, "a.pyz")
            with zipfile.ZipFile(name, "w") as archive:
                for path in glob.glob(os.path.join(
                        ROOT, "echoserver", "**", "*.py"), recursive=True):
                    archive.write(path, os.path.relpath(path, ROOT))
                archive.writestr("__main__.py", "from echoserver.client.__main"
                                 "__ import main; raise SystemExit(main())")
            process = self.run_python(name, *self.play(peers.echo), "-c", 0,
                                      "-i", "0.2", env=ENVIRONMENT, bufsize=0)
            self.read_line(process.stdout)
            with open(name, "wb"):
                pass
            process.stdout.close()
            self.assertEqual(process.wait(PATIENCE), 141)
            self.assertEqual(process.stderr.read(), b"")

    def test_deadline_without_a_reply(self):
        """TIMEOUT, 1: neither the connection nor the reply came."""
        for address in self.play(peers.mute), peers.deaf(self):
            outcome = self.count(*address, "-c", 1, "-w", "0.1")
            self.assertFails(outcome, 1, "TIMEOUT", address, outcome[1])
            self.assertRegex(outcome[1], b" 0 verified, 0 lost, 0 wrong, "
                             b"1 (unanswered|not sent)")

    def test_stall(self):
        """What a stalled server keeps back is counted from when it was due."""
        stalled = threading.Event()

        def script(connection):
            connection.sendall(peers.take(connection, 64).upper())
            data = peers.take(connection, 64)
            stalled.wait(0.3)
            connection.sendall(data.upper())
            peers.echo(connection)
        code, out, err = self.slowly(*self.play(script), "-c", 30, "--json")
        figures = self.figures(out)
        self.assertGreater(figures["wait_p50_us"], 50000)
        self.assertLess(figures["wait_max_us"], figures["seconds"] * 1e6)
        self.assertGreater(figures["wait_p50_us"], figures["rtt_p50_us"])

    def test_outage(self):
        """It lasts from the first loss to the next reply."""
        scripts = [peers.echo, peers.cut, peers.cut,
                   peers.after(64, peers.cut)]
        address = self.play(lambda connection: scripts.pop()(connection))
        figures = self.figures(self.count(*address, "-c", 5, "--json")[1])
        self.assertEqual((figures["replies_verified"], figures["outages"]),
                         (2, 1))
        self.assertGreaterEqual(figures["longest_outage_seconds"],
                                3 * Count.failure_pause)

    def test_lines_of_progress(self):
        """Where there is no terminal nor a line for each reply, there is one
        from time to time."""
        with mock.patch.object(Count, "progress_interval", 0.05):
            code, out, err = self.count(*self.play(peers.echo), "-c", 0,
                                        "-w", "0.2")
        self.assertRegex(out.decode(), r"(?s)^(\d+ replies/s, max [0-9.]+ ms, "
                         r"\d+ verified, 0 lost, 0 wrong\n)+---")

    def test_histogram(self):
        """A chart that fits the width, in ASCII where nothing else goes."""
        for encoding, bar in ("ascii", "#"), ("utf-8", "\u2588"):
            with mock.patch.dict(os.environ, COLUMNS="50"):
                code, out, err = self.count(
                    *self.play(peers.echo), "-c", 200, "--histogram",
                    encoding=encoding)
            self.assertEqual((code, err), (0, []))
            lines = out.decode(encoding).splitlines()[5:]
            self.assertIn(bar, "".join(lines))
            self.assertEqual(max(map(len, lines)), 49)
            self.assertEqual(sum(int(line.split()[2]) for line in lines), 200)

    @unittest.skipIf(pty is None, "no pseudo-terminals")
    def test_progress(self):
        """On a terminal one line shows how it goes, and is gone at the end."""
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        fcntl.ioctl(slave, termios.TIOCSWINSZ,
                    struct.pack("4H", 24, 30, 0, 0))
        process = self.client(*self.play(peers.echo), "-c", 0, "-i", 0,
                              stderr=slave)
        os.close(slave)
        shown = b""
        while shown.count(b"replies/s, ") < 2:
            self.assertLess(len(shown), 10000)
            self.readable(master, "progress, after %r" % shown)
            shown += os.read(master, 1 << 16)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(PATIENCE), 130)
        while select.select([master], [], [], 0)[0]:
            try:
                shown += os.read(master, 1 << 16)
            except OSError:
                break
        self.assertEqual(shown.count(b"\n"), 1)     # after ^C
        self.assertTrue(shown.endswith(b" \r"), shown)
        # Two columns are left for ^C, and the last for the cursor.
        self.assertEqual(set(map(len, re.split(b"[\r\n]+", shown))),
                         {0, 27})
        self.assertIn(b" sent, ", process.stdout.read())
