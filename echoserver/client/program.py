"""Talk to an uppercase echo server and compare every byte of its replies.
At a terminal, each line is sent and its reply printed; Ctrl-D leaves.
In a pipe, standard input is sent and the replies are standard output.
With --count, round trips are made and measured; with --idle, silences tried.
"""

# The command line, and where every exception ends: as one sentence on standard
# error and an exit code.  The faces of the program are prompt.py, pipe.py,
# counting.py and silence.py, each imported when it is wanted.

import argparse
import importlib
import os
import re
import sys
from typing import Callable, List, Optional

from .. import __version__
from .output import StreamError, tell

__all__ = ["main"]

_EPILOG = """\
exit codes:
  0    every byte came back as it should
  1    the network; one line on standard error begins with REFUSED,
       UNREACHABLE, DNS, TIMEOUT, RESET or CLOSED; or an idle one was cut
  2    usage, standard input or output that cannot be used, or this host is
       out of descriptors or memory
  3    a wrong echo; the line says where, what was sent and what came
  130  interrupted (Ctrl-C); 143 by SIGTERM, with the summary of a count
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
    try:
        return _run(argv)
    except (StreamError, OSError, MemoryError) as error:
        from ..console import discard_output
        from .diagnosis import USAGE, shortage
        what, why = (error.args if isinstance(error, StreamError)
                     else ("standard output cannot be written", error))
        if isinstance(why, BrokenPipeError):
            discard_output()
            return 141      # 128 and SIGPIPE, as the shell counts it
        sentence = shortage(why)
        if not sentence:
            sentence = "%s: %s" % (what, why.strerror)
            discard_output()
        tell(sentence)
        return USAGE


def _run(argv: Optional[List[str]]) -> int:
    try:
        args = _parse(argv)
    except SystemExit as end:
        # argparse, which has said why, or printed --help.
        if sys.stdout is not None:
            sys.stdout.flush()
        return end.code if isinstance(end.code, int) else 2
    face = _face(args)
    if sys.stdout is None or (sys.stdin is None and face == "pipe"):
        tell("standard %s is closed; give it a file, or %s"
             % ("output" if sys.stdout is None else "input", os.devnull))
        return 2
    if args.timeout is None and face != "prompt":
        # A script wants an answer in the end; a person has Ctrl-C.
        args.timeout = 10.0
    # In the background job of a script it is ignored.
    import signal
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run = importlib.import_module(".%s" % face, __package__).run
    code: int = run(args)
    return code


def _face(args: argparse.Namespace) -> str:
    """Return the name of the module for what is asked."""
    if args.count is not None:
        return "counting"
    if args.idle is not None:
        return "silence"
    return "prompt" if sys.stdin and sys.stdin.isatty() else "pipe"


def _parse(argv: Optional[List[str]]) -> argparse.Namespace:
    parser = _parser()
    args = parser.parse_args(argv)
    _split_address(parser, args)
    face = _face(args)
    for flags, faces, others in (
            ("size interval connections deadline histogram", ["counting"],
             "--count"),
            ("quiet json timestamps", ["counting", "silence"],
             "--count or --idle"),
            ("prompt", ["prompt", "pipe"], "neither --count nor --idle")):
        for flag in flags.split():
            if face not in faces and getattr(
                    args, flag) != parser.get_default(flag):
                parser.error("--%s goes with %s" % (flag, others))
    return args


def _split_address(parser: argparse.ArgumentParser,
                   args: argparse.Namespace) -> None:
    """Take HOST:PORT and [V6]:PORT apart, and check both."""
    host, port = args.host, None
    match = re.match(r"(?:\[([^]]+)\]|([^][:]*))(?::([^:]*))?$", host)
    if match:
        host, port = match.group(1) or match.group(2), match.group(3)
    if "://" in args.host or host.isdigit():
        # (As an address, 8080 would be 0.0.31.144.)
        parser.error("%s is not a host; give host and port: 127.0.0.1 8080"
                     % args.host)
    if not match and not _is_ipv6(host):
        parser.error("%r is not a host; give HOST:PORT, or [V6]:PORT" % host)
    if not host.strip():
        parser.error("the host is missing; give HOST:PORT, or HOST PORT")
    if port is not None and args.port is not None:
        parser.error("there are two ports: give HOST:PORT, or HOST PORT")
    # In the locale C the name is not decoded (before Python 3.7).
    args.host = os.fsencode(host).decode("utf-8", "replace")
    args.port = args.port if port is None else port
    try:
        args.port = _number(1, 65535)("8080" if args.port is None
                                      else args.port)
    except argparse.ArgumentTypeError as error:
        parser.error("the port %s" % error)


def _is_ipv6(text: str) -> bool:
    import socket
    try:
        socket.inet_pton(socket.AF_INET6, text.split("%")[0])
    except (OSError, UnicodeError):
        return False
    return True


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
        help="name or address of the server (%(default)s), or HOST:PORT")
    add("port", nargs="?", help="its port (8080)")
    add("-W", "--timeout", type=_seconds, metavar="SECONDS",
        help="limit for connecting and for each silence, but not for looking "
             "up a name; 0 is no limit (10, but none at the prompt)")
    add("--prompt", default="echo> ", help="what a terminal shows before "
        "each line (%(default)r)")
    add("--version", action="version", version="echoserver " + __version__)
    group = parser.add_argument_group("measuring")
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
    return parser


def _number(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if len(text) < 20 and text.isdecimal() and least <= int(text) <= most:
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


def _silences(text: str) -> List[float]:
    return sorted({_seconds(part) for part in text.split(",")})
