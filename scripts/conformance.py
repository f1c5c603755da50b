"""Run CPython's own tests of socketserver with our servers in its classes'
place.

The tests are test.test_socketserver, which comes with most interpreters (some
distributions pack it apart; there, this says so and fails nothing).  They know
nothing of us: the names in the module socketserver are exchanged while they
are imported and run.  The tests that build on the mixins, on UDP or on Unix
sockets run along, unchanged.

- All of them run with ThreadingEchoServer for ThreadingTCPServer,
  ForkingEchoServer for ForkingTCPServer, and EchoServer for TCPServer.
- Each model then stands in for TCPServer, in the tests that do not take for
  granted that a connection is served in the thread that accepts it.  The model
  events refuses a handler with a handle() of its own; it is given EchoHandler
  for StreamRequestHandler and runs what needs no other.

The last line is "N passed, N failed"; the exit status is 1 if any failed.
"""

import faulthandler
import importlib
import importlib.util
import os
import socketserver
import sys
import tempfile
import unittest
import warnings
from typing import Any, Dict, Iterator, List
from unittest import mock

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from echoserver import EchoHandler, EchoServer  # noqa: E402
from echoserver.models import MODELS  # noqa: E402

__all__ = ["main"]

# Seconds after which a deadlock is shown, thread by thread, and ended.
PATIENCE = 60

TESTS = "test.test_socketserver"

# It compares the module's names with its __all__, and ours are not in it.
NOT_OF_SERVERS = {"MiscTestCase.test_all"}

# What any server must do, wherever it serves a connection.
OF_ANY_MODEL = [
    "SocketServerTest.test_TCPServer",
    "SocketServerTest.test_shutdown",
    "SocketServerTest.test_close_immediately",
    "SocketServerTest.test_tcpserver_bind_leak",
    "SocketServerTest.test_context_manager",
    "ErrorHandlerTest.test_sync_handled",
    "MiscTestCase.test_shutdown_request_called_if_verify_request_false",
]

# Of those, the ones that bring a handler which does not answer by turns.
OF_OTHER_HANDLERS = {
    "SocketServerTest.test_TCPServer",
    "SocketServerTest.test_close_immediately",
    "ErrorHandlerTest.test_sync_handled",
}


class NoMixIn:

    """In place of ThreadingMixIn, where TCPServer is concurrent already."""


def has_tests() -> bool:
    """Whether this interpreter has the tests."""
    try:
        return importlib.util.find_spec(TESTS) is not None
    except ImportError:
        return False


def load(names: Dict[str, Any]) -> Any:
    """Return a fresh copy of the tests' module, imported with socketserver's
    names as they are now."""
    sys.modules.pop(TESTS, None)
    support = importlib.import_module("test.support")
    setattr(support, "verbose", False)
    return importlib.import_module(TESTS)


def not_handled(module: Any) -> unittest.TestCase:
    """Return the test that SystemExit in a handler is no error to handle.

    Like ErrorHandlerTest.test_threading_not_handled, for a server that is not
    made with socketserver's mixin.
    """
    class NotHandledTest(module.ErrorHandlerTest):  # type: ignore
        def test_elsewhere_not_handled(self) -> None:
            module.BaseErrorTestServer(SystemExit)
            self.check_result(handled=False)

    return NotHandledTest("test_elsewhere_not_handled")


def tests_of(suite: Any) -> Iterator[unittest.TestCase]:
    """Yield the tests in a suite, however deep."""
    for test in suite:
        if isinstance(test, unittest.TestCase):
            yield test
        else:
            yield from tests_of(test)


def is_selected(name: str, selected: List[str]) -> bool:
    """Whether a test is to run.  Old Pythons do not have all that are
    selected, and run the others."""
    return name in selected if selected else name not in NOT_OF_SERVERS


def run(title: str, names: Dict[str, Any],
        selected: List[str]) -> unittest.TestResult:
    """Run the selected tests (all, if none is) with socketserver's
    names exchanged."""
    loader = unittest.TestLoader()
    with mock.patch.multiple(socketserver, **names):
        module = load(names)
        suite = unittest.TestSuite(
            test for test in tests_of(loader.loadTestsFromModule(module))
            if is_selected(test.id()[len(TESTS) + 1:], selected))
        if "ErrorHandlerTest.test_sync_handled" in selected:
            suite.addTest(not_handled(module))
        print("%s:" % title, file=sys.stderr, flush=True)
        return unittest.TextTestRunner(verbosity=0).run(suite)


def run_all() -> int:
    """Run every group of tests; print the sum and return the exit status."""
    results = []
    everywhere = {"TCPServer": EchoServer,
                  "ThreadingTCPServer": MODELS["threads"]}
    if "processes" in MODELS:
        everywhere["ForkingTCPServer"] = MODELS["processes"]
    results.append(run("all", everywhere, []))
    for name, model in MODELS.items():
        names = {"TCPServer": model,
                 "ThreadingMixIn": NoMixIn}  # type: Dict[str, Any]
        selected = OF_ANY_MODEL
        if name == "events":
            names["StreamRequestHandler"] = EchoHandler
            selected = [test for test in selected
                        if test not in OF_OTHER_HANDLERS]
        results.append(run(name, names, selected))
    failed = sum(len(result.failures) + len(result.errors)
                 + len(result.unexpectedSuccesses) for result in results)
    skipped = sum(len(result.skipped) for result in results)
    passed = sum(result.testsRun for result in results) - failed - skipped
    print("%d passed, %d failed" % (passed, failed)
          + (", %d skipped" % skipped if skipped else ""))
    return 1 if failed or not passed else 0


def main() -> int:
    """Run the program; return its exit status."""
    if not has_tests():
        print("skipped: this interpreter comes without %s" % TESTS)
        return 0
    # The tests serve in a thread, and so fork in a process with threads;
    # Python 3.12 and above warn of that.  The model itself starts none.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded",
                            DeprecationWarning)
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)  # the tests write a file where they are
        try:
            return run_all()
        finally:
            os.chdir(here)


if __name__ == "__main__":
    sys.exit(main())
