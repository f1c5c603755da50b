"""A prompt: each line goes to the server, each reply to the terminal.

Nothing but replies is written to standard output, and the prompt, where both
ends are terminals; everything else is a notice on standard error.

A line is sent once.  If the connection is lost before its reply, nobody knows
whether the line arrived; that is said, and the next line dials again.  While
the prompt waits, a thread watches the connection, since input() cannot: a
server that goes away is told at once and not by the loss of the next line.
The thread lives as long as the input() it accompanies, so that never more
than one thread deals with the connection; Ctrl-C may strike at any moment.

Line editing and history come from readline where it exists, and stay in
memory.  Text is sent as UTF-8 whatever the terminal's encoding is, and what
the terminal cannot show of a reply is escaped.
"""

import argparse
import contextlib
import io
import select
import socket
import sys
import threading
from typing import Any, Callable, Optional

from .connection import Address, Connection
from .diagnosis import INTERRUPTED, NETWORK, OK, diagnose, tell
from .verifier import WrongEcho

readline: Any = None
try:
    # Neither on Windows nor in every build.
    import readline
except ImportError:
    pass

__all__ = ["Repl", "run", "shown"]

# In the locale C readline takes the eighth bit for a Meta key.  A bracketed
# paste would make one message of many lines, with their ends inside.
_READLINE = ("input-meta on", "output-meta on", "convert-meta off",
             "enable-bracketed-paste off")

# Seconds that a server may take to end its stream after Ctrl-D, when nothing
# but that is owed: a farewell is not worth a longer wait.
FAREWELL = 1.0

# The control characters, which a terminal obeys, but for the tabulator.
_CONTROLS = {code: "\\x%02x" % code
             for code in [*range(9), *range(10, 32), *range(127, 160)]}


def run(args: argparse.Namespace) -> int:
    """Converse at the terminal; return the exit code."""
    return Repl((args.host, args.port), args.timeout, args.prompt).run()


def shown(data: bytes, encoding: str) -> str:
    """Return data, UTF-8 or not, as text that encoding can express."""
    text = data.decode("utf-8", "backslashreplace").translate(_CONTROLS)
    return text.encode(encoding, "backslashreplace").decode(encoding)


