"""Talk to an uppercase echo server and compare every byte of its replies.
At a terminal, each line is sent and its reply printed; Ctrl-D leaves.
In a pipe, standard input is sent and the replies are standard output.
With --count, round trips are made and measured.
"""

# The command line, and where every exception ends: as one sentence on standard
# error and an exit code.  The three faces of the program are prompt.py, pipe.py
# and counting.py, each imported when it is wanted.

import argparse
import os
import signal
import sys
from typing import Callable, List, Optional

from .. import __version__
from ..console import discard_output
from .output import StreamError, flush, tell

__all__ = ["main"]

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

# A million seconds, eleven days: poll() counts milliseconds in an int.
_MAX_SECONDS = 1000000
# Bytes of a message, which is held three times for each connection: to be
# sent, in flight and received.
_MAX_SIZE = 1 << 26
# Most systems allow a program 1,024 descriptors.
_MAX_CONNECTIONS = 1000


def main(argv: Optional[List[str]] = None) -> int:
    """Run the program with the arguments argv; return its exit code."""
    if sys.stderr is None:
        # Closed (2>&-): input() and argparse fail without it.
        sys.stderr = open(os.devnull, "w", errors="replace")
    # In the background job of a script it is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
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
    for flag in ("size", "interval", "connections", "quiet", "json",
                 "histogram"):
        if args.count is None and getattr(args, flag) != parser.get_default(
                flag):
            parser.error("--%s goes with --count" % flag)
    if args.json and args.histogram:
        parser.error("--json and --histogram are two forms of the summary")
    if args.count is not None and args.prompt != parser.get_default("prompt"):
        parser.error("--prompt does not go with --count")
    return args


def _parser() -> argparse.ArgumentParser:
    # None is what was typed, such as the name of the console command.
    parser = argparse.ArgumentParser(
        prog="python -m echoserver.client" if os.path.basename(sys.argv[0])
        in ("__main__.py", "-m") else None,
        description=__doc__, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    # Python 3.14 looks at standard output for it, and colours 2>log (gh-139946).
    setattr(parser, "color", False)
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
    add = parser.add_argument_group("counting round trips").add_argument
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
    add("--json", action="store_true", help="the summary as one JSON object")
    add("--histogram", action="store_true",
        help="the distribution of the round trip times as bars")
    return parser


def _number(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if text.isdecimal() and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(
            "must be a whole number from %d to %d, not %r"
            % (least, most, text))
    return number


def _seconds(text: str) -> float:
    try:
        if 0 <= float(text) <= _MAX_SECONDS:
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(
        "must be a number of seconds from 0 to %d, not %r"
        % (_MAX_SECONDS, text))
