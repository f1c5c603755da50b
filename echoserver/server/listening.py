"""Listening: names with several addresses, both families, a deep backlog."""

import contextlib
import errno
import os
import socket
from typing import Any, Callable, List, Optional, Tuple

from ..address import printable, show_address
from .system import reset_on_close

__all__ = ["BACKLOG", "bind_first", "explain", "handed_listener",
           "set_options"]

# As deep as the system allows: it cuts this down to its own limit.  With the 5
# of socketserver, clients that come at once wait (bpo-38699).
BACKLOG = max(65535, socket.SOMAXCONN)

# Errors of socket() and bind() for an address that this host does not have,
# or whose family is switched off.
NO_SUCH_ADDRESS = errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL

# Why a server cannot serve on host {0}, port {1}, by the number of the error;
# without one, it is a sentence of ours.
REASONS = {
    None: "{2}",
    errno.ENOMEM: "there is not enough memory here to serve",
    errno.EAGAIN: "there are not enough threads or processes here to serve",
    errno.EMFILE: "there are not enough descriptors here to serve",
    errno.EADDRINUSE: "port {1} on {0} is taken: something listens there "
    "already; stop it or choose another port (0 picks a free one)",
    errno.EACCES: "no permission to listen on port {1}; those below 1024 are "
    "for root: choose a higher one",
    errno.EADDRNOTAVAIL: "{0} is not an address of this host; see which it "
    "has, or listen on all with -b ::",
    errno.EINVAL: "{0} needs the name of its link, as in {0}%eth0"}

SO_DOMAIN = 39  # of Linux; Python has no name for it


def set_options(s: socket.socket) -> None:
    """Set the options of a connection, or those that a listener passes on."""
    # With Nagle's algorithm a small reply can wait 40 ms for the
    # acknowledgement of the one before (gh-108736).
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A peer that has vanished is found, though it is never idle too long.
    s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Every byte comes back, out-of-band data (MSG_OOB), too.
    s.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    reset_on_close(s)


def bind_first(server: Any, bind: Callable[[], None]) -> None:
    """Give a socketserver.TCPServer a socket that bind() binds, to the first
    address that its server_address stands for and that this host has.

    A name may have several; IPv4 comes first.  "" stands for every IPv4
    address.  "::" stands for every address of either family, and where IPv6
    is switched off it falls back to IPv4's.

    Raise socket.gaierror for an unknown name, OverflowError for a port that
    cannot be, as bind() does.
    """
    host, port, *_ = server.server_address
    if not 0 <= port <= 65535:
        raise OverflowError("port must be 0-65535, not %d" % port)
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM,
                               flags=socket.AI_PASSIVE)
    pairs: List[Any] = sorted(((info[0], info[4]) for info in found),
                              key=lambda pair: pair[0] != socket.AF_INET)
    if host == "::":
        pairs.append((socket.AF_INET, ("0.0.0.0", port)))
    while True:
        server.socket.close()
        server.address_family, server.server_address = pairs.pop(0)
        try:
            server.socket = socket.socket(server.address_family,
                                          server.socket_type)
            if server.address_family == socket.AF_INET6:
                server.socket.setsockopt(socket.IPPROTO_IPV6,
                                         socket.IPV6_V6ONLY, 0)
            return bind()
        except OSError as error:
            if not pairs or error.errno not in NO_SUCH_ADDRESS:
                raise OSError(error.errno, "cannot listen on %s: %s" % (
                    show_address(server.server_address), error.strerror
                    )) from error


def handed_listener() -> Optional[socket.socket]:
    """Return the listening socket that a service manager handed over, if any.

    That is descriptor 3, when LISTEN_PID is this process and LISTEN_FDS is 1:
    systemd's socket activation, sd_listen_fds(3).  The variables are taken out
    of the environment, since they are not for child processes.

    Raise OSError for anything but one listening TCP socket.
    """
    pid = os.environ.pop("LISTEN_PID", "")
    count = os.environ.pop("LISTEN_FDS", "")
    if not pid or not count:
        return None
    if pid != str(os.getpid()):
        raise OSError("LISTEN_PID is %s, but this process is %d: start it with"
                      " exec, or unset LISTEN_FDS" % (pid, os.getpid()))
    if count != "1":
        raise OSError("LISTEN_FDS is %s: one socket is served" % count)
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(3)) as s:
        # Asked of the system: Python 3.6 cannot, by itself.
        family, kind, listens = (
            s.getsockopt(socket.SOL_SOCKET, option) for option in (
                SO_DOMAIN, socket.SO_TYPE, socket.SO_ACCEPTCONN))
        if listens and kind == socket.SOCK_STREAM and family in (
                socket.AF_INET, socket.AF_INET6):
            return socket.socket(family, kind, fileno=3)
    raise OSError("descriptor 3 is not a listening TCP socket")


def explain(error: Exception, address: Tuple[Any, ...]) -> str:
    """Return one sentence on why a server cannot serve on address."""
    number = getattr(error, "errno", None)
    if isinstance(error, MemoryError):
        number = errno.ENOMEM
    why = REASONS.get(number, "cannot listen on {0} port {1}: {2}")
    if isinstance(error, (socket.gaierror, UnicodeError)):
        why = "there is no address of the name {0!r}: {2}"
    return printable(why.format(*address[:2], error))
