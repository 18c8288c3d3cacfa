"""What every fault test has: a host under a random workload, watched, written, and recounted.

May live here: what puts the parts together, and what is asserted whatever the fault. Must not:
faults, which each test makes itself.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from asynchost import Cause, Change, HostMonitor, MonitorSettings, Usage
from tests.integration.pipeline import Pipeline, pipeline
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mariadb import Database
from tests.support.recount import Totals
from tests.support.waiting import eventually
from tests.support.workload import Workload

KEEPALIVE_INTERVAL_SECONDS, KEEPALIVE_COUNT = 1, 2
KEEPALIVE_SECONDS = KEEPALIVE_INTERVAL_SECONDS * (KEEPALIVE_COUNT + 1)
"""After so long in silence a connection is dead."""

LATENESS_SECONDS = 10.0
"""What a busy machine may add to a time that is promised."""

FAULTS = MonitorSettings(
    audit_interval_seconds=2.0,
    call_deadline_seconds=1.0,
    listing_deadline_seconds=3.0,
    keepalive_interval_seconds=KEEPALIVE_INTERVAL_SECONDS,
    keepalive_count=KEEPALIVE_COUNT,
    look_again_seconds=0.5,
    second_resync_seconds=1.0,
    instances_path="/proc",
)
"""Everything on, and fast. The audit is needed: live vCPU changes have no event."""

EVENTS_ONLY = replace(FAULTS, audit_interval_seconds=0, second_resync_seconds=0)
"""Neither audit nor second resync: what is right in the end was right by other means."""

CALM = replace(FAULTS, keepalive_interval_seconds=30)
"""For a connection that must not be lost: libvirtd, too, may have to wait for a processor."""

RECOVERY_SECONDS = 60.0
"""For a reconnect after a second or two without libvirtd: the backoff may add some seconds."""


class Recorder:
    """Every change of a monitor, from its making on, checked to be one unbroken chain."""

    def __init__(self, monitor: HostMonitor) -> None:
        self._changes = monitor.changes()
        self.seen: list[Change] = []
        self._task = asyncio.create_task(self._record())

    async def _record(self) -> None:
        async for change in self._changes:
            if self.seen:
                assert change.before == self.seen[-1].after, (self.seen[-1], change)
            assert change.before != change.after, change
            self.seen.append(change)

    def of_generation(self, generation: int) -> list[Change]:
        """Those that were published over the connection of this number."""
        return [change for change in self.seen if change.generation == generation]

    async def caught_up_with(self, usage: Usage) -> None:
        """Wait until the last change has led to ``usage``."""

        def arrived() -> bool:
            if self._task.done():
                self._task.result()
            return not self.seen or self.seen[-1].after == usage

        await eventually(arrived, describe="the chain of changes ends at the totals")

    async def end(self) -> None:
        """Stop recording; raises if the chain was broken."""
        self._changes.close()
        await self._task


@dataclass
class Frozen:
    """What was known and written when a host became stale."""

    usage: Usage
    row: dict[str, Any]
    seconds: float


@dataclass
class Scene:
    """A host under a random workload."""

    daemon: PrivateLibvirtd
    host: Pipeline
    workload: Workload
    recorder: Recorder

    @property
    def monitor(self) -> HostMonitor:
        return self.host.monitor

    async def acted(self, actions: int) -> None:
        """Wait until the workload has carried out so many more actions."""
        target = self.workload.actions + actions
        await eventually(
            lambda: self.workload.actions >= target, 120.0, f"{actions} more random actions"
        )

    async def without_daemon(self, end: Callable[[], None]) -> None:
        """End the daemon between two actions; the workload goes on without it.

        Not in the middle of a start: libvirtd would then look for that guest for thirty seconds
        after its own next start, and whoever acts on the guest waits for it.
        """
        await asyncio.to_thread(self.workload.pause)
        await asyncio.to_thread(end)
        self.workload.resume()

    async def fresh(self, generation: int = 1) -> None:
        """Wait until the totals are kept again, over the connection of that number or a later
        one: a daemon that has just come up may be too slow for the first."""
        await eventually(
            lambda: self.monitor.status.fresh and self.monitor.status.generation >= generation,
            RECOVERY_SECONDS,
            f"fresh again, generation {generation}",
        )

    async def stale(self, within_seconds: float = KEEPALIVE_SECONDS + LATENESS_SECONDS) -> Frozen:
        """Wait until the totals are frozen; what they and the row then hold."""
        await eventually(lambda: not self.monitor.status.fresh, within_seconds, "stale")
        # A write that was under way may still land.
        await self.host.writer.flush()
        row = await asyncio.to_thread(self.host.row)
        return Frozen(self.monitor.usage, row, self._age())

    async def stays_frozen(self, frozen: Frozen, seconds: float = 0.5) -> None:
        """Nothing is published or written while the totals grow older by ``seconds``."""
        published = len(self.recorder.seen)
        await eventually(lambda: self._age() >= frozen.seconds + seconds, describe="ageing")
        snapshot = self.monitor.snapshot()
        assert not snapshot.fresh
        assert not snapshot.writable
        assert self.monitor.usage == frozen.usage
        assert len(self.recorder.seen) == published
        assert await asyncio.to_thread(self.host.row) == frozen.row

    def _age(self) -> float:
        seconds = self.monitor.status.stale_seconds
        assert seconds is not None, "fresh"
        return seconds

    async def ends_true(self) -> Totals:
        """Stop the workload: totals and row equal a recount, and an audit finds nothing more."""
        await asyncio.to_thread(self.workload.stop)
        self.workload.check()
        await self.host.agrees(deadline_seconds=RECOVERY_SECONDS)
        # A guest that was just started may still be giving memory back.
        await eventually(self._audit_finds_nothing, RECOVERY_SECONDS)
        truth = await self.host.agrees(deadline_seconds=RECOVERY_SECONDS)
        await self.recorder.caught_up_with(self.monitor.usage)
        for generation in range(1, self.monitor.status.generation + 1):
            # What happened while the host was away is one change, and the first one.
            for number, change in enumerate(self.recorder.of_generation(generation)):
                if change.detail == "reconnected":
                    assert (number, change.cause, change.uuid) == (0, Cause.RESYNC, None), change
        return truth

    async def _audit_finds_nothing(self) -> bool:
        return await self.monitor.audit() == []


@asynccontextmanager
async def scene(
    daemon: PrivateLibvirtd,
    database: Database,
    workload: Workload,
    settings: MonitorSettings = FAULTS,
    *,
    uri: str | None = None,
) -> AsyncIterator[Scene]:
    """Watch and write the workload's host while it acts; at the end all must be true.

    ``uri`` is another way to the daemon's QEMU driver, or another driver of it.
    """
    with workload:
        async with pipeline(daemon.uri() if uri is None else uri, database, settings) as host:
            recorder = Recorder(host.monitor)
            here = Scene(daemon, host, workload, recorder)
            await eventually(lambda: host.attachment.row_id is not None, describe="a first row")
            await here.acted(2)
            yield here
            await here.ends_true()
            await recorder.end()
