"""How long coding takes, stage by stage, and how fast it could be: `sodec bench`. docs/latency.md explains the figures.

    clock.py      how things are timed, a device's best rates, deadlines
    stages.py     what is timed: a stream's decoding taken apart
    roofline.py   how fast a stage could be on this machine
    growth.py     what larger pictures cost, in time and memory
    machine.py    what a figure was measured on
    run.py        a whole run, into one report; report.py: its tables and its chart
    random_weights.py   models without training, for figures that do not need it

What only the claim of 20 times needs is in benchmarks/claim.py.
"""
