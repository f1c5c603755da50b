"""The ways to treat an accepted connection, in the order of the lesson.

    EchoServer                  one at a time: others wait for it to end
        ThreadingEchoServer     threads.py: a thread for each connection
        ForkingEchoServer       processes.py: a process for each connection
        ThreadPoolEchoServer    pool.py: a fixed number of threads for all
        SelectorEchoServer      events.py: no thread, the loop itself

A server that blocks in recv() for one peer blocks all others.  A thread for
each takes that away, at the cost of a thread for each: of memory, of a start
that takes longer than a short exchange, and of switches under the interpreter
lock.  A pool bounds that cost, and a pool as the lesson has it, with a worker
pinned to a connection until it ends, serves as many peers as it has workers
and lets the next one starve, however idle those are.  What ends the argument
is not to block: to wait for all connections at once, and to touch those only
that have something to say.

Each class says what becomes of an accepted connection, and nothing else; the
limit, the idle timeout, the drain and the log are EchoServer's.
"""

import os
from typing import Dict, Type

from ..server.base import EchoServer
from .events import SelectorEchoServer
from .pool import ThreadPoolEchoServer
from .threads import ThreadingEchoServer

__all__ = ["MODELS", "SelectorEchoServer", "ThreadPoolEchoServer",
           "ThreadingEchoServer"]

# What --model takes.
MODELS: Dict[str, Type[EchoServer]] = {"threads": ThreadingEchoServer}
if hasattr(os, "fork"):
    from .processes import ForkingEchoServer
    MODELS["processes"] = ForkingEchoServer
    __all__.append("ForkingEchoServer")
MODELS["pool"] = ThreadPoolEchoServer
MODELS["events"] = SelectorEchoServer
