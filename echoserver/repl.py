"""A prompt: each line goes to the server, each reply to the terminal.

Nothing but replies is written to standard output, and the prompt, where both
ends are terminals; everything else is a notice on standard error.

A line is sent once.  If the connection is lost before its reply, nobody knows
whether the line arrived; that is said, and the next line dials again.  While
the prompt waits, a thread watches the connection, since input() cannot: a
server that goes away is told at once and not by the loss of the next line.
The thread lives as long as the input() it accompanies, so that never more
than one thread deals with the connection.

Line editing and history come from readline where it exists, and stay in
memory.  Text is sent as UTF-8 whatever the terminal's encoding is, and what
the terminal cannot show of a reply is escaped.
"""

import argparse
import io
import selectors
import socket
import sys
import threading
from typing import Any, Optional

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
        self._interactive = sys.stdout is not None and sys.stdout.isatty()
        self._prompt = ""
        if self._interactive:
            self._prompt = _expressible(prompt)
        self._connection: Optional[Connection] = None
        self._worst = OK
        # A byte through here ends the watcher.
        self._wake_receiver, self._wake_sender = socket.socketpair()

    def run(self) -> int:
        """Read and send lines until Ctrl-D; return the exit code."""
        with self._wake_receiver, self._wake_sender:
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
                self._end_line()
                if not self._typed():
                    return INTERRUPTED
                continue
            if line:
                self._say(encoded(line))

    def _ask(self) -> str:
        """Return a line from the terminal, watching the connection."""
        if self._connection is None:
            return input(self._prompt)
        watcher = threading.Thread(target=self._watch, daemon=True,
                                   args=(self._connection,))
        watcher.start()
        try:
            return input(self._prompt)
        finally:
            self._wake_sender.send(b"\0")
            watcher.join()
            self._wake_receiver.recv(1)

    def _watch(self, connection: Connection) -> None:
        """Wait for the end of input(), or for anything from the server.

        Nothing is owed meanwhile, so it can only be the end, or wrong.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(connection, selectors.EVENT_READ)
            selector.register(self._wake_receiver, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._wake_receiver in ready:
                    return
                try:
                    if connection.receive() is not None:
                        raise ConnectionError("the stream has ended")
                except (OSError, WrongEcho) as error:
                    selector.unregister(connection)
                    self._interject(error)

    def _interject(self, error: Exception) -> None:
        """Report a loss while the prompt waits, and restore its line."""
        self._end_line()
        # Nothing was owed: the end of the stream is news, not a failure.
        worst = self._worst
        self._lose(error)
        if not isinstance(error, WrongEcho):
            self._worst = worst
        tell("The next line dials again.")
        if self._interactive:
            self._put(self._prompt + self._typed())

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
            self._drop()
            tell("Given up; the next line dials again.")
        except (OSError, WrongEcho) as error:
            fate = ("was not sent" if self._connection is None
                    else "may have arrived and is not sent again")
            self._lose(error)
            tell("The line %s; the next one dials again." % fate)
        else:
            self._show(reply)

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
        elif sys.stdout is not None:
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
