"""Names looked up, and connections made to the first address that answers."""

import errno
import math
import os
import socket
from time import perf_counter
from typing import Any, List, Optional, Tuple, Union

from ..address import show_address
from .waiting import WRITE, ready

__all__ = ["Address", "Place", "connect", "describe", "lookup"]

# What socket calls an address: two fields for IPv4 and names, four for IPv6.
Address = Union[Tuple[str, int], Tuple[str, int, int, int]]

# As getaddrinfo() returns it: family, type, protocol, name, socket address.
Place = Tuple[Any, ...]

# What the answers to an attempt mean.
_CUT = ("cut the connection while it was being made; something in between may "
        "not allow it")
_ANSWERS = {
    errno.ECONNREFUSED: "refused the connection; is the server running, and on "
                        "this port?",
    errno.ECONNRESET: _CUT, errno.ECONNABORTED: _CUT}


def describe(address: Address, ip: str = "") -> str:
    """Return address as text, and which of its IP addresses is meant."""
    host, port = address[:2]
    shown = show_address((host or "localhost", port))   # as getaddrinfo()
    return shown if ip in ("", host) else "%s (%s)" % (shown, ip)


def lookup(address: Address) -> List[Place]:
    """Return the places that address stands for, in the system's order.

    Raise socket.gaierror for a name without any, and OverflowError, as
    socket.connect() does, for a port that getaddrinfo() takes modulo 65536.
    """
    host, port = address[:2]
    if isinstance(port, int) and not 0 <= port <= 65535:
        raise OverflowError("port must be 0-65535, not %d" % port)
    try:
        found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        # The idna codec has its own way to say that no such name can exist.
        raise socket.gaierror(
            getattr(error, "errno", socket.EAI_NONAME), "%s cannot be looked "
            "up (%s); check the spelling, or give the address itself" % (
                describe(address), getattr(error, "strerror", "no name")),
        ) from None
    # The flow and the zone of an IPv6 address are not looked up.
    return [(*place[:4], (place[4][:2] + address[2:] if address[2:]
                          else place[4])) for place in found]


async def connect(address: Address, places: List[Place],
                  timeout: Optional[float]) -> Tuple[socket.socket, str]:
    """Return a socket that never blocks, connected to the first of places that
    answers, and its name, which is address and IP address as text.

    timeout, in seconds, is for all places together: each has an equal share of
    what is left, whereas create_connection() grants it to each.  None or 0
    leaves the limit to the system.

    When all have failed, raise the error of the one that says most: an answer
    says more than silence, and silence more than a missing route.
    """
    start = perf_counter()
    failures = []
    for tried, place in enumerate(places):
        now, ip = perf_counter(), place[4][0]
        left = start + (timeout or math.inf) - now
        try:
            s = await _connect(place, now + left / (len(places) - tried))
            return s, describe(address, ip)
        except OSError as error:
            number = error.errno or 0
            failures.append((number in _ANSWERS, number == errno.ETIMEDOUT,
                             tried, number, ip))
    *_, number, ip = max(failures)
    what = _ANSWERS.get(number, "cannot be reached (%s); check the address and "
                        "the way there" % os.strerror(number))
    if number == errno.ECONNREFUSED and not ip.startswith(("127.", "::1")):
        what += " (echoserver needs -b 0.0.0.0 to listen to other hosts)"
    if number == errno.ETIMEDOUT:
        what = ("did not answer the connection attempt within %.3f s; a "
                "firewall may be dropping it, or the host is down"
                % (perf_counter() - start))
    raise OSError(number, "%s %s" % (describe(address, ip), what))


async def _connect(place: Place, end: float) -> socket.socket:
    family, kind, protocol, _, where = place
    s = socket.socket(family, kind, protocol)
    try:
        s.setblocking(False)
        # Or a message of two segments waits 40 ms for a delayed ACK.
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = s.connect_ex(where)
        if number in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            number = errno.ETIMEDOUT
            if await ready(s, WRITE, end):
                number = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not number and s.getsockname() == where:
            # A loopback port without a listener can be met by a caller to whom
            # the system has given that port (RFC 793, simultaneous open): its
            # echo would be its own words.
            number = errno.ECONNREFUSED
        if number:
            raise OSError(number, "")
        return s
    except BaseException:
        s.close()
        raise
