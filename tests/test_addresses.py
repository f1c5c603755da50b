"""Where a server listens: names, both families, ports, handed listeners."""

import errno
import gc
import os
import socket
import sys
import unittest
import warnings
from unittest import mock

from echoserver import BlockingEchoServer
from echoserver.server.listening import explain

from .models import NOWHERE, ModelTestCase, has_ipv6, needs_ipv6


class AddressTest(ModelTestCase):

    server_class = BlockingEchoServer

    def fails(self, number, address):
        """Fail unless listening on address raises OSError with that number,
        and leaves nothing open."""
        with self.assertRaises(OSError) as caught:
            BlockingEchoServer(address)
        self.assertIn(caught.exception.errno, number)

    def listen_on(self, *places):
        """Let a name stand for these addresses of IPv4."""
        return mock.patch("socket.getaddrinfo", return_value=[
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", place)
            for place in places])

    def test_port_0(self):
        """The address is the real one."""
        self.assertGreater(self.make().server_address[1], 0)

    def test_port_out_of_range(self):
        """A port that cannot be is an OverflowError, as bind() has it."""
        for port in -1, 65536:
            with self.assertRaises(OverflowError):
                BlockingEchoServer(("127.0.0.1", port))

    def test_port_taken(self):
        """A port has one owner, and a failed bind leaks no descriptor."""
        for host in "127.0.0.1", "":
            server = self.make(address=(host, 0))
            for _ in range(3):
                self.fails((errno.EADDRINUSE, errno.EACCES),
                           server.server_address)

    def test_port_of_a_server_that_has_just_ended(self):
        """Connections in TIME_WAIT do not keep a port."""
        server = self.serve()
        s = self.client(server)
        server.server_close()
        self.ends(s)
        self.answers(self.serve(address=server.server_address))

    def test_reuse_of_an_address(self):
        """A port is never shared: reuse-port off, and exclusive on Windows.

        There, SO_REUSEADDR lets a second server take the port (bpo-41135).
        """
        server = self.make()
        reuse = server.socket.getsockopt(socket.SOL_SOCKET,
                                         socket.SO_REUSEADDR)
        self.assertEqual(bool(reuse), os.name == "posix"
                         and sys.platform != "cygwin")
        if hasattr(socket, "SO_REUSEPORT"):
            self.assertFalse(server.socket.getsockopt(socket.SOL_SOCKET,
                                                      socket.SO_REUSEPORT))
        with mock.patch.object(socket, "SO_EXCLUSIVEADDRUSE",
                               socket.SO_KEEPALIVE, create=True):
            server = self.make()
        self.assertTrue(server.socket.getsockopt(socket.SOL_SOCKET,
                                                 socket.SO_KEEPALIVE))

    def test_no_such_address(self):
        """An address of somebody else cannot be listened on."""
        self.fails((errno.EADDRNOTAVAIL,), (NOWHERE, 0))

    def test_no_such_name(self):
        """A name without an address is the resolver's error."""
        with mock.patch("socket.getaddrinfo", side_effect=socket.gaierror):
            with self.assertRaises(socket.gaierror):
                BlockingEchoServer(("nowhere.invalid", 0))

    def test_localhost(self):
        """The name works on both ends, whatever it resolves to."""
        server = self.serve(address=("localhost", 0))
        self.answers(server)
        self.asks(self.connect(("localhost", server.server_address[1])))

    def test_name_with_several_addresses(self):
        """The first that can be listened on is taken."""
        with self.listen_on((NOWHERE, 0), ("127.0.0.1", 0), (NOWHERE, 0)):
            server = self.serve(address=("name", 0))
        self.assertEqual(server.server_address[0], "127.0.0.1")
        self.answers(server)

    def test_name_with_several_addresses_all_wrong(self):
        """The last one's error is raised, and nothing is left open."""
        with self.listen_on((NOWHERE, 0), (NOWHERE, 0)):
            self.fails((errno.EADDRNOTAVAIL,), ("name", 0))

    def test_name_with_a_port_taken(self):
        """A port that is taken is not dodged by another address."""
        taken = self.make()
        with self.listen_on(taken.server_address, ("127.0.0.1", 0)):
            self.fails((errno.EADDRINUSE, errno.EACCES), ("name", 0))

    @needs_ipv6
    def test_ipv6_loopback(self):
        """::1 is IPv6 without being told so (bpo-20215)."""
        server = self.serve(address=("::1", 0))
        self.assertEqual(server.address_family, socket.AF_INET6)
        self.answers(server)

    @needs_ipv6
    def test_every_address(self):
        """:: takes both families, and logs a mapped peer as plain IPv4."""
        server = self.serve(address=("::", 0))
        port = server.server_address[1]
        for host, shown in (("::1", r"\[::1\]"), ("127.0.0.1", "127.0.0.1")):
            s = self.connect((host, port))
            self.asks(s)
            s.close()
            self.logged(r"^INFO %s:\d+: eof after" % shown)

    def test_every_address_without_ipv6(self):
        """:: falls back to IPv4 where sockets of IPv6 are not made, or
        have no address to be bound to."""
        class NoSocket(socket.socket):
            def __init__(self, family=-1, *args, **kwargs):
                if family == socket.AF_INET6:
                    raise OSError(errno.EAFNOSUPPORT, "not supported")
                super().__init__(family, *args, **kwargs)

        class NoAddress(socket.socket):
            def __init__(self, family=-1, *args, **kwargs):
                self.off = family == socket.AF_INET6
                super().__init__(socket.AF_INET if self.off else family,
                                 *args, **kwargs)

            def setsockopt(self, level, *args):
                if level != socket.IPPROTO_IPV6:
                    super().setsockopt(level, *args)

            def bind(self, address):
                if self.off:
                    raise OSError(errno.EADDRNOTAVAIL, "not available")
                super().bind(address)

        six = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::", 0, 0, 0))
        for cls in NoSocket, NoAddress:
            with self.subTest(cls.__name__):
                with mock.patch("socket.socket", cls), \
                        mock.patch("socket.getaddrinfo", return_value=[six]):
                    server = self.serve(address=("::", 0))
                self.assertEqual(server.server_address[0], "0.0.0.0")
                self.asks(self.connect(("127.0.0.1",
                                        server.server_address[1])))

    def test_constructor_out_of_descriptors(self):
        """Whatever it fails at, a constructor gives back what it opened."""
        error = OSError(errno.EMFILE, "Too many open files")
        for name in ("socket.socketpair",
                     "echoserver.server.loop.Loop.poller_class",
                     "socketserver.TCPServer.server_bind",
                     "socketserver.TCPServer.server_activate"):
            with self.subTest(name), warnings.catch_warnings(record=True) \
                    as forgotten:
                warnings.simplefilter("always")
                with mock.patch(name, side_effect=error):
                    with self.assertRaises(OSError):
                        BlockingEchoServer(("127.0.0.1", 0))
                gc.collect()
                self.assertEqual([str(w.message) for w in forgotten], [])


