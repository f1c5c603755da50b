"""The lesson's pool: a worker stays with its connection until that ends.

It answers as many connections as it has workers, however idle those are, and
the next one starves.  For bench.py, to be measured beside the package's pool:
the same code and the same number of workers, so that this is all the
difference.
"""

import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from echoserver import EchoHandler, ThreadPoolEchoServer  # noqa: E402

__all__ = ["PinnedHandler", "WORKERS", "main"]

WORKERS = ThreadPoolEchoServer.pool_size


class PinnedHandler(EchoHandler):

    """A handler with a handle() of its own needs a thread of its own."""

    def handle(self) -> None:
        super().handle()


def main() -> None:
    """Listen on a free port until SIGTERM, without a limit of connections."""
    with ThreadPoolEchoServer(("127.0.0.1", 0), PinnedHandler,
                              max_connections=0) as server:
        signal.signal(signal.SIGTERM, lambda number, frame: server.stop())
        print("port %d" % server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
