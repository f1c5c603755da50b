"""A TCP server that sends every byte back in upper case, and its client.

    with ThreadingEchoServer.start() as server:
        with Connection(server.server_address) as connection:
            assert connection.echo(b"hello") == b"HELLO"

As programs: ``python -m echoserver`` and ``python -m echoserver.client``.
"""

import os

from .connection import Connection
from .connectionpool import ConnectionPool, PoolClosed, PoolTimeout
from .handler import EchoHandler
from .models import (SelectorEchoServer, ThreadingEchoServer,
                     ThreadPoolEchoServer)
from .server import EchoServer
from .verifier import WrongEcho

__all__ = ["Connection", "ConnectionPool", "EchoHandler", "EchoServer",
           "PoolClosed", "PoolTimeout", "SelectorEchoServer",
           "ThreadPoolEchoServer", "ThreadingEchoServer", "WrongEcho"]

if hasattr(os, "fork"):
    from .models import ForkingEchoServer
    __all__.append("ForkingEchoServer")

__version__ = "1.0.0"
