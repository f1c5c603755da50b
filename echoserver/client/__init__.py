"""The client: what asks an uppercase echo, and compares every byte.

    connection.py   one connection, and pool.py, many that threads share
    verifier.py     what was sent, held against what comes back

are for programs, as echoserver.Connection and echoserver.ConnectionPool.  The
rest is ``python -m echoserver.client``, begun by __main__.py: prompt.py for a
terminal, pipe.py for a pipe, counting.py and figures.py for --count, and
diagnosis.py for the words and exit codes that all three share.
"""
