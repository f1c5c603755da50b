"""The client program as a counter, when signals come."""

import contextlib
import os
import signal
import sys
import threading
import unittest

from . import peers
from .faces import CountTestCase
from .support import PATIENCE, until


class SignalTests(CountTestCase):

    def test_interrupted(self):
        """130 on Ctrl-C, 143 on SIGTERM, with the summary: what had no reply
        then is neither lost nor forgotten."""
        for number, code in (signal.SIGINT, 130), (signal.SIGTERM, 143):
            taken = threading.Event()

            def script(connection):
                connection.sendall(peers.take(connection, 64).upper())
                connection.recv(1024)
                taken.set()
                connection.recv(1024)
            process = self.client(*self.play(script), "-c", 0, "-i", 0,
                                  "--json")
            self.assertTrue(taken.wait(PATIENCE))
            tasks = "/proc/%d/task" % process.pid
            if os.path.isdir(tasks):
                self.assertEqual(len(os.listdir(tasks)), 1)
            process.send_signal(number)
            outcome = self.outcome(process)
            self.assertEqual((outcome[0], outcome[2]), (code, []))
            figures = self.figures(outcome[1])
            self.assertEqual([figures["messages_" + fate] for fate in (
                "sent", "lost", "unanswered")], [2, 0, 1])

    def test_interrupted_between_messages(self):
        """It does not wait for the next, also where SIGINT was ignored, as in
        the background job of a script."""
        process = self.client(
            *self.play(peers.echo), "-c", 0, "-i", 60,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
        self.read_line(process.stdout)
        process.send_signal(signal.SIGINT)
        code, out, err = self.outcome(process)
        self.assertEqual((code, err), (130, []))
        self.assertIn(b"1 sent, 1 verified, 0 lost, 0 wrong", out)

    def test_interrupted_at_its_pace(self):
        """No message goes out any more, and so none is unanswered."""
        process = self.client(*self.play(peers.echo), "-c", 0, "-i", "0.1",
                              "-n", 4)
        self.read_line(process.stdout)
        process.send_signal(signal.SIGINT)
        code, out, err = self.outcome(process)
        self.assertEqual((code, err), (130, []))
        self.assertNotIn(b"unanswered", out)

    def test_interrupted_while_a_reply_is_on_its_way(self):
        """It is waited for, for a moment."""
        taken = threading.Event()
        stopped = threading.Event()

        def script(connection):
            data = peers.take(connection, 64)
            taken.set()
            stopped.wait(PATIENCE)
            connection.sendall(data.upper())
            peers.echo(connection)
        process = self.client(*self.play(script), "-c", 0, "-i", 0)
        self.assertTrue(taken.wait(PATIENCE))
        process.send_signal(signal.SIGINT)
        stopped.set()
        self.assertIn(b"1 sent, 1 verified, 0 lost, 0 wrong in",
                      self.outcome(process)[1])

    def test_stall_at_the_end(self):
        """A server that has stopped is not hidden by Ctrl-C."""
        taken = threading.Event()

        def script(connection):
            peers.take(connection, 64)
            taken.set()
            peers.mute(connection)
        process = self.client(*self.play(script), "-c", 0, "-i", "0.01",
                              "--json")
        self.assertTrue(taken.wait(PATIENCE))
        process.send_signal(signal.SIGTERM)
        code, out, err = self.outcome(process)
        figures = self.figures(out)
        self.assertEqual((code, figures["messages_unanswered"]), (143, 1))
        self.assertGreaterEqual(figures["wait_max_us"], 5e5)
        self.assertGreaterEqual(figures["oldest_unanswered_seconds"], 0.5)

    def test_second_signal(self):
        """It ends the program at once, whatever that waits for."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, bytes(1 << 16))
        os.set_blocking(writer, True)
        asked = threading.Event()

        def script(connection):
            connection.sendall(connection.recv(1 << 16).upper())
            asked.set()
            peers.mute(connection)
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
        def script(connection):
            connection.sendall(peers.take(connection, 64).upper())
            data = peers.take(connection, 64)
            os.kill(os.getpid(), signal.SIGQUIT)
            until(lambda: " sent, " in sys.stderr.getvalue(), "the summary")
            connection.sendall(data.upper())
            peers.echo(connection)
        code, out, err = self.slowly(*self.play(script), "-c", 4)
        self.assertEqual((code, len(err)), (0, 3))
        self.assertRegex(err[0], "^2 sent, 1 verified, .* 1 unanswered for "
                         "up to [0-9.]+ s in ")
        self.assertRegex(err[1], "^RTT ")
        self.assertIn(b"4 sent, 4 verified", out)
