"""The client program: arguments to an exit code.

Every exception ends here, as one sentence on standard error.  What the program
may need is imported before it starts work: the file that it came from (a .pyz)
may be replaced while it runs.
"""

import argparse
import importlib
import os
import signal
import sys
from typing import List, Optional, Tuple

from ..address import checked_port, has_zone, split_address
from ..console import (
    allow_descriptors, die, discard_output, make_output_wait)
from .arguments import make_parser
from .diagnosis import USAGE, shortage
from .output import StreamError, tell, write

__all__ = ["main"]

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
    if args.count is not None:
        return "counting"
    if args.idle is not None:
        return "silence"
    return "prompt" if sys.stdin and sys.stdin.isatty() else "pipe"


def _parse(argv: Optional[List[str]]) -> argparse.Namespace:
    """Return the arguments; what cannot be ends the program (SystemExit)."""
    parser = make_parser()
    args = parser.parse_args(argv)
    try:
        args.host, args.port = _address(args.host, args.port)
        if not allow_descriptors(args.connections + _SPARE):
            raise ValueError("this host does not allow %d connections at a "
                             "time (ulimit -Hn)" % args.connections)
    except ValueError as error:
        parser.error(str(error))
    face = _face(args)
    for flags, faces, others in (
            ("size interval connections deadline reconnect histogram",
             ["counting"], "--count"),
            ("quiet json timestamps", ["counting", "silence"],
             "--count or --idle"),
            ("prompt", ["prompt", "pipe"], "neither --count nor --idle")):
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
    if None not in (port, after):
        raise ValueError("there are two ports: give HOST:PORT, or HOST PORT")
    if ":" in host and "%" in host and not has_zone(host.split("%")[1]):
        raise ValueError("this host has no network interface %s"
                         % host.split("%")[1])
    port = after if port is None else port
    # In the locale C the name is not decoded (before Python 3.7).
    return os.fsencode(host).decode("utf-8", "replace"), checked_port(
        "8080" if port is None else port, 1)
