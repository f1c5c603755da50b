"""Servers that behave badly, on purpose and in a known order.

A script is a function that is called with each accepted connection and may do
with it what it likes; the peer closes it afterwards.  The scripts here are
the ways in which a server disappoints a client.
"""

import socket
import struct
import sys
import threading

from .support import PATIENCE

__all__ = ["Peer", "after", "banner", "corrupt", "cut", "deaf", "echo", "end",
           "mute", "nobody", "play", "take", "verbatim"]


class Peer:
    """A server on a free port of host that plays script(connection).

    It accepts until the with block ends, and plays each connection in a
    thread of its own.  What a script raises, the end of the block raises; but
    an OSError is the client's right to cause.

    Attributes: address; accepted, the number of connections so far.
    """

    def __init__(self, script, host="127.0.0.1"):
        self.script = script
        self.host = host
        self.accepted = 0
        self._failures = []
        self._threads = []
        self._playing = set()

    def __enter__(self):
        self._listener = socket.socket()
        self._listener.bind((self.host, 0))
        self._listener.listen(128)
        self.address = self._listener.getsockname()
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()
        return self

    def __exit__(self, *exc_info):
        self.stop()
        for thread in self._threads:
            thread.join(PATIENCE)
        if self._failures and exc_info[0] is None:
            raise self._failures[0]

    def stop(self):
        """Refuse from now on, and cut what is still open."""
        if self._acceptor.is_alive():
            # A shutdown wakes accept() on Linux, a connection everywhere.
            self._acceptor.stopping = True
            socket.create_connection(self.address).close()
            self._acceptor.join(PATIENCE)
        self._listener.close()
        for connection in list(self._playing):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _accept(self):
        while True:
            connection = self._listener.accept()[0]
            if getattr(threading.current_thread(), "stopping", False):
                connection.close()
                return
            self.accepted += 1
            self._playing.add(connection)
            thread = threading.Thread(target=self._play, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _play(self, connection):
        connection.settimeout(PATIENCE)
        try:
            self.script(connection)
        except OSError:
            pass
        except BaseException as failure:
            self._failures.append(failure)
        finally:
            self._playing.discard(connection)
            connection.close()


def play(test, script):
    """Return a Peer that plays script until test, a TestCase, is over."""
    peer = Peer(script)
    peer.__enter__()
    test.addCleanup(peer.__exit__, None, None, None)
    return peer


def nobody():
    """Return an address that refuses connections."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()


def deaf(test):
    """Return an address where a connection attempt is not answered: a kernel
    whose backlog is full drops it."""
    listener = socket.socket()
    test.addCleanup(listener.close)
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    error = None
    while not error:
        waiting = socket.socket()
        test.addCleanup(waiting.close)
        waiting.settimeout(0.05)
        error = waiting.connect_ex(listener.getsockname())
    return listener.getsockname()


def take(connection, count):
    """Return exactly count bytes, or what came before the end."""
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            break
        data += more
    return data


def echo(connection):
    """Do it right until the client's end."""
    while True:
        data = connection.recv(1 << 16)
        if not data:
            return
        connection.sendall(data.upper())


def mute(connection):
    """Read everything, say nothing."""
    while connection.recv(1 << 16):
        pass


def end(connection):
    """End the stream in good order (FIN)."""
    connection.shutdown(socket.SHUT_WR)
    mute(connection)


def cut(connection):
    """Cut the connection (RST)."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                          struct.pack("ii", 1, 0))
    connection.close()


def corrupt(connection):
    """Answer with the letter Q in place of A."""
    while True:
        data = connection.recv(1 << 16)
        if not data:
            return
        connection.sendall(data.upper().replace(b"A", b"Q"))


def verbatim(connection):
    """Send back what came as it came, as cat would."""
    while True:
        data = connection.recv(1 << 16)
        if not data:
            return
        connection.sendall(data)


def banner(connection):
    """Speak first, as another service does; then echo."""
    connection.sendall(b"220 mail.example ESMTP ready\r\n")
    echo(connection)


def after(count, then, ready=None, request=None):
    """Return a script: read request bytes, answer count of them, wait for
    the event ready, and play then.

    All is read before the answer (request is count unless it is given):
    closing with unread input would turn a FIN into a RST.
    """
    def script(connection):
        data = take(connection, count if request is None else request)
        connection.sendall(data[:count].upper())
        if ready is not None and not ready.wait(PATIENCE):
            raise AssertionError("nobody was ready")
        then(connection)
    return script


if __name__ == "__main__":
    # A peer in a process of its own: an honest echo, until its input ends.
    with Peer(echo, *sys.argv[1:]) as peer:
        print(peer.address[1], flush=True)
        sys.stdin.read()
