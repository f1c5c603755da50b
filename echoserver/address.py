"""How a network address is shown."""

from typing import Any

__all__ = ["show_address"]


def show_address(address: Any) -> str:
    """Return host:port; a mapped address as the IPv4 address that it is.

    A dual-stack listener reports IPv4 peers as ::ffff:a.b.c.d (RFC 4291).
    """
    host, port = address[:2]
    if host.startswith("::ffff:") and "." in host:
        host = host[len("::ffff:"):]
    return "%s:%s" % ("[%s]" % host if ":" in host else host, port)
