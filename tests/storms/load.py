"""Hosts that never rest: each of their states can be told from its row alone.

May live here: the doubles and what moves them. Must not: databases and faults. Memory: one number
for each host, so that what grows in a storm is the writer's.
"""

import asyncio
import random
from collections.abc import Callable, Sequence

from asynchost.model import DiskUsage, HostFacts, HostSnapshot, Usage

_GIB = 2**30
_TICK_SECONDS = 0.005
MEMORY_MB = 2**30
FACTS = HostFacts(
    hostname="storm",
    hypervisor_type="storm",
    hypervisor_version=1_002_003,
    vcpus=64,
    memory_mb=MEMORY_MB,
    cpu_info={"arch": "x86_64", "model": None, "vendor": None, "topology": {}, "features": []},
)
_DISK = DiskUsage(100 * _GIB, 10 * _GIB)

VERSION = "memory_mb_used"
"""The column that holds the number of the state."""


def row_of(version: int) -> dict[str, int]:
    """What the row holds in the state of this number.

    Some columns take few values, so that a state often shares one with the state before it: a
    column that was written too seldom is as wrong as one that was written too late.
    """
    return {
        VERSION: version,
        "free_ram_mb": MEMORY_MB - version,
        "vcpus_used": version * 7 % 11,
        "running_vms": version % 3,
        "current_workload": version // 5 % 2,
    }


def torn_sql(row: str) -> str:
    """:func:`row_of` as an SQL condition: the columns of ``row`` are of no one state."""
    v = f"{row}.{VERSION}"
    return (
        f"{row}.free_ram_mb <> {MEMORY_MB} - {v} OR {row}.vcpus_used <> {v} * 7 % 11"
        f" OR {row}.running_vms <> {v} % 3 OR {row}.current_workload <> {v} DIV 5 % 2"
    )


class StormHost:
    """A host whose states are numbered; ``move()`` goes on to the next one."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.version = 1
        self._listeners: list[Callable[[], None]] = []

    def move(self) -> None:
        """Another state."""
        self.version += 1
        for listener in tuple(self._listeners):
            listener()

    def snapshot(self) -> HostSnapshot:
        """The state now."""
        moving = row_of(self.version)
        return HostSnapshot(
            host=self.host,
            name=self.host,
            generation=1,
            fresh=True,
            usage=Usage(
                vcpus_used=moving["vcpus_used"],
                memory_kib_used=self.version * 1024,
                running_vms=moving["running_vms"],
                current_workload=moving["current_workload"],
            ),
            facts=FACTS,
            disk=_DISK,
            disk_settled=True,
        )

    def add_listener(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` on each move."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)


class Load:
    """Moves hosts picked at random, so many times a second, as evenly as the loop allows."""

    def __init__(self, hosts: Sequence[StormHost], rate: float, rng: random.Random) -> None:
        self.hosts = hosts
        self.changes = 0
        self._rate = rate
        self._rng = rng

    def versions(self) -> dict[str, int]:
        """The number of each host's state now."""
        return {host.host: host.version for host in self.hosts}

    def move_all(self) -> None:
        """Another state for every host."""
        for host in self.hosts:
            host.move()
        self.changes += len(self.hosts)

    async def run(self) -> None:
        """Until cancelled. What a busy loop missed is made up for, up to a second of it."""
        loop = asyncio.get_running_loop()
        owed, last = 0.0, loop.time()
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now = loop.time()
            owed = min(owed + (now - last) * self._rate, self._rate)
            last = now
            for host in self._rng.choices(self.hosts, k=int(owed)):
                host.move()
            self.changes += int(owed)
            owed -= int(owed)
