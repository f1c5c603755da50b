"""What the client raises beside the OSErrors of the standard library."""

__all__ = ["EXCERPT", "PoolClosed", "PoolTimeout", "WrongEcho"]

# Bytes of a difference that are shown: enough to recognise a stale reply or a
# greeting, too few to fill a log.
EXCERPT = 16


class WrongEcho(ValueError):
    """The reply is not what was sent in upper case.

    Attributes: offset, where in the stream the first wrong byte is; sent and
    got, up to 16 bytes from there on (sent is empty where the server said too
    much); right, the bytes that came just before, and had not been returned.
    """

    def __init__(self, offset: int, sent: bytes, got: bytes,
                 right: bytes = b"") -> None:
        super().__init__(offset, sent, got, right)
        self.offset, self.sent, self.got = offset, sent, got
        self.right = right

    def __str__(self) -> str:
        before = self.right[-EXCERPT // 2:]
        return ("wrong echo at offset %d: sent %s, got %r%s; this is not an "
                "uppercase echo, or something on the way alters the data"
                % (self.offset, repr(self.sent) if self.sent else "nothing",
                   self.got, " in %r" % (before + self.got) if before else ""))


class PoolTimeout(TimeoutError):
    """No connection could be had in time."""


class PoolClosed(RuntimeError):
    """The pool has been closed."""
