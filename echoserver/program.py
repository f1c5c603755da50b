"""The server program: its arguments, its log, its signals and its end."""

import argparse
import errno
import logging
import os
import socket
import sys
from typing import List, Optional, Tuple, Union

from . import __version__
from .console import discard_output
from .models import MODELS
from .server.base import EchoServer
from .server.handler import EchoHandler
from .server.listening import handed_listener
from .server.signals import STOP_SIGNALS, stop_on
from .server.workers import Workers, share_one_cpu

try:
    import resource
except ImportError:  # Windows
    pass

__all__ = ["make_parser", "run"]

logger = logging.getLogger("echoserver")

LOG_FORMAT = "%%(asctime)s%s %%(levelname)s %%(message)s"

DESCRIPTION = """\
A TCP server that sends every byte back with the ASCII letters in upper case.

What it serves is a byte stream without framing: the reply is as long as what
was sent, and bytes other than a-z pass untouched, so a client can check each
one.  Talk to it with nc or telnet, or with
"%s [host] [port]".
"""

EPILOG = """\
output:
  One line on stdout says that connections are taken, with the real port.  The
  log goes to stderr: a line for each connection that ends, with its peer, its
  seconds, its bytes in and out, and why it ended: eof (the peer was done),
  reset (the peer or the network cut it), idle (--idle-timeout), drain (the
  server was stopping), error.  Connections that carried no byte are shown with
  -v only.

stopping:
  SIGTERM or Ctrl-C drains: the listener is closed, what has arrived is
  answered, connections at rest are ended.  A second signal ends the drain.

exit status:
  0 after a drain, 1 if it cannot listen or if replies were cut when the grace
  was over, 2 for wrong arguments, 130 after Ctrl-C before it listens.

On a network, mind that it has no access control and no encryption: it binds
to the loopback interface unless told otherwise.
"""


def count(text: str) -> int:
    """An argparse type: a whole number, 0 or more."""
    value = int(text)
    if value < 0:
        raise ValueError
    return value


def positive(text: str) -> int:
    """An argparse type: a whole number, 1 or more."""
    return count(text) or int("")


def seconds(text: str) -> float:
    """An argparse type: a number of seconds, 0 or more."""
    value = float(text)
    if not 0 <= value < 1e9:
        raise ValueError
    return value


def port(text: str) -> int:
    """An argparse type: a port to listen on."""
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError("%d is not a port (0-65535)" % value)
    return value


def model(text: str) -> str:
    """An argparse type: a model that this system has."""
    if text == "processes" and text not in MODELS:
        raise argparse.ArgumentTypeError(
            "processes needs fork(), which this system does not have")
    if text not in MODELS:
        raise argparse.ArgumentTypeError("%r is none of: %s" % (
            text, ", ".join(MODELS)))
    return text


def names() -> Tuple[str, str]:
    """Return how this program and the client are called here."""
    name = os.path.basename(sys.argv[0])
    if name.endswith(".pyz"):
        return name, name + " client"
    if name.startswith("echoserver"):   # the command that pip installs
        return name, "echoserver-client"
    return "python -m echoserver", "python -m echoserver.client"


def make_parser() -> argparse.ArgumentParser:
    prog, client = names()
    parser = argparse.ArgumentParser(
        prog=prog, description=DESCRIPTION % client, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    setattr(parser, "color", False)     # 3.14 looks at stdout, not at stderr
    add = parser.add_argument
    add("port", nargs="?", type=port, default=8080,
        help="port to listen on; 0 picks a free one (default 8080)")
    add("-b", "--bind", metavar="ADDRESS", default="127.0.0.1",
        help="address or name to listen on; 0.0.0.0 for every IPv4 address, "
        ":: for every address (default %(default)s)")
    add("-m", "--model", type=model, default="threads", metavar="MODEL",
        help="how connections are served: %s (default %%(default)s)"
        % ", ".join(MODELS))
    add_policy(parser)
    add_speed(parser)
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", dest="level", const=logging.ERROR,
                          action="store_const", default=logging.INFO,
                          help="log errors only")
    loudness.add_argument("-v", "--verbose", dest="level", const=logging.DEBUG,
                          action="store_const", help="log more")
    add("--version", action="version", version="echoserver " + __version__)
    return parser


def add_policy(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-c", "--max-connections", type=count, metavar="N",
        default=EchoServer.max_connections,
        help="open at the same time; others wait until one ends; 0 is no "
        "limit (default %(default)s)")
    add("--idle-timeout", type=seconds, metavar="SECONDS",
        default=EchoServer.idle_timeout,
        help="end a connection that moves no byte for so long; 0 is never "
        "(default %(default)g)")
    add("--grace", type=seconds, metavar="SECONDS", default=EchoServer.grace,
        help="how long stopping may take (default %(default)g)")


