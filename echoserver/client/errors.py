"""What the client raises beside the OSErrors of the standard library."""

__all__ = ["EXCERPT", "PoolClosed", "PoolTimeout", "WrongEcho"]

# Bytes of a difference that are shown: enough to recognise a stale reply or a
# greeting, too few to fill a log.
EXCERPT = 16


class WrongEcho(ValueError):
    """What came back is not what was sent in upper case.

    Attributes: offset, where in the stream the first wrong byte is; sent and
    got, up to 16 bytes from there on; sent is empty where too much was said.
    """

    def __init__(self, offset: int, sent: bytes, got: bytes) -> None:
        super().__init__(offset, sent, got)
        self.offset, self.sent, self.got = offset, sent, got

    def __str__(self) -> str:
        return ("wrong echo at offset %d: sent %s, got %r; this is not an "
                "uppercase echo, or something on the way alters the data"
                % (self.offset, repr(self.sent) if self.sent else "nothing",
                   self.got))


class PoolTimeout(TimeoutError):
    """No connection could be had in time."""


class PoolClosed(RuntimeError):
    """The pool has been closed."""
