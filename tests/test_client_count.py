"""The client program as a counter of round trips."""

import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import unittest
from unittest import mock

from echoserver.client.counting import Count
from echoserver.console import die

from . import peers
from .faces import ClientTestCase, at_rest, full_pipe, pty
from .support import PATIENCE, ROOT, until

try:
    import resource
except ImportError:
    resource = None


def stale(connection):
    """Answer a second message as the first one."""
    reply = peers.take(connection, 8).upper()
    connection.sendall(reply)
    peers.take(connection, 8)
    connection.sendall(reply)
    peers.mute(connection)


short = peers.after(8, lambda connection: None)
# Scripts, arguments, exit code, the words that are told, and some figures.
FAILURES = [
    ([], "-c3", 1, ["REFUSED"], {
        "messages_sent": 0, "messages_unsent": 3, "outages": 1,
        "rtt_p99_us": None, "failures": {"REFUSED": 3}}),
    ([stale, peers.echo], "-c3", 3, ["WRONG"], {
        "replies_verified": 2, "replies_wrong": 1,
        "messages_lost": 0}),
    ([peers.end, peers.verbatim], "-c4", 3, ["CLOSED", "WRONG"], {
        "failures": {"CLOSED": 1, "WRONG": 3}}),
    ([short], "-c2 -i600", 1, ["CLOSED"], {
        "messages_sent": 1, "replies_verified": 1,
        "messages_lost": 0, "messages_unsent": 1}),
    ([short, peers.echo], "-c3 -i0.1", 1, ["CLOSED"], {
        "replies_verified": 2, "messages_unsent": 1,
        "messages_lost": 0}),
    ([peers.mute], "-c1 -w0.1", 1, ["TIMEOUT"], {
        "replies_verified": 0, "messages_lost": 0}),
    ([peers.echo], "-c9 -i5 -w0.1", 1, ["TIMEOUT"], {
        "messages_lost": 0}),
    ([peers.echo], "-c9 -w0.000001", 1, ["TIMEOUT"], {
        "messages_sent": 0}),
]


