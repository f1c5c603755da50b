"""The client program on networks that do not let it through, for real: in a
network namespace, with routes and a packet filter of its own (Linux, root).

The main thread of this process is in the namespace, and so is all that it
starts.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import unittest

from . import peers
from .faces import ClientTestCase, full_pipe
from .support import PATIENCE, children, python, until

try:
    import ctypes
except ImportError:
    ctypes = None

TOOLS = [shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin")
         for tool in ("ip", "nft", "unshare")]
HERE, THERE = "192.0.2.1", "198.51.100.1"       # for documentation, RFC 5737
CLONE_NEWNET = 0x40000000


@unittest.skipIf(None in TOOLS or ctypes is None or os.geteuid(), "needs root,"
                 " and the tools ip, nft and unshare (packages "
                 "iproute2, nftables and util-linux of Debian)")
class NetworkTests(ClientTestCase):

    def setUp(self):
        super().setUp()
        libc = ctypes.CDLL(None)
        outside = self.enter(open("/proc/thread-self/ns/net"))
        if libc.unshare(CLONE_NEWNET):
            self.skipTest("no network namespace can be made here")
        self.addCleanup(libc.setns, outside.fileno(), CLONE_NEWNET)
        self.do("ip", "link set lo up")
        self.do("ip", "address add %s/32 dev lo" % HERE)
        self.host, self.port = peers.play(self, peers.echo, host=HERE).address

    def do(self, tool, words):
        done = subprocess.run(
            [tool, *words.split()], stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=PATIENCE, env=dict(
                os.environ, PATH=os.environ.get("PATH", "") + ":/usr/sbin"))
        self.assertEqual((done.returncode, done.stdout), (0, b""))

    def rule(self, rule):
        """Let the packet filter have one rule, for our port."""
        self.addCleanup(self.do, "nft", "flush ruleset")
        self.do("nft", "table inet t; flush table inet t; table inet t { "
                "chain c { type filter hook input priority 0; tcp dport %d %s;"
                " }; }" % (self.port, rule))

    def says(self, word, host, port, *args):
        """Return the line on standard error, for one message."""
        outcome = self.here("-c", 1, host, port, *args)
        self.assertEqual((outcome[0], len(outcome[2])), (1, 1), outcome)
        self.assertRegex(outcome[2][0], "^%s %s:%d " % (word, host, port))
        return outcome[2][0]

    def test_refused(self):
        """An answer came: nothing listens there, or not for other hosts, or a
        firewall rejects."""
        self.assertIn("-b 0.0.0.0", self.says("REFUSED", HERE, 1))
        for answer in "reject with tcp reset", "reject":
            self.rule(answer)
            self.says("REFUSED", HERE, self.port)

    def test_unreachable(self):
        """No route, a forbidden or a closed one, or a router that says so: it
        is told whether this host or another one rejects it."""
        self.assertIn("this host has no route",
                      self.says("UNREACHABLE", THERE, 80))
        for kind, why in (("prohibit", "this host's own rules forbid"),
                          ("unreachable", "this host has no route"),
                          ("blackhole", "this host's own rules forbid")):
            self.do("ip", "route replace %s %s" % (kind, THERE))
            self.assertIn(why, self.says("UNREACHABLE", THERE, 80))
        for reason in "admin-prohibited", "no-route":
            self.rule("reject with icmpx type " + reason)
            self.assertIn("a router or firewall on the way rejects it",
                          self.says("UNREACHABLE", HERE, self.port))

    def test_large_packets(self):
        """A path that drops them is open for a short message."""
        self.do("ip", "link set lo mtu 1500")
        self.rule("meta length > 1200 drop")
        self.assertEqual(self.here(HERE, self.port, "-c", 1)[0], 0)
        self.assertIn("large packets (MTU)", self.says(
            "TIMEOUT", HERE, self.port, "-s", 3000, "-W", "0.4"))

    def test_retransmissions(self):
        """A path that loses packets shows in them, and in nothing else."""
        self.rule("meta length > 90 numgen inc mod 2 1 drop")
        code, out, err = self.here(HERE, self.port, "-c", 2, "-i", 0)
        self.assertEqual((code, err), (0, []))
        self.assertRegex(out, b"TCP segments sent again: [1-9]")

    def test_resolver_that_says_nothing(self):
        """A name is looked up within -w, and Ctrl-C ends at once; what is
        still looking it up keeps no process alive."""
        mute = self.enter(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        mute.settimeout(PATIENCE)
        mute.bind((HERE, 53))
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("nameserver %s\n" % HERE)
            file.flush()
            command = ["unshare", "-m", "sh", "-c", "mount --bind %s /etc/"
                       "resolv.conf && exec \"$@\"" % file.name, "sh", *python(
                           "-m", "echoserver.client", "name.example", "-c1")]
            process = self.run_command(command)
            mute.recv(999)
            process.send_signal(signal.SIGINT)
            self.assertEqual(self.outcome(process)[0], 130)
            outcome = self.outcome(self.run_command(command + ["-w0.1"]))
            self.assertIn("resolver did not answer in time", self.assertFails(
                outcome, 1, "DNS", ("name.example", 8080)))

    def test_process_1(self):
        """The first process of a container can be ended, too, when nobody
        reads what it says."""
        reader, writer, _ = full_pipe(True)
        self.addCleanup(os.close, reader)
        self.addCleanup(os.close, writer)
        for args, size, number, code in ((["-c0"], 64, signal.SIGTERM, 143),
                                         ([], 3, signal.SIGTERM, 143),
                                         ([], 3, signal.SIGINT, 130)):
            asked = threading.Event()
            script = peers.after(size, lambda connection: (
                asked.set(), peers.mute(connection)))
            process = self.run_command([
                "unshare", "-pf", *python("-m", "echoserver.client", *map(
                    str, self.play(script)), *args)], stdout=writer)
            process.stdin.write(b"abc")
            process.stdin.flush()
            self.assertTrue(asked.wait(PATIENCE))
            inner, = children(process.pid)

            def ended():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(inner), number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(0.1) is not None
            until(ended, "its end")
            self.assertEqual(process.returncode, code)
            self.assertNotIn(b"Traceback", process.stderr.read())
