"""Names looked up, and connections made to the first address that answers.

getaddrinfo() can be neither limited nor interrupted, so it looks a name up in
a thread.  Connections that need the same name at the same time share the
thread.  An IP address needs none.

Where a name has several addresses, the next one is tried when the one before
has failed, or has not answered for a quarter of a second, and the first one
that answers is used (RFC 8305).  A lone address has all of the time.
"""

import contextlib
import encodings.idna       # or getaddrinfo() does, while time is measured
import errno
import math
import os
import socket
import threading
from time import perf_counter
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Union

from ..address import show_address
from .waiting import READ, WRITE, Task

__all__ = ["Address", "Link", "Place", "connect", "describe", "lookup"]

# An address as socket has it: two fields for IPv4 and names, four for IPv6.
Address = Union[Tuple[str, int], Tuple[str, int, int, int]]

# As getaddrinfo() returns it: family, type, protocol, name, socket address.
Place = Tuple[Any, ...]

# The result of connect(): a socket that never blocks, connected to an IP
# address in so many seconds; looking up the name is not in them.
Link = NamedTuple("Link", [
    ("socket", socket.socket), ("ip", str), ("seconds", float)])

# Seconds until the next address is tried beside the others (RFC 8305, 5).
_STAGGER = 0.25


def describe(address: Address, ip: str = "") -> str:
    """Return address as text, and which of its IP addresses is meant."""
    shown = show_address(address)
    return shown if ip in ("", address[0]) else "%s (%s)" % (shown, ip)


# The names that are being looked up, by process (a fork leaves the thread
# behind) and address.
_pending: "Dict[Tuple[int, Address], _Lookup]" = {}


class _Lookup(threading.Thread):
    """A name that is being looked up.

    Attributes: end, a socket that can be read when it is done; places;
    failure, the number and the words of an error, if there is no place.
    """

    def __init__(self, address: Address) -> None:
        super().__init__(daemon=True)
        self.address, self.places = address, []  # type: Address, List[Place]
        self.failure: Tuple[Any, str] = (
            socket.EAI_AGAIN, "the resolver did not answer in time")
        self.end, self._entrance = socket.socketpair()

    def __del__(self) -> None:
        self.end.close()
        self._entrance.close()

    def run(self) -> None:
        try:
            self.places = _places(self.address)
        except (OSError, UnicodeError) as error:
            # The idna codec has its own way to say that no such name can be.
            self.failure = (getattr(error, "errno", socket.EAI_NONAME),
                            getattr(error, "strerror", "no name"))
        finally:
            _pending.pop((os.getpid(), self.address), None)
            self._entrance.close()


def _places(address: Address, flags: int = 0) -> List[Place]:
    # The flow and the zone of an IPv6 address are not looked up.
    return [(*place[:4], place[4][:2] + (address[2:] or place[4][2:]))
            for place in socket.getaddrinfo(
                *address[:2], 0, socket.SOCK_STREAM, 0, flags)]


def lookup(address: Address, seconds: Optional[float] = None) -> Task:
    """Look up a name, for block() or Tasks; return the places that it stands
    for, in the system's order.

    Raise socket.gaierror for a name without any, or when that is not known
    after so many seconds, and OverflowError, as socket.connect() does, for a
    port that getaddrinfo() would take modulo 65536.
    """
    if not 0 <= address[1] <= 65535:
        raise OverflowError("port must be 0-65535, not %d" % address[1])
    with contextlib.suppress(OSError, UnicodeError):    # it is a name
        return _places(address, socket.AI_NUMERICHOST)
    new = _Lookup(address)
    shared = _pending.setdefault((os.getpid(), address), new)
    if shared is new:
        try:
            new.start()
        except RuntimeError:    # no thread can be started: do it here
            new.run()
    with shared.end.dup() as end:
        yield ((end, READ),), seconds or math.inf
    if shared.places:
        return shared.places
    number, why = shared.failure
    raise socket.gaierror(number, "%s cannot be looked up (%s); check the "
                          "spelling, or give the address itself"
                          % (describe(address), why))