class ExplainTest(unittest.TestCase):

    def test_sentences(self):
        """Each says what is the matter and, if it can, what to do."""
        for error, address, words, others in (
                (PermissionError(errno.EACCES, "denied"), ("::1", 80),
                 ["permission", "80", "1024"], []),
                (OSError(errno.EADDRINUSE, "in use"), ("::1", 80),
                 ["80", "::1", "taken", "0 picks"], []),
                (OSError(errno.EADDRNOTAVAIL, "no"), (NOWHERE, 0),
                 [NOWHERE, "this host", "-b ::"], []),
                (OSError(errno.EAFNOSUPPORT, "no IPv6"), ("::1", 80),
                 ["::1 port 80", "no IPv6"], []),
                (OSError(errno.EINVAL, "invalid"), ("fe80::1", 80),
                 ["link", "fe80::1%eth0"], ["invalid"]),
                (socket.gaierror(socket.EAI_NONAME, "not known"),
                 ("no\x1b\n", 0), [r"no\x1b\n", "name", "not known"],
                 ["\x1b", "\n"]),
                (OSError(errno.EAGAIN, "try again"), ("here", 80),
                 ["threads or processes"], ["here port", "80"]),
                (OSError(errno.ENOMEM, "no"), ("::1", 80), ["memory"],
                 ["::1", "80"]),
                (MemoryError(), ("::1", 80), ["memory"], ["::1", "80"]),
                (OSError(errno.EMFILE, "no"), ("::1", 80), ["descriptors"],
                 ["::1", "80"]),
                (OSError("descriptor 3"), ("::1", 80), ["descriptor 3"],
                 ["::1", "80"])):
            with self.subTest(repr(error)):
                sentence = explain(error, address)
                for word in words:
                    self.assertIn(word, sentence)
                for word in others:
                    self.assertNotIn(word, sentence)

    def test_what_the_system_says(self):
        """The errors are those that are explained."""
        places = [("a" * 64 + ".invalid", "name"), ("a..b", "name"),
                  (NOWHERE, "this host")]
        if has_ipv6():
            places.append(("fe80::1", "fe80::1%eth0"))
        for host, words in places:
            with self.subTest(host):
                with self.assertRaises((OSError, UnicodeError)) as caught:
                    BlockingEchoServer((host, 0))
                self.assertIn(words, explain(caught.exception, (host, 0)))


if __name__ == "__main__":
    unittest.main()
