"""The server: one policy, under every model of concurrency.

EchoServer is a socketserver.TCPServer whose hooks stand, are called in their
order (get_request, verify_request, process_request, finish_request,
shutdown_request, close_request) and may be overridden.  Its bases listen
(listening.py), loop (loop.py) and accept (accepting.py); its own is what
becomes of live connections (registry.py): how they are served, and how they
end.

The drain, in server_close(), accepts what the kernel had already accepted,
over the limit if need be, closes the listener, and goes on looping until the
registry is empty.  At the end of the grace what is left is cut.  The listener
closes before any connection does: a client that is turned away can go
elsewhere.
"""

import errno
import logging
import socket
import struct
import sys
import threading
from time import monotonic
from typing import Any, Optional, Tuple

from .accepting import AcceptingTCPServer
from .handler import EchoHandler, Peer, takes_turns
from .loop import NEVER
from .registry import LAST_CALL, Registry

__all__ = ["EchoServer"]

logger = logging.getLogger("echoserver")

LONGEST_TIMEOUT = 1e6
SEND_WAIT = 0.25    # seconds after which a handler that sends looks up
READ_OUT = 1.0      # seconds for which unread input is read out at a close
LAST_MOMENT = 1.0   # seconds for handlers to notice that they have been cut

# What a peer, or the network on the way to it, can do to a connection besides
# a ConnectionError.  Any other error is a bug and keeps its traceback.
PEER_ERRNOS = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH,
               errno.ENETDOWN, errno.ENETRESET, errno.ENOTCONN}


