"""What was sent, held against what comes back: the part that knows no socket.

An echo owes exactly the bytes that it was sent, in upper case and in their
order.  So whoever remembers them can judge each byte of the reply as it comes,
however it was split on its way.
"""

from typing import Union

__all__ = ["EXCERPT", "Verifier", "WrongEcho"]

# Bytes of a difference that are shown: enough to recognise a stale reply or a
# greeting, too few to fill a log.
EXCERPT = 16


class WrongEcho(ValueError):
    """What came back is not what was sent in upper case.

    Attributes: offset, the place of the first wrong byte, counted from the
    beginning of the stream; sent and got, up to 16 bytes from that place.
    sent is empty where the server said more than it was asked.
    """

    def __init__(self, offset: int, sent: bytes, got: bytes) -> None:
        super().__init__(offset, sent, got)
        self.offset = offset
        self.sent = sent
        self.got = got

    def __str__(self) -> str:
        sent = "%r" % self.sent if self.sent else "nothing"
        return ("wrong echo at offset %d: sent %s, got %r; this is not an "
                "uppercase echo, or something on the way alters the data"
                % (self.offset, sent, self.got))


class Verifier:
    """What was sent, held against what comes back.

    It knows no socket.  It holds what is in flight and nothing else, so its
    memory is bounded by whoever bounds that.
    """

    def __init__(self) -> None:
        self.verified = 0
        # One bytearray and not a list of blocks: blocks of a few bytes each
        # would cost many times their content, and bytearray gives up its
        # front without moving the rest.
        self._owed = bytearray()

    @property
    def owed(self) -> int:
        """The number of bytes that were sent and have not come back."""
        return len(self._owed)

    def sent(self, data: Union[bytes, memoryview]) -> None:
        """Remember that data was sent, so that its echo is owed."""
        self._owed += data

    def got(self, data: bytes) -> None:
        """Compare data with what is owed; raise WrongEcho at a difference.

        More than is owed is a difference too: an echo adds nothing.
        """
        size = len(data)
        if self._owed[:size].upper() != data:
            raise self._difference(data)
        del self._owed[:size]
        self.verified += size

    def _difference(self, data: bytes) -> WrongEcho:
        due = self._owed[:len(data)].upper()
        at = next((i for i, pair in enumerate(zip(due, data))
                   if pair[0] != pair[1]), len(due))
        return WrongEcho(self.verified + at,
                         bytes(self._owed[at:at + EXCERPT]),
                         data[at:at + EXCERPT])
