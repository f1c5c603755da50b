"""Network addresses: how they are written, checked and shown."""

import contextlib
import re
import socket
from typing import Any, Optional, Tuple

__all__ = ["checked_address", "checked_port", "has_zone", "printable",
           "show_address", "split_address"]


def checked_address(address: Any) -> Tuple[Any, ...]:
    """Return address as a tuple; raise TypeError if it is not (host, port).

    A list is taken, too: JSON has no tuples.  An IPv6 address may have four
    fields, as the socket module returns them.
    """
    if (isinstance(address, (tuple, list)) and len(address) in (2, 4)
            and isinstance(address[0], str)
            and all(isinstance(field, int) for field in address[1:])):
        return tuple(address)
    raise TypeError("an address is (host, port), such as (\"127.0.0.1\", 8080)"
                    ", not %r" % (address,))


def split_address(text: str) -> Tuple[str, Optional[str]]:
    """Return the host and the port of HOST, HOST:PORT, [V6], [V6]:PORT or V6.

    The port is None if there is none, and is not checked.  Raise ValueError
    for what can be no host.
    """
    match = re.match(r"(?:\[([^]]+)\]|([^][:]*))(?::([^:]*))?$", text)
    if match and "://" not in text:
        return match.group(1) or match.group(2), match.group(3)
    with contextlib.suppress(OSError, UnicodeError):
        socket.inet_pton(socket.AF_INET6, text.split("%")[0])
        return text, None
    raise ValueError("%r is not a host; give HOST:PORT, or [V6]:PORT" % text)


def checked_port(text: str, least: int = 0) -> int:
    """Return the port that text names; raise ValueError if it is none."""
    if len(text) < 20 and text.isdecimal() and least <= int(text) <= 65535:
        return int(text)
    raise ValueError("%r is not a port (%d-65535)" % (text, least))


def show_address(address: Any) -> str:
    """Return host:port, with control characters escaped.

    A mapped address is shown as the IPv4 address that it is: a dual-stack
    listener reports IPv4 peers as ::ffff:a.b.c.d (RFC 4291).  A link-local
    address keeps its zone: fe80::1%eth0.
    """
    host, port = address[:2]
    if host.startswith("::ffff:") and "." in host:
        host = host[len("::ffff:"):]
    if len(address) == 4 and address[3] and "%" not in host:
        zone = str(address[3])
        with contextlib.suppress(OSError):      # it is gone
            zone = socket.if_indextoname(address[3])
        host += "%" + zone
    host = printable(host)
    return "%s:%s" % ("[%s]" % host if ":" in host else host, port)


def has_zone(zone: str) -> bool:
    """Return whether this host has a network interface of that name or
    number."""
    try:
        return zone.isdecimal() or socket.if_nametoindex(zone) > 0
    except OSError:
        return False


def printable(text: str) -> str:
    """Return text with control characters escaped, so that it cannot forge a
    line or move the cursor of a terminal."""
    return "".join(char if char.isprintable() else
                   char.encode("unicode_escape").decode() for char in text)
