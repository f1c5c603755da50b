"""The arguments of the client program, and its --help."""

import argparse
import os
import sys
from typing import Any, Callable, List

from .. import __version__
from ..address import printable

__all__ = ["make_parser"]

_DESCRIPTION = """\
Talk to an uppercase echo server and compare every byte of its replies.
At a terminal, each line is sent and its reply printed; Ctrl-D leaves.
In a pipe, standard input is sent and the replies are standard output.
With --count, round trips are made and measured; with --idle, silences tried.
"""

_EPILOG = """\
exit codes:
  0    every byte came back as it should
  1    the network; a line on standard error begins with REFUSED,
       UNREACHABLE, DNS, TIMEOUT, RESET or CLOSED
  2    usage, standard input or output that cannot be used, or this host is
       out of descriptors, local ports or memory
  3    a wrong echo; the line says where, what was sent and what came
  4    with --idle: a connection was cut
  130  interrupted (Ctrl-C); 143 by SIGTERM, with the summary of a count
  141  nobody reads standard output any more
"""

# A million seconds, eleven days: poll() counts milliseconds in an int.
_MAX_SECONDS = 1000000
# Bytes of a message, which is held three times for each connection: to be
# sent, in flight and received.
_MAX_SIZE = 1 << 26
# Connections: more than any limit of descriptors, or what select() takes.
_MAX_CONNECTIONS = 500 if os.name == "nt" else 10 ** 6


def _within(kind: Callable[[str], float], least: int, most: int,
            what: str) -> Callable[[str], float]:
    """Return a function that converts text to a number within limits."""
    def convert(text: str) -> float:
        try:
            if len(text) < 20 and least <= kind(text) <= most:
                return kind(text)
        except ValueError:
            pass
        raise argparse.ArgumentTypeError("must be a %s from %d to %d, not %r"
                                         % (what, least, most, text))
    return convert


def _number(least: int, most: int) -> Callable[[str], float]:
    return _within(int, least, most, "whole number")


_seconds = _within(float, 0, _MAX_SECONDS, "number of seconds")


def _silences(text: str) -> List[float]:
    return sorted({_seconds(part) for part in text.split(",")})


class _Parser(argparse.ArgumentParser):

    def error(self, message: str) -> Any:
        """Exit with message, in which nothing that was typed forges a line."""
        super().error(printable(message))


def make_parser() -> argparse.ArgumentParser:
    # None is what was typed, such as the name of the console command.
    parser = _Parser(
        prog="python -m echoserver.client" if os.path.basename(sys.argv[0])
        in ("__main__.py", "-m") else None,
        description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    # Python 3.14 looks at standard output for it, and colours 2>log (gh-139946).
    setattr(parser, "color", False)
    add = parser.add_argument
    add("host", nargs="?", default="127.0.0.1",
        help="name or address of the server (%(default)s), or HOST:PORT")
    add("port", nargs="?", help="its port (8080)")
    add("-W", "--timeout", type=_seconds, metavar="SECONDS",
        help="limit for looking up the name and connecting, and for each "
             "silence; 0 is no limit (10, but none at the prompt)")
    add("--prompt", default="echo> ", help="what a terminal shows before "
        "each line (%(default)r)")
    add("--version", action="version", version="echoserver " + __version__)
    _add_measuring(parser.add_argument_group("measuring"))
    return parser


def _add_measuring(group: Any) -> None:
    what = group.add_mutually_exclusive_group()
    what.add_argument("-c", "--count", type=_number(0, 10 ** 12), metavar="N",
                      help="make N round trips; 0 goes on until Ctrl-C")
    what.add_argument("--idle", type=_silences, metavar="SECONDS[,SECONDS...]",
                      help="see after how much silence a connection is cut")
    add = group.add_argument
    add("-w", "--deadline", type=_seconds, metavar="SECONDS",
        help="end the count after so long; 0 is never")
    add("-s", "--size", type=_number(1, _MAX_SIZE), default=64,
        metavar="BYTES", help="of each message (%(default)s)")
    add("-i", "--interval", type=_seconds, default=1.0, metavar="SECONDS",
        help="between the messages of a connection (%(default)g); 0 is as "
             "fast as the replies come")
    add("-n", "--connections", type=_number(1, _MAX_CONNECTIONS), default=1,
        metavar="K", help="at the same time, sharing the N (%(default)s)")
    add("--reconnect", action="store_true",
        help="make a new connection for each message")
    add("-D", "--timestamps", action="store_true",
        help="the time of day before each line")
    add("-q", "--quiet", action="store_true",
        help="no lines of replies and no progress, only failures and the "
             "summary")
    form = group.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true",
                      help="the summary as one JSON object")
    form.add_argument("--histogram", action="store_true",
                      help="the distribution of the round trip times as bars")
