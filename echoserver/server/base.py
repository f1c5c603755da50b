"""EchoServer: one policy, under every model of concurrency.

    socketserver.TCPServer
        EchoServer                  has a Loop, an Acceptor, Connections, ...
            ThreadingEchoServer, ...        the models, a file each

For a connection these hooks of socketserver are called, in this order:
get_request, verify_request, process_request, finish_request, handle_error,
shutdown_request, close_request.  Each may be overridden.
"""

import contextlib
import os
import socket
import socketserver
import sys
import threading
from time import monotonic, sleep
from typing import Any, Callable, Optional, Tuple, Type, TypeVar

from ..address import checked_address, show_address
from . import listening
from .acceptor import Acceptor
from .connections import Connections
from .drain import CUT_TIMEOUT, Drain
from .handler import Buffer, EchoHandler, Peer, uses_turns
from .idle import IdleTimeout
from .life import Life
from .log import logger
from .loop import Loop
from .system import (ACCEPTED_INHERIT, limit_wait, linger, listens, reason_of,
                     reset_on_close)
from .threads import start_thread

__all__ = ["EchoServer"]

Self = TypeVar("Self", bound="EchoServer")

LINGER_TIMEOUT = 1.0    # seconds for which unread input is read at a close
DELAY_TICK = 0.05   # seconds after which a delay looks whether it is to end


