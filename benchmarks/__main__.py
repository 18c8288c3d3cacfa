"""``python -m benchmarks [NAME ...]``: run the benchmarks, print what they found."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import libvirt

from benchmarks import (
    against,
    bindings,
    events,
    idle,
    latency,
    neighbours,
    reads,
    resync,
    row,
    storm,
    writer,
)
from benchmarks.report import Result
from tests.storms import galera
from tests.support.libvirtd import silence_libvirt, why_unavailable

BENCHMARKS: dict[str, Callable[[argparse.Namespace], Result]] = {
    "events": events.run,
    "latency": latency.run,
    "row": row.run,
    "bindings": bindings.run,
    "reads": reads.run,
    "resync": resync.run,
    "idle": idle.run,
    "storm": storm.run,
    "writer": lambda options: against.writer(options) if options.against else writer.run(options),
    "neighbours": neighbours.run,
}
FULL = {
    "domains": [10, 100, 1000, 5000],
    "hosts": [1, 100, 1000, 10_000],
    "rows": 4000,
    "rounds": 10,
    "seconds": 1.0,
    "operations": 100,
    "idle_seconds": 120.0,
}
QUICK = {
    "domains": [10, 100],
    "hosts": [1, 100],
    "rows": 400,
    "rounds": 2,
    "seconds": 0.5,
    "operations": 50,
    "idle_seconds": 15.0,
}


def options_from(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, with the defaults of a full or a quick run filled in."""
    parser = argparse.ArgumentParser(
        prog="./dev bench", description="Measure; --quick for a first impression."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all by default"
    )
    parser.add_argument("--quick", action="store_true", help="small hosts, few rounds")
    parser.add_argument("--domains", type=_sizes, help="sizes of the hosts, as 10,5000")
    parser.add_argument("--hosts", type=_sizes, help="numbers of hosts of one writer, as 1,1000")
    parser.add_argument("--rows", type=int, help="writer: rows of one measurement, at least")
    parser.add_argument("--galera", action="store_true", help="writer: on a cluster, too")
    parser.add_argument(
        "--against", metavar="COMMIT", help="writer, neighbours: beside this commit, in turns"
    )
    parser.add_argument("--rounds", type=int, help="interleaved rounds")
    parser.add_argument("--seconds", type=float, help="length of one storm")
    parser.add_argument("--operations", type=int, help="single starts and ends in one block")
    parser.add_argument("--idle-seconds", type=float, help="how long to look at idle hosts")
    parser.add_argument("--rate", type=float, default=1200.0, help="events/s of a storm")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there too")
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in BENCHMARKS:
            parser.error(f"no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    if options.galera and (reason := galera.why_impossible()) is not None:
        parser.error(f"no cluster can be started: {reason}")
    for name, value in (QUICK if options.quick else FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def _sizes(text: str) -> list[int]:
    return [int(size) for size in text.split(",")]


def machine() -> dict[str, Any]:
    """Where it ran, as far as that matters for the figures."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "load": [round(load, 1) for load in os.getloadavg()],
        "python": platform.python_version(),
        "libvirt": libvirt.getVersion(),
        "kernel": platform.release(),
    }


def main() -> int:
    """Run what was asked for; each result is printed as soon as it is there."""
    options = options_from()
    reason = why_unavailable()
    if reason is not None:
        print(f"no private libvirtd can be started: {reason}", file=sys.stderr)
        return 2
    silence_libvirt()
    before = machine()
    print(" ".join(f"{name}={value}" for name, value in before.items()) + "\n")
    results = []
    for name in options.names or BENCHMARKS:
        result = BENCHMARKS[name](options)
        results.append(result)
        print(result.as_text(), flush=True)
    after = machine()
    print(f"load at the end: {after['load']}")
    if options.json is not None:
        found = {"before": before, "after": after, "results": [one.as_json() for one in results]}
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
