"""A TCP server that sends every byte back in upper case, and its client.

    with ThreadingEchoServer.start() as server:
        host, port = server.server_address
"""

from .blocking import ThreadingEchoServer
from .handler import EchoHandler
from .server import EchoServer

__all__ = ["EchoHandler", "EchoServer", "ThreadingEchoServer"]

__version__ = "1.0.0"
