"""Run every check on every Python that is found, and sum up.

    python3 scripts/check.py [PYTHON ...]

The Pythons are those that are named, or else the one that runs this, each
python3 and python3.N on PATH, and each version that pyenv has.  Every one of
them runs, with -X dev -W error, the unit tests and CPython's own tests of
socketserver with our classes (tests/conformance.py); the oldest and the newest
also run the tests of the scripts (tests/scripts).  Then mypy --strict, where
it is installed, reads the package, the scripts and the README's Python.

Silence is no success here.  A check fails, too, for what unittest forgives:
few tests (it says OK to none), a complaint that Python prints where it cannot
raise it (a ResourceWarning), a process left behind, no end.  What cannot be
run is skipped, and that is said aloud with its reason.

The last line is "N passed, N failed": tests, of all Pythons together; what is
found beside them counts as one failure each.  The exit status is 1 if anything
failed.
"""

import sys

if __name__ == "__main__":
    from lab.program import run as run_program
    sys.exit(run_program("check"))

import argparse
import collections
import concurrent.futures
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from functools import partial
from typing import (Callable, Iterable, Iterator, List, NamedTuple, Optional,
                    Set, Tuple)

__all__ = ["main"]

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

OLDEST = 3, 6
# Of unit tests that have to run.  There are more; some depend on the system.
LEAST = 300
# Seconds for one check, and for its last processes to go after its end.
PATIENCE = 600.0
LINGER = 5.0

# What the README tells people to type.
TEST_COMMAND = "python3 -m unittest"

# What a Python has to say of itself.  The link that it was found by does not
# matter, and many links may lead to it.
ASK = ("import json, os, sys; print(json.dumps([sys.version_info[:3], "
       "os.path.realpath(sys.executable)]))")

# How Python tells of an error that it has nobody to raise it to.
COMPLAINT = re.compile(
    "(?:Exception ignored in|Exception in thread|ResourceWarning: ).*")
SKIPPED = re.compile(r"\.\.\. skipped (['\"])(.*)\1$", re.M)

Python = Tuple[Tuple[int, ...], str]


class Result(NamedTuple):

    """What a check has shown.

    Problems fail the check, notes do not; the output is shown if it failed.
    """

    passed: int = 0
    failed: int = 0
    problems: List[str] = []
    notes: List[str] = []
    output: str = ""


# Finding.

def candidates() -> Iterator[str]:
    """Yield what may be a Python, and the same one perhaps twice."""
    yield sys.executable
    for folder in os.get_exec_path():
        for path in glob.glob(os.path.join(glob.escape(folder), "python3*")):
            if re.fullmatch(r"python3(\.\d+t?)?(\.exe)?",
                            os.path.basename(path)):
                yield path
    if shutil.which("pyenv"):
        root = subprocess.check_output(["pyenv", "root"]).decode().strip()
        yield from glob.glob(os.path.join(
            glob.escape(root), "versions", "*", "bin", "python"))


def ask(path: str) -> Optional[Python]:
    """Return the version and the real path of the Python at path, if it is
    one that can be run."""
    try:
        answer = subprocess.run([path, "-c", ASK], stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL, timeout=PATIENCE)
        version, real = json.loads(answer.stdout.decode())
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return tuple(version), real


def supported(paths: Iterable[str]) -> List[Python]:
    """Return the Pythons among paths that are to pass, the oldest first."""
    found = {ask(path) for path in paths}
    return sorted(python for python in found if python and python[0] >= OLDEST)


# Running.

running: Set[int] = set()  # groups of processes


def run(*command: str) -> Tuple[str, int, List[str]]:
    """Run command; return its output, its status, and what else is wrong.

    Its processes are a group of their own: so those that outlive it are seen.
    The output goes through a file, since they would hold a pipe open.
    """
    problems, status = [], 0
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log,
            stderr=log, start_new_session=True)
        running.add(process.pid)
        try:
            status = process.wait(PATIENCE)
            if not group_ends(process.pid):
                problems.append("processes were left behind")
        except subprocess.TimeoutExpired:
            problems.append("no end after %g seconds" % PATIENCE)
            process.kill()
            process.wait()
        finally:
            kill(process.pid)
            running.discard(process.pid)
        log.seek(0)
        return log.read().decode(errors="replace"), status, problems


def group_ends(group: int) -> bool:
    """Whether a group of processes ends soon; always, on Windows."""
    end = time.monotonic() + LINGER
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except (AttributeError, OSError):
            return True
        time.sleep(0.01)
    return False


def kill(group: int) -> None:
    """End a group of processes, if there is one."""
    try:
        os.killpg(group, signal.SIGKILL)
    except (AttributeError, OSError):
        pass


# Judging.

