"""What a client costs in each model, where there are many of them."""

import contextlib
import math
from typing import Dict, NamedTuple, Sequence, Tuple

from .beside import Beside
from .load import Kind
from .play import Play
from .scene import show_time
from .server import Failure, Server

__all__ = ["Cost", "MANY", "measure"]

MANY = 100          # clients
SILENT = Kind("client", 64, 64, math.inf)


class Cost(NamedTuple):

    """What a client costs in a model, where there are many."""

    memory: float       # bytes, while it is silent
    cpu: float          # seconds of processor time for a reply
    p99: float          # of the seconds that it waits for a reply

    def __str__(self) -> str:
        return "%6.1f KiB%7.1f us%9s" % (self.memory / 1024, self.cpu * 1e6,
                                         show_time(self.p99))


def ask(server: Server, load: Beside, seconds: float) -> Tuple[float, float]:
    """Let all clients ask for so long; return Cost.cpu and Cost.p99."""
    cpu = server.cpu() or 0
    load.tell("measure", SILENT._replace(pause=0.0), seconds)
    tally = load.hear(seconds)
    cpu = (server.cpu() or 0) - cpu
    load.call("measure", SILENT, 0)
    return cpu / max(tally.replies, 1), tally.quantile(0.99)[0] or seconds


def measure(play: Play, models: Sequence[str]) -> Dict[str, Cost]:
    """Return what a client costs in each model.

    The clients of the models ask in turn, and of two turns the cheaper one
    counts: a busy host adds to what a reply costs, and takes nothing away.
    """
    memory: Dict[str, float] = {}
    turns = []
    with contextlib.ExitStack() as stack:
        for model in models:
            server = stack.enter_context(play.server(model, "-q"))
            before = server.memory() or 0
            load = stack.enter_context(Beside(server.address,
                                              [(SILENT, MANY)]))
            if len(load.take_tally().first) < MANY:
                raise Failure("some of %d clients got no reply" % MANY)
            memory[model] = ((server.memory() or 0) - before) / MANY
            turns.append((server, load, play.stretch / 2))
        seen = [[ask(*turn) for turn in turns] for _ in range(2)]
    return {model: Cost(memory[model], *map(min, *pair))
            for model, pair in zip(models, zip(*seen))}
