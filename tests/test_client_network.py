"""The client program on networks that do not let it through, for real: in a
network namespace, with routes and a packet filter of its own (Linux, root).
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import unittest

from .faces import ENVIRONMENT, ClientTestCase
from .support import PATIENCE, ROOT, children, python, until

TOOLS = [shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin")
         for tool in ("ip", "nft")]
NAME = "echoserver-test-%d" % os.getpid()
HERE, THERE = "192.0.2.1", "198.51.100.1"       # for documentation, RFC 5737


def run(*command):
    return subprocess.run(command, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=PATIENCE)


def may_make_a_namespace():
    if None in TOOLS or not hasattr(os, "geteuid") or os.geteuid():
        return False
    made = not run(TOOLS[0], "netns", "add", NAME).returncode
    run(TOOLS[0], "netns", "delete", NAME)
    return made


@unittest.skipUnless(may_make_a_namespace(), "needs root, and the tools ip "
                     "and nft (packages iproute2 and nftables of Debian)")
class NetworkTests(ClientTestCase):

    def setUp(self):
        super().setUp()
        self.ip, self.nft = TOOLS
        self.do(self.ip, "netns", "add", NAME)
        self.addCleanup(self.do, self.ip, "netns", "delete", NAME)
        for command in ("link set lo up", "address add %s/32 dev lo" % HERE):
            self.do(self.ip, "-n", NAME, *command.split())
        server = subprocess.Popen(
            self.inside(*python("-m", "tests.peers", HERE)), cwd=ROOT,
            env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            bufsize=0)
        self.addCleanup(self._end, server)
        self.port = int(self.read_line(server.stdout))
        self.resolver = []

    def _end(self, process):
        process.stderr = None
        super()._end(process)

    def do(self, *command):
        done = run(*command)
        self.assertEqual(done.returncode, 0, done.stderr)

    def inside(self, *command):
        return [self.ip, "netns", "exec", NAME, *command]

    def rule(self, hook, rule):
        """Let the packet filter have one rule, for our port."""
        self.do(*self.inside(self.nft, (
            "table inet t; flush table inet t; table inet t { chain c { "
            "type filter hook %s priority 0; tcp dport %d %s; }; }"
            % (hook, self.port, rule))))

    def asks(self, *args):
        """Return the outcome of one message."""
        process = self.client_inside("-c", 1, *args)
        return self.outcome(process)

    def client_inside(self, *args):
        process = subprocess.Popen(
            self.inside(*self.resolver + python(
                "-m", "echoserver.client", *map(str, args))), cwd=ROOT,
            env=ENVIRONMENT, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(super()._end, process)
        return process

    def says(self, word, *args):
        code, out, err = self.asks(*args)
        self.assertEqual((code, len(err)), (1, 1), err)
        self.assertRegex(err[0], "^%s %s:%d " % ((word,) + args[:2]))
        return err[0]

    def test_open(self):
        """0."""
        self.assertEqual(self.asks(HERE, self.port)[0], 0)

    def test_refused(self):
        """An answer came: nothing listens there, or not for other hosts, or a
        firewall rejects."""
        line = self.says("REFUSED", HERE, 1)
        self.assertIn("-b 0.0.0.0", line)
        for answer in "reject with tcp reset", "reject":
            self.rule("input", answer)
            self.says("REFUSED", HERE, self.port)

    def test_unreachable(self):
        """No route, a forbidden or a closed one, or a router that says so: it
        is told whether this host or another one rejects it."""
        self.assertIn("this host has no route",
                      self.says("UNREACHABLE", THERE, 80))
        for kind, why in (("prohibit", "own rules forbid"),
                          ("unreachable", "has no route"),
                          ("blackhole", "own rules forbid")):
            self.do(self.ip, "-n", NAME, "route", "replace", kind, THERE)
            self.assertIn("this host" + ("'s " if "own" in why else " ") + why,
                          self.says("UNREACHABLE", THERE, 80))
        for reason in "admin-prohibited", "no-route":
            self.rule("input", "reject with icmpx type " + reason)
            self.assertIn("a router or firewall on the way rejects it",
                          self.says("UNREACHABLE", HERE, self.port))

    def test_timeout(self):
        """Nothing came: something drops the packets."""
        self.rule("input", "drop")
        self.says("TIMEOUT", HERE, self.port, "-W", 0.2)

    def test_large_packets(self):
        """A path that drops them is open for a short message."""
        self.do(self.ip, "-n", NAME, "link", "set", "lo", "mtu", "1500")
        self.rule("input", "meta length > 1200 drop")
        self.assertEqual(self.asks(HERE, self.port)[0], 0)
        self.assertIn("large packets (MTU)", self.says(
            "TIMEOUT", HERE, self.port, "-s", 3000, "-W", 1))

    def test_no_port_left(self):
        """It is this host's shortage, and not the path's fault."""
        self.do(*self.inside("sysctl", "-qw", "net.ipv4.ip_local_port_range="
                             "40000 40001"))
        code, out, err = self.asks(HERE, self.port, "-n", 3, "-c", 9, "-i", 0)
        self.assertEqual((code, len(err)), (2, 1), err)
        self.assertIn("this host has no local port left", err[0])

    def test_resolver_that_says_nothing(self):
        """A name is looked up within -W and -w, and Ctrl-C ends at once."""
        with tempfile.TemporaryDirectory() as folder:
            name = os.path.join(folder, "resolv.conf")
            with open(name, "w") as f:
                f.write("nameserver %s\n" % HERE)
            self.resolver = ["unshare", "-m", "sh", "-c", "mount --bind %s "
                             "/etc/resolv.conf && exec \"$@\"" % name, "sh"]
            mute = subprocess.Popen(self.inside(*python("-c", (
                "import socket, sys; s = socket.socket(2, 2); "
                "s.bind(('%s', 53))\nwhile True:\n print(flush=True)\n "
                "s.recv(999)" % HERE))), stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, bufsize=0)
            self.addCleanup(self._end, mute)
            self.read_line(mute.stdout)
            for args in ("-W", 0.3), ("-w", 0.3):
                self.assertIn("resolver did not answer in time", self.says(
                    "DNS", "name.example", 80, *args))
            for args in ["-c", 1], []:
                while select.select([mute.stdout], [], [], 0)[0]:
                    mute.stdout.read(1)
                process = self.client_inside("name.example", 80, *args)
                self.read_line(mute.stdout)
                process.send_signal(signal.SIGINT)
                self.assertEqual(self.outcome(process)[0], 130)

    def test_process_1(self):
        """The first process of a container can be ended, too."""
        for args, number, code in (
                (["-c", 0], signal.SIGTERM, 143), ([], signal.SIGTERM, 143),
                ([], signal.SIGINT, 130)):
            reader, writer = os.pipe()
            self.addCleanup(os.close, reader)
            os.set_blocking(writer, False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(writer, bytes(1 << 16))
            os.set_blocking(writer, True)
            process = subprocess.Popen(
                self.inside("unshare", "-pf", *python(
                    "-m", "echoserver.client", HERE, str(self.port),
                    *map(str, args))), cwd=ROOT, env=ENVIRONMENT,
                stdin=subprocess.PIPE, stdout=writer, stderr=subprocess.PIPE)
            self.addCleanup(super()._end, process)
            os.close(writer)
            process.stdin.write(b"abc")
            process.stdin.flush()
            inner = until(lambda: children(process.pid), "it to start")[0]

            def ended():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(inner), number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(0.2) == code
            until(ended, "its end")
            self.assertNotIn(b"Traceback", process.stderr.read())

    def test_retransmissions(self):
        """A path that loses packets shows in them, and in nothing else."""
        self.rule("input", "meta length > 90 numgen inc mod 2 1 drop")
        process = self.client_inside(HERE, self.port, "-c", 3, "-i", 0,
                                     "--json")
        code, out, err = self.outcome(process)
        self.assertEqual((code, err), (0, []))
        self.assertGreater(json.loads(out.decode())["tcp_retransmissions"], 0)
        self.assertIn(b"TCP segments sent again: ", self.asks(
            HERE, self.port)[1])
