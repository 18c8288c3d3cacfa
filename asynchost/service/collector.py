"""Python's garbage collector, in a process that is the daemon and nothing else.

May live here: what is set for the whole process. Must not: anything that a library may do.
"""

import gc

_YOUNG_OBJECTS = 20_000
_YOUNG_PASSES = 20
_MIDDLE_PASSES = 50


def calm_collector() -> None:
    """Let the collector stand in the loop's way less often; call it once, before the loop runs.

    By default it looks at every object of the process when a listing of a few thousand domains
    has been made, and nothing else runs meanwhile: beside a storm of events that was the longest
    pause of the loop by far (75 to 120 ms at 5,000 domains, against 13 with this). What is
    loaded by now stays for good, so it is never looked at again; and the thresholds are such
    that the objects of one listing do not reach them. What cycles there are, mostly tracebacks,
    are still found, some thousands of objects later.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, _YOUNG_PASSES, _MIDDLE_PASSES)
