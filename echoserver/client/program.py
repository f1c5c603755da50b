"""The client program: arguments to an exit code.

Every exception ends here, as one sentence on standard error.  The program
imports all modules before it starts work, because the file that it came from
(a .pyz) may be replaced while it runs.
"""

import argparse
import contextlib
import importlib
import os
import signal
import sys
from typing import Any, Callable, List, Optional, Tuple

from .. import __version__
from ..address import checked_port, has_zone, printable, split_address
from ..console import allow_descriptors, die, discard_output, make_output_wait
from .diagnosis import USAGE, shortage
from .output import StreamError, tell, write

__all__ = ["main"]

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
  2    usage, a standard stream that fails, or this host is out of something
  3    a wrong echo; the line says where, what was sent and what came
  4    with --idle: a connection was cut
  130  interrupted (Ctrl-C); 143 by SIGTERM, with the summary of a count
  141  nobody reads standard output any more
"""

# Bytes of a message, which is held three times for each connection: to be
# sent, in flight and received.
_MAX_SIZE = 1 << 26
# Connections: more than any limit of descriptors.
_MAX_CONNECTIONS = 10 ** 6
# Descriptors that are not for connections: standard streams, pollers, files.
_SPARE = 32


def main(argv: Optional[List[str]] = None) -> int:
    """Run the program with the arguments argv; return its exit code."""
    make_output_wait()
    if sys.stderr is None:
        # Closed (2>&-): input() and argparse fail without it.
        sys.stderr = open(os.devnull, "w", errors="replace")
    try:
        return _run(argv)
    except StreamError as error:
        what, why = error.args
        discard_output()
        if isinstance(why, BrokenPipeError):
            return 141      # 128 and SIGPIPE, as the shell counts it
        tell("%s: %s" % (what, why.strerror))
    except (OSError, MemoryError) as error:
        tell(shortage(error) or "this program cannot go on: %s" % error)
    return USAGE


def _run(argv: Optional[List[str]]) -> int:
    try:
        args = _parse(argv)
    except SystemExit as end:
        # argparse, which has said why, or printed --help.
        if sys.stdout is not None:
            write(b"")
        return end.code if isinstance(end.code, int) else USAGE
    face = _face(args)
    if sys.stdout is None or (sys.stdin is None and face == "pipe"):
        tell("standard %s is closed; give it a file, or %s"
             % ("output" if sys.stdout is None else "input", os.devnull))
        return USAGE
    if args.timeout is None and face != "prompt":
        # A script wants an answer in the end; a person has Ctrl-C.
        args.timeout = 10.0
    # In the background job of a script it is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, die)
    return int(importlib.import_module("." + face, __package__).run(args))


def _face(args: argparse.Namespace) -> str:
    """Return the name of the module for what is asked."""
    return ("counting" if args.count is not None else
            "silence" if args.idle is not None else
            "prompt" if sys.stdin and sys.stdin.isatty() else "pipe")


def _parse(argv: Optional[List[str]]) -> argparse.Namespace:
    """Return the arguments; what cannot be ends the program (SystemExit)."""
    parser = _make_parser()
    args = parser.parse_args(argv)
    try:
        args.host, args.port = _address(args.host, args.port)
        if (allow_descriptors(args.connections + _SPARE)
                < args.connections + _SPARE):
            raise ValueError("this host does not allow %d connections at a "
                             "time (ulimit -Hn)" % args.connections)
    except ValueError as error:
        parser.error(str(error))
    face = _face(args)
    for flags, faces, others in (
            ("size interval connections deadline reconnect histogram",
             "counting", "--count"),
            ("quiet json timestamps", "counting silence", "--count or --idle"),
            ("prompt", "prompt pipe", "neither --count nor --idle")):
        for flag in flags.split():
            if face not in faces and getattr(
                    args, flag) != parser.get_default(flag):
                parser.error("--%s goes with %s" % (flag, others))
    return args


def _address(text: str, port: Optional[str]) -> Tuple[str, int]:
    """Return the host and port of HOST:PORT, [V6]:PORT, or HOST and port;
    raise ValueError with a sentence for what can be none."""
    host, after = split_address(text)
    if host.isdigit():      # as an address, 8080 would be 0.0.31.144
        raise ValueError("%s is not a host; give host and port: "
                         "127.0.0.1 8080" % host)
    if not host.strip():
        raise ValueError("the host is missing; give HOST:PORT, or HOST PORT")
    ports = [one for one in (port, after) if one is not None]
    if len(ports) > 1:
        raise ValueError("there are two ports: give HOST:PORT, or HOST PORT")
    if ":" in host and "%" in host and not has_zone(host.split("%")[1]):
        raise ValueError("no network interface " + host.split("%")[1])
    # In the locale C the name is not decoded (before Python 3.7).
    return os.fsencode(host).decode("utf-8", "replace"), checked_port(
        (ports or ["8080"])[0], 1)


def _within(kind: Any, least: int, most: int) -> Callable[[str], Any]:
    """Return a function that converts text to a number within limits."""
    what = "whole number" if kind is int else "number of seconds"

    def convert(text: str) -> Any:
        with contextlib.suppress(ValueError):
            if least <= kind(text) <= most:
                return kind(text)
        raise argparse.ArgumentTypeError("must be a %s from %d to %d, not %r"
                                         % (what, least, most, text))
    return convert


# A million seconds, eleven days: poll() counts milliseconds in an int.
_seconds = _within(float, 0, 10 ** 6)


def _silences(text: str) -> List[float]:
    return sorted({_seconds(part) for part in text.split(",")})


class _Parser(argparse.ArgumentParser):

    def error(self, message: str) -> Any:
        """Exit with message, in which nothing that was typed forges a line."""
        super().error(printable(message))


def _make_parser() -> argparse.ArgumentParser:
    # None is what was typed, such as the name of the console command.
    parser = _Parser(
        prog="python -m echoserver.client" if os.path.basename(sys.argv[0])
        in ("__main__.py", "-m") else None,
        description=_DESCRIPTION, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    # Python 3.14 looks at standard output for it, and colours 2>log
    # (gh-139946).
    setattr(parser, "color", False)
    add = parser.add_argument
    add("host", nargs="?", default="127.0.0.1",
        help="name or address of the server (%(default)s), or HOST:PORT")
    add("port", nargs="?", help="its port (8080)")
    add("-W", "--timeout", type=_seconds, metavar="SECONDS",
        help="limit for looking up the name and connecting, and for each "
             "silence; 0 is no limit (10, but none at the prompt)")
    add("--prompt", default="echo> ", help="the text before each line at "
        "a terminal (%(default)r)")
    add("--version", action="version", version="echoserver " + __version__)
    _add_measuring(parser.add_argument_group("measuring"))
    return parser


def _add_measuring(group: Any) -> None:
    what = group.add_mutually_exclusive_group()
    what.add_argument("-c", "--count", metavar="N", type=_within(
        int, 0, 10 ** 12), help="make N round trips; 0 goes on until Ctrl-C")
    what.add_argument("--idle", type=_silences, metavar="SECONDS[,SECONDS...]",
                      help="see after how much silence a connection is cut")
    add = group.add_argument
    add("-w", "--deadline", type=_seconds, metavar="SECONDS",
        help="end the count after so long; 0 is never")
    add("-s", "--size", type=_within(int, 1, _MAX_SIZE), default=64,
        metavar="BYTES", help="of each message (%(default)s)")
    add("-i", "--interval", type=_seconds, default=1.0, metavar="SECONDS",
        help="between the messages of a connection (%(default)g); 0 is as "
             "fast as the replies come")
    add("-n", "--connections", type=_within(int, 1, _MAX_CONNECTIONS),
        default=1, metavar="K",
        help="at the same time, sharing the N (%(default)s)")
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
