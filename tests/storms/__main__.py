"""``python -m tests.storms``: a long storm, its figures, and exit status 1 if anything broke."""

import argparse
import asyncio
import random
import sys
from dataclasses import replace

from tests.storms import galera
from tests.storms.invariants import InvariantError
from tests.storms.run import Plan, storm


def options_from(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="./dev storm", description="Break a real database under a writer; see what holds."
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="how long (120)")
    parser.add_argument("--hosts", type=int, default=500, help="how many hosts (500)")
    parser.add_argument("--rate", type=float, default=2000.0, help="changes a second (2000)")
    parser.add_argument("--seed", type=int, help="which storm; by default any")
    parser.add_argument("--galera", action="store_true", help="on a cluster of three nodes")
    options = parser.parse_args(arguments)
    for name in ("seconds", "hosts", "rate"):
        if not getattr(options, name) > 0:
            parser.error(f"--{name}: give more than 0, not {getattr(options, name)}")
    return options


def main() -> int:
    """Carry out the storm that was asked for."""
    options = options_from()
    if options.galera and (reason := galera.why_impossible()) is not None:
        print(f"no cluster can be started: {reason}", file=sys.stderr)
        return 2
    seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    plan = Plan(options.seconds, options.hosts, options.rate, seed)
    if options.galera:
        carried_out = storm(replace(plan, server=galera.FAULTS), open_scene=galera.three_nodes)
    else:
        carried_out = storm(plan)
    try:
        print(asyncio.run(carried_out))
    except InvariantError as error:
        print(f"NOT HELD\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