def encoded(text: str) -> bytes:
    """Return text as UTF-8, with undecoded bytes as they were typed."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        # Half a pair of surrogates, which a Windows console can produce.
        return text.encode("utf-8", "replace")


class Repl:
    """A conversation, over one connection after another.

    The exit code tells the worst that happened: a wrong echo, a line without
    its reply, or nothing.
    """

    def __init__(self, address: Address, timeout: Optional[float],
                 prompt: str) -> None:
        self.address = address
        self.timeout = timeout
        self._interactive = sys.stdout.isatty()
        self._prompt = ""
        if self._interactive:
            self._prompt = _expressible(prompt)
        self._connection: Optional[Connection] = None
        self._watch: Optional[_Watch] = None
        self._worst = OK

    def run(self) -> int:
        """Read and send lines until Ctrl-D; return the exit code."""
        try:
            self._connection = Connection(self.address, self.timeout)
        except OSError as error:
            self._lose(error)
            return self._worst
        try:
            _prepare_terminal()
            return self._loop()
        finally:
            self._drop()

    def _loop(self) -> int:
        while True:
            try:
                line = self._ask().strip()
            except EOFError:
                self._end_line()
                return self._leave()
            except KeyboardInterrupt:
                self._end_watch()       # which is what it may have struck
                self._end_line()
                if not self._typed():
                    return INTERRUPTED
                continue
            if line:
                self._say(encoded(line))

    def _ask(self) -> str:
        """Return a line from the terminal, watching the connection."""
        if self._connection is not None:
            news = _news(self._connection)
            if news is not None:
                self._report(news)
        try:
            if self._connection is not None:
                # Without descriptors or threads for it the next line is lost.
                with contextlib.suppress(OSError, RuntimeError):
                    self._watch = _Watch(self._connection, self._interject)
                    self._watch.start()
            return input(self._prompt)
        finally:
            self._end_watch()

    def _end_watch(self) -> None:
        if self._watch is not None:
            self._watch.stop()

    def _interject(self, error: Exception) -> None:
        """Report a loss while the prompt waits, and restore its line."""
        self._end_line()
        self._report(error)
        if self._interactive:
            self._put(self._prompt + self._typed())

    def _report(self, error: Exception) -> None:
        """Report the loss of a connection that owed nothing."""
        # The end of its stream is news, not a failure.
        worst = self._worst
        self._lose(error)
        if not isinstance(error, WrongEcho):
            self._worst = worst
        tell("The next line dials again.")

    def _say(self, data: bytes) -> None:
        """Send a line, once, and print its reply."""
        try:
            if self._connection is None:
                self._connection = Connection(self.address, self.timeout)
                tell("Connected again.")
            reply = self._connection.echo(data)
        except KeyboardInterrupt:
            self._end_line()
            self._worst = max(self._worst, NETWORK)
            fate = self._fate()
            self._drop()
            tell("Given up; the line %s; the next one dials again." % fate)
        except (OSError, WrongEcho) as error:
            fate = ("was answered, but wrongly"
                    if isinstance(error, WrongEcho) else self._fate())
            self._lose(error)
            tell("The line %s; the next one dials again." % fate)
        else:
            self._show(reply)

    def _fate(self) -> str:
        """Return what has become of the line that was not answered."""
        if self._connection is None:
            return "was not sent"
        return "may have arrived and is not sent again"

    def _leave(self) -> int:
        """End the stream and see that the server has nothing to add."""
        if self._connection is not None:
            self._connection.timeout = min(self.timeout or FAREWELL, FAREWELL)
            try:
                self._connection.finish()
            except WrongEcho as error:
                self._lose(error)
            except OSError:
                pass        # nothing was owed
        return self._worst

    def _lose(self, error: Exception) -> None:
        code, line = diagnose(error, self.address, self._connection)
        self._worst = max(self._worst, code)
        self._drop()
        tell(line)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _show(self, reply: bytes) -> None:
        if self._interactive:
            self._put(shown(reply, sys.stdout.encoding) + "\n")
        else:
            sys.stdout.buffer.write(reply + b"\n")
            sys.stdout.buffer.flush()

    def _end_line(self) -> None:
        """Leave the line of the prompt, where there is one."""
        if self._interactive:
            self._put("\n")

    def _typed(self) -> str:
        """Return what stands behind the prompt, as far as can be known."""
        if self._interactive and readline is not None:
            return str(readline.get_line_buffer())
        return ""

    @staticmethod
    def _put(text: str) -> None:
        sys.stdout.write(_expressible(text))
        sys.stdout.flush()


class _Watch:
    """A thread that reports what comes of an idle connection, until stop().

    It shares a pair of sockets with its maker.  The end of one stream tells
    the thread to end, and the end of the other that it has.  Both stay ended,
    so stop() may be struck by Ctrl-C anywhere and be called again, whereas
    Thread.join() may wait for ever then (bpo-45274).

    Whoever takes the thread's socket off the list closes it: the thread when
    it begins, or stop() where it has not, and never will.
    """

    def __init__(self, connection: Connection,
                 report: Callable[[Exception], None]) -> None:
        self._connection = connection
        self._report = report
        self._ours, theirs = socket.socketpair()
        self._theirs = [theirs]

    def start(self) -> None:
        """Begin; raise RuntimeError where the system has no thread."""
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """Return when the thread has ended, or never will begin."""
        with contextlib.suppress(IndexError):
            self._theirs.pop().close()
        with contextlib.suppress(OSError):      # of the second call
            self._ours.shutdown(socket.SHUT_WR)
            self._ours.recv(1)
        self._ours.close()

    def _run(self) -> None:
        try:
            theirs = self._theirs.pop()
        except IndexError:
            return
        with theirs:
            both = self._connection, theirs
            while theirs not in select.select(both, [], [])[0]:
                news = _news(self._connection)
                if news is not None:
                    self._report(news)
                    return


def _news(connection: Connection) -> Optional[Exception]:
    """Return what has become of an idle connection, None for nothing.

    Nothing is owed, so what comes can only be the end, or wrong.
    """
    try:
        if connection.receive() is None:
            return None
        return ConnectionError("the stream has ended")
    except (OSError, WrongEcho) as error:
        return error


def _expressible(text: str) -> str:
    """Return text as standard output can express it."""
    encoding = sys.stdout.encoding
    text = encoded(text).decode("utf-8", "backslashreplace")
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _prepare_terminal() -> None:
    """Let every byte in, whether or not it is text."""
    sys.stdin = io.TextIOWrapper(sys.stdin.buffer, sys.stdin.encoding,
                                 "surrogateescape")
    if readline is not None:
        for setting in _READLINE:
            readline.parse_and_bind("set " + setting)