def add_speed(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--pool-size", type=positive, metavar="N", default=argparse.SUPPRESS,
        help="worker threads of the model pool (default %d)"
        % getattr(MODELS["pool"], "pool_size"))
    add("--workers", type=count, metavar="N", default=0,
        help="serve with N processes of the model on one port, to use more "
        "CPUs than one; limits hold in total, log lines are per process")
    add("--any-cpu", action="store_true",
        help="let the threads of threads and pool run on any CPU; by default "
        "they share one, which is faster under the interpreter lock")


def parse(argv: Optional[List[str]]) -> argparse.Namespace:
    """Return the arguments, checked; exit with 2 if they make no sense."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if hasattr(args, "pool_size") and args.model != "pool":
        parser.error("--pool-size goes with --model pool")
    if 0 < args.max_connections < args.workers:
        parser.error("--max-connections must not be less than --workers")
    if not args.bind:
        parser.error("--bind is empty; 0.0.0.0 is every IPv4 address")
    if args.workers and not hasattr(os, "fork"):
        parser.error("--workers needs fork(), which this system does not have")
    return args


def explain(error: Exception, args: argparse.Namespace) -> str:
    """Return one sentence on why the address cannot be listened on."""
    number = getattr(error, "errno", None)
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return "there is no address of the name %r: %s" % (args.bind, error)
    if number == errno.EADDRINUSE:
        return ("port %d on %s is taken: something listens there already; "
                "stop it or choose another port (0 picks a free one)"
                % (args.port, args.bind))
    if number in (errno.EACCES, errno.EPERM) and args.port < 1024:
        return ("no permission to listen on port %d: those below 1024 are for "
                "root; choose a higher one" % args.port)
    if number == errno.EADDRNOTAVAIL:
        return ("%s is not an address of this host; see which it has, or "
                "listen on all with -b ::" % args.bind)
    return "cannot listen on %s port %d: %s" % (args.bind, args.port, error)


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
        "idle_timeout", "grace", "pool_size") if hasattr(args, name)}
    one_cpu = args.model in ("threads", "pool") and not args.any_cpu

    def make(max_connections: int) -> EchoServer:
        return MODELS[args.model](
            (args.bind, args.port), EchoHandler, False,
            max_connections=max_connections, **options)

    if args.workers:    # theirs are made when they have been forked
        server = EchoServer((args.bind, args.port), EchoHandler, False,
                            max_connections=args.max_connections,
                            grace=args.grace)
        listen(server)
        return Workers(server, make, args.workers, one_cpu)
    if one_cpu:
        share_one_cpu()  # before a pool starts its threads
    server = make(args.max_connections)
    listen(server)
    return server


def listen(server: EchoServer) -> None:
    """Let server listen on what was handed over, or on its address."""
    try:
        listener = handed_listener()
        if listener is not None:
            server.adopt(listener)
        else:
            server.server_bind()
            server.server_activate()
    except BaseException:
        server.server_close()
        raise


def announce(server: Union[EchoServer, Workers],
             args: argparse.Namespace) -> None:
    """Say on stdout that a client can connect from now on."""
    model = args.model
    if args.workers:
        model += ", %d workers" % args.workers
    try:
        host, port = server.server_address[:2]
        print("Serving uppercase echo on %s port %d (%s) ..."
              % (host, port, model), flush=True)
    except OSError as error:
        logger.warning("cannot write to stdout: %s", error)
        discard_output()


def serve(args: argparse.Namespace) -> int:
    """Listen, serve until a signal, drain; return the exit status."""
    each = 2 if args.model == "processes" else 1
    raise_descriptor_limit(args.max_connections * each)
    try:
        server = make_server(args)
    except (OSError, RuntimeError, UnicodeError) as error:
        logger.error("%s", explain(error, args))
        return 1
    with stop_on(server, *STOP_SIGNALS):
        announce(server, args)
        server.serve_forever()
        server.server_close()
    return 1 if server.cut_short else 0


def run(argv: Optional[List[str]] = None) -> int:
    """Run the program; return its exit status."""
    args = parse(argv)
    logging.basicConfig(level=args.level, stream=sys.stderr,
                        format=LOG_FORMAT % (
                            " [%(process)d]" if args.workers else ""),
                        datefmt="%Y-%m-%dT%H:%M:%S%z")
    return serve(args)