def connect(address: Address, timeout: Optional[float] = None,
            known: Optional[List[Place]] = None) -> Task:
    """Connect to address, for block() or Tasks; return a Link.

    timeout, in seconds, limits looking up the name and all attempts together.
    None or 0 leaves the limit to the system.  known are the places that the
    name stands for, if it was looked up before.

    When all have failed, raise the error of the one that says most: an answer
    says more than silence, and silence more than a missing route.
    """
    end = perf_counter() + (timeout or math.inf)
    places = list(known or (yield from lookup(address, timeout)))
    start = next_at = perf_counter()
    attempts: Dict[socket.socket, Tuple[Place, int]] = {}
    failures: List[OSError] = []
    try:
        while places or attempts:
            now = perf_counter()
            if places and (now >= next_at or not attempts):
                next_at = now + _STAGGER
                attempts.update([_begin(places.pop(0))])
            for s, (place, own) in list(attempts.items()):
                number = own or _outcome(s, place, now >= end)
                if number != errno.EINPROGRESS:
                    del attempts[s]
                    if not number:
                        return Link(s, place[4][0], perf_counter() - start)
                    next_at = now
                    s.close()
                    failures.append(_explained(
                        address, perf_counter() - start, place, number, own))
            due = min(end, next_at if places else end)
            if attempts:
                yield tuple((s, WRITE) for s in attempts), max(due - now, 0)
        raise max(reversed(failures), key=lambda failure: _RANKS.get(
            failure.errno or 0, 0))
    finally:
        for s in attempts:
            s.close()


def _begin(place: Place) -> Tuple[socket.socket, Tuple[Place, int]]:
    """Return a socket that is being connected to place, with the place and the
    error number if connect() itself has failed."""
    s = socket.socket(*place[:3])
    s.setblocking(False)
    # Or a message of two segments waits 40 ms for a delayed ACK.
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    number = s.connect_ex(place[4])
    return s, (place, 0 if number in (
        errno.EINPROGRESS, errno.EWOULDBLOCK) else number)


def _outcome(s: socket.socket, place: Place, is_over: bool) -> int:
    """Return the error number of an attempt, 0 for none, and EINPROGRESS if
    it has no outcome yet, unless its time is over."""
    number = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        return number
    try:
        s.getpeername()
    except OSError:
        return errno.ETIMEDOUT if is_over else errno.EINPROGRESS
    # A loopback port without a listener can be met by a caller to whom the
    # system has given that port (RFC 793, simultaneous open): its echo would
    # be its own words.
    return errno.ECONNREFUSED if s.getsockname() == place[4] else 0


_OUTCOMES = {
    errno.EADDRNOTAVAIL: "cannot be called: this host has no local port left "
                         "for it; wait a minute, or use fewer connections",
    errno.ETIMEDOUT: "did not answer the connection attempt within %.3f s; a "
                     "firewall may be dropping it, or the host is down",
    errno.ECONNRESET: "cut the connection while it was being made; something "
                      "in between may not allow it",
    errno.ECONNREFUSED: "refused the connection; is the server running, and "
                        "on this port?"}
# What says most comes last: an answer says more than silence, and silence more
# than a missing route, which is not here.
_RANKS = {number: rank for rank, number in enumerate(_OUTCOMES, 1)}
# Reasons for errors that connect() returns at once: they are this host's own.
# A later error was sent by another host, or follows from silence.
_OWN = {
    errno.EADDRNOTAVAIL: ": this host has no address of that kind",
    **dict.fromkeys([errno.ENETUNREACH, errno.EHOSTUNREACH],
                    ": this host has no route"),
    **dict.fromkeys([errno.EACCES, errno.EPERM, errno.EINVAL],
                    ": this host's own rules forbid it")}


def _explained(address: Address, seconds: float, place: Place, number: int,
               own: int) -> OSError:
    """Return an error with a sentence for the outcome of an attempt."""
    ip, said = place[4][0], _OUTCOMES.get(number, "")
    why = _OWN.get(number, "") if own else (
        ": a router or firewall on the way rejects it, or nobody has it")
    if number == errno.ECONNREFUSED and not ip.startswith(("127.", "::1")):
        said += " (echoserver needs -b 0.0.0.0 to listen to other hosts)"
    if number == errno.ETIMEDOUT:
        said %= seconds
    if number == errno.EADDRNOTAVAIL and not _has_address_for(place):
        number, said = errno.ENETUNREACH, ""
    if ip.startswith("fe80:") and not any(place[4][2:]):
        why = ": a link-local address needs its interface: %s%%eth0" % ip
    return OSError(number, "%s %s" % (describe(address, ip), said or (
        "cannot be reached (%s%s); check the address and the way there"
        % (os.strerror(number), why))))


def _has_address_for(place: Place) -> bool:
    """Return whether this host has an address from which to call place."""
    with contextlib.suppress(OSError), socket.socket(
            place[0], socket.SOCK_DGRAM) as s:
        s.connect(place[4])     # which sends nothing
        return True
    return False