class CountTests(ClientTestCase):

    def test_lines(self):
        """A line for each reply, then the summary; exit code 0."""
        peer = self.play(peers.echo)
        with mock.patch("time.clock_gettime", create=True,
                        side_effect=(n / 1024 for n in range(9999))):
            code, out, err = self.slowly(*peer, "-c", 2, "-s", 100)
        lines = out.decode().splitlines()
        self.assertEqual((code, err, len(lines)), (0, [], 7), out)
        for number, line in enumerate(lines[:2], 1):
            match = re.match(r"100 bytes from 127\.0\.0\.1:%d: seq=%d time="
                             r"(\d+\.\d\d\d) ms$" % (peer[1], number), line)
            self.assertTrue(0.9 < float(match.group(1)) < 20, line)
        self.assertEqual(lines[2], "--- 127.0.0.1:%d, 100 bytes a message, "
                         "1 connection" % peer[1])
        self.assertRegex(lines[3], "^2 sent, 2 verified, 0 lost, 0 wrong in ")
        self.assertEqual([line.split()[0] for line in lines[5:]],
                         ["RTT", "wait"])

    def test_interval(self):
        """It is the time between two messages, and kept; another connection
        may wait for longer."""
        times, go = [time.monotonic()], threading.Event()

        def script(connection):
            for data in iter(lambda: connection.recv(1 << 16), b""):
                times.append(time.monotonic())
                connection.sendall(data.upper())
                if len(times) == 4:
                    go.set()
        code, out, err = self.here(*self.play(
            peers.after(0, peers.after(64), go, request=0), script), "-q", "-i",
            "0.05", "-c", 4, "-n", 2)
        self.assertEqual((code, err), (0, []))
        self.assertGreaterEqual(times[2] - times[0], 0.05)
        self.assertGreaterEqual(times[3] - times[0], 0.1)

    def test_connections(self):
        """The connections share the count, and are that many at a time, in
        one thread; a message is as large as was asked."""
        together = threading.Barrier(3)

        def script(connection):
            data = connection.recv(1 << 16)
            together.wait(PATIENCE)
            # Three of these, an acceptor, and the program.
            self.assertEqual(threading.active_count(), 5)
            together.wait(PATIENCE)
            connection.sendall(data.upper())
            peers.echo(connection)
        outcome = self.count(*self.play(script), "-c", 20, "-n", 3, "-s",
                             1 << 20, "--json")
        figures = self.figures(outcome)
        self.assertEqual((outcome[0], outcome[2]), (0, []))
        self.assertEqual([figures[name] for name in (
            "messages_sent", "connections", "size_bytes")], [20, 3, 1 << 20])

    def test_json(self):
        """One object, which has the figures of figures.py and of the run."""
        outcome = self.count(
            *self.play(peers.echo), "-c", 20, "-s", 1000, "--json")
        figures = self.figures(outcome)
        self.assertEqual((outcome[0], outcome[2]), (0, []))
        self.assertEqual([figures[name] for name in (
            "host", "replies_verified", "size_bytes", "interval_seconds",
            "failures", "first_failure", "outages", "stopped_seconds",
            "addresses", "replies_least", "reconnect")],
            ["127.0.0.1", 20, 1000, 0, {}, None, 0, 0, ["127.0.0.1"], 20,
             False])
        self.assertRegex(figures["started"], "^[0-9]{4}-[0-9T:.-]+[+][0-9:]+$")
        for what in "rtt", "wait", "connect", "first":
            times = [figures["%s_%s_us" % (what, name)]
                     for name in ("min", "p50", "p90", "p99", "max")]
            self.assertEqual(times, sorted(times))
            self.assertGreater(times[0], 0)
        self.assertEqual(figures["tcp_retransmissions"],
                         0 if sys.platform == "linux" else None)

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
            self.assertFails(outcome, 1, word, (host, port))
            self.assertRegex(outcome[1].decode(), "^--- .*\n0 sent, 0 verified"
                             ", 0 lost, 0 wrong, 1 not sent in [0-9.]+ s\n$")

    def test_failures(self):
        """Each is counted as what it was, and the first of each kind has its
        line, though quiet, that explains the exit code; a loss while nothing
        is due is noticed at once, and the next message goes in its place; a
        stale reply is not taken."""
        for scripts, args, code, words, expected in FAILURES:
            address = self.play(*scripts) if scripts else peers.nobody()
            outcome = self.count(*address, "-qs8", "--json", *args.split())
            figures = self.figures(outcome)
            with self.subTest(words, args=args):
                self.assertEqual((outcome[0], [line.split()[0] for line in
                                               outcome[2]]), (code, words))
                self.assertEqual({name: figures[name] for name in expected},
                                 expected)

    def test_outage(self):
        """It lasts from the first loss to the next reply; after a failure a
        connection waits before it connects again, and is no storm."""
        address = self.play(peers.after(64, peers.cut), peers.cut, peers.cut,
                            peers.echo)
        figures = self.figures(self.count(*address, "-c", 5, "--json"))
        self.assertEqual((figures["replies_verified"], figures["outages"]),
                         (2, 1))
        self.assertGreaterEqual(figures["longest_outage_seconds"],
                                3 * Count.failure_pause)

    def test_deadline(self):
        """It ends the count, which is right if all replies have come."""
        code, out, err = self.count(*self.play(peers.echo), "-c", 0,
                                    "-w", "0.1")
        self.assertEqual((code, err), (0, []))
        self.assertIn(b" 0 lost, 0 wrong in ", out)
        self.assertIs(signal.getsignal(signal.SIGTERM), signal.SIG_DFL)

    def test_reconnect(self):
        """Each message has a connection, whose times are in its line."""
        peer = peers.play(self, peers.echo)
        code, out, err = self.slowly(*peer.address, "-c", 3, "--reconnect")
        self.assertEqual((code, err, peer.accepted), (0, [], 3))
        self.assertEqual(len(re.findall(br"seq=\d connect=[0-9.]+ ms time="
                                        br"[0-9.]+ ms\n", out)), 3)
        self.assertIn(b"\nconnect min/mean/", out)
        figures = self.figures(self.count(
            *peer.address, "-c", 20, "-n", 2, "--reconnect", "--json"))
        self.assertEqual((figures["reconnect"], peer.accepted), (True, 23))
        self.assertGreater(figures["first_min_us"], figures["connect_min_us"])
        self.assertLess(figures["first_max_us"], figures["seconds"] * 1e6)

    def test_connection_that_starves(self):
        """It shows in the replies of a connection, and in the waits, though
        there is no interval."""
        outcome = self.count(*self.play(peers.mute, peers.echo), "-c", 0,
                             "-n", 3, "-w", "0.15", "--json")
        figures = self.figures(outcome)
        self.assertEqual((outcome[0], figures["replies_least"],
                          figures["messages_unanswered"]), (1, 0, 1))
        self.assertGreater(figures["replies_most"], 1)
        self.assertGreaterEqual(figures["wait_max_us"], 1e5)
        self.assertGreaterEqual(figures["wait_max_us"], figures["rtt_max_us"])

    def test_stall(self):
        """What a stalled server keeps back is counted from when it was due."""
        script = peers.before_second(lambda: threading.Event().wait(0.15))
        figures = self.figures(self.slowly(*self.play(script), "-c", 10,
                                           "--json"))
        self.assertGreater(figures["wait_p50_us"], 50000)
        self.assertLess(figures["wait_max_us"], figures["seconds"] * 1e6)
        self.assertGreater(figures["wait_p50_us"], figures["rtt_p50_us"])

    def test_address_that_changes(self):
        """After a loss the name is looked up again; the addresses that were
        measured are told."""
        places = [self.play(peers.echo), self.play(lambda connection: (
            connection.sendall(peers.take(connection, 64).upper())))]

        def resolve(host, *args):
            if args[-1] == socket.AI_NUMERICHOST:
                raise socket.gaierror
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", places.pop())]
        with mock.patch("socket.getaddrinfo", resolve):
            code, out, err = self.count("name", 1, "-c", 3)
        self.assertEqual((code, places), (1, []))
        self.assertIn(b"--- name:1 (127.0.0.1), ", out)
        self.assertIn(b" 2 verified, ", out)

    def test_standstill(self):
        """The time in which this program was stopped, or suspended with the
        system, is told, and is in no wait, round trip or outage."""
        for is_suspended in False, True:
            stop = self.stoppable_clock()
            script = peers.before_second(lambda: stop(1000, is_suspended))
            outcome = self.slowly(*self.play(script), "-c", 5, "--json")
            self.assertEqual(outcome[0], 0)
            self.assertRegex(outcome[2][0], "^this program stood still for "
                             "1[0-9]{3}[.][0-9] s; no wait ")
            figures = self.figures(outcome)
            self.assertGreater(figures["stopped_seconds"], 999)
            for name in "rtt_max_us", "wait_max_us", "seconds":
                self.assertLess(figures[name], 500e6 if "us" in name else 500)


