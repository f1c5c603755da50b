"""The echo, over every model: every byte, in order, to its end; and no peer
holds up another."""

import os
import socket
import threading
import time
import unittest

from echoserver import EchoHandler

from .models import ModelTestCase, every_model, stream
from .support import PATIENCE, until

SIZES = [0, 1, 31, 4 << 10, 256 << 10, 4 << 20, 9 << 20]


@every_model
class Echo:

    def test_half_close_at_all_sizes(self):
        """All of the reply comes, then the end, whatever the size is."""
        server = self.serve()
        for size in SIZES:
            with self.subTest(size):
                data = stream(size)
                reply, end = self.exchange(server, data)
                self.assertEqual((len(reply), end), (size, "eof"))
                self.assertTrue(reply == data.upper(), "a wrong echo")

    def test_every_byte_value(self):
        """Only the letters a to z change."""
        s = self.connect(self.serve().server_address)
        s.sendall(bytes(range(256)))
        self.assertEqual(self.receive(s, 256), bytes(
            c - 32 if 97 <= c <= 122 else c for c in range(256)))

    def test_one_byte_at_a_time(self):
        """Bytes that come one by one are answered one by one."""
        s = self.connect(self.serve().server_address)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for c in b"one byte at a time":
            self.asks(s, bytes([c]))
        for c in stream(200):
            s.sendall(bytes([c]))
        reply = b"".join(s.recv(1) for _ in range(200))
        self.assertEqual(reply, stream(200).upper())

    def test_pipelining(self):
        """Messages sent before the first is answered come back in order."""
        s = self.connect(self.serve().server_address)
        messages = [b"message %d;" % number for number in range(1000)]
        for message in messages:
            s.sendall(message)
        sent = b"".join(messages)
        self.assertEqual(self.receive(s, len(sent)), sent.upper())

    def test_100_clients_at_once(self):
        """All are connected, then all ask, then each gets its own reply."""
        server = self.serve()
        clients = [self.connect(server.server_address) for _ in range(100)]
        for number, s in enumerate(clients):
            s.sendall(b"client %d" % number)
            s.shutdown(socket.SHUT_WR)
        for number, s in enumerate(clients):
            self.ends(s, data=b"CLIENT %d" % number)

    def test_slow_reader(self):
        """A reply that does not fit is finished when it does."""
        self.needs(2)
        server = self.serve(**self.few)
        s, sent = self.stuff(server)
        self.answers(server)
        s.shutdown(socket.SHUT_WR)
        data, end = self.rest(s)
        self.assertEqual((len(data), end), (sent, "eof"))
        self.assertTrue(data == stream(sent).upper(), "a wrong echo")

    def test_peers_that_do_not_read(self):
        """They delay nobody, though they send all that goes."""
        self.needs(6)
        server = self.serve(**self.few)
        mute = [self.connect(server.server_address) for _ in range(4)]
        sent = [0] * len(mute)
        s = self.connect(server.server_address)
        for _ in range(20):
            sent = list(map(self.fill, mute, sent))
            self.asks(s)
        self.answers(server)
        for total in sent:
            self.assertGreater(total, 1 << 16)

    def test_streams_without_rest(self):
        """All progress, also when they are more than the workers."""
        self.needs(6)
        server = self.serve(**self.few)
        rounds = [0] * 6
        deadline = time.monotonic() + PATIENCE

        def stream(index):
            s = self.connect(server.server_address)
            s.sendall(bytes(4096) * 4)
            while min(rounds) < 20 and time.monotonic() < deadline:
                s.sendall(bytes(4096))
                self.receive(s, 4096)
                rounds[index] += 1
            s.close()

        threads = [threading.Thread(target=stream, args=(index,))
                   for index in range(len(rounds))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * PATIENCE)
        self.assertGreaterEqual(min(rounds), 20, rounds)

    def test_idle_crowd(self):
        """Among many who have nothing to say the next is answered, and so is
        each of them."""
        self.needs(50)
        server = self.serve(**self.few)
        crowd = [self.connect(server.server_address) for _ in range(50)]
        self.answers(server)
        self.asks(crowd[0])
        self.asks(crowd[-1])
        for s in crowd:
            self.quiet(s)

    def test_delay(self):
        """Each reply waits for it; an end of the server does not."""
        server = self.serve(delay=0.05)
        with self.connect(server.server_address) as s:
            for _ in range(2):
                began = time.monotonic()
                self.asks(s)
                self.assertGreaterEqual(time.monotonic() - began, 0.05)
        server = self.serve(delay=10 * PATIENCE, grace=PATIENCE / 4)
        s = self.connect(server.server_address)
        s.sendall(b"hello")
        self.only_here()
        until(lambda: self.peer(server).bytes_in, "the request")
        server.server_close()
        self.ends(s, data=b"HELLO")

    def test_peers_that_reset(self):
        """At no stage does that harm the server, nor look like a bug."""
        server = self.serve(**self.few)
        for _ in range(5):
            self.reset(self.connect(server.server_address))
            s = self.connect(server.server_address)
            s.sendall(b"hello")
            self.reset(s)
            s = self.connect(server.server_address)
            self.fill(s)
            self.reset(s)
            s = self.client(server)
            port = s.getsockname()[1]
            self.reset(s)
            self.assertRegex(self.logged_end(port), "INFO .* reset after "
                             ".* 5 bytes in, 5 bytes out")
        self.answers(server)
        server.server_close()
        self.assertEqual(self.log("ERROR|Traceback"), [])
        self.assertTrue(self.log("served 21 connections"), self.log("served"))

    @unittest.skipUnless(hasattr(os, "fork"), "is about processes")
    def test_nothing_survives(self):
        """No process of its own is left when a server is closed."""
        self.needs(2)
        ours, theirs = os.pipe()
        self.addCleanup(os.close, ours)
        try:
            server = self.serve(grace=0.05)
        finally:
            os.close(theirs)
        self.fill(self.connect(server.server_address))
        self.client(server)
        server.server_close()
        # a forked process would have the other end still
        self.readable(ours, "other processes to end")
        self.assertEqual(os.read(ours, 1), b"")


