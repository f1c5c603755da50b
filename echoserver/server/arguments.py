"""The arguments of the server program, and its help."""

import argparse
import logging
import math
import os
import sys
from typing import Any, Callable, List, Optional, Tuple

from .. import __version__
from .base import EchoServer
from .models import MODELS

__all__ = ["make_parser", "parse"]

DESCRIPTION = """\
A TCP server that sends every byte back with the ASCII letters in upper case.

What it serves is a byte stream without framing: the reply is as long as what
was sent, and bytes other than a-z pass untouched, so a client can check each
one.  Talk to it with nc or telnet, or with
"%s [host] [port]".
"""

EPILOG = """\
output:
  One line on stdout says that connections are accepted, with the real port.
  The log goes to stderr: a line for each connection that ends, with its peer,
  its seconds, its bytes in and out, and why it ended: eof (by the peer, or by
  something in between), reset (the same, but cut), idle (--idle-timeout),
  drain (the server was stopping), error.  Connections that carried no byte and
  lasted less than a second are shown with -v only.

stopping:
  SIGTERM, Ctrl-C or SIGHUP (unless nohup ignores it) drains: the listener is
  closed, pending input is answered, connections at rest are ended.  A second
  signal ends the drain, and three seconds later a program that is stuck.  The
  exit status is 0 after a drain; 1 if it cannot serve, if the drain cut a
  reply, or if it was stuck; 2 for wrong arguments; 130 for an early Ctrl-C.

On a network, mind that it has no access control and no encryption: it binds
to the loopback interface unless told otherwise.
"""


def number(kind: Any, least: float) -> Callable[[str], Any]:
    """Return an argparse type: a number of that kind, and no less."""
    def parse_number(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value < math.inf:   # nan neither
            raise argparse.ArgumentTypeError("must be a %s, %d or more, not %r"
                                             % (NAMES[kind], least, text))
        return value
    return parse_number


NAMES = {int: "whole number", float: "number of seconds"}


def port(text: str) -> int:
    """An argparse type: a port to listen on."""
    if not (len(text) < 20 and text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError("%s is not a port (0-65535)" % text)
    return int(text)


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
    # Python 3.14 colours errors by looking at stdout (gh-139946).
    setattr(parser, "color", False)
    add = parser.add_argument
    add("port", nargs="?", type=port, default=8080,
        help="port to listen on; 0 picks a free one (default 8080)")
    add("-b", "--bind", metavar="ADDRESS", default="127.0.0.1",
        help="address or name to listen on; 0.0.0.0 for every IPv4 address, "
        ":: for every address (default %(default)s)")
    add("-m", "--model", type=model, default="threads", metavar="MODEL",
        help="how connections are served: %s (default %%(default)s)"
        % ", ".join(MODELS))
    add("-c", "--max-connections", type=number(int, 0), metavar="N",
        default=EchoServer.max_connections,
        help="open at the same time; others wait until one ends; 0 is no "
        "limit (default %(default)s)")
    add("--idle-timeout", type=number(float, 0), metavar="SECONDS",
        default=EchoServer.idle_timeout,
        help="end a connection that moves no byte for so long; 0 is never "
        "(default %(default)g)")
    add("--grace", type=number(float, 0), metavar="SECONDS",
        default=EchoServer.grace,
        help="how long stopping may take (default %(default)g)")
    add("--delay", type=number(float, 0), metavar="SECONDS",
        default=EchoServer.delay,
        help="wait so long before each reply, as a slow disk or database "
        "would (default %(default)g)")
    add("--pool-size", type=number(int, 1), metavar="N",
        default=argparse.SUPPRESS,
        help="worker threads of the models pinned and pool (default %d)"
        % getattr(MODELS["pool"], "pool_size"))
    add("--workers", type=number(int, 0), metavar="N", default=0,
        help="serve with N processes of the model on one port, to use more "
        "CPUs than one; limits hold in total, log lines are per process")
    add("--any-cpu", action="store_true",
        help="let the threads of threads, pinned and pool run on any CPU; by "
        "default they share one, which is faster under the interpreter lock")
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", dest="level", const=logging.ERROR,
                          action="store_const", default=logging.INFO,
                          help="log errors only")
    loudness.add_argument("-v", "--verbose", dest="level", const=logging.DEBUG,
                          action="store_const", help="log more")
    add("--version", action="version", version="echoserver " + __version__)
    return parser


def parse(argv: Optional[List[str]]) -> argparse.Namespace:
    """Return the arguments, checked; exit with 2 if they make no sense."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if "pool_size" in args and not hasattr(MODELS[args.model], "pool_size"):
        parser.error("--pool-size goes with --model pinned or --model pool")
    if 0 < args.max_connections < args.workers:
        parser.error("--max-connections must not be less than --workers")
    if not args.bind:
        parser.error("--bind is empty; 0.0.0.0 is every IPv4 address")
    if args.workers and not hasattr(os, "fork"):
        parser.error("--workers needs fork(), which this system does not have")
    return args
