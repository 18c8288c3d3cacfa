"""What watching costs when nothing happens."""

import time
from argparse import Namespace
from contextlib import ExitStack

from benchmarks.hosts import hosts
from benchmarks.peers import peer
from benchmarks.report import Result, Table

# Past the resync, the second one five seconds later, and their reads.
WARM_UP_SECONDS = 10.0


def run(options: Namespace) -> Result:
    """Calls and CPU time of one monitor per size with all defaults, all at the same time."""
    sizes = options.domains
    found = {}
    with hosts(sizes) as there, ExitStack() as stack:
        peers = {size: stack.enter_context(peer("benchmarks.contenders", "idle")) for size in sizes}
        for size, one in peers.items():
            one.ask("watch", uri=there[size].uri)
        time.sleep(WARM_UP_SECONDS)
        for one in peers.values():
            one.ask("begin")
        for one in peers.values():
            one.tell("end", expected=0, settle=options.idle_seconds)
        for size, one in peers.items():
            found[size] = one.answer()
        for one in peers.values():
            one.ask("unwatch")
    minutes = options.idle_seconds / 60
    names = sorted({name for answer in found.values() for name in answer["calls"]})
    rows = [
        [name, *(f"{found[size]['calls'].get(name, 0) / minutes:,.0f}" for size in sizes)]
        for name in names
    ]
    rows.append(
        [
            "calls a minute, in all",
            *(f"{sum(found[size]['calls'].values()) / minutes:,.0f}" for size in sizes),
        ]
    )
    rows.append(
        ["CPU seconds an hour", *(f"{found[size]['cpu'] / minutes * 60:,.1f}" for size in sizes)]
    )
    return Result(
        "idle",
        "A HostMonitor with all defaults (an audit each minute) on a host where nothing happens,"
        " three quarters of its domains active.",
        {"seconds": options.idle_seconds},
        [Table("by domains on the host", ["", *(f"{size:,}" for size in sizes)], rows)],
        raw={"found": {str(size): answer for size, answer in found.items()}},
    )