class OneAtATimeTest(ModelTestCase):
    """The blocking server that the lesson begins with."""

    from echoserver import BlockingEchoServer as server_class

    def test_second_client_waits(self):
        """The next is served, in the loop's thread, when the first is done."""
        threads = []

        class Handler(EchoHandler):
            @staticmethod
            def reply(data):
                threads.append(threading.current_thread().name)
                return data.upper()

        server = self.serve(Handler)
        first = self.connect(server.server_address)
        second = self.connect(server.server_address)
        second.sendall(b"second")
        for _ in range(20):
            self.asks(first)
        self.assertEqual(self.peer(server).client_address,
                         first.getsockname())
        first.close()
        self.assertEqual(self.receive(second, 6), b"SECOND")
        self.assertEqual(set(threads), {"echoserver"})

    def test_handle_request(self):
        """socketserver's call for one connection serves one."""
        server = self.make()
        s = self.connect(server.server_address)
        s.sendall(b"hello")
        s.shutdown(socket.SHUT_WR)
        server.handle_request()
        self.ends(s, data=b"HELLO")

    def test_handle_request_without_a_client(self):
        """It gives up after server.timeout seconds and says so."""
        said = []

        class Server(self.server_class):
            timeout = 0

            def handle_timeout(self):
                said.append("timeout")

        self.make(cls=Server).handle_request()
        self.assertEqual(said, ["timeout"])

    def test_stop_while_serving(self):
        """The connection that is served meets its end, the loop too."""
        server = self.serve()
        s = self.client(server)
        server.shutdown()
        self.ends(s)
        self.assertRegex(self.logged_end(s), "drain after")

    def test_close_with_a_peer_that_does_not_read(self):
        """It is reset when the grace is over, and holds up nobody's end."""
        server = self.serve(grace=0.05)
        s, _ = self.stuff(server)
        self.ended(self.in_thread(server.server_close))
        self.assertEqual(self.rest(s)[1], "reset")
        self.assertRegex(self.logged_end(s), "drain after")
        self.assertEqual(server.cut_short, 1)

    def test_close_with_a_crowd_in_the_backlog(self):
        """Each is answered; those with nothing to say cost no time."""
        server = self.serve(grace=5)
        server.drain.loopback_quiet_period = 0.25    # of which 50 are too many
        crowd = [self.connect(server.server_address) for _ in range(50)]
        crowd[-1].sendall(stream(1 << 20))
        received = []
        reader = self.in_thread(lambda s=crowd.pop(): received.append(
            self.rest(s)))
        self.ended(self.in_thread(server.server_close))
        self.ended(reader)
        self.assertTrue(received == [(stream(1 << 20).upper(), "eof")])
        for s in crowd:
            self.ends(s)


if __name__ == "__main__":
    unittest.main()
