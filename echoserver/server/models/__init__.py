"""The ways to treat an accepted connection, in the order of the lesson.

    blocking    one at a time: others wait for it to end
    threads     a thread for each
    processes   a process for each
    pinned      a fixed number of threads, each pinned to a connection
    pool        a fixed number of threads, for any number of connections
    events      no thread: the loop itself

A server that blocks in recv() for one peer blocks all others.  A thread or a
process for each takes that away, at the cost of one for each: of memory, of a
start that takes longer than a short exchange, and of switches.  A pool bounds
that cost.  A pool that pins a worker to a connection serves as many peers as
it has workers; the next one starves, however idle those are.  The way out is
not to block: to wait for all connections at once, and to touch only those that
are ready.

Each class decides how an accepted connection is served, and nothing else.  The
limit, the idle timeout, the drain and the log are EchoServer's.
"""

import select
from typing import Dict, Type

from ..base import EchoServer
from .blocking import BlockingEchoServer
from .events import SelectorEchoServer
from .pinned import PinnedEchoServer
from .pool import ThreadPoolEchoServer
from .processes import ForkingEchoServer
from .threads import ThreadingEchoServer

__all__ = ["BlockingEchoServer", "ForkingEchoServer", "MODELS",
           "PinnedEchoServer", "SelectorEchoServer", "ThreadingEchoServer",
           "ThreadPoolEchoServer"]

# The models by the names that --model takes.
MODELS: Dict[str, Type[EchoServer]] = {cls.model: cls for cls in (
    BlockingEchoServer, ThreadingEchoServer, ForkingEchoServer,
    PinnedEchoServer, ThreadPoolEchoServer, SelectorEchoServer)}

if not hasattr(select, "epoll"):    # only Linux has it
    del MODELS["pool"]
