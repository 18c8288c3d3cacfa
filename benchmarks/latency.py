"""How long after a domain started or ended a subscriber knows."""

from argparse import Namespace
from contextlib import ExitStack
from statistics import median
from typing import Any

from benchmarks.figures import Interval, ratio_interval
from benchmarks.hosts import Host, hosts
from benchmarks.peers import Peer, peer
from benchmarks.report import Goal, Result, latencies, ratios

CONTENDERS = {
    "subscriber": "subscriber of a HostMonitor",
    "bare": "(b) bare callback, our loop",
    "bare-libvirtaio": "(b) bare callback, libvirtaio",
    "read": "(b) + one info() in a thread",
}
INTERVAL_SECONDS = 0.005
SETTLE_SECONDS = 0.05
MOST_TIMES_BARE = 2.0


def run(options: Namespace) -> Result:
    """Latencies of each contender at each size, in interleaved blocks."""
    blocks: dict[str, dict[int, list[list[float]]]] = {
        name: {size: [] for size in options.domains} for name in CONTENDERS
    }
    missed = 0
    with hosts(options.domains) as there, ExitStack() as stack:
        peers = {
            name: stack.enter_context(peer("benchmarks.contenders", name)) for name in CONTENDERS
        }
        for number in range(options.rounds + 1):
            names = list(CONTENDERS)
            names = names[number % len(names) :] + names[: number % len(names)]
            for size, host in there.items():
                for name in names:
                    operations, found = beat(
                        peers[name], host, options.operations, INTERVAL_SECONDS
                    )
                    noticed = matched(operations, found["marks"])
                    if number:
                        blocks[name][size].append(noticed)
                        missed += len(operations) - len(noticed)
    return _result(options, blocks, missed)


def beat(
    contender: Peer, host: Host, count: int, interval: float, settle: float = SETTLE_SECONDS
) -> tuple[list[Any], dict[str, Any]]:
    """``count`` starts and ends on one host, with one contender watching it."""
    contender.ask("watch", uri=host.uri)
    contender.ask("begin")
    done = host.generator.ask("beat", count=count, interval=interval)
    found = contender.ask("end", expected=count, settle=settle)
    contender.ask("unwatch")
    return done["operations"], found


def matched(operations: list[Any], marks: list[Any]) -> list[float]:
    """Seconds from just before each call until it was noticed, for those that were.

    The nth thing done to a domain belongs to the nth thing noticed of it.
    """
    noticed: dict[str, list[tuple[int, int]]] = {}
    for uuid, at, sign in marks:
        noticed.setdefault(uuid, []).append((at, sign))
    seconds = []
    for uuid, called, sign in operations:
        waiting = noticed.get(uuid)
        if waiting and waiting[0][1] == sign:
            seconds.append((waiting.pop(0)[0] - called) / 1e9)
    return seconds


def p50_ratio(these: list[list[float]], those: list[list[float]]) -> Interval:
    """The ratio of the blocks' medians, round by round."""
    return ratio_interval([median(block) for block in these], [median(block) for block in those])


def _result(
    options: Namespace, blocks: dict[str, dict[int, list[list[float]]]], missed: int
) -> Result:
    sizes = options.domains
    of_sizes = {size: p50_ratio(blocks["subscriber"][size], blocks["bare"][size]) for size in sizes}
    worst = max(of_sizes, key=lambda size: of_sizes[size].value)
    return Result(
        "latency",
        "From just before the generator's call until a Python callback or subscriber has it, over"
        " libvirtd's socket, one start or end at a time.",
        {
            "rounds": options.rounds,
            "operations each": options.operations,
            "mean interval ms": INTERVAL_SECONDS * 1000,
            "not noticed": missed,
        },
        [
            *latencies(CONTENDERS, blocks),
            ratios("subscriber's p50", sizes, {"over (b)": list(of_sizes.values())}),
        ],
        [
            Goal(
                f"event to subscriber, p50 at most {MOST_TIMES_BARE:g} x (b)",
                f"at worst {of_sizes[worst].value:.2f} x ({worst:,} domains)",
                of_sizes[worst].value <= MOST_TIMES_BARE,
            )
        ],
        raw={"latency_seconds": blocks},
    )
