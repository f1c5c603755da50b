"""The client: it asks an uppercase echo, and compares every byte.

For programs, as echoserver.Connection and echoserver.ConnectionPool:

    errors.py       what it raises beside OSErrors
    waiting.py      generators that wait, for one connection or for many
    connecting.py   names, addresses, and the first one that answers
    connection.py   one connection, what is in flight, and what comes back
    pool.py         connections that threads share

The rest is ``python -m echoserver.client``, which begins in __main__.py, with
the command line in program.py.  Its faces are prompt.py for a terminal,
pipe.py for a pipe, counting.py (with figures.py) for --count, and
silence.py for --idle; running.py is what these two share.  diagnosis.py has
the words and exit codes of all, and output.py prints.
"""
