"""Honest clients in a process of their own, beside what the caller does.

So neither the caller's threads nor their lock are in what they measure.
"""

import multiprocessing
import selectors
import signal
from time import monotonic
from typing import Any, Sequence, Tuple

from honest import Load
from verdict import PATIENCE, Tally, judge

__all__ = ["Beside"]


class Beside:

    """Clients in a process of their own, beside whatever the caller does.

    The constructor returns when each has had its first reply.
    """

    def __init__(self, address: Tuple[str, int],
                 kinds: Sequence[Tuple[Any, int]], seed: Any = 0,
                 judge: Any = judge) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.Process(
            target=_run_beside, daemon=True,
            args=(address, kinds, seed, judge, theirs, self._pipe))
        self._process.start()
        theirs.close()
        left = sum(count for kind, count in kinds)
        end = monotonic() + PATIENCE
        while left > 0 and monotonic() < end:
            left -= len(self.take_tally().first)

    def take_tally(self) -> Tally:
        """Return what was seen since the last time."""
        self._pipe.send("take_tally")
        return self._pipe.recv()  # type: ignore

    def finish(self) -> Tally:
        """Let all clients have their replies and end; return the last."""
        self._pipe.send("finish")
        return self._pipe.recv()  # type: ignore

    def __enter__(self) -> "Beside":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._pipe.close()
        self._process.join(10)
        if self._process.exitcode is None:
            self._process.terminate()
            self._process.join()


def _run_beside(address: Any, kinds: Any, seed: Any, judge: Any, pipe: Any,
                other_end: Any) -> None:
    """Be the process of a Beside, until its pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    other_end.close()
    with Load(address, seed) as load:
        load.judge = judge
        load.selector.register(pipe, selectors.EVENT_READ)
        for kind, count in kinds:
            load.add(kind, count)
        while True:
            load.turn(1.0)
            try:
                while pipe.poll():
                    pipe.send(getattr(load, pipe.recv())())
            except (EOFError, OSError):
                break
