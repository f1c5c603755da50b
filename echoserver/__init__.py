"""A TCP server that sends every byte back in upper case, and its client.

    with ThreadingEchoServer.start() as server:
        host, port = server.server_address
"""

import os

from .handler import EchoHandler
from .models import (SelectorEchoServer, ThreadingEchoServer,
                     ThreadPoolEchoServer)
from .server import EchoServer

__all__ = ["EchoHandler", "EchoServer", "SelectorEchoServer",
           "ThreadPoolEchoServer", "ThreadingEchoServer"]
if hasattr(os, "fork"):
    from .models import ForkingEchoServer
    __all__.append("ForkingEchoServer")

__version__ = "1.0.0"
