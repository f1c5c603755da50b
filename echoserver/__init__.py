"""A TCP server that sends every byte back in upper case, and its client.

    with ThreadingEchoServer.start() as server:
        with Connection(server.server_address) as connection:
            assert connection.echo(b"hello") == b"HELLO"

As programs: ``python -m echoserver`` and ``python -m echoserver.client``.

The public names are loaded at their first use, so that the client does not
wait for the server to be imported, nor the other way round.
"""

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any, List

if TYPE_CHECKING:
    from .client.connection import Connection
    from .client.errors import PoolClosed, PoolTimeout, WrongEcho
    from .client.pool import ConnectionPool
    from .server.base import EchoServer
    from .server.handler import EchoHandler
    from .server.models import (  # noqa: F401
        BlockingEchoServer, ForkingEchoServer, PinnedEchoServer,
        SelectorEchoServer, ThreadingEchoServer, ThreadPoolEchoServer)

__all__ = ["BlockingEchoServer", "Connection", "ConnectionPool", "EchoHandler",
           "EchoServer", "ForkingEchoServer", "PinnedEchoServer", "PoolClosed",
           "PoolTimeout", "SelectorEchoServer", "ThreadPoolEchoServer",
           "ThreadingEchoServer", "WrongEcho"]

__version__ = "1.2.0"

_HOMES = {
    "client.connection": ["Connection"],
    "client.errors": ["PoolClosed", "PoolTimeout", "WrongEcho"],
    "client.pool": ["ConnectionPool"],
    "server.handler": ["EchoHandler"],
    "server.models": [
        "BlockingEchoServer", "ForkingEchoServer", "PinnedEchoServer",
        "SelectorEchoServer", "ThreadingEchoServer", "ThreadPoolEchoServer"],
    "server.base": ["EchoServer"],
}


class _Package(types.ModuleType):

    """A module that loads a public name when it is asked for.

    (A function __getattr__ of the module would do from Python 3.7 on.)
    """

    def __getattr__(self, name: str) -> Any:
        for home, names in _HOMES.items():
            if name in names and name in __all__:
                module = importlib.import_module("." + home, self.__name__)
                value = getattr(module, name)
                setattr(self, name, value)
                return value
        raise AttributeError("module %r has no attribute %r"
                             % (self.__name__, name))

    def __dir__(self) -> List[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
