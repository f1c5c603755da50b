"""The client program: a prompt, a filter, or a count of round trips.

    python -m echoserver.client [host] [port]

Which of them depends on what it is given.  Lines typed at a terminal are sent
one by one (prompt.py), anything else that comes in is passed through (pipe.py),
and --count sends messages of its own and measures (counting.py).  Each is
imported when it is wanted, and each compares every byte that comes back.

This module knows the command line, and is where every exception ends: as one
sentence on standard error and an exit code (diagnosis.py).
"""

import argparse
import math
import os
import sys
from typing import Callable, List, Optional

from .. import __version__
from ..console import discard_output
from .output import StreamError, flush, tell

__all__ = ["main"]

# A million seconds, eleven days: poll() counts milliseconds in an int.
_MAX_SECONDS = 1000000
# Of a message in a counting run, which is held three times for each
# connection: to be sent, in flight and received.
_MAX_SIZE = 1 << 26
# Of connections: most systems allow a program 1,024 descriptors.
_MAX_CONNECTIONS = 1000

_DESCRIPTION = """\
Talk to an uppercase echo server and compare every byte of its replies.
At a terminal, each line is sent and its reply printed; Ctrl-D leaves.
In a pipe, standard input is sent and the replies are standard output.
With --count, round trips are made and measured.
"""

_EPILOG = """\
exit codes:
  0    every byte came back as it should
  1    the network; one line on standard error begins with REFUSED, DNS,
       TIMEOUT, RESET or CLOSED
  2    usage, standard input or output that cannot be used, or this host is
       out of descriptors or memory
  3    a wrong echo; the line says where, what was sent and what came
  130  interrupted (Ctrl-C)
  141  nobody reads standard output any more
"""


def main(argv: Optional[List[str]] = None) -> int:
    """Run the program with the arguments argv; return its exit code."""
    if sys.stderr is None:
        # Closed (2>&-): input() and argparse fail without it.
        sys.stderr = open(os.devnull, "w", errors="replace")
    try:
        code = _run(argv)
        if sys.stdout is not None:
            flush()
        return code
    except StreamError as error:
        what, why = error.args
        discard_output()
        if isinstance(why, BrokenPipeError):
            return 141      # 128 and SIGPIPE, as the shell counts it
        tell("%s: %s" % (what, why.strerror))
    except (OSError, MemoryError) as error:
        from .diagnosis import shortage
        tell(shortage(error) or str(error))
    return 2


def _run(argv: Optional[List[str]]) -> int:
    try:
        args = _parse(argv)
    except SystemExit as end:
        # argparse, which has said why.
        return end.code if isinstance(end.code, int) else 2
    if sys.stdout is None or (sys.stdin is None and args.count is None):
        tell("standard %s is closed; give it a file, or %s"
             % ("output" if sys.stdout is None else "input", os.devnull))
        return 2
    if args.count is None and sys.stdin.isatty():
        from .prompt import run
        return run(args)
    if args.timeout is None:
        # A script wants an answer in the end; a person has Ctrl-C.
        args.timeout = 10.0
    if args.count is None:
        from .pipe import run
    else:
        from .counting import run
    return run(args)


def _parse(argv: Optional[List[str]]) -> argparse.Namespace:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.host.isdigit():
        # Which would be an address of its own: 8080 is 0.0.31.144.
        parser.error("%s is not a host; give the host first, then the port: "
                     "127.0.0.1 %s" % (args.host, args.host))
    if args.count is None:
        for flag in ("size", "interval", "connections", "quiet", "json",
                     "histogram"):
            if getattr(args, flag) != parser.get_default(flag):
                parser.error("--%s goes with --count" % flag)
    elif args.prompt != parser.get_default("prompt"):
        parser.error("--prompt does not go with --count")
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_program(), description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("host", nargs="?", default="127.0.0.1",
        help="name or address of the server (%(default)s)")
    add("port", nargs="?", type=_number(1, 65535), default=8080,
        help="its port (%(default)s)")
    add("-W", "--timeout", type=_seconds, metavar="SECONDS",
        help="limit for connecting and for each silence; 0 is no limit "
             "(10, but none at the prompt)")
    add("--prompt", default="echo> ", help="what a terminal shows before "
        "each line (%(default)r)")
    add("--version", action="version", version="echoserver " + __version__)
    _add_counting(parser.add_argument_group("counting round trips"))
    return parser


def _add_counting(group: "argparse._ArgumentGroup") -> None:
    add = group.add_argument
    add("-c", "--count", type=_number(0, 10 ** 12), metavar="N",
        help="make N round trips; 0 goes on until Ctrl-C")
    add("-s", "--size", type=_number(1, _MAX_SIZE), default=64,
        metavar="BYTES", help="of each message (%(default)s)")
    add("-i", "--interval", type=_seconds, default=1.0, metavar="SECONDS",
        help="between the messages of a connection (%(default)g); 0 is as "
             "fast as the replies come")
    add("-n", "--connections", type=_number(1, _MAX_CONNECTIONS), default=1,
        metavar="K", help="at the same time, sharing the N (%(default)s)")
    add("-q", "--quiet", action="store_true",
        help="no line for each reply and no progress, only the summary")
    form = group.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true",
                      help="the summary as one JSON object")
    form.add_argument("--histogram", action="store_true",
                      help="the distribution of the round trip times as bars")


def _program() -> Optional[str]:
    """Return the name for the usage line; None for what was typed."""
    if os.path.basename(sys.argv[0]) in ("__main__.py", "-m"):
        return "python -m echoserver.client"
    return None


def _number(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(
                "must be a whole number from %d to %d, not %r"
                % (least, most, text))
        return value
    return number


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= _MAX_SECONDS:      # false for nan
        raise argparse.ArgumentTypeError(
            "must be a number of seconds from 0 to %d, not %r"
            % (_MAX_SECONDS, text))
    return value