class EchoServer(socketserver.TCPServer):

    """Base class of the models.

    A model overrides process_request(self, request, client_address), which
    must call serve() with the same arguments, here or in a thread.

    Methods for the caller, beside those of socketserver.TCPServer:

    - start(server_address, RequestHandlerClass, **options) -> server, in the
      background; RequestHandlerClass derives from EchoHandler
    - stop(grace=None); shutdown(), which also waits for serve_forever()
    - server_close(), which drains; leaving a with block calls it

    Class variables that may be overridden, or given as keywords:

    - max_connections: at a time, others wait in the backlog; 0 is no limit
    - idle_timeout: seconds without a byte moved either way; 0 is never
    - grace: seconds that a drain may take
    - delay: seconds before each reply; not of a handler with its own handle()
    - pool_size: worker threads, 1 or more, of the models that have some

    Instance variables: its parts peers (Connections), idle, loop, acceptor,
    drain; turns, whether its handlers do nothing but call
    Peer.turn().

    ValueError is raised for an option, TypeError for an address that is not
    (host, port), OSError for one that cannot be listened on.
    """

    # A balancer's pool, within the 1,024 descriptors that Linux allows first.
    max_connections = 1000
    # Longer than a person thinks between two lines, and than the minute after
    # which common firewalls and balancers cut: they are to show themselves.
    idle_timeout = 300.0
    # Less than the ten or more seconds that supervisors wait before SIGKILL.
    grace = 5.0
    delay = 0.0
    pool_size = 0
    send_timeout = 0.25     # until a handler in send() sees that it was cut

    # For the program: descriptors for each connection, and whether threads
    # had better share one CPU.
    model = ""
    descriptors = 1
    one_cpu = False

    peer_class: Type[Peer] = Peer
    owns_sockets = True     # whether no other process has the accepted sockets
    request_queue_size = listening.BACKLOG
    allow_reuse_address = True
    server_address: Tuple[Any, ...]

    def __init__(self, server_address: Tuple[Any, ...] = ("127.0.0.1", 8080),
                 RequestHandlerClass: Any = EchoHandler,
                 bind_and_activate: bool = True, *,
                 max_connections: Optional[int] = None,
                 idle_timeout: Optional[float] = None,
                 grace: Optional[float] = None, delay: Optional[float] = None,
                 pool_size: Optional[int] = None) -> None:
        if (type(self).process_request
                is socketserver.BaseServer.process_request):
            raise TypeError("EchoServer is the base of the models; use one, "
                            "such as BlockingEchoServer")
        server_address = checked_address(server_address)
        if not type(self).pool_size and pool_size is not None:
            raise TypeError("%s has no pool_size" % type(self).__name__)
        self._set_options(max_connections=max_connections, grace=grace,
                          idle_timeout=idle_timeout, delay=delay,
                          pool_size=pool_size)
        self.turns = (uses_turns(RequestHandlerClass) and
                      type(self).finish_request is EchoServer.finish_request)
        # Whether others serve on the listener after us.
        self.adopted = False
        self._inherits = ACCEPTED_INHERIT   # options from the listener
        self.loop = Loop()
        self.life = Life(self.loop)
        self.make_parts(RequestHandlerClass)
        super().__init__(server_address, RequestHandlerClass,
                         bind_and_activate)

    def make_parts(self, handler_class: Any) -> None:
        """Make the parts that the server has, once its options are set."""
        reply = self.delayed(getattr(handler_class, "reply", bytes.upper))
        self.peers = Connections(
            lambda request, address: self.peer_class(request, address, reply),
            self.wake_handler, self.turns)
        self.idle = IdleTimeout(    # our own delay is not the peer's silence
            self.loop, self.peers,
            self.idle_timeout and self.idle_timeout + self.delay)
        self.acceptor = Acceptor(self, self.fail, lambda: self.max_connections,
                                 self.loop, self.peers)
        self.drain = Drain(self.loop, self.peers, self.acceptor,
                           lambda: self.grace)

    def _set_options(self, **options: Optional[float]) -> None:
        for name, value in options.items():
            if value is None:
                value = getattr(self, name)
            whole = isinstance(getattr(EchoServer, name), int)
            if (not isinstance(value, int if whole else (int, float))
                    or not value >= 0):
                raise ValueError("%s must be a %snumber, 0 or more, not %r"
                                 % (name, "whole " * whole, value))
            setattr(self, name, value)

    def __repr__(self) -> str:
        return "<%s on %s, %s, %d connections>" % (
            type(self).__name__, show_address(self.server_address),
            self.life.state(), len(self.peers))

    def delayed(self, reply: Any) -> Any:
        """Return reply, or one that waits for self.delay seconds before."""
        def delayed_reply(data: bytes) -> Any:
            end = monotonic() + self.delay
            while monotonic() < end and not self.is_ending():
                sleep(max(min(end - monotonic(), DELAY_TICK), 0))
            return reply(data)
        return delayed_reply if self.delay else reply

    # Listening.

    def server_bind(self) -> None:
        listening.bind_first(self, super().server_bind)

    def server_activate(self) -> None:
        if self._inherits:
            self.set_up(self.socket)
        super().server_activate()

    def adopt(self, listener: socket.socket) -> None:
        """Serve on a listening socket that somebody else has made, in place
        of server_bind() and server_activate().

        Others may serve on it after us.  So it is left without our options,
        and with the clients that wait.
        """
        self.socket.close()
        self.socket = listener
        self.adopted = True
        self._inherits = False
        self.address_family = listener.family
        self.server_address = listener.getsockname()
        self.server_activate()

    def set_up(self, request: Any) -> None:
        """Set a connection's socket options, or the listener's to inherit."""
        listening.set_options(request)
        if self.turns:
            limit_wait(request, socket.SO_SNDTIMEO, self.send_timeout)

    # Serving and stopping.

    @classmethod
    def start(cls: Type[Self],
              server_address: Tuple[Any, ...] = ("127.0.0.1", 0),
              RequestHandlerClass: Any = EchoHandler, *,
              max_connections: Optional[int] = None,
              idle_timeout: Optional[float] = None,
              grace: Optional[float] = None, delay: Optional[float] = None,
              pool_size: Optional[int] = None) -> Self:
        """Return a server that serves in the background, on a free port of
        the loopback interface; made for a with block, whose end drains it."""
        return cls(server_address, RequestHandlerClass,
                   max_connections=max_connections, idle_timeout=idle_timeout,
                   grace=grace, delay=delay, pool_size=pool_size
                   ).in_background()

    def in_background(self: Self) -> Self:
        """Begin serve_forever() in a thread; return self."""
        try:
            self.life.background = start_thread(self.serve_forever)
        except BaseException:
            self.server_close()
            raise
        return self

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Serve until stop() or shutdown().

        It wakes every poll_interval seconds only if service_actions() is
        overridden.  RuntimeError is raised if another thread serves already.
        """
        if self.life.begin():
            self.drain.began = 0.0
            self.socket.setblocking(False)
            polls = (type(self).service_actions
                     is not socketserver.BaseServer.service_actions)
            try:
                self.loop.run(lambda: self.acceptor.update(self.socket),
                              self.service_actions,
                              poll_interval if polls else self.loop.max_wait)
            finally:
                self.peers.gate.open()
        if self.loop.closed:    # by a handler: end its connection, too
            for request in list(self.peers):
                self.shutdown_request(request)

    def stop(self, grace: Optional[float] = None) -> None:
        """Make serve_forever() return soon; set self.grace if it is given.

        It never blocks.  It can be called in any thread, in a signal handler,
        and again: during a drain, stop(grace=0) ends that.
        """
        self._set_options(grace=grace)
        if self.loop.is_running():
            self.peers.gate.close()     # the loop comes first
        self.loop.stop()

    def shutdown(self) -> None:
        """Stop, and wait for serve_forever() to end, unless called in it."""
        self.stop()
        if not self.life.is_over():
            self.loop.wait()

    @property
    def cut_short(self) -> int:
        """How many connections a drain has cut while a reply was due."""
        return self.peers.cut_short

    def is_ending(self) -> bool:
        """Whether it was told to stop, and has not served again."""
        return bool(self.drain.began) or self.loop.stopping

    def server_close(self) -> None:
        """Stop, drain, and give everything back.

        If several threads call it, each returns when that is done.  A handler
        may call it; its own connection then ends when it returns.  If an
        exception interrupts it, what is left is cut at once, and another call
        finishes.  In a signal handler that interrupts this very call, it is
        stop(), since the interrupted call goes on.

        In a forked child, and when the interpreter exits, it closes what this
        process has, and neither waits nor drains.
        """
        buffer = getattr(self.peers.serving, "buffer", None)
        own = buffer and buffer.peer
        if self.life.is_over():
            self.release()
            for peer in self.peers.values():
                if peer is not own:
                    peer.request.close()
            return
        self.stop()
        self.life.close(self.grace + CUT_TIMEOUT, own is None,
                        lambda: self._drain(own), self._end_rest,
                        self.end_handlers, self.release)

    def _drain(self, own: Optional[Peer]) -> None:
        self.peers.closer = own or self.peers.closer
        if listens(self.socket) and not self.loop.closed:
            self.loop.begin()
            self.drain.run(self.socket, self.adopted)

    def end_handlers(self) -> None:
        """End the threads or processes that a model has."""

    def _end_rest(self) -> None:
        """Reset what the drain has left.  The handler that has called this
        sees that its connection is to end, when it returns."""
        self.peers.gate.open()
        for peer in self.peers.others():
            self.peers.cut(peer, "drain")   # which wakes its handler
            self.close_request(peer.request)
            with contextlib.suppress(OSError):  # rfile and wfile keep it open
                os.close(peer.request.detach())
        if self.peers.closer is not None:
            self.peers.end(self.peers.closer, "drain", at_rest=True)

    def release(self) -> None:
        """Close what the server itself has open; may be called again."""
        self.loop.close()   # first: a forked child shares an epoll
        super().server_close()

    # One connection: the hooks of socketserver, in their order.

    def _handle_request_noblock(self) -> None:
        self.acceptor.accept()      # for handle_request()
        self.peers.gate.open()

    def get_request(self) -> Tuple[Any, Any]:
        request, client_address = super().get_request()
        if not self._inherits or request.gettimeout() is not None:
            # Whatever socket.setdefaulttimeout() is; and on BSD an accepted
            # socket is as non-blocking as its listener (bpo-7995).
            request.setblocking(True)
        if not self._inherits:      # it takes five calls
            with contextlib.suppress(OSError):  # macOS, if the peer has gone
                self.set_up(request)
        return request, client_address

    def serve(self, request: Any, client_address: Any) -> None:
        """Serve a connection to its end in the calling thread."""
        def to_its_end(buffer: Buffer) -> bool:
            self.finish_request(request, client_address)
            return False

        peer = self.peers.get(request)
        if peer is not None:    # or it was closed meanwhile
            buffer = self.peers.serving.buffer = Buffer(kept=False)
            self.take(peer, to_its_end, buffer)

    def take(self, peer: Peer, turn: Callable[[Buffer], Optional[bool]],
             buffer: Buffer) -> Optional[bool]:
        """Return turn(buffer); if that is False, close the connection."""
        buffer.peer = peer
        try:
            moved = turn(buffer)
            if moved is not False:
                return moved
        except BaseException:
            self.fail(peer.request, peer.client_address)
        else:
            self.shutdown_request(peer.request)
        finally:
            buffer.peer = None
        return False

    def fail(self, request: Any, client_address: Any) -> None:
        """Report the exception that is handled, and reset the connection.

        SystemExit is no error, and KeyboardInterrupt in the main thread; both
        end that thread, as ever.
        """
        error = sys.exc_info()[1]
        in_main = threading.current_thread() is threading.main_thread()
        if request in self.peers:   # or it was closed under its handler
            try:
                if not isinstance(error, (KeyboardInterrupt, SystemExit)
                                  if in_main else SystemExit):
                    self.handle_error(request, client_address)
            except BaseException:
                logger.exception("handle_error() has failed")
            self.peers[request].ends("error")
            self.shutdown_request(request)
        if in_main and isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise error

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Note a peer's fault as the reason of its end; log our own bug, with
        its traceback."""
        error = sys.exc_info()[1]
        peer = self.peers.get(request) or Peer(request, client_address)
        reason = reason_of(error, request)
        if isinstance(error, MemoryError):
            self.acceptor.complain("%s: out of memory", peer)
        elif not reason:
            logger.exception("%s: unexpected error", peer)
        if reason == "idle":    # a handler's own timeout, at rest
            peer.whole_at = peer.bytes_in
        peer.ends(reason or "error")

    def shutdown_request(self, request: Any) -> None:
        """Close the connection: end of stream if the reply is whole, else the
        reset that every accepted socket is set to end in."""
        peer = self.peers.get(request)
        if peer is None or peer.whole:
            reset_on_close(request, False)
            # A handler that uses turns has read its input to the end, so that
            # close() does all of it, unless another process has the socket.
            if not (self.turns and self.owns_sockets):
                linger(request, 0 if self.loop.in_thread() else LINGER_TIMEOUT)
        self.close_request(request)

    def close_request(self, request: Any) -> None:
        with self.peers.lock:
            self.peers.count_lost(request)
            super().close_request(request)
        self.peers.remove(request)
        self.acceptor.connection_ended()

    def wake_handler(self, peer: Peer) -> None:
        """Make a handler look up that was told to return, if a model has it
        wait for more than its input."""
