"""Where a server listens: names, both families, ports; and why it cannot."""

import errno
import gc
import socket
import socketserver
import unittest
import warnings
from unittest import mock

from echoserver import BlockingEchoServer
from echoserver.server.listening import explain

from .models import (MODELS, NOWHERE, ModelTestCase, has_ipv6, needs_ipv6,
                     resolving)

TAKEN = errno.EADDRINUSE, errno.EACCES


class AddressTest(ModelTestCase):

    server_class = BlockingEchoServer

    def fails(self, numbers, address):
        """Fail unless listening on address raises OSError with a number."""
        with self.assertRaises(OSError) as caught:
            BlockingEchoServer(address)
        self.assertIn(caught.exception.errno, numbers)

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
                self.fails(TAKEN, server.server_address)

    def test_port_of_a_server_that_has_just_ended(self):
        """Connections in TIME_WAIT do not keep a port."""
        server = self.serve()
        s = self.client(server)
        server.server_close()
        self.ends(s)
        self.answers(self.serve(address=server.server_address))

    def test_name(self):
        """It works on both ends, whatever it resolves to."""
        server = self.serve(address=("localhost", 0))
        self.answers(("localhost", server.server_address[1]))

    def test_name_with_several_addresses(self):
        """The first that can be listened on is taken."""
        with resolving((NOWHERE, 0), ("127.0.0.1", 0), (NOWHERE, 0)):
            server = self.serve(address=("name", 0))
        self.assertEqual(server.server_address[0], "127.0.0.1")
        self.answers(server)

    def test_name_with_several_addresses_none_of_which_will_do(self):
        """The last one's error is raised, and that of a port that is taken,
        which is not dodged by another address."""
        with resolving((NOWHERE, 0), (NOWHERE, 0)):
            self.fails([errno.EADDRNOTAVAIL], ("name", 0))
        with resolving(self.make().server_address, ("127.0.0.1", 0)):
            self.fails(TAKEN, ("name", 0))

    @needs_ipv6
    def test_ipv6(self):
        """::1 is IPv6 without being told so (bpo-20215); :: takes both
        families, and logs a mapped peer as plain IPv4."""
        server = self.serve(address=("::1", 0))
        self.assertEqual(server.address_family, socket.AF_INET6)
        self.answers(server)
        port = self.serve(address=("::", 0)).server_address[1]
        for host, shown in ("::1", r"\[::1\]"), ("127.0.0.1", "127.0.0.1"):
            self.answers((host, port))
            self.logged(r"^INFO %s:\d+: eof after" % shown)

    def test_every_address_without_ipv6(self):
        """:: falls back to IPv4 where sockets of IPv6 are not made, or
        have no address to be bound to."""
        real = socketserver.TCPServer.server_bind
        six = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::", 0, 0, 0))
        for number in errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL:
            def bind(server):
                if server.address_family == socket.AF_INET6:
                    raise OSError(number, "no IPv6")
                real(server)

            with mock.patch("socketserver.TCPServer.server_bind", bind), \
                    mock.patch("socket.getaddrinfo", return_value=[six]):
                server = self.serve(address=("::", 0))
            self.assertEqual(server.server_address[0], "0.0.0.0")
            self.answers(("127.0.0.1", server.server_address[1]))

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
                for cls in MODELS.values():
                    with self.assertRaises(ValueError):
                        cls(("127.0.0.1", 0), grace=-1)
                gc.collect()
                self.assertEqual([str(w.message) for w in forgotten], [])


class ExplainTest(unittest.TestCase):

    def test_sentences(self):
        """Each says what is the matter and, if it can, what to do."""
        for number, words, others in (
                (errno.EACCES, "permission 80 1024", ""),
                (errno.EADDRINUSE, "::1 80 taken stop (0", ""),
                (errno.EADDRNOTAVAIL, "::1 this host -b ::", ""),
                (errno.EAFNOSUPPORT, "::1 port 80 trouble", ""),
                (errno.EINVAL, "link ::1%eth0", "trouble"),
                (errno.EAGAIN, "threads or processes", "::1 80"),
                (errno.ENOMEM, "memory", "::1 80"),
                (errno.EMFILE, "descriptors", "::1 80"),
                (None, "trouble", "::1 80")):
            with self.subTest(number):
                error = (OSError(number, "trouble") if number else
                         OSError("trouble"))
                sentence = explain(error, ("::1", 80))
                for word in words.split():
                    self.assertIn(word, sentence)
                for word in others.split():
                    self.assertNotIn(word, sentence)
        self.assertIn("memory", explain(MemoryError(), ("::1", 80)))
        self.assertEqual(
            explain(socket.gaierror(1, "not known"), ("no\x1b\n", 0)),
            r"there is no address of the name 'no\x1b\n': [Errno 1] not known")

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
