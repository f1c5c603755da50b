"""The echo, over every model: every byte, in order, to its end; and no peer
holds up another."""

import socket
import threading
import time

from .models import (MODELS, PATIENCE, ModelTestCase, every_model, replying,
                     stream, until)


@every_model
class Echo:

    def test_half_close_at_all_sizes(self):
        """All of the reply comes, then the end, whatever the size is."""
        server = self.serve()
        for size in 0, 1, 31, 4 << 10, 256 << 10, 2 << 20:
            with self.subTest(size):
                data = stream(size)
                reply, end = self.exchange(server, data)
                self.assertEqual((len(reply), end), (size, "eof"))
                self.assertTrue(reply == data.upper(), "a wrong echo")

    def test_every_byte_value(self):
        """Only the letters a to z change."""
        s = self.asking(self.serve(), bytes(range(256)))
        self.assertEqual(self.receive(s, 256), bytes(
            c - 32 if 97 <= c <= 122 else c for c in range(256)))

    def test_one_byte_at_a_time(self):
        """Bytes that come one by one are answered one by one, and in order
        where many are sent before the first is answered."""
        s = self.connect(self.serve().server_address)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for c in b"one byte at a time":
            self.asks(s, bytes([c]))
        for c in stream(200):
            s.sendall(bytes([c]))
        self.assertEqual(self.receive(s, 200), stream(200).upper())

    def test_slow_reader(self):
        """A reply that does not fit is finished when it does, and meanwhile
        others are answered."""
        self.needs(2)
        server = self.serve(**self.few)
        s, sent = self.stuff(server)
        self.answers(server)
        s.shutdown(socket.SHUT_WR)
        data, end = self.rest(s)
        self.assertEqual((len(data), end), (sent, "eof"))
        self.assertTrue(data == stream(sent).upper(), "a wrong echo")

    def test_streams_without_rest(self):
        """All progress, also when they are more than the workers."""
        self.needs(4)
        server = self.serve(**self.few)
        rounds = [0] * 4
        deadline = time.monotonic() + PATIENCE

        def send(index):
            s = self.asking(server, bytes(4096) * 4)
            while min(rounds) < 20 and time.monotonic() < deadline:
                self.asks(s, bytes(4096))
                rounds[index] += 1
            s.close()

        threads = [self.in_thread(lambda index=index: send(index))
                   for index in range(len(rounds))]
        for thread in threads:
            self.ended(thread)
        self.assertGreaterEqual(min(rounds), 20, rounds)

    def test_idle_crowd(self):
        """Among many who have nothing to say the next is answered, and so is
        each of them."""
        self.needs(10)
        server = self.serve(**self.few)
        crowd = [self.connect(server.server_address) for _ in range(10)]
        self.answers(server)
        self.asks(crowd[0])
        self.asks(crowd[-1])
        self.quiet(*crowd)

    def test_delay(self):
        """Each reply waits for it; an end of the server does not."""
        server = self.serve(delay=0.02)
        with self.connect(server.server_address) as s:
            for _ in range(2):
                began = time.monotonic()
                self.asks(s)
                self.assertGreaterEqual(time.monotonic() - began, 0.02)
        self.only_here()
        server = self.serve(delay=10 * PATIENCE, grace=PATIENCE / 4)
        s = self.asking(server)
        until(lambda: self.peer(server).bytes_in, "the request")
        server.server_close()
        self.ends(s, data=b"HELLO")

    def test_peers_that_reset(self):
        """At no stage does that harm the server, nor look like a bug."""
        server = self.serve(**self.few)
        for _ in range(2):
            self.reset(self.connect(server.server_address))
            self.reset(self.asking(server))
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
        self.assertTrue(self.log("served 9 connections"), self.log("served"))


class OneAtATimeTest(ModelTestCase):
    """The blocking server that the lesson begins with."""

    from echoserver import BlockingEchoServer as server_class

    def test_second_client_waits(self):
        """The next is served, in the loop's thread, when the first is done."""
        threads = set()

        def reply(data):
            threads.add(threading.current_thread().name)
            return data.upper()

        server = self.serve(replying(reply))
        first = self.connect(server.server_address)
        second = self.asking(server, b"second")
        for _ in range(20):
            self.asks(first)
        self.assertEqual(self.peer(server).client_address,
                         first.getsockname())
        first.close()
        self.assertEqual(self.receive(second, 6), b"SECOND")
        self.assertEqual(threads, {"echoserver"})

    def test_handle_request(self):
        """socketserver's call for one connection serves one; without a client
        it gives up after server.timeout seconds and says so."""
        server = self.make()
        s = self.asking(server)
        s.shutdown(socket.SHUT_WR)
        server.handle_request()
        self.ends(s, data=b"HELLO")
        said = []
        server.timeout, server.handle_timeout = 0, lambda: said.append(1)
        server.handle_request()
        self.assertEqual(said, [1])

    def test_handle_request_in_a_thread(self):
        """It serves on when that call has returned."""
        server = self.make(cls=MODELS["threads"])
        s = self.asking(server)
        server.handle_request()
        for _ in range(20):
            self.assertEqual(self.receive(s, 5), b"HELLO")
            s.sendall(b"hello")

    def test_close_with_a_crowd_in_the_backlog(self):
        """Each is answered; those with nothing to say cost no time."""
        server = self.serve(grace=5)
        server.drain.loopback_quiet_period = 0.1    # of which 60 are too many
        crowd = [self.connect(server.server_address) for _ in range(60)]
        crowd[-1].sendall(stream(1 << 20))
        closing = self.in_thread(server.server_close)
        self.ends(crowd.pop(), data=stream(1 << 20).upper())
        self.ended(closing)
        for s in crowd:
            self.ends(s)
