"""Names looked up, and connections made to the first address that answers.

getaddrinfo() can be neither limited nor interrupted, so a name is looked up in
a thread, which those who ask for the same name meanwhile share.  An address
needs no thread.

Where a name has several addresses, the next one is tried when the one before
has failed, or has not answered for a quarter of a second, and the first one
that answers is used (RFC 8305).  A lone address has all of the time.
"""

import errno
import math
import os
import socket
import threading
from time import perf_counter
from typing import Any, Dict, Generator, List, NamedTuple, Optional, Tuple, Union

from ..address import checked_address, show_address
from .waiting import READ, WRITE, Files

__all__ = ["Address", "Link", "Place", "connect", "describe", "lookup"]

# What socket calls an address: two fields for IPv4 and names, four for IPv6.
Address = Union[Tuple[str, int], Tuple[str, int, int, int]]

# As getaddrinfo() returns it: family, type, protocol, name, socket address.
Place = Tuple[Any, ...]

Link = NamedTuple("Link", [     # what connect() has made
    ("socket", socket.socket),  # never blocks
    ("ip", str),
    ("seconds", float)])        # that it took, without looking up the name

# Seconds until the next address is tried beside the others (RFC 8305, 5).
_STAGGER = 0.25

_LOCAL = "cannot be reached (%s): this host %s; check the address%s"
_CUT = ("cut the connection while it was being made; something in between may "
        "not allow it")


def describe(address: Address, ip: str = "") -> str:
    """Return address as text, and which of its IP addresses is meant."""
    shown = show_address(address)
    return shown if ip in ("", address[0]) else "%s (%s)" % (shown, ip)


class _Lookup(threading.Thread):
    """A name that is being looked up.

    Attribute end: a socket that can be read when it is done.
    """

    # By process and address: a fork leaves the thread behind.
    pending: "Dict[Tuple[int, Address], _Lookup]" = {}

    def __init__(self, address: Address) -> None:
        super().__init__(daemon=True)
        self.address = address
        self.end, self._entrance = socket.socketpair()
        self.places: List[Place] = []
        self.failure: Tuple[Optional[int], str] = (socket.EAI_FAIL, "it failed")

    def __del__(self) -> None:
        self.end.close()
        self._entrance.close()

    @classmethod
    def of(cls, address: Address) -> "_Lookup":
        """Return the lookup of address, a new one unless there is one."""
        key, new = (os.getpid(), address), cls(address)
        found = cls.pending.setdefault(key, new)
        if found is new:
            try:
                new.start()
            except RuntimeError:    # no thread can be started: do it here
                new.run()
        return found

    def run(self) -> None:
        try:
            self.places = _places(self.address)
        except (OSError, UnicodeError) as error:
            # The idna codec has its own way to say that no such name can be.
            self.failure = (getattr(error, "errno", socket.EAI_NONAME),
                            getattr(error, "strerror", "no name"))
        finally:
            self.pending.pop((os.getpid(), self.address), None)
            self._entrance.close()


def _places(address: Address, flags: int = 0) -> List[Place]:
    found = socket.getaddrinfo(address[0], address[1], 0, socket.SOCK_STREAM,
                               0, flags)
    # The flow and the zone of an IPv6 address are not looked up.
    return [(*place[:4], (place[4][:2] + address[2:] if address[2:]
                          else place[4])) for place in found]


