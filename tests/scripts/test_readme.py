"""The README: its commands run, and print what it shows."""

import os
import re
import shlex
import subprocess
import sys
import tempfile

from tests.peers import nobody
from tests.support import PATIENCE, ROOT, TestCase

with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as readme:
    README = readme.read()

# What a command that takes minutes is given to show that it runs; each has
# tests of its own.
SHORTER = {
    "-m unittest": "-m unittest tests.test_figures",
    "scripts/soak.py": "scripts/soak.py --help",
    "scripts/bench.py": "scripts/bench.py --help",
    "scripts/rolling.py": "scripts/rolling.py --help",
    "scripts/lesson.py": "scripts/lesson.py --help",
    "--idle 60,300,900": "--idle 0.1,0.2",
    "-w 60": "-w 0.2",
    "-w 10": "-w 0.2",
}


class ReadmeTest(TestCase):

    def setUp(self):
        super().setUp()
        self.folder = self.enter(tempfile.TemporaryDirectory())
        self.port = nobody()[1]

    def prepared(self, command):
        """Return a command line of the README as it is run here."""
        for long, short in SHORTER.items():
            command = command.replace(long, short)
        for name, value in (("python3 ", shlex.quote(sys.executable) + " "),
                            ("HOST", "127.0.0.1"), ("8080", str(self.port)),
                            ("FILE", shlex.quote(__file__)),
                            ("0.0.0.0", "127.0.0.1"),
                            ("echoserver.pyz", os.path.join(
                                self.folder, "echoserver.pyz"))):
            command = command.replace(name, value)
        return command

    def run_line(self, command):
        """Start a command line from the project's root."""
        return self.run_command(command, shell=True, stdin=subprocess.DEVNULL,
                                env=dict(os.environ, PYTHONPATH=ROOT))

    def serve(self, command="python3 -m echoserver 8080"):
        """Start a server as the README does; return when it listens."""
        server = self.run_line("exec " + self.prepared(command))
        self.assertIn(b"Serving uppercase echo on ",
                      self.read_line(server.stdout))
        return server

    def test_commands_of_blocks(self):
        """Each runs: a server listens, all else exits with 0."""
        lines = re.findall(r"^(?:\$ )?(python3 .*?)(?:  #.*)?$", README, re.M)
        self.assertGreater(len(lines), 4)   # but for pip's
        for line in lines:
            with self.subTest(line):
                self.port = nobody()[1]
                program = line.split(" -m ")[-1].split("python3 ")[-1]
                if program.startswith("echoserver") and "8080" not in line:
                    line += (" 127.0.0.1 8080" if "client" in line
                             else " 8080")
                if program.startswith("echoserver") and "client" not in line:
                    self.serve(line)
                    continue
                if "client" in line:
                    self.serve()
                if "make_pyz" in line:
                    line += " -o echoserver.pyz"
                self.runs(line)

    def runs(self, line):
        """Fail unless a command line exits with 0."""
        process = self.run_line(self.prepared(line))
        out, err = process.communicate(timeout=3 * PATIENCE)
        self.assertEqual(process.returncode, 0, err)

    def test_commands_of_questions(self):
        """Each answers its question."""
        table = README[README.index("| question |"):]
        table = table[:table.index("\n\n")]
        lines = re.findall(r"`(python3 [^`]*)`", table)
        self.assertGreater(len(lines), 6)
        self.serve(re.search(r"`(python3 -m echoserver 8080[^`]*)`",
                             README).group(1))
        for line in lines:
            with self.subTest(line):
                self.runs(line)

    def test_python(self):
        """Each block of Python runs."""
        blocks = re.findall(r"```python\n(.*?)```", README, re.S)
        self.assertGreater(len(blocks), 0)
        for block in blocks:
            process = subprocess.run(
                [sys.executable, "-W", "error", "-c", block], cwd=ROOT,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                timeout=PATIENCE)
            self.assertEqual((process.returncode, process.stdout), (0, b""),
                             process.stderr)

    def test_flags(self):
        """Each flag of the programs is in its table, and no other."""
        for module, title in (("echoserver", "## Options of the server"),
                              ("echoserver.client", "## The client")):
            part = README[README.index(title):]
            part = part[:part.index("\n## ", 1)]
            told = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", part))
            text = subprocess.check_output(
                [sys.executable, "-m", module, "--help"], cwd=ROOT).decode()
            has = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
            self.assertEqual(has - told - {"--help", "--version", "--quiet",
                                           "--verbose"}, set())
            self.assertEqual(told - has - {"--help", "--idle-timeout"}, set())

    def test_ready_line(self):
        """It is as printed, but for the port."""
        shown = re.search("^Serving .*", README, re.M).group()
        server = self.run_line("exec " + self.prepared(
            "python3 -m echoserver 8080"))
        line = self.read_line(server.stdout).decode().rstrip()
        self.assertEqual(line, shown.replace("8080", str(self.port)))

    def test_files(self):
        """What it points to is there."""
        for name in re.findall(r"\]\(([^)#:]+)\)", README):
            self.assertTrue(os.path.exists(os.path.join(ROOT, name)), name)
        for name in re.findall(r"`((?:echoserver|scripts|tests)/[\w/.]+)`",
                               README):
            self.assertTrue(os.path.exists(os.path.join(ROOT, name)), name)
