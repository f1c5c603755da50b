"""A prompt: each line goes to the server, each reply to the terminal.

Nothing but replies is written to standard output, and the prompt, where both
ends are terminals; everything else is a notice on standard error.

A line is sent once.  If the connection is lost before its reply, nobody knows
whether the line arrived; that is said, and the next line connects again.  A
loss while a line was typed is noticed when it is entered, before it is sent:
then it goes over a new connection.

Line editing and history come from readline where it exists, and stay in
memory.  Text is sent as UTF-8 whatever the terminal's encoding is, and what
the terminal cannot show of a reply is escaped.
"""

import contextlib
import io
import signal
import sys
import termios
from typing import Any, Optional

from ..console import die, discard_output
from .connection import Connection
from .diagnosis import INTERRUPTED, NETWORK, Failures, diagnose
from .errors import WrongEcho
from .output import StreamError, encoded, expressible, put, tell, write

readline: Any = None
with contextlib.suppress(ImportError):  # it is not in every build
    import readline

__all__ = ["Prompt", "run", "shown"]

# In the locale C readline takes the eighth bit for a Meta key.  A bracketed
# paste would make one message of many lines, with their ends inside.
_READLINE = ("input-meta on", "output-meta on", "convert-meta off",
             "enable-bracketed-paste off")

# Seconds that a server may take to end its stream after Ctrl-D, when nothing
# but that is owed: a farewell is not worth a longer wait.
FAREWELL = 1.0

# Bytes of a line that a terminal keeps (N_TTY_BUF_SIZE of Linux, less one for
# the newline), unless a line editor reads each key.
_LONGEST_LINE = 4095

# The control characters, which a terminal obeys, but for the tabulator.
_CONTROLS = {code: "\\x%02x" % code
             for code in [*range(9), *range(10, 32), *range(127, 160)]}


def run(args: Any) -> int:
    """Converse at the terminal; return the exit code."""
    _give_terminal_back()
    return Prompt(args).run()


def _give_terminal_back() -> None:
    """Let no signal end this process before the terminal has its mode back: a
    line editor turns its echo off."""
    try:
        mode = termios.tcgetattr(sys.stdin.fileno())
    except (AttributeError, OSError):
        return      # a test's terminal

    def end(number: int, frame: Any) -> None:
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, mode)
        die(number)
    for number in signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)


def shown(data: bytes) -> str:
    """Return data, UTF-8 or not, as text without control characters."""
    return data.decode("utf-8", "backslashreplace").translate(_CONTROLS)


class _Continued(Exception):
    """This process was stopped, and goes on."""


def _raise_continued(number: int, frame: Any) -> None:
    raise _Continued


class Prompt:
    """A conversation, over one connection after another.

    The exit code tells the worst that happened: a wrong echo, a line without
    its reply, or nothing.
    """

    def __init__(self, args: Any) -> None:
        self._address = args.host, args.port
        self._timeout: Optional[float] = args.timeout
        self._interactive = sys.stdout.isatty()
        self._has_editor = self._interactive and readline is not None
        self._prompt = expressible(args.prompt) if self._interactive else ""
        self._failures = Failures(self._address)

    def run(self) -> int:
        """Read and send lines until Ctrl-D; return the exit code."""
        try:
            self._connection = self._connect()
        except OSError as error:
            tell(self._failures.note(error)[1])
            return self._failures.code
        # Let every byte in, whether or not it is text.
        sys.stdin = io.TextIOWrapper(sys.stdin.buffer, sys.stdin.encoding,
                                     "surrogateescape")
        for setting in _READLINE if readline else ():
            readline.parse_and_bind("set " + setting)
        try:
            return self._converse()
        finally:
            self._connection.close()

    def _converse(self) -> int:
        while True:
            try:
                line = self._ask()
            except (EOFError, OSError):     # the terminal may be gone
                self._end_line()
                return self._leave()
            except KeyboardInterrupt:
                self._end_line()
                if not self._typed():
                    return INTERRUPTED
            else:
                data = encoded(line)
                if len(data) >= _LONGEST_LINE and not self._has_editor:
                    tell("The terminal passes on 4095 bytes of a line, and "
                         "may have cut this one; send it through a pipe.")
                if line.strip():
                    self._say(data)

    def _ask(self, typed: str = "") -> str:
        """Return a line from the terminal, which begins with what was typed
        before Ctrl-Z and fg.

        A shell gives the terminal back in the mode that it likes itself, so
        the line editor must begin anew.
        """
        if not self._has_editor:
            return input(self._prompt)
        readline.set_startup_hook(lambda: readline.insert_text(typed))
        signal.signal(signal.SIGCONT, _raise_continued)
        try:
            return input(self._prompt)
        except _Continued:
            return self._ask(self._typed())
        finally:
            signal.signal(signal.SIGCONT, signal.SIG_DFL)

    def _say(self, data: bytes) -> None:
        """Send a line, once, and print its reply."""
        fate = "was not sent"
        try:
            self._look()
            if self._connection.closed:
                self._connection = self._connect()
            fate = "may have arrived and is not sent again"
            reply = self._connection.echo(data)
        except (KeyboardInterrupt, OSError, WrongEcho) as error:
            self._connection.close()
            if isinstance(error, Exception):
                tell(self._failures.note(error)[1])
            else:
                self._end_line()
                self._failures.worsen(NETWORK)
            tell("The line %s; the next one connects again." % fate)
        else:
            if self._interactive:
                put(shown(reply))
            else:
                write(reply + b"\n")

    def _look(self) -> None:
        """Close the connection if it was lost while a line was typed, which
        is news and no failure: nothing was owed."""
        connection = self._connection
        try:
            connection.is_watched = False
            if not connection.closed and connection.receive() is not None:
                raise connection.ended_early()
            connection.is_watched = True
        except OSError as error:
            tell(diagnose(error, self._address)[2])
            connection.close()

    def _connect(self) -> Connection:
        connection = Connection(self._address, self._timeout)
        if self._interactive:
            tell("Connected to %s; Ctrl-D leaves." % connection.name)
        return connection

    def _leave(self) -> int:
        """End the stream and see that the server has nothing to add."""
        connection = self._connection
        try:
            if not connection.closed:
                connection.timeout = min(self._timeout or FAREWELL, FAREWELL)
                connection.finish()
        except WrongEcho as error:
            tell(self._failures.note(error)[1])
        except OSError:
            pass        # nothing was owed
        return self._failures.code

    def _end_line(self) -> None:
        """Leave the line of the prompt, where there is one."""
        if self._interactive:
            try:
                put("")
            except StreamError:     # the terminal is gone
                discard_output()

    def _typed(self) -> str:
        """Return what stands behind the prompt, as far as can be known."""
        return str(readline.get_line_buffer()) if self._has_editor else ""
