"""The arguments of the server program, and its help."""

import argparse
import contextlib
import math
import os
import sys
from typing import Any, Callable, List, NoReturn, Optional, Tuple

from .. import __version__
from ..address import checked_port, printable, split_address
from .base import EchoServer
from .models import MODELS

__all__ = ["make_parser", "parse"]

DESCRIPTION = """\
A TCP server that sends every byte back with the ASCII letters in upper case.
The reply is as long as what was sent, and all other bytes pass untouched, so a
client can check each one.  Clients are nc, telnet and echoserver.client.
"""

EPILOG = """\
output:
  One line on stdout says that clients can connect, and to which port.  The log
  on stderr has a line for each connection that ends: its peer, seconds, bytes,
  and why: eof or reset (by the peer or something in between), idle
  (--idle-timeout), drain (the server stops), error.  -v shows those, too, that
  carried no byte in less than a second.

stopping:
  SIGTERM, Ctrl-C or SIGHUP (unless nohup ignores it) drains: the listener is
  closed, pending input is answered, connections at rest are ended.  A second
  signal ends the drain, and three seconds later a program that is stuck.  The
  exit status is 0 after a drain; 1 if it cannot serve, if the drain cut a
  reply, or if it was stuck; 2 for wrong arguments; 130 for an early Ctrl-C.

On a network, mind that it has no access control and no encryption: it binds
to the loopback interface unless told otherwise.
"""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(printable(message))   # it may hold what was typed


def number(kind: Any, least: int) -> Callable[[str], Any]:
    """Return an argparse type: a number of that kind, and no less."""
    def parse_number(text: str) -> Any:
        with contextlib.suppress(ValueError):
            if least <= kind(text) < math.inf:      # nan neither
                return kind(text)
        raise argparse.ArgumentTypeError("must be %s, %d or more, not %r" % (
            "a whole number" if kind is int else "seconds", least, text))
    return parse_number


def place(text: str) -> Tuple[Optional[str], Optional[int]]:
    """An argparse type: PORT, HOST, HOST:PORT or [V6]:PORT to listen on."""
    try:
        host, port = (None, text) if text.isdecimal() else split_address(text)
        if host == "" or text[:1] == "-":   # -1 is no flag for argparse
            raise ValueError("%r is not an address; 0.0.0.0 is every IPv4 one"
                             % text)
        return host, port if port is None else checked_port(port)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error))


def make_parser() -> argparse.ArgumentParser:
    name = os.path.basename(sys.argv[0])    # of an archive, or pip's command
    if not name.endswith((".pyz", "echoserver")):
        name = "python -m echoserver"
    parser = Parser(prog=name, description=DESCRIPTION, epilog=EPILOG,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    # Python 3.14 colours errors by looking at stdout (gh-139946).
    setattr(parser, "color", False)
    add = parser.add_argument
    add("place", nargs="?", type=place, metavar="port", default=(None, None),
        help="or HOST:PORT, to listen on; 0 picks a free one (default 8080)")
    add("-b", "--bind", type=place, metavar="ADDRESS", default=(None, None),
        help="address or name to listen on; 0.0.0.0 for every IPv4 address, "
        ":: for every address (default 127.0.0.1)")
    add("-m", "--model", choices=MODELS, default="threads", metavar="MODEL",
        help="one of %s (default %%(default)s)" % ", ".join(MODELS))
    add("-c", "--max-connections", type=number(int, 0), metavar="N",
        default=EchoServer.max_connections, help="open at the same time; "
        "others wait until one ends; 0 is no limit (default %(default)s)")
    for flag, what in (
            ("--idle-timeout", "end if no byte moves for so long; 0 is never"),
            ("--grace", "how long stopping may take"),
            ("--delay", "wait so long before each reply, as a disk would")):
        add(flag, type=number(float, 0), metavar="SECONDS",
            default=getattr(EchoServer, flag[2:].replace("-", "_")),
            help=what + " (default %(default)g)")
    add("--pool-size", type=number(int, 1), metavar="N",
        help="worker threads: %s.  pool takes turns; with --delay it needs "
        "one for each reply that waits" % ", ".join(
            "%d of %s" % (cls.pool_size, name)
            for name, cls in MODELS.items() if cls.pool_size))
    add("--workers", type=number(int, 0), metavar="N", default=0,
        help="serve with N processes of the model on one port, to use more "
        "CPUs than one; limits hold in total, log lines are per process")
    loudness = parser.add_mutually_exclusive_group().add_argument
    loudness("-q", "--quiet", action="store_const", dest="level",
             const="ERROR", default="INFO", help="log errors only")
    loudness("-v", "--verbose", action="store_const", dest="level",
             const="DEBUG", help="log more")
    add("--version", action="version", version="echoserver " + __version__)
    return parser


def parse(argv: Optional[List[str]]) -> argparse.Namespace:
    """Return the arguments, checked; exit with 2 if they make no sense."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.pool_size and not MODELS[args.model].pool_size:
        parser.error("--pool-size goes with --model pinned or --model pool")
    if 0 < args.max_connections < args.workers:
        parser.error("--max-connections must not be less than --workers")
    hosts, ports = ([value for value in values if value is not None]
                    for values in zip(args.place, args.bind))
    for what in hosts, ports:
        if len(what) > 1:
            parser.error("there is one address or port too many: %s" %
                         " and ".join(map(str, what)))
    args.address = (*hosts, "127.0.0.1")[0], (*ports, 8080)[0]
    args.given = " and ".join(hosts + ["port %d" % port for port in ports])
    return args
