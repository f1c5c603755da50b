"""What the clients of a server have seen, and what of it is a fault.

A client that was reset or refused knows that something is missing; one that
meets the end of the stream believes that it has everything.  So it depends on
what was done to the server whether the end of a connection is a loss, and
there is a judge for each case: a function of the client (load.Client) and of
how its connection ended, one of the words of Tally.ends.  It returns what is
wrong with that, or "".
"""

import collections
import math
from typing import (Any, Callable, Counter, Dict, List, Optional, Sequence,
                    Tuple)

__all__ = ["Judge", "PATIENCE", "Tally", "judge", "judge_retrying",
           "judge_stopped", "judge_turned_away"]

# Seconds after which a client that got no answer gives up, and has lost it.
PATIENCE = 30.0

# Waits are counted in steps of 2 %, so a quantile is right within 1 %.
STEP = math.log(1.02)

Judge = Callable[[Any, str], str]


class Tally:

    """What a Load has seen since the last one.

    Instance variables:

    - ends: how often connections ended in each way: "done" by their client,
      "eof" by the server, "reset", "refused", "wrong", "late"
    - lost: bytes that were owed and did not come, or came wrong
    - problems: sentences about that
    - first: seconds from connecting to the first reply, of each connection
    - waits: of each connection, the seconds from the first byte of a message
      to the last of its reply, of all that were answered whole and right
    - open: of each connection, for how long it has waited for a reply that
      was still to come; 0 if for none
    - seconds, cpu: for how long that was, and how much processor time of the
      Load it took
    """

    def __init__(self) -> None:
        self.ends: Counter[str] = collections.Counter()
        self.lost = 0
        self.problems: List[str] = []
        self.first: List[float] = []
        self.waits: List[Sequence[float]] = []
        self.open: List[float] = []
        self.seconds = self.cpu = 0.0

    def add(self, other: "Tally") -> None:
        """Take over what other clients, or the same ones later, have seen."""
        self.ends.update(other.ends)
        self.lost += other.lost
        self.problems += other.problems
        self.first += other.first
        self.waits += other.waits
        self.open += other.open
        self.cpu += other.cpu
        self.seconds += other.seconds

    @property
    def replies(self) -> int:
        return sum(map(len, self.waits))

    @property
    def stall(self) -> float:
        """The longest wait for a reply, be it answered by now or not."""
        return max(max(each, default=0.0) for each in [self.open, *self.waits])

    def quantile(self, part: float) -> Tuple[Optional[float], bool]:
        """Return the seconds within which that part of the waits was, and
        whether it may have been more.

        Each connection weighs the same, shared among the waits that it has
        had.  By number of replies, a few that are served at full speed would
        hide the many that are not served at all.  A wait that has not ended
        counts with what it is so far, if it is the connection's longest.
        """
        weights: Dict[int, float] = collections.defaultdict(float)
        open_weight = 0.0
        for waits, last in zip(self.waits, self.open):
            longer = last > max(waits, default=0.0)
            weight = 1 / max(len(waits) + longer, 1)
            open_weight += weight * longer
            for wait in [*waits, last] if longer else waits:
                weights[round(math.log(max(wait, 1e-7)) / STEP)] += weight
        seen, total = 0.0, sum(weights.values())
        for step in sorted(weights):
            seen += weights[step]
            if seen >= part * total:
                return (min(math.exp(step * STEP), self.stall),
                        open_weight > (1 - part) * total)
        return None, False


def judge(client: Any, how: str) -> str:
    """Judge when nothing should have ended the connection."""
    return {"wrong": "the reply is wrong",
            "late": "no reply, and no end",
            "eof": "the server ended the stream"}.get(how, how)


def judge_retrying(client: Any, how: str) -> str:
    """Judge when the client comes again if it is refused, only then."""
    return "" if how == "refused" else judge(client, how)


def judge_turned_away(client: Any, how: str) -> str:
    """Judge when the server has not the means to serve everybody."""
    return "" if how == "reset" else judge(client, how)


def judge_stopped(client: Any, how: str) -> str:
    """Judge when the server was told to stop.

    Who has one message only is to be served if it is let in at all.  Others
    may be reset: that is visible.  But a clean end says that all that was
    sent before the stop has been answered; and it does not come in the midst
    of a reply, whenever that was asked for.
    """
    if client.kind.messages == 1:
        return judge_retrying(client, how)
    if how in ("wrong", "late"):
        return judge(client, how)
    if how == "eof" and client.received < client.marked:
        return "a clean end before the reply to what was sent in time"
    if how == "eof" and client.base < client.received < client.sent:
        return "a clean end in the midst of a reply"
    return ""
