"""CPython's own tests of socketserver, with our servers in its classes' place.

    python3 -m unittest tests.conformance

The tests are test.test_socketserver, which comes with most interpreters (some
distributions pack it apart; there, this is skipped).  They know nothing of us:
the names in the module socketserver are exchanged while they are imported and
run.  The tests that build on the mixins, on UDP or on Unix sockets run along,
unchanged.

- All of them run with ThreadingEchoServer for ThreadingTCPServer,
  ForkingEchoServer for ForkingTCPServer, and BlockingEchoServer for TCPServer.
- Each other model then stands in for TCPServer, in the tests that do not take
  for granted that a connection is served in the thread that accepts it.  The
  model events, which refuses a handler with a handle() of its own, is given
  EchoHandler for StreamRequestHandler, and runs what needs no other.

It is no part of "python3 -m unittest": scripts/check.py runs it.
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
from unittest import mock

from echoserver import BlockingEchoServer, EchoHandler
from echoserver.server.models import MODELS

__all__ = ["load_tests"]

# Seconds after which a deadlock is shown, thread by thread, and ended.
PATIENCE = 60

TESTS = "test.test_socketserver"

# The first compares the module's names with its __all__, and ours are not in
# it; the second is add_test()'s, for servers that serve elsewhere.
NOT_OF_ALL = {"MiscTestCase.test_all",
              "ErrorHandlerTest.test_not_handled_elsewhere"}

# What any server must do, wherever it serves a connection.
OF_ANY_MODEL = {
    "SocketServerTest.test_TCPServer",
    "SocketServerTest.test_shutdown",
    "SocketServerTest.test_close_immediately",
    "SocketServerTest.test_tcpserver_bind_leak",
    "SocketServerTest.test_context_manager",
    "ErrorHandlerTest.test_sync_handled",
    "ErrorHandlerTest.test_not_handled_elsewhere",
    "MiscTestCase.test_shutdown_request_called_if_verify_request_false",
}

# Of those, the ones that bring a handler which does not answer by turns.
OF_OTHER_HANDLERS = {
    "SocketServerTest.test_TCPServer",
    "SocketServerTest.test_close_immediately",
    "ErrorHandlerTest.test_sync_handled",
    "ErrorHandlerTest.test_not_handled_elsewhere",
    # it calls handle_request(), which that model refuses
    "MiscTestCase.test_shutdown_request_called_if_verify_request_false",
}

# And those whose client leaves at once: the model processes forks no child
# for it, and so calls no handler.
OF_CLIENTS_THAT_LEAVE = {
    "ErrorHandlerTest.test_sync_handled",
    "ErrorHandlerTest.test_not_handled_elsewhere",
}


class NoMixIn:
    """In place of ThreadingMixIn, where TCPServer is concurrent already."""


class Group(unittest.TestSuite):
    """Tests that are imported and run with socketserver's names exchanged."""

    def __init__(self, title, names, wanted):
        super().__init__()
        self.names = names
        with mock.patch.multiple(socketserver, **names):
            sys.modules.pop(TESTS, None)
            module = importlib.import_module(TESTS)
            add_test(module)
            tests = unittest.defaultTestLoader.loadTestsFromModule(module)
        for test in (test for case in tests for test in case):
            name = ".".join(test.id().split(".")[-2:])
            type(test).__module__ = title  # which is shown of it
            if wanted(name):
                self.addTest(test)

    def run(self, result, debug=False):
        with mock.patch.multiple(socketserver, **self.names):
            return super().run(result, debug)


class Everything(unittest.TestSuite):
    """All groups, in a folder where the tests may write, and not for ever."""

    def run(self, result, debug=False):
        here = os.getcwd()
        # The tests serve in a thread, and so fork in a process with threads;
        # Python 3.12 and above warn of that.  The model itself starts none.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded",
                                DeprecationWarning)
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        with tempfile.TemporaryDirectory() as place:
            os.chdir(place)
            try:
                return super().run(result, debug)
            finally:
                os.chdir(here)
                faulthandler.cancel_dump_traceback_later()


def add_test(module):
    """Add the test that SystemExit in a handler is no error to handle.

    Like ErrorHandlerTest.test_threading_not_handled, for a server that is not
    made with socketserver's mixin.
    """
    def test_not_handled_elsewhere(self):
        module.BaseErrorTestServer(SystemExit)
        self.check_result(handled=False)

    module.ErrorHandlerTest.test_not_handled_elsewhere = \
        test_not_handled_elsewhere


def groups():
    """Yield every group of tests."""
    names = {"TCPServer": BlockingEchoServer,
             "ThreadingTCPServer": MODELS["threads"]}
    if "processes" in MODELS:
        names["ForkingTCPServer"] = MODELS["processes"]
    yield Group("all", names, lambda name: name not in NOT_OF_ALL)
    for title, model in MODELS.items():
        if model is BlockingEchoServer:
            continue  # it serves in the thread that accepts, as tried above
        names = {"TCPServer": model, "ThreadingMixIn": NoMixIn}
        wanted = OF_ANY_MODEL
        if title == "events":
            names["StreamRequestHandler"] = EchoHandler
            wanted = wanted - OF_OTHER_HANDLERS
        if title == "processes":
            wanted = wanted - OF_CLIENTS_THAT_LEAVE
        yield Group(title, names, wanted.__contains__)


def load_tests(loader, tests, pattern):
    """Return all tests, as unittest asks for them."""
    try:
        found = importlib.util.find_spec(TESTS)
    except ImportError:
        found = None
    if found is None:
        @unittest.skip("this interpreter comes without " + TESTS)
        class Missing(unittest.TestCase):
            def test_conformance(self):
                raise AssertionError
        return loader.loadTestsFromTestCase(Missing)
    setattr(importlib.import_module("test.support"), "verbose", False)
    return Everything(groups())