def number(pattern: str, text: str) -> int:
    """Return the sum of the numbers that pattern finds in text."""
    return sum(map(int, re.findall(pattern, text, re.M)))


def judge(output: str, status: int, problems: List[str], passed: int,
          failed: int, notes: Iterable[str] = ()) -> Result:
    """Return a Result in which each problem counts."""
    if status and not failed:
        problems = problems + ["exit status %d" % status]
    return Result(max(passed, 0), failed + len(problems), problems,
                  list(notes), output)


def judge_tests(output: str, status: int, problems: List[str],
                least: int) -> Result:
    """Return the Result of tests, from what unittest -v printed."""
    end = output[output.rfind("\nRan "):]
    ran = number(r"^Ran (\d+) tests? in ", end)
    failed = number(r"(?<!expected )(?:failures|errors)=(\d+)", end)
    failed += number(r"unexpected successes=(\d+)", end)
    # (which Python 3.12.1 alone counts as not run, gh-106584)
    skipped = number(r"skipped=(\d+)", end)
    problems = problems + COMPLAINT.findall(output)
    if ran < least:
        problems.append("%d tests are too few: there are %d and more"
                        % (ran, least))
    reasons = collections.Counter(
        reason for _, reason in SKIPPED.findall(output))
    notes = ["%d skipped: %s" % (count, reason)
             for reason, count in reasons.most_common()]
    if skipped > sum(reasons.values()):
        notes.append("%d skipped without a reason"
                     % (skipped - sum(reasons.values())))
    return judge(output, status, problems, ran - failed - skipped, failed,
                 notes)


# The checks.

def check_tests(python: str, least: int, *tests: str) -> Result:
    """Run tests with a Python, as arguments of unittest name them."""
    return judge_tests(*run(python, "-X", "dev", "-W", "error", "-m",
                            "unittest", *tests), least)


def check_types(*what: str) -> Result:
    """Have mypy read what its arguments name, or else what setup.cfg does."""
    mypy = shutil.which("mypy")
    if mypy is None:
        return Result(notes=["skipped: mypy is not installed"])
    output, status, problems = run(mypy, "--strict", *what)
    return judge(output, status, problems, not status, 0)


def check_readme() -> Result:
    """See whether the README says how to test, and shows typed Python."""
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
        text = f.read()
    if not re.search("^%s( |$)" % TEST_COMMAND, text, re.M):
        return Result(failed=1, problems=["no line is " + TEST_COMMAND])
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S))
    types = check_types("--config-file=", "-c", code)
    return types._replace(passed=types.passed + 1)


def checks(pythons: List[Python]) -> Iterator[
        Tuple[str, Callable[[], Result]]]:
    """Yield the title of each check, and what runs it."""
    for version, path in pythons:
        title = "%-8s" % ".".join(map(str, version))
        yield title + "unit tests", partial(check_tests, path, LEAST, "-v")
        yield title + "conformance", partial(
            check_tests, path, 1, "-v", "tests.conformance")
        if (version, path) in (pythons[0], pythons[-1]):
            yield title + "scripts", partial(
                check_tests, path, 1, "discover", "-v", "-s", "tests/scripts")
    yield "mypy --strict", check_types
    yield "README", check_readme


def show(title: str, result: Result) -> None:
    """Print a line about a check, and below it what should be known."""
    print("%-20s %5d passed  %3d failed" % (title, result.passed,
                                            result.failed))
    for line in result.notes + result.problems:
        print("%21s%s" % ("", line))
    if result.failed:
        # of unit tests, what comes before the first report says "ok"
        reports = re.search("\n=====|" + COMPLAINT.pattern, result.output)
        print(result.output[reports.start() if reports else 0:])
    sys.stdout.flush()


def run_all(pythons: List[Python]) -> List[Result]:
    """Run the checks, as many at a time as there are CPUs."""
    results = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        begun = [(title, pool.submit(check))
                 for title, check in checks(pythons)]
        try:
            for title, future in begun:
                results.append(future.result())
                show(title, results[-1])
        except BaseException:
            for _, future in begun:
                future.cancel()
            for group in list(running):
                kill(group)
            raise
    return results


def main(argv: Optional[List[str]] = None) -> int:
    """Run the program; return its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pythons", metavar="PYTHON", nargs="*",
                        help="instead of those that are found")
    named = parser.parse_args(argv).pythons
    pythons = supported(named or candidates())
    missing = [path for path in named if not supported([path])]
    results = []
    if missing or not pythons:
        results.append(Result(failed=1, problems=[
            "no Python %d.%d or newer: %s"
            % (OLDEST + (" ".join(missing) or "anywhere",))]))
        show("Pythons", results[0])
    results += run_all(pythons)
    failed = sum(result.failed for result in results)
    print("%d passed, %d failed" % (
        sum(result.passed for result in results), failed))
    return 1 if failed else 0
