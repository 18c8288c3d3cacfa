"""What is claimed about speed, measured side by side in one run.

May live here: programs that start real servers of their own, measure, and print what they got.
Must not: timed assertions; a goal that is missed is printed as missed, and the exit status stays
0. Each contender is a process of its own, so that its CPU time is its own; what happens on the
host is done by another one, the generator. Contenders take turns, in rounds, so that what else
the machine is doing falls on all alike.

    python -m benchmarks [--quick] [--json FILE] [NAME ...]
"""