def lookup(address: Address, seconds: Optional[float] = None) -> Generator[
        Tuple[Files, float], bool, List[Place]]:
    """Look up a name, for block() or Tasks; return the places that it stands
    for, in the system's order.

    Raise socket.gaierror for a name without any, or when that is not known
    after so many seconds, and OverflowError, as socket.connect() does, for a
    port that getaddrinfo() would take modulo 65536.
    """
    address = checked_address(address)
    if not 0 <= address[1] <= 65535:
        raise OverflowError("port must be 0-65535, not %d" % address[1])
    try:
        return _places(address, socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        pass        # it is a name
    shared = _Lookup.of(address)
    with shared.end.dup() as end:
        end.setblocking(False)
        if not (yield ((end, READ),), seconds or math.inf):
            raise _no_address(address, socket.EAI_AGAIN, "the resolver did "
                              "not answer within %.3f s" % (seconds or 0))
    if not shared.places:
        raise _no_address(address, *shared.failure)
    return shared.places


def _no_address(address: Address, number: Optional[int], why: str) -> socket.gaierror:
    return socket.gaierror(number, "%s cannot be looked up (%s); check the "
                           "spelling, or give the address itself"
                           % (describe(address), why))


def connect(address: Address, timeout: Optional[float] = None,
            known: Optional[List[Place]] = None) -> Generator[
        Tuple[Files, float], bool, Link]:
    """Connect to address, for block() or Tasks; return a Link.

    timeout, in seconds, limits looking up the name and all attempts together.
    None or 0 leaves the limit to the system.  known are the places that the
    name stands for, if it was looked up before.

    When all have failed, raise the error of the one that says most: an answer
    says more than silence, and silence more than a missing route.
    """
    end = perf_counter() + (timeout or math.inf)
    attempts = _Attempts(address, known or (
        yield from lookup(address, timeout)))
    try:
        while attempts.places or attempts.open:
            attempts.begin()
            attempts.look(end)
            if attempts.link:
                return attempts.link
            if attempts.open:
                yield attempts.wanted(end)
        raise max(attempts.failures)[2]
    finally:
        for s in attempts.open:
            s.close()


# What says more than a missing route.
_RANKS = {errno.ETIMEDOUT: 1, errno.ECONNREFUSED: 2, errno.ECONNRESET: 2,
          errno.ECONNABORTED: 2}


class _Attempts:
    """The attempts to connect to the places of an address.

    Attributes: places, not yet tried; open, those without an outcome;
    failures, (rank, number, error) of the others; link, the first success.
    """

    def __init__(self, address: Address, places: List[Place]) -> None:
        self.places = list(places)
        self.open: Dict[socket.socket, Place] = {}
        self.failures: List[Tuple[int, int, OSError]] = []
        self.link: Optional[Link] = None
        self._address = address
        self._start = perf_counter()
        self._next_at = -math.inf

    def begin(self) -> None:
        """Try the next place, if it is time for that."""
        now = perf_counter()
        if self.places and (now >= self._next_at or not self.open):
            place, self._next_at = self.places.pop(0), now + _STAGGER
            try:
                self.open[_begin(place)] = place
            except OSError as error:
                self._fail(error.errno or 0, place, own=True)

    def look(self, end: float) -> None:
        """See which attempts have an outcome; at the end all have."""
        now = perf_counter()
        for s, place in list(self.open.items()):
            number = _outcome(s, place)
            if number == errno.EINPROGRESS and now >= end:
                number = errno.ETIMEDOUT
            if not number:
                del self.open[s]
                self.link = Link(s, place[4][0], now - self._start)
                return
            if number != errno.EINPROGRESS:
                del self.open[s]
                s.close()
                self._fail(number, place)
                self._next_at = now

    def _fail(self, number: int, place: Place, own: bool = False) -> None:
        self.failures.append((
            _RANKS.get(number, 0), len(self.failures), OSError(*_explain(
                self._address, number, place, own,
                perf_counter() - self._start))))

    def wanted(self, end: float) -> Tuple[Files, float]:
        """Return what to wait for, and how long."""
        if self.places:
            end = min(end, self._next_at)
        return (tuple((s, WRITE) for s in self.open),
                max(end - perf_counter(), 0))


def _begin(place: Place) -> socket.socket:
    """Return a socket that is being connected to place."""
    s = socket.socket(*place[:3])
    try:
        s.setblocking(False)
        # Or a message of two segments waits 40 ms for a delayed ACK.
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = s.connect_ex(place[4])
        if number not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
            raise OSError(number, "")
        return s
    except BaseException:
        s.close()
        raise


def _outcome(s: socket.socket, place: Place) -> int:
    """Return the error number of an attempt, 0 for none, and EINPROGRESS if
    it has no outcome yet."""
    number = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        return number
    try:
        s.getpeername()
    except OSError:
        return errno.EINPROGRESS
    # A loopback port without a listener can be met by a caller to whom the
    # system has given that port (RFC 793, simultaneous open): its echo would
    # be its own words.
    return errno.ECONNREFUSED if s.getsockname() == place[4] else 0


def _explain(address: Address, number: int, place: Place, own: bool,
             seconds: float) -> Tuple[int, str]:
    """Return an error number and a sentence for the outcome of an attempt.

    own: connect() itself has failed, so this host knew it.  What comes later
    was sent by another, or follows from the silence of all.
    """
    where, said = place[4], os.strerror(number)
    if number == errno.ECONNREFUSED:
        said = "refused the connection; is the server running, and on this port?"
        if not where[0].startswith(("127.", "::1")):
            said += " (echoserver needs -b 0.0.0.0 to listen to other hosts)"
    elif number in (errno.ECONNRESET, errno.ECONNABORTED):
        said = _CUT
    elif number == errno.ETIMEDOUT:
        said = ("did not answer the connection attempt within %.3f s; a "
                "firewall may be dropping it, or the host is down" % seconds)
    elif number == errno.EADDRNOTAVAIL and _has_address_for(place):
        said = ("cannot be called: this host has no local port left for it; "
                "wait a minute, or use fewer connections")
    elif number == errno.EADDRNOTAVAIL:
        number, said = errno.ENETUNREACH, _LOCAL % (
            said, "has no address of that kind", "")
    elif where[0].startswith("fe80:") and not any(where[2:]):
        said = _LOCAL % (said, "needs to know by which interface", " and give "
                         "the interface of a link-local one: %s%%eth0"
                         % where[0])
    elif own and number in (errno.EACCES, errno.EPERM, errno.EINVAL):
        said = _LOCAL % (said, "forbids it by its own rules", "")
    elif own and number in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        said = _LOCAL % (said, "has no route", "")
    else:
        said = "cannot be reached (%s)%s; check the address and the way there" % (
            said, "" if own else ": a router or firewall on the way rejects "
            "it, or nobody has this address")
    return number, "%s %s" % (describe(address, where[0]), said)


def _has_address_for(place: Place) -> bool:
    """Return whether this host has an address from which to call place."""
    try:
        with socket.socket(place[0], socket.SOCK_DGRAM) as s:
            s.connect(place[4])     # which sends nothing
            return True
    except OSError:
        return False
