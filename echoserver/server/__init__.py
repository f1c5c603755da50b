"""What serves: the parts that a server has, whatever its model is.

Read them in this order, each of which knows those before it:

    handler.py      the echo; knows a socket, and nothing else
    loop.py         waits for files and times; knows no TCP
    system.py       what is asked of the operating system
    listening.py    addresses, binding, the accepted socket's options
    connections.py  who is connected, and the ways to end that
    idle.py         who has been idle too long
    serving.py      what becomes of a connection's errors, and its close
    acceptor.py     who is let in
    drain.py        how all of it ends
    timekeeper.py   the same where the loop stands still
    base.py         EchoServer, which has them

and then a model, in the folder models.  child.py, workers.py and signals.py
are for servers of several processes, and for the program.
"""
