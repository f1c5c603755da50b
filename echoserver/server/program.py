"""The server program: its log, its signals and its end."""

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
from typing import List, Optional, Type, Union

from ..address import show_address
from ..console import allow_descriptors, discard_output, make_output_wait
from .arguments import parse
from .base import EchoServer
from .handler import EchoHandler
from .listening import explain, handed_listener
from .models import MODELS
from .signals import STOP_SIGNALS, stop_on
from .workers import Workers

__all__ = ["make_server", "run", "serve"]

logger = logging.getLogger("echoserver")

SPARE_DESCRIPTORS = 64      # beside those of connections


def share_one_cpu(number: int) -> None:
    """Keep this process on one of its CPUs, where Linux says which it has.

    The interpreter lock lets one thread run at a time.  With several CPUs it
    is handed across them at every system call, and most of the time goes into
    that.  (64 busy connections: 97,000 replies/s on one CPU, 44,000 on two.)
    A free-threaded interpreter is left alone.
    """
    with contextlib.suppress(AttributeError, OSError):
        if getattr(sys, "_is_gil_enabled", lambda: True)():
            cpus = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, {cpus[number % len(cpus)]})


def make_server(args: argparse.Namespace) -> Union[EchoServer, Workers]:
    """Return the server that the arguments ask for, listening."""
    count = max(args.workers, 1)
    # At random: in a container, all that is known of a process is the same.
    first_cpu = int.from_bytes(os.urandom(4), "big")

    def make(index: int, listener: Optional[socket.socket],
             cls: Type[EchoServer] = MODELS[args.model]) -> EchoServer:
        if cls.one_cpu:     # before a pool starts its threads
            share_one_cpu(first_cpu + index)
        server = cls(
            args.address, EchoHandler, listener is None,
            max_connections=(args.max_connections + index) // count,
            idle_timeout=args.idle_timeout, grace=args.grace, delay=args.delay,
            pool_size=args.pool_size if cls.pool_size else None)
        if listener is not None:
            server.adopt(listener)
        return server

    listener = handed_listener()
    if listener is not None and args.given:
        logger.warning("a listening socket was handed over (LISTEN_FDS), so "
                       "%s is ignored", args.given)
    if not args.workers:
        return make(0, listener)
    server = make(0, listener, MODELS["blocking"])
    return Workers(server, make, count, lambda: announce(server, args))


def announce(server: EchoServer, args: argparse.Namespace) -> None:
    """Say on stdout that a client can connect from now on."""
    host, _, port = show_address(server.server_address).rpartition(":")
    how = args.model + (", %d workers" % args.workers if args.workers else "")
    if host == "[::1]" or host.startswith("127."):
        how += "; only this host can connect"
    try:
        print("Serving uppercase echo on %s port %s (%s) ..."
              % (host.strip("[]"), port, how), flush=True)
    except OSError as error:
        logger.warning("cannot write to stdout: %s", error)
        discard_output()


def serve(args: argparse.Namespace) -> int:
    """Listen, serve until a signal, drain; return the exit status."""
    wanted = args.max_connections * MODELS[args.model].descriptors
    allowed = allow_descriptors(wanted and wanted + SPARE_DESCRIPTORS)
    if allowed < wanted:
        logger.warning("only %d descriptors are allowed here (ulimit -Hn): "
                       "fewer than --max-connections", allowed)
    # No child is to be reaped unseen.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        server = make_server(args)
    except (MemoryError, OSError, RuntimeError, UnicodeError) as error:
        logger.error("%s", explain(error, args.address))
        return 1
    with stop_on(STOP_SIGNALS, server.stop, server.loop.wakeup_fd()):
        if isinstance(server, EchoServer):
            announce(server, args)      # of workers, the first does it
        server.serve_forever()
        server.server_close()
    return 1 if server.cut_short else 0


def run(argv: Optional[List[str]] = None) -> int:
    """Run the program; return its exit status."""
    make_output_wait()
    args = parse(argv)
    logging.basicConfig(
        level=args.level, stream=sys.stderr, datefmt="%Y-%m-%dT%H:%M:%S%z",
        format="%(asctime)s {}%(levelname)s %(message)s".format(
            "[%(process)d] " if args.workers else ""))
    return serve(args)
