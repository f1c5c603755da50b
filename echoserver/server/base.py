"""EchoServer: one policy, under every model of concurrency.

    socketserver.TCPServer
        EchoServer                  has a Loop, an Acceptor, the Connections
            ThreadingEchoServer, ...        the models, a file each

Here stands who calls whom: the hooks of socketserver, in their order
get_request, verify_request, process_request, finish_request, shutdown_request,
close_request; each may be overridden.
"""

import functools
import socket
import socketserver
import threading
from time import monotonic
from typing import Any, Optional, Tuple, Type, TypeVar

from . import listening
from .acceptor import Acceptor
from .connections import Connections
from .drain import drain
from .handler import EchoHandler, Peer, delayed, uses_turns
from .idle import IdleTimeout
from .loop import Loop
from .serving import finish, serve, tell_error
from .system import ACCEPTED_INHERIT, REUSE_ADDRESS, limit_wait
from .timekeeper import keeping_time

__all__ = ["EchoServer"]

Self = TypeVar("Self", bound="EchoServer")


class EchoServer(socketserver.TCPServer):

    """Base class of the servers; by itself it serves one peer at a time.

    Methods for the caller, beside those of socketserver.TCPServer:

    - start(server_address, ..., **options) -> server, in the background
    - stop(grace=None); shutdown(), which also waits for serve_forever()
    - server_close(), which drains; leaving a with block calls it

    Class variables that may be overridden, or given as keywords:

    - max_connections: at a time, others wait in the backlog; 0 is no limit
    - idle_timeout: seconds without a byte moved either way; 0 is never
    - grace: seconds that a drain may take
    - delay: seconds before each reply; not of a handler with its own handle()

    Instance variables: its parts peers (Connections), idle, loop, acceptor;
    turns, whether its handlers do nothing but call Peer.turn().

    ValueError is raised for an option, OSError for an address.
    """

    # A balancer's pool, within the 1,024 descriptors that Linux allows first.
    max_connections = 1000
    # Longer than a person thinks between two lines, and than the minute after
    # which common firewalls and balancers cut: they are to show themselves.
    idle_timeout = 300.0
    # Less than the ten or more seconds that supervisors wait before SIGKILL.
    grace = 5.0
    delay = 0.0
    send_timeout = 0.25     # until a handler in send() sees that it was cut

    # For the program; many threads had better share one_cpu.
    model = "blocking"
    descriptors = 1
    one_cpu = False

    peer_class: Type[Peer] = Peer
    request_queue_size = listening.BACKLOG
    allow_reuse_address = REUSE_ADDRESS
    server_address: Tuple[Any, ...]

    def __init__(self, server_address: Tuple[Any, ...] = ("127.0.0.1", 8080),
                 RequestHandlerClass: Any = EchoHandler,
                 bind_and_activate: bool = True, *,
                 max_connections: Optional[int] = None,
                 idle_timeout: Optional[float] = None,
                 grace: Optional[float] = None,
                 delay: Optional[float] = None) -> None:
        self._set_options(max_connections=max_connections, grace=grace,
                          idle_timeout=idle_timeout, delay=delay)
        self.adopted = False    # whether others use the listener, too
        self.draining_since = 0.0   # the monotonic time, once it drains
        self.listening = self._closed = False
        self._background: Optional[threading.Thread] = None
        # Held by server_close(); reentrant, since a hook may call that in it.
        self.closing = threading.RLock()
        self.turns = (uses_turns(RequestHandlerClass) and
                      type(self).finish_request is EchoServer.finish_request)
        self.loop = Loop()
        self.acceptor = Acceptor(self)
        reply = delayed(getattr(RequestHandlerClass, "reply", bytes.upper),
                        self.delay, self.is_ending)
        self.peers = Connections(
            functools.partial(self.peer_class, reply=reply), self.loop.call,
            self.turns, self.turns and RequestHandlerClass.timeout is None)
        self.idle = IdleTimeout(    # our own delay is not the peer's silence
            self.loop, self.peers,
            self.idle_timeout and self.idle_timeout + self.delay)
        try:
            super().__init__(server_address, RequestHandlerClass,
                             bind_and_activate)
        except BaseException:
            self.loop.close()
            raise

    def _set_options(self, **options: Optional[float]) -> None:
        for name, value in options.items():
            if value is None:
                value = getattr(self, name)
            if not value >= 0:
                raise ValueError("%s must be 0 or more, not %r"
                                 % (name, value))
            setattr(self, name, value)

    # Listening.

    def server_bind(self) -> None:
        listening.bind_first(self, super().server_bind)

    def server_activate(self) -> None:
        if ACCEPTED_INHERIT:
            self.set_up(self.socket)
        super().server_activate()
        self.listening = True

    def adopt(self, listener: socket.socket) -> None:
        """Serve on a listening socket that somebody else has made, in place
        of server_bind() and server_activate()."""
        self.socket.close()
        self.socket = listener
        self.adopted = True
        self.address_family = listener.family
        self.server_address = listener.getsockname()
        self.server_activate()

    def set_up(self, request: Any) -> None:
        """Set a connection's socket options, or the listener's to inherit."""
        listening.set_nodelay(request)
        if self.turns:
            limit_wait(request, socket.SO_SNDTIMEO, self.send_timeout)

    # Serving and stopping.

    @classmethod
    def start(cls: Type[Self],
              server_address: Tuple[Any, ...] = ("127.0.0.1", 0),
              *args: Any, **options: Any) -> Self:
        """Return a server that serves in the background, on a free port of
        the loopback interface; made for a with block, whose end drains it."""
        server = cls(server_address, *args, **options)
        try:
            server.run_in_background()
        except BaseException:
            server.server_close()
            raise
        return server

    def run_in_background(self) -> None:
        """Begin serve_forever() beside the caller; part of start()."""
        thread = threading.Thread(target=self.serve_forever,
                                  name="echoserver", daemon=True)
        thread.start()
        self._background = thread

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Serve until stop() or shutdown(); poll_interval is ignored."""
        with self.closing:
            if self._closed:
                return
            self.socket.setblocking(False)
            self.loop.begin()
        self.loop.run(self.acceptor.update, self.service_actions)

    def stop(self, grace: Optional[float] = None) -> None:
        """Make serve_forever() return soon; set self.grace if it is given.

        Never blocks, is right in any thread and in a signal handler, and
        twice.  Once it stops, stop(grace=0) ends that, if need be by a reset.
        """
        self._set_options(grace=grace)
        if grace == 0 and self.is_ending():
            self.peers.reset_at_exit()
        self.loop.stop()

    def shutdown(self) -> None:
        """Stop, and wait for serve_forever() to end, unless called in it."""
        self.stop()
        self.loop.wait()

    @property
    def cut_short(self) -> int:
        """How many connections a drain has cut while a reply was due."""
        return self.peers.cut_short

    def is_ending(self) -> bool:
        """Whether it was told to stop, and has not served again."""
        return bool(self.draining_since) or self.loop.stopping

    def server_close(self) -> None:
        """Stop, drain, and give everything back; from several threads at
        once, all return when it is done."""
        self.shutdown()
        with self.closing:
            if self._closed:
                return
            self._closed = True
            self.loop.wait()    # for what began to serve meanwhile
            if self._background not in (None, threading.current_thread()):
                self._background.join()
            if self.listening and self.socket.fileno() >= 0:
                self.draining_since = monotonic()
                self.loop.enter_thread()
                drain(self)
            super().server_close()
            self.loop.close()

    def kill_handlers(self) -> None:
        """End by force what outlives the drain, where a model can."""

    # One connection: the hooks of socketserver.

    def _handle_request_noblock(self) -> None:
        self.acceptor.accept_one()  # for handle_request()

    def get_request(self) -> Tuple[Any, Any]:
        request, client_address = super().get_request()
        listening.set_up_accepted(request, self.set_up)
        return request, client_address

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve the connection to its end, in the loop; others wait."""
        if self.draining_since:     # who waited in the backlog has no time
            self.peers.end(self.peers[request], "drain")
        try:
            with keeping_time(self):
                serve(self, request, client_address)
        except SystemExit:
            if not self.loop.in_thread():   # in handle_request()
                raise

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell what a peer did (in its log line) from our bug (traceback)."""
        tell_error(self, request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End the stream, or reset the connection; and close."""
        finish(self, request)
        self.close_request(request)

    def close_request(self, request: Any) -> None:
        with self.peers.lock:
            self.peers.count_lost(request)
            super().close_request(request)
        self.acceptor.removed(self.peers.remove(request))
