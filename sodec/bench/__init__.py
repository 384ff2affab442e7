"""How long decoding takes, stage by stage, and against what: `sodec bench`. docs/latency.md explains every figure.

`clock` times, `stages` says what is timed, `roofline` how fast it could be, `ratios` what it is compared with, `growth`
what larger pictures cost; `run` measures, `report` prints, `chart` draws.
"""
