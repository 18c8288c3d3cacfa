"""Storms: the writer under load, a real database, and faults in between.

May live here: what breaks things (``faults``), what must hold all the same (``invariants``), what
changes meanwhile (``load``), and what puts them together (``run``). ``naive`` is a writer as one
would write it on a Tuesday afternoon, which shows that the invariants can be broken. Must not:
anything that a single fault's own test needs, which is in ``tests/integration/database``.
"""
