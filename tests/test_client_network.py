"""The client program on networks that do not let it through, for real: in a
network namespace, with routes and a packet filter of its own (Linux, root).
"""

import json
import os
import shutil
import subprocess
import unittest

from .faces import ENVIRONMENT, ClientTestCase
from .support import PATIENCE, ROOT, python

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
            self.inside(*python("-m", "echoserver.client",
                                *map(str, args))), cwd=ROOT, env=ENVIRONMENT,
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
        """No route, a forbidden or a closed one, or a router that says so."""
        self.says("UNREACHABLE", THERE, 80)
        for kind in "prohibit", "unreachable", "blackhole":
            self.do(self.ip, "-n", NAME, "route", "replace", kind, THERE)
            self.says("UNREACHABLE", THERE, 80)
        for reason in "admin-prohibited", "no-route":
            self.rule("input", "reject with icmpx type " + reason)
            self.says("UNREACHABLE", HERE, self.port)

    def test_timeout(self):
        """Nothing came: something drops the packets."""
        self.rule("input", "drop")
        self.says("TIMEOUT", HERE, self.port, "-W", 0.2)

    def test_retransmissions(self):
        """A path that loses packets shows in them, and in nothing else."""
        self.rule("input", "meta length > 90 numgen inc mod 2 1 drop")
        process = self.client_inside(HERE, self.port, "-c", 3, "-i", 0,
                                     "--json")
        code, out, err = self.outcome(process)
        self.assertEqual((code, err), (0, []))
        self.assertGreater(json.loads(out.decode())["tcp_retransmissions"], 0)
