"""The verdict on a server: what its honest clients got, and what they lost.

A client that was reset or refused knows that something is missing; one that
meets the end of the stream believes that it has everything.  So it depends on
what was done to the server whether the end of a connection is a loss, and
there is a judge for each case: a function of the client (honest.Client) and
of how its connection ended, one of the words of Tally.ends.  It returns how
many bytes were lost, and why; no reason means no loss.
"""

import collections
from typing import Any, List, Tuple

__all__ = ["PATIENCE", "Tally", "judge", "judge_retrying", "judge_stopped",
           "judge_turned_away"]

# Seconds after which a client that got no answer gives up, and has lost it.
PATIENCE = 30.0


class Tally:

    """What a Load has seen.

    Instance variables:

    - lost: bytes that were owed and did not come, or came wrong
    - problems: sentences about that
    - ends: how often connections ended in each way: "done" by their client,
      "eof" by the server, "reset", "refused", "wrong", "late"
    - latencies: seconds from the first byte of a message to the last of its
      reply, of all messages that were answered whole and right
    - first: seconds from connecting to the first reply, of each connection
    - waiting: seconds for which the slowest reply is still awaited
    """

    def __init__(self) -> None:
        self.lost = 0
        self.waiting = 0.0
        self.problems = []  # type: List[str]
        self.ends = collections.Counter()  # type: Any
        self.latencies = []  # type: List[float]
        self.first = []  # type: List[float]

    @property
    def stall(self) -> float:
        """The longest wait for a reply, be it answered by now or not."""
        return max(self.latencies + [self.waiting])

    def percentile(self, share: float) -> float:
        """Return the latency that so large a share of exchanges kept to."""
        ordered = sorted(self.latencies) or [0.0]
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def judge(client: Any, how: str) -> Tuple[int, str]:
    """Judge when nothing should have ended the connection."""
    return client.owed, {"wrong": "the reply is wrong",
                         "late": "no reply, and no end",
                         "eof": "the server ended the stream"}.get(how, how)


def judge_stopped(client: Any, how: str) -> Tuple[int, str]:
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
    if how != "eof":
        return 0, ""
    if client.received < client.marked:
        return (client.marked - client.received,
                "a clean end before the reply to what was sent in time")
    if client.base < client.received < client.sent:
        return client.owed, "a clean end in the midst of a reply"
    return 0, ""


def judge_retrying(client: Any, how: str) -> Tuple[int, str]:
    """Judge when the client comes again if it is refused, only then."""
    return (0, "") if how == "refused" else judge(client, how)


def judge_turned_away(client: Any, how: str) -> Tuple[int, str]:
    """Judge when the server has not the means to serve everybody."""
    return (0, "") if how == "reset" else judge(client, how)
