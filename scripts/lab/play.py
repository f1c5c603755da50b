"""The play of lesson.py: what its acts use, and how they say what happened."""

import contextlib
from typing import Iterator, Sequence, Tuple

from .report import counted
from .scene import Client, Scene, show_time
from .screen import Screen
from .server import Server

__all__ = ["Play", "Verdict", "had_threads", "names", "outcome", "outcomes",
           "served_by"]

# Whether the claim was shown, and what was measured, as a sentence.
Verdict = Tuple[bool, str]


class Play:

    """Where the acts are played, and how long they take.

    Instance variables: screen; models, the names of those that this host has;
    stretch, by which all times are multiplied.
    """

    def __init__(self, screen: Screen, models: Sequence[str],
                 stretch: float) -> None:
        self.screen, self.models, self.stretch = screen, models, stretch

    def server(self, model: str, *options: str) -> Server:
        """Show the command line of a server, and start it."""
        self.screen.say(" ".join(["$ python3 -m echoserver --model", model,
                                  *options]))
        return Server(model, *options)

    @contextlib.contextmanager
    def scene(self, clients: int, model: str, *options: str
              ) -> Iterator[Scene]:
        """Start a server for a scene with so many clients."""
        with self.server(model, *options) as server:
            with Scene(self.screen, server, clients, self.stretch) as scene:
                yield scene


def names(clients: Sequence[Client]) -> str:
    return " and ".join(client.name for client in clients) or "nobody"


def served_by(scene: Scene) -> str:
    """Return how many threads the server had, if that is known."""
    return ("; the server had " + counted(scene.threads, "thread")
            if scene.threads else "")


def had_threads(scene: Scene, count: int) -> bool:
    """Return whether the server was one process, and had so many threads if
    that is known."""
    return scene.processes == 1 and scene.threads in (0, count)


def outcomes(blocked: bool, *pairs: Tuple[Client, Client]) -> Verdict:
    """Return whether all of the pairs are as expected, and what they did.

    A pair is a client and another, for which it has to wait if the server is
    blocked by that.
    """
    results = [outcome(*pair) for pair in pairs]
    return (all(result is blocked for result, _ in results),
            "; ".join(words for _, words in results))


def outcome(client: Client, other: Client) -> Verdict:
    """Return whether client was not served while other was connected."""
    if client.answered is None:
        return True, "%s got no reply" % client.name
    wait = show_time(client.waits[0])
    if other.left is not None and client.answered >= other.left:
        return True, "%s waited %s for %s to leave" % (client.name, wait,
                                                       other.name)
    return False, "%s waited %s, with %s still there" % (client.name, wait,
                                                         other.name)