class OutputTests(ClientTestCase):

    def test_timestamps(self):
        """-D puts the time of day before each line."""
        code, out, err = self.slowly(*self.play(peers.end, peers.echo), "-D",
                                     "-c", 2)
        stamp = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.]\d{3}[+-]\d\d:\d\d "
        self.assertRegex(err[0], stamp + "CLOSED ")
        for line in out.decode().splitlines():
            self.assertRegex(line, stamp)

    def test_lines_of_progress(self):
        """Where there is no terminal nor a line for each reply, there is one
        from time to time."""
        with mock.patch.object(Count, "progress_interval", 0.03):
            code, out, err = self.count(*self.play(peers.echo), "-c", 0,
                                        "-w", "0.1")
        self.assertRegex(out.decode(), r"(?s)^(\d+ replies/s, max [-0-9.]+ ms, "
                         r"\d+ verified, 0 lost, 0 wrong\n)+---")
        out = self.count(*self.play(peers.echo), "-c", 99)[1]
        self.assertRegex(out, b"^---.*\n99 sent, 99 verified, 0 lost, 0 wrong")

    @unittest.skipIf(pty is None, "no pseudo-terminals")
    def test_progress(self):
        """On a terminal one line shows how it goes, and is gone at the end."""
        (code, out, err), shown = self.progress(
            *self.play(peers.echo), "-c", 0, "-i", 0, "-w", "0.15")
        self.assertEqual(code, 0)
        self.assertGreater(shown.count(b"replies/s, "), 1)
        self.assertEqual(shown.count(b"\n"), 0)
        self.assertTrue(shown.endswith(b" \r"), shown)
        # Two columns are left for ^C, and the last for the cursor.
        self.assertEqual(set(map(len, shown.decode().split("\r"))), {0, 77})
        self.assertIn(b" sent, ", out)

    def test_histogram(self):
        """A chart that fits the width, in ASCII where nothing else goes."""
        for encoding, bar in ("ascii", "#"), ("utf-8", "\u2588"):
            with mock.patch.dict(os.environ, COLUMNS="50"):
                out = self.count(*self.play(peers.echo), "-c", 200,
                                 "--histogram", encoding=encoding)[1]
            lines = out.decode(encoding).splitlines()[5:]
            self.assertIn(bar, "".join(lines))
            self.assertEqual(max(map(len, lines)), 49)

    def test_full_output(self):
        """Pipes that are full, and set to O_NONBLOCK by another, get all."""
        out, err = full_pipe(False), full_pipe(False)
        process = self.client(*peers.nobody(), "-c", 1, stdout=out[1],
                              stderr=err[1])
        for (reader, writer, size), first in (err, b"REFUSED"), (out, b"---"):
            os.close(writer)
            until(lambda: at_rest(process), "the program to wait")
            file = self.enter(open(reader, "rb"))
            self.assertTrue(file.readline()[size:].startswith(first))
        self.assertEqual(process.wait(PATIENCE), 1)

    def test_program_that_is_replaced(self):
        """What may be needed at the end is imported at the start: 141, quietly,
        when nobody reads any more."""
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(os.path.join(ROOT, "echoserver"),
                            os.path.join(folder, "a", "echoserver"))
            with open(os.path.join(folder, "a", "__main__.py"), "w") as f:
                f.write("from echoserver.client.__main__ import main\n"
                        "raise SystemExit(main())")
            name = shutil.make_archive(folder + "/b", "zip", folder + "/a")
            process = self.run_python(name, *self.play(peers.echo), "-c", 0,
                                      "-i", "0.2", bufsize=0)
            self.read_line(process.stdout)
            with open(name, "wb"):
                pass
            process.stdout.close()
            self.assertEqual(process.wait(PATIENCE), 141)
            self.assertEqual(process.stderr.read(), b"")

    def test_out_of_memory(self):
        """2, with its sentence and the summary."""
        with mock.patch("echoserver.client.counting.message",
                        side_effect=MemoryError):
            code, out, err = self.count(*self.play(peers.echo), "-c", 1)
        self.assertEqual((code, len(err)), (2, 1))
        self.assertRegex(err[0], "^this host is out of memory; ")
        self.assertIn(b" verified, ", out)

    @unittest.skipIf(resource is None, "no limit of descriptors")
    def test_many_connections(self):
        """As many as the hard limit of descriptors allows."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE,
                        (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        self.assertEqual(self.count(*self.play(peers.echo), "-c", 1, "-n",
                                    500)[0], 0)
        self.assertGreater(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 500)


class SignalTests(ClientTestCase):

    def test_interrupted(self):
        """130 on Ctrl-C, 143 on SIGTERM, with the summary: what had no reply
        then is neither lost nor forgotten, and a stall is not hidden."""
        for number, code in (signal.SIGINT, 130), (signal.SIGTERM, 143):
            def script(connection):
                connection.sendall(peers.take(connection, 64).upper())
                connection.recv(1024)
                os.kill(os.getpid(), number)
                peers.mute(connection)
            outcome = self.slowly(*self.play(script), "-c", 0, "--json")
            self.assertEqual((outcome[0], outcome[2]), (code, []))
            figures = self.figures(outcome)
            self.assertEqual([figures["messages_" + fate] for fate in (
                "sent", "lost", "unanswered")], [2, 0, 1])
            for name in "wait_max_us", "oldest_unanswered_seconds":
                self.assertGreaterEqual(
                    figures[name], 5e4 if "us" in name else 0.05)

    def test_interrupted_between_messages(self):
        """It does not wait for the next, also where SIGINT was ignored, as in
        the background job of a script; and none goes out that would be
        unanswered."""
        def interrupt(connection):
            os.kill(os.getpid(), signal.SIGINT)
            peers.echo(connection)
        for args in ["-i", 60], ["-i", "0.02", "-n", 4]:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            code, out, err = self.here(*self.play(
                peers.after(64, interrupt), peers.echo), "-c", 0, "-q", *args)
            self.assertEqual((code, err), (130, []))
            self.assertRegex(out, br"\n(\d) sent, \1 verified, 0 lost, 0 wrong "
                             br"in ")

    def test_interrupted_while_a_reply_is_on_its_way(self):
        """It is waited for, for a moment."""
        def script(connection):
            data = peers.take(connection, 64)
            os.kill(os.getpid(), signal.SIGINT)
            until(lambda: signal.getsignal(signal.SIGINT) is die, "Ctrl-C")
            connection.sendall(data.upper())
            peers.echo(connection)
        with mock.patch.object(Count, "last_reply_timeout", PATIENCE):
            out = self.count(*self.play(script), "-c", 0)[1]
        self.assertIn(b"1 sent, 1 verified, 0 lost, 0 wrong in", out)

    def test_second_signal(self):
        """It ends the program at once, whatever that waits for."""
        reader, writer, _ = full_pipe(True)
        self.addCleanup(os.close, reader)
        asked = threading.Event()

        script = peers.after(64, lambda connection: (
            asked.set(), peers.mute(connection)))
        process = self.client(*self.play(script), "-c", 0, stdout=writer)
        os.close(writer)
        self.assertTrue(asked.wait(PATIENCE))
        process.send_signal(signal.SIGINT)
        until(lambda: process.poll() is not None
              or process.send_signal(signal.SIGINT), "its end")
        self.assertEqual(process.returncode, -signal.SIGINT)

    @unittest.skipUnless(hasattr(signal, "SIGQUIT"), "no SIGQUIT")
    def test_summary_so_far(self):
        """SIGQUIT shows it on standard error, and the count goes on."""
        script = peers.before_second(lambda: (
            os.kill(os.getpid(), signal.SIGQUIT), until(
                lambda: " sent, " in sys.stderr.getvalue(), "the summary")))
        code, out, err = self.slowly(*self.play(script), "-c", 4)
        self.assertEqual((code, len(err)), (0, 3))
        self.assertRegex(err[0], "^2 sent, 1 verified, .* 1 unanswered for "
                         "up to [0-9.]+ s in ")
        self.assertRegex(err[1], "^RTT ")
        self.assertIn(b"4 sent, 4 verified", out)
