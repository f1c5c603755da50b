"""Servers that behave badly, on purpose and in a known order.

A script is a function that is called with each accepted connection and may do
with it what it likes; the peer closes it afterwards.  The scripts here are
the ways in which a server disappoints a client.
"""

import select
import socket
import struct
import sys
import threading

from .support import PATIENCE

__all__ = ["Peer", "after", "banner", "before_second", "corrupt", "cut",
           "deaf", "echo", "end", "hold", "mute", "nobody", "play", "replies",
           "take", "verbatim"]


class Peer:
    """A server on a free port of host that plays scripts until it is closed.

    The first connection has the first script, and so on; the last script has
    all that follow.  Each is played in a thread of its own.  What a script
    raises, close() raises; but an OSError is the client's right to cause.

    Attributes: address; accepted, the number of connections so far.
    """

    def __init__(self, scripts, host="127.0.0.1"):
        self._scripts, self.accepted = list(scripts), 0
        self._failures, self._threads, self._open = [], [], set()
        self._listener, self._stopping = socket.socket(), False
        # What it accepts has this, too, so that a message soon fills it.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        self._listener.bind((host, 0))
        self._listener.listen(128)
        self.address = self._listener.getsockname()
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    def close(self):
        """Stop; raise what a script has raised."""
        self.stop()
        for thread in self._threads:
            thread.join(PATIENCE)
        if self._failures:
            raise self._failures[0]

    def stop(self):
        """Refuse from now on, and cut what is still open."""
        if not self._stopping:
            self._stopping = True
            # A shutdown wakes accept() on Linux, a connection everywhere.
            socket.create_connection(self.address, PATIENCE).close()
            self._acceptor.join(PATIENCE)
        self._listener.close()
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _accept(self):
        while True:
            connection = self._listener.accept()[0]
            if self._stopping:
                connection.close()
                return
            script = self._scripts.pop(0)
            self._scripts = self._scripts or [script]
            self.accepted += 1
            self._open.add(connection)
            self._threads.append(threading.Thread(
                target=self._play, args=(script, connection)))
            self._threads[-1].start()

    def _play(self, script, connection):
        connection.settimeout(PATIENCE)
        try:
            script(connection)
        except OSError:
            pass
        except BaseException as failure:
            self._failures.append(failure)
        finally:
            self._open.discard(connection)
            connection.close()


def play(test, *scripts, **options):
    """Return a Peer that plays scripts until test, a TestCase, is over."""
    peer = Peer(scripts, **options)
    test.addCleanup(peer.close)
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


def replies(change):
    """Return a script that answers with change(data) until the client's
    end."""
    def script(connection):
        for data in iter(lambda: connection.recv(1 << 16), b""):
            connection.sendall(change(data))
    return script


# Do it right; say nothing; answer with the letter Q in place of A; send back
# what came as it came, as cat would.
echo = replies(bytes.upper)
mute = replies(lambda data: b"")
corrupt = replies(lambda data: data.upper().replace(b"A", b"Q"))
verbatim = replies(bytes)


def hold(connection):
    """Say nothing, and do not end either, until the client or the peer has
    closed both directions."""
    poller = select.poll()
    poller.register(connection, 0)
    if not poller.poll(PATIENCE * 1000):
        raise AssertionError("nobody has closed")


def end(connection):
    """End the stream in good order (FIN)."""
    connection.shutdown(socket.SHUT_WR)
    mute(connection)


def cut(connection):
    """Cut the connection (RST)."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                          struct.pack("ii", 1, 0))
    connection.close()


def banner(connection):
    """Speak first, as another service does; then echo."""
    connection.sendall(b"220 mail.example ESMTP ready\r\n")
    echo(connection)


def after(count, then=mute, ready=None, request=None):
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


def before_second(act):
    """Return a script: answer a message of 64 bytes, take the second, call
    act(), answer it, and echo the others."""
    def script(connection):
        connection.sendall(take(connection, 64).upper())
        data = take(connection, 64)
        act()
        connection.sendall(data.upper())
        echo(connection)
    return script


if __name__ == "__main__":
    # A peer in a process of its own: an honest echo, until its input ends.
    peer = Peer([echo])
    print(peer.address[1], flush=True)
    sys.stdin.read()
    peer.close()
