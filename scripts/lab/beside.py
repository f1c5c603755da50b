"""Clients in a process of their own, beside what the caller does.

So neither the caller's threads nor their lock are in what they measure.
"""

import gc
import multiprocessing
import signal
from typing import Any, Sequence, Tuple

from .load import Kind, Load
from .server import Failure
from .tally import PATIENCE, Judge, Tally, judge

__all__ = ["Beside"]

LOOK = 0.02         # seconds between two looks at the pipe


class Beside:

    """A Load whose methods are called in another process.

    The constructor returns when each of its clients has had a first reply, or
    none comes any more; what was seen of that is its first tally.
    """

    def __init__(self, address: Tuple[str, int],
                 kinds: Sequence[Tuple[Kind, int]], seed: Any = 0,
                 judge: Judge = judge) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.Process(
            target=_serve, daemon=True,
            args=(address, seed, judge, theirs, self._pipe))
        # Ctrl-C is for this process, and the other one ends with the pipe.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK,
                                      [signal.SIGINT, signal.SIGTERM])
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        for kind, count in kinds:
            self.call("open", kind, count)

    def tell(self, method: str, *args: Any) -> None:
        """Have a method called, and do not wait for what it returns."""
        self._pipe.send((method, args))

    def hear(self, seconds: float = 0.0) -> Any:
        """Return what was returned by a method that takes so long."""
        try:
            if self._pipe.poll(seconds + 2 * PATIENCE):
                return self._pipe.recv()
        except (EOFError, OSError):
            pass
        raise Failure("the load does not answer")

    def call(self, method: str, *args: Any) -> Any:
        self.tell(method, *args)
        return self.hear()

    def take_tally(self) -> Tally:
        return self.call("take_tally")  # type: ignore

    def finish(self) -> Tally:
        return self.call("finish")  # type: ignore

    def __enter__(self) -> "Beside":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._pipe.close()
        self._process.join(10)
        if self._process.exitcode is None:
            self._process.terminate()
            self._process.join()


def _serve(address: Any, seed: Any, judge: Judge, pipe: Any,
           other_end: Any) -> None:
    """Be the process of a Beside, until its pipe ends."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    gc.disable()  # there are no cycles that end
    other_end.close()
    with Load(address, seed, judge) as load:
        while True:
            load.turn(LOOK)
            try:
                while pipe.poll():
                    method, args = pipe.recv()
                    pipe.send(getattr(load, method)(*args))
            except (EOFError, OSError):
                break
