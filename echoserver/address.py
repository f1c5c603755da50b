"""Network addresses: the ones to listen on, and how one is shown."""

import socket
from typing import Any, List, Tuple

__all__ = ["listen_addresses", "show_address"]


def listen_addresses(address: Tuple[Any, ...],
                     family: int) -> List[Tuple[int, Tuple[Any, ...]]]:
    """Return the (family, socket address) pairs to try for (host, port).

    A name may have several; those of the given family come first.  "" stands
    for every IPv4 address.  "::" stands for every address of either family,
    and where IPv6 is switched off it falls back to IPv4's.

    Raise socket.gaierror for an unknown name, OverflowError for a port that
    cannot be, as bind() does.
    """
    host, port = address[:2]
    if not 0 <= port <= 65535:
        raise OverflowError("port must be 0-65535, not %d" % port)
    found = socket.getaddrinfo(host or "0.0.0.0", port,
                               type=socket.SOCK_STREAM,
                               flags=socket.AI_PASSIVE)
    pairs = [(int(info[0]), info[4]) for info in found]
    pairs.sort(key=lambda pair: pair[0] != family)
    if host == "::":
        pairs.append((socket.AF_INET, ("0.0.0.0", port)))
    return pairs


def show_address(address: Any) -> str:
    """Return host:port; a mapped address as the IPv4 address that it is.

    A dual-stack listener reports IPv4 peers as ::ffff:a.b.c.d (RFC 4291).
    """
    host, port = address[:2]
    if host.startswith("::ffff:") and "." in host:
        host = host[len("::ffff:"):]
    return "%s:%d" % ("[%s]" % host if ":" in host else host, port)
