"""The client program as a counter, when signals come."""

import os
import signal
import sys
import threading
import unittest
from unittest import mock

from echoserver.client.counting import Count
from echoserver.console import die

from . import peers
from .faces import ClientTestCase, full_pipe
from .support import PATIENCE, until


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
