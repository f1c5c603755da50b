"""Listening: the address, the backlog, and what is accepted from it.

ListeningTCPServer is a socketserver.TCPServer that takes names with several
addresses and both families of them, a backlog as deep as the system has one,
and a listener that somebody else has made.
"""

import array
import errno
import os
import socket
import socketserver
import struct
import sys
from typing import Any, Tuple

from .address import listen_addresses

__all__ = ["ListeningTCPServer"]

# Whether accepted sockets have the options of their listener.
INHERITS = sys.platform.startswith("linux")

# What socket() and bind() report of an address that this host does not have,
# or whose family is switched off.
NO_SUCH_ADDRESS = errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL

# A packet filter for a listener, in the classic instructions of BPF (code, two
# jumps, operand): drop what begins a connection, pass all else.
SO_ATTACH_FILTER = 26   # Python has no name for it
DROP_CALLS = array.array("B", b"".join(
    struct.pack("=HBBI", *line) for line in (
        (0x30, 0, 0, 13),           # load the TCP header's byte of flags
        (0x54, 0, 0, 0x12),         # keep SYN and ACK of them
        (0x15, 0, 1, 0x02),         # if it is SYN alone,
        (0x06, 0, 0, 0),            # drop the packet
        (0x06, 0, 0, 0xFFFFFFFF))))


class ListeningTCPServer(socketserver.TCPServer):

    """Base class of the servers: listening and accepting.

    Methods for the caller:

    - adopt(listener), in place of binding
    - ignore_callers()

    Methods that may be overridden, beside those of socketserver:

    - set_up(request)

    OSError is raised when the address cannot be listened on, socket.gaierror
    for an unknown name, OverflowError for a port that cannot be.
    """

    # As deep as the system allows: it cuts this down to its own limit.  With
    # the 5 of socketserver, clients that come at once wait (bpo-38699).
    request_queue_size = max(65535, socket.SOMAXCONN)
    # On POSIX this forgives connections in TIME_WAIT, nothing more.  Windows
    # would let two servers own the port (bpo-41135): server_bind() there asks
    # for the opposite.
    allow_reuse_address = os.name == "posix" and sys.platform != "cygwin"

    def __init__(self, server_address: Tuple[Any, ...],
                 RequestHandlerClass: Any,
                 bind_and_activate: bool = True) -> None:
        """Listen on the first address of a name that exists."""
        self._listening = False
        self._adopted = False       # whether others may use the listener
        candidates = listen_addresses(server_address, self.address_family)
        while True:
            self.address_family, address = candidates.pop(0)
            try:
                super().__init__(address, RequestHandlerClass, False)
                if bind_and_activate:
                    self._bind_and_activate()
                return
            except OSError as error:
                if not candidates or error.errno not in NO_SUCH_ADDRESS:
                    raise

    def _bind_and_activate(self) -> None:
        try:
            self.server_bind()
            self.server_activate()
        except BaseException:
            self.socket.close()
            raise

    def server_bind(self) -> None:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
            self.socket.setsockopt(socket.SOL_SOCKET,
                                   socket.SO_EXCLUSIVEADDRUSE, 1)
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6,
                                   socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def server_activate(self) -> None:
        if INHERITS:
            self.set_up(self.socket)
        super().server_activate()
        self._listening = True

    def get_request(self) -> Tuple[Any, Any]:
        """Accept a connection, and set it up where it did not inherit that.

        On Linux it has the listener's options, without three calls for each
        connection, and is blocking whatever the listener is; on BSD it
        inherits non-blocking mode instead (bpo-7995).
        """
        request, client_address = super().get_request()
        if not INHERITS or request.gettimeout() is not None:
            request.setblocking(True)  # whatever socket.setdefaulttimeout() is
        if not INHERITS:
            try:
                self.set_up(request)
            except OSError:
                pass  # the peer is gone already, and macOS says so here
        return request, client_address

    def set_up(self, request: Any) -> None:
        """Set a connection's socket options, or the listener's to inherit.

        With Nagle's algorithm a reply can wait 40 ms for the acknowledgement
        of the one before (gh-108736).
        """
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ignore_callers(self) -> None:
        """Have the system ignore who calls from now on; where that is Linux.

        Whom the system takes between the last accept() and the close() of the
        listener is reset.  Who is ignored calls again after a second, and is
        refused.  A listener that was adopted is left as it is: others use it.
        """
        if not INHERITS or self._adopted:
            return
        address, size = DROP_CALLS.buffer_info()
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER,
                                   struct.pack("@HP", size // 8, address))
        except OSError:
            pass  # forbidden, by a container perhaps

    def adopt(self, listener: socket.socket) -> None:
        """Serve on a listening socket that somebody else has made.

        Instead of server_bind() and server_activate(), after a constructor
        with bind_and_activate=False.
        """
        self.socket.close()
        self.socket = listener
        self._adopted = True
        self.address_family = listener.family
        self.server_address = listener.getsockname()
        self.server_activate()
