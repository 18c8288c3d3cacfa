"""How long after a domain started or ended the host's row says so."""

import asyncio
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any

from asynchost.database import PrivateMariaDB, apply_schema
from asynchost.database.session import Session
from asynchost.database.url import DatabaseUrl
from benchmarks.figures import ratio_interval
from benchmarks.hosts import hosts
from benchmarks.latency import beat, matched
from benchmarks.peers import peer
from benchmarks.report import Goal, Result, latencies, ratios

LABELS = {
    "row": "event to committed row",
    "bare": "(b) event to bare callback",
    "info": "one info(), loop or none",
    "update": "(c) one bare UPDATE",
}
INTERVAL_SECONDS = 0.01
DATABASE = "benchmark"
_DEADLINE_SECONDS = 10.0


def run(options: Namespace) -> Result:
    """Latencies of the row and of what it is made of, in interleaved blocks."""
    blocks: dict[str, dict[int, list[list[float]]]] = {
        name: {size: [] for size in options.domains} for name in LABELS
    }
    merged = 0
    with database() as url, hosts(options.domains) as there, ExitStack() as stack:
        arguments = {"row": [url], "bare": [], "info": [], "update": [url]}
        peers = {
            name: stack.enter_context(peer("benchmarks.contenders", name, *arguments[name]))
            for name in LABELS
        }
        names = list(LABELS)
        for number in range(options.rounds + 1):
            names = names[1:] + names[:1]
            for size, host in there.items():
                for name in names:
                    count = options.operations
                    if name in ("info", "update"):
                        seconds = peers[name].ask(
                            "measure", uri=host.uri, count=count, interval=INTERVAL_SECONDS
                        )["latencies"]
                    else:
                        operations, found = beat(peers[name], host, count, INTERVAL_SECONDS, 0.2)
                        if name == "bare":
                            seconds = matched(operations, found["marks"])
                        else:
                            seconds, late = committed(operations, found)
                            merged += late if number else 0
                    if number:
                        blocks[name][size].append(seconds)
    return _result(options, blocks, merged)


@contextmanager
def database() -> Iterator[str]:
    """A private MariaDB with the tables, and one more like it for the bare UPDATE."""
    with asyncio.Runner() as runner:
        server = PrivateMariaDB()
        runner.run(server.__aenter__())
        try:
            url = server.url(DATABASE)
            runner.run(_prepare(server.url("mysql"), url))
            yield url
        finally:
            runner.run(server.__aexit__(None, None, None))


async def _prepare(system_url: str, url: str) -> None:
    system = DatabaseUrl.parse(system_url)
    async with await Session.connect(system, _DEADLINE_SECONDS) as session:
        await session.write(f"CREATE DATABASE {DATABASE}")
    await apply_schema(url)
    async with await Session.connect(DatabaseUrl.parse(url), _DEADLINE_SECONDS) as session:
        await session.write("CREATE TABLE bare LIKE compute_nodes")
        await session.write(
            "INSERT INTO bare SET service_id=1, vcpus=1, memory_mb=1, local_gb=1, vcpus_used=0,"
            " memory_mb_used=0, local_gb_used=0, hypervisor_type='t', hypervisor_version=1,"
            " cpu_info='{}', deleted=0"
        )


def committed(operations: list[Any], found: dict[str, Any]) -> tuple[list[float], int]:
    """Seconds from just before each call until a row that counts it was acknowledged.

    Each operation moves ``running_vms`` by one, so a row's value tells which it is. Returned
    with it: how many shared a row with a later one.
    """
    expected = found["active"] - sum(sign for _, _, sign in operations)
    values = []
    for _, _, sign in operations:
        expected += sign
        values.append(expected)
    seconds, merged, at = [], 0, 0
    for _, acknowledged, value in found["marks"]:
        try:
            last = values.index(value, at)
        except ValueError:
            continue
        seconds += [(acknowledged - called) / 1e9 for _, called, _ in operations[at : last + 1]]
        merged += last - at
        at = last + 1
    return seconds, merged


def _result(
    options: Namespace, blocks: dict[str, dict[int, list[list[float]]]], merged: int
) -> Result:
    sizes = options.domains
    budgets: dict[int, list[float]] = {
        size: [
            median(bare) + median(info) + 2 * median(update)
            for bare, info, update in zip(
                *(blocks[name][size] for name in ("bare", "info", "update")), strict=True
            )
        ]
        for size in sizes
    }
    of_sizes = {
        size: ratio_interval([median(block) for block in blocks["row"][size]], budgets[size])
        for size in sizes
    }
    worst = max(sizes, key=lambda size: of_sizes[size].value)
    return Result(
        "row",
        "From just before the generator's call until MariaDB has acknowledged the row, with the"
        " debouncer set to zero, one start or end at a time; beside it what it is made of. All"
        " write to one private MariaDB over its socket, flushed at each commit.",
        {
            "rounds": options.rounds,
            "operations each": options.operations,
            "mean interval ms": INTERVAL_SECONDS * 1000,
            "rows shared by two operations": merged,
        },
        [
            *latencies(LABELS, blocks),
            ratios(
                "the row's p50", sizes, {"over (b) + info() + 2 x (c)": list(of_sizes.values())}
            ),
        ],
        [
            Goal(
                "event to committed row with zero debounce, p50 at most (b) + one info() + 2 x (c)",
                f"at worst {of_sizes[worst].value:.2f} of it ({worst:,} domains)",
                of_sizes[worst].value <= 1.0,
            )
        ],
        raw={"latency_seconds": blocks},
    )
