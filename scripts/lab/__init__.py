"""What the programs of this folder share.

    program.py    how a program begins and ends
    arguments.py  numbers that they take
    server.py     the server program of this folder, and what it costs
    clients.py    the client program of this folder, as a load
    judge.py      honest clients that judge how a connection ends
    faults.py     rude peers
    report.py     the table of soak.py
    chart.py      the chart of bench.py
    screen.py     a terminal, or none
    stage.py      the play of lesson.py: its clients, and their rows
"""