class EchoServer(AcceptingTCPServer):

    """Base class of the servers; by itself it serves one peer at a time.

    Methods for the caller, beside those of socketserver.TCPServer:

    - start(server_address, ..., **options) -> server, in the background
    - serve_forever(); handle_request() is for a server whose model is to
      serve one at a time, or with threads
    - stop(grace=None), from anywhere
    - shutdown(), which also waits for the loop to end
    - server_close(), which drains; leaving a with block calls it

    Methods that may be overridden: those of socketserver.TCPServer.

    Class variables that may be overridden, or given as keywords:

    - max_connections: open at the same time; others wait in the kernel's
      backlog until one ends.  0 is no limit.
    - idle_timeout: seconds without a byte moved either way; 0 is never
    - grace: seconds that a drain may take

    Instance variables:

    - peers: the Registry of live connections
    - server_address: the real one, also when port 0 was asked for
    - turns: whether its handlers do nothing but call Peer.turn()

    ValueError is raised for an option that makes no sense, OSError when the
    address cannot be listened on (socket.gaierror for a name).
    """

    # Longer than a person thinks between two lines, and than the minute after
    # which common firewalls and balancers cut: they are to show themselves.
    idle_timeout = 300.0
    # Less than the ten or more seconds that supervisors wait before SIGKILL.
    grace = 5.0

    model = "one at a time"

    def __init__(self, server_address: Tuple[Any, ...] = ("127.0.0.1", 8080),
                 RequestHandlerClass: Any = EchoHandler,
                 bind_and_activate: bool = True, *,
                 max_connections: Optional[int] = None,
                 idle_timeout: Optional[float] = None,
                 grace: Optional[float] = None) -> None:
        self.set_options(max_connections=max_connections,
                         idle_timeout=idle_timeout, grace=grace)
        self.turns = (takes_turns(RequestHandlerClass)
                      and type(self).finish_request
                      is EchoServer.finish_request)
        self.peers = Registry(self.turns)
        self._inline: Optional[Peer] = None
        self._draining_since = NEVER
        super().__init__(server_address, RequestHandlerClass,
                         bind_and_activate)

    def set_up(self, request: Any) -> None:
        super().set_up(request)
        if self.peers.patient:
            limit_wait(request, socket.SO_SNDTIMEO, SEND_WAIT)

    def set_options(self, **options: Optional[float]) -> None:
        """Set the options that are not None; each is checked."""
        for name, value in options.items():
            if value is None:
                value = getattr(self, name)
            if not value >= 0:
                raise ValueError("%s must be 0 or more, not %r"
                                 % (name, value))
            setattr(self, name, value)

    def stop(self, grace: Optional[float] = None) -> None:
        """Make serve_forever() return soon; set self.grace if it is given.

        Never blocks.  May be called in any state, twice, from any thread and
        from a signal handler.  During a drain, stop(grace=0) ends it.
        """
        self.set_options(grace=grace)
        super().stop()
        inline = self._inline
        if inline is not None:
            self.peers.end(inline, "drain")

    def server_close(self) -> None:
        """Stop, drain, and give everything back; once is enough."""
        self.shutdown()
        if self._listening and self.socket.fileno() >= 0:
            self.drain()
        super().server_close()

    def drain(self) -> None:
        """Let the connections come to their end; see above."""
        self._loop_thread = threading.get_ident()
        self._draining_since = monotonic()
        self._at_limit = False
        self._attentive = True
        self._due = 0.0
        self.ignore_callers()
        self._accept_rest()
        if self.server_address[0] not in ("127.0.0.1", "::1"):
            # on a network, somebody may be in the midst of the TCP handshake
            end = self._draining_since + min(LAST_CALL, self.grace)
            while monotonic() < end:
                self._turn()
            self._accept_rest()
        self._ignore_listener()
        self.socket.close()
        while self.peers and monotonic() < self._draining_since + self.grace:
            self._turn()
        end = monotonic() + LAST_MOMENT
        while self.peers and monotonic() < end:
            for peer in self.peers.copy().values():
                self.peers.cut(peer, "drain")
            self._turn()
        # whose handlers are busy still, and will find their socket reset
        self.peers.cut_short += sum(
            peer.owed for peer in self.peers.copy().values())
        logger.info("served %s", self.peers.totals())

    def _accept_rest(self) -> None:
        self.socket.setblocking(False)
        for _ in range(self.request_queue_size):
            if not self._handle_request_noblock():
                break

    def register(self, request: Any, client_address: Any) -> None:
        super().register(request, client_address)
        if self.idle_timeout:
            self._due = min(self._due, monotonic() + self.idle_timeout / 10)

    def sweep(self, now: float) -> float:
        """Do what the clock demands; return when it next will."""
        if now >= self._draining_since:
            return self.peers.sweep_drain(now, self._draining_since,
                                          self.grace)
        due = super().sweep(now)
        if self.idle_timeout:
            due = min(due, self.peers.sweep_idle(now, self.idle_timeout))
        return due

    # One connection: the hooks of socketserver.

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve the connection to its end, here in the loop.

        Others wait meanwhile: the blocking server that the lesson begins
        with.  The loop stands still, so that the idle timeout is the
        socket's, and stop() itself ends the connection.
        """
        draining = monotonic() >= self._draining_since
        seconds = self.grace if draining else self.idle_timeout
        request.settimeout(min(seconds, LONGEST_TIMEOUT) or None)
        self._inline = self.peers[request]
        if draining or self._stopping:
            self.peers.end(self._inline, "drain")
        try:
            self.process_request_here(request, client_address)
        finally:
            self._inline = None

    def process_request_here(self, request: Any, client_address: Any) -> None:
        """Serve the connection to its end in the calling thread."""
        try:
            self.finish_request(request, client_address)
        except Exception:
            self.handle_error(request, client_address)
        finally:
            self.shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell what a peer did (in its log line) from our bug (traceback)."""
        error = sys.exc_info()[1]
        peer = self.peers.get(request) or Peer(request, client_address)
        if isinstance(error, MemoryError):
            self.complain("%s: out of memory", peer)
        elif isinstance(error, socket.timeout):
            peer.ends("idle")
        elif isinstance(error, ConnectionError):
            peer.ends("reset")
        elif not isinstance(error, OSError) or error.errno not in PEER_ERRNOS:
            logger.exception("%s: unexpected error", peer)
        peer.ends("error")

    def shutdown_request(self, request: Any) -> None:
        """End our side, read out what is unread, and close.

        Closing with unread input sends a reset, which can destroy the last
        reply on its way (RFC 2525, section 2.17).  The loop itself does not
        wait for more to come.

        A reset it is after an error, when a reply is owed, and when bytes came
        after the end was decided, so that more may be on their way: an end of
        stream would pass for the end of a whole reply.
        """
        peer = self.peers.get(request)
        if peer is not None and (
                peer.owed or peer.reason == "error"
                or peer.reason and peer.bytes_in > peer.bytes_heard
                and peer is not self._inline):
            self.peers.reset(peer, "error")
        try:
            # with its input read to the end, close() alone does both
            if peer is None or not (peer.aborted or peer.at_end):
                request.shutdown(socket.SHUT_WR)
                in_loop = threading.get_ident() == self._loop_thread
                end = monotonic() + (0 if in_loop else READ_OUT)
                request.settimeout(max(end - monotonic(), 0))
                while request.recv(65536) and monotonic() < end:
                    request.settimeout(max(end - monotonic(), 0))
        except OSError:
            pass  # the peer is gone, or has had its moment
        self.close_request(request)


def limit_wait(request: Any, option: int, seconds: float) -> None:
    """Let recv() or send() give up with BlockingIOError after so long.

    The kernel's own timeout needs no extra call; settimeout() needs a poll()
    before each.  On POSIX only: a socket of Windows is of no use afterwards.
    """
    timeval = int(seconds), int(seconds % 1 * 1e6)
    try:
        request.setsockopt(socket.SOL_SOCKET, option,
                           struct.pack("@ll", *timeval))
    except OSError:  # 32-bit Linux with 64-bit times
        request.setsockopt(socket.SOL_SOCKET, option,
                           struct.pack("=qq", *timeval))
