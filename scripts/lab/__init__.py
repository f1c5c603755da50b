"""What the programs of this folder share.

    program.py    how a program begins and ends
    arguments.py  numbers that they take
    server.py     the server program of this folder, and what it costs
    load.py       clients that verify every byte
    tally.py      what they have seen, and what of it is a fault
    beside.py     a load in a process of its own
    faults.py     rude peers
    report.py     the table of soak.py
    chart.py      the chart of bench.py
    screen.py     a terminal, or none
    scene.py      clients of the play, and their rows
    play.py       the play of lesson.py
    cost.py       what a client costs, where there are many
"""
