"""The server program: its log, its signals and its end."""

import argparse
import logging
import signal
import sys
from typing import List, Optional, Union

from ..address import show_address
from ..console import discard_output, make_output_wait
from .arguments import parse
from .base import EchoServer
from .handler import EchoHandler
from .listening import explain, handed_listener
from .models import MODELS
from .signals import STOP_SIGNALS, stop_on
from .workers import Workers, share_one_cpu

try:
    import resource
except ImportError:  # Windows
    pass

__all__ = ["make_server", "run", "serve"]

logger = logging.getLogger("echoserver")

LOG_FORMAT = "%%(asctime)s%s %%(levelname)s %%(message)s"


def raise_descriptor_limit(wanted: int) -> None:
    """Let this process open as many connections as it is to hold.

    Many systems start processes with a limit of 1,024 descriptors (256 on
    macOS) that they may raise themselves, up to a hard limit.
    """
    try:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        unlimited = resource.RLIM_INFINITY
        wanted = hard if not wanted else wanted + 64
        if soft == unlimited or 0 <= wanted <= soft:
            return
        limit = wanted if hard == unlimited else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        logger.debug("raised the limit of descriptors from %d to %d",
                     soft, limit)
        if limit < wanted:
            logger.warning("only %d descriptors are allowed here (ulimit -Hn):"
                           " fewer connections than --max-connections", limit)
    except (NameError, OSError, OverflowError, ValueError):
        pass  # there is no such limit, or it cannot be raised: accept() tells


def make_server(args: argparse.Namespace) -> Union[EchoServer, Workers]:
    """Return what the arguments ask for, listening."""
    options = {name: getattr(args, name) for name in (
        "idle_timeout", "grace", "delay", "pool_size") if name in args}
    one_cpu = MODELS[args.model].one_cpu and not args.any_cpu

    def make(max_connections: int) -> EchoServer:
        return MODELS[args.model](
            args.address, EchoHandler, False,
            max_connections=max_connections, **options)

    if args.workers:    # theirs are made when they have been forked
        server = EchoServer(args.address, EchoHandler, False,
                            max_connections=args.max_connections,
                            grace=args.grace)
        listen(server, args)
        return Workers(server, make, args.workers, one_cpu)
    if one_cpu:
        share_one_cpu()  # before a pool starts its threads
    server = make(args.max_connections)
    listen(server, args)
    return server


def listen(server: EchoServer, args: argparse.Namespace) -> None:
    """Let server listen on what was handed over, or on its address."""
    try:
        listener = handed_listener()
        if listener is None:
            server.server_bind()
            server.server_activate()
        else:
            if args.given:
                logger.warning("a listening socket was handed over (LISTEN_FDS"
                               "), so %s is ignored", args.given)
            server.adopt(listener)
    except BaseException:
        server.server_close()
        raise


def announce(server: Union[EchoServer, Workers],
             args: argparse.Namespace) -> None:
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
    raise_descriptor_limit(args.max_connections
                           * MODELS[args.model].descriptors)
    try:
        server = make_server(args)
    except (MemoryError, OSError, RuntimeError, UnicodeError) as error:
        logger.error("%s", explain(error, args.address))
        return 1
    if hasattr(signal, "SIGCHLD"):      # children are not to be reaped unseen
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with stop_on(STOP_SIGNALS, server.stop, server.loop.wakeup_fd()):
        announce(server, args)
        server.serve_forever()
        server.server_close()
    return 1 if server.cut_short else 0


def run(argv: Optional[List[str]] = None) -> int:
    """Run the program; return its exit status."""
    make_output_wait()
    args = parse(argv)
    logging.basicConfig(level=args.level, stream=sys.stderr,
                        format=LOG_FORMAT % (
                            " [%(process)d]" if args.workers else ""),
                        datefmt="%Y-%m-%dT%H:%M:%S%z")
    return serve(args)
