"""--model blocking: one connection at a time, as the lesson begins.

It is what EchoServer does by itself, and socketserver.TCPServer before it:
process_request() serves the connection to its end, in the thread that accepts.
Its handler blocks in recv() twice: until there is data, and while that is
copied.  Meanwhile nobody else is accepted, however little the first one says,
and all wait in the kernel's backlog.
"""

from ..base import EchoServer

__all__ = ["EchoServer"]
