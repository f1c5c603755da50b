"""The server: its parts, its models, and its program.

Read the files in this order.  Each uses those before it, and no other:

    log.py          a logger that unwinds nothing
    handler.py      the echo; it knows a socket, and nothing else
    loop.py         waits for files and timers; it knows no TCP
    system.py       calls to the operating system
    listening.py    addresses, binding, the options of a connection
    threads.py      starting threads; the gate where busy ones wait
    connections.py  the open connections, and how one is ended
    idle.py         ends connections on which no byte moves
    acceptor.py     lets clients in: the limit, and shortages
    drain.py        how a server comes to its end
    life.py         a server is made, serves, stops and is closed
    base.py         EchoServer, which has these parts
    models/         a file for each --model
    child.py, workers.py                    servers of several processes
    signals.py, arguments.py, program.py    python -m echoserver
"""
