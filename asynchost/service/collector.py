"""Python's garbage collector, in a process that is the daemon and nothing else.

May live here: what is set for the whole process. Must not: anything that a library may do.
"""

import gc

_YOUNG_OBJECTS = 100_000
_YOUNG_PASSES = 20
_MIDDLE_PASSES = 50


def calm_collector() -> None:
    """Let the collector stand in the loop's way less often; call it once, before the loop runs.

    A pass holds up every thread, for about a microsecond for each object that is new since the
    last one. By default the passes come so often, and over so much, that beside a storm of events
    on 5,000 domains they were the longest pauses of the loop by far (75 to 120 ms). More often and
    over less is no better: a storm replaces every record within a minute, so that each second pass
    has most of them to look at. So there is none as long as nothing grows: what is loaded by now
    stays for good, and is never looked at again; and a host of 5,000 domains, listed and read in
    the middle of a storm, has half as many objects more than before as make a pass. What cycles
    there are, mostly tracebacks, are still found, when there are that many objects of them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, _YOUNG_PASSES, _MIDDLE_PASSES)
