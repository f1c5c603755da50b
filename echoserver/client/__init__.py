"""The client: what asks an uppercase echo, and compares every byte.

For programs, as echoserver.Connection and echoserver.ConnectionPool:

    connector.py    connecting, over all addresses of a name
    channel.py      a socket, what is in flight, and what comes back
    connection.py   both, with the waiting
    pool.py         connections that threads share

The rest is ``python -m echoserver.client``, which begins in __main__.py and
program.py: prompt.py for a terminal, pipe.py for a pipe, and for --count
counting.py (with loop.py, caller.py, figures.py and report.py).  diagnosis.py
has the words and exit codes that all share, output.py prints.
"""
