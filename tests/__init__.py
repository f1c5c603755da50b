"""The tests of echoserver; this file lets ``python -m unittest`` find them.

Without a loopback interface it says so, in place of them.  After them it says
which were skipped, and why.
"""

import collections
import os
import socket
import sys
import unittest

__all__ = ["load_tests"]


class Everything(unittest.TestSuite):

    def run(self, result, debug=False):
        super().run(result, debug)
        reasons = collections.Counter(reason for _, reason in result.skipped)
        for reason, count in sorted(reasons.items()):
            print("\nskipped %d: %s" % (count, reason), end="",
                  file=sys.stderr)
        return result


def load_tests(loader, tests, pattern):
    """Return all tests, as unittest asks for them."""
    with socket.socket() as listener, socket.socket() as client:
        try:
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            client.connect(listener.getsockname())
        except OSError as error:
            sys.exit("The tests need the loopback interface, and 127.0.0.1 "
                     "cannot be reached: %s." % error)
    return Everything([loader.discover(os.path.dirname(__file__),
                                       pattern or "test*.py")])
