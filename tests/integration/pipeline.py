"""The whole pipeline as the tests see it: host, monitor, writer and row, against a recount.

May live here: what puts the real parts together, and what says that they agree. Must not: a
second way to count, which is ``tests/support/recount.py``.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import libvirt

from asynchost import ComputeNodeWriter, HostMonitor, MonitorSettings, Usage, WriterSettings
from asynchost.database import Attachment
from tests.support.mariadb import Database
from tests.support.recount import Totals, recount, recount_over
from tests.support.waiting import eventually

EVENTS_ONLY = MonitorSettings(
    audit_interval_seconds=0, second_resync_seconds=0, instances_path="/proc"
)
"""No audit and no second listing: what is right in the end was right by events. The file system
of /proc has no size and never changes, so no disk figure moves under a test's feet."""

NO_SECOND_LOOK = replace(EVENTS_ONLY, look_again_seconds=3600)
"""Not even the look-again after a start: it would hide an event that was lost, and may come before
the audit that is to find what came without one."""

AT_ONCE = WriterSettings(quiet_seconds=0, maximum_delay_seconds=0)

DEADLINE_SECONDS = 60.0
"""For what takes milliseconds on a machine that has nothing else to do; a delay between attempts
to connect may be half of it."""


def totals_of(usage: Usage) -> Totals:
    """A monitor's totals as a recount has them."""
    return Totals(usage.vcpus_used, usage.memory_mb_used, usage.running_vms, usage.current_workload)


def totals_in(row: dict[str, Any]) -> Totals:
    """The totals that a row holds."""
    return Totals(*(row[column] for column in Totals._fields))


@dataclass(frozen=True)
class Pipeline:
    """One host that is watched and written."""

    uri: str
    monitor: HostMonitor
    writer: ComputeNodeWriter
    attachment: Attachment
    database: Database

    def row(self) -> dict[str, Any]:
        """The host's row, whatever other rows there are."""
        assert self.attachment.row_id is not None, "no row yet"
        return self.database.row(f"id = {self.attachment.row_id}")

    async def agrees(
        self,
        expected: Totals | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
        describe: str = "",
    ) -> Totals:
        """Wait until totals and row equal a recount (and ``expected``), and return it."""

        async def agree() -> Totals:
            truth = await asyncio.to_thread(recount, self.uri)
            found = {
                "recount": truth,
                "monitor": totals_of(self.monitor.usage),
                "row": totals_in(await asyncio.to_thread(self.row)),
            }
            wanted = truth if expected is None else expected
            assert set(found.values()) == {wanted}, f"{found}, expected {expected}"
            assert self.attachment.error is None
            return truth

        return await eventually(agree, deadline_seconds, describe or "totals and row are true")


@asynccontextmanager
async def pipeline(
    uri: str,
    database: Database,
    settings: MonitorSettings = EVENTS_ONLY,
    *,
    name: str = "node",
    writer_settings: WriterSettings = AT_ONCE,
) -> AsyncIterator[Pipeline]:
    """A monitor of ``uri`` and a writer to ``database``; the first row may still be missing."""
    async with (
        HostMonitor(uri, name=name, settings=settings) as monitor,
        ComputeNodeWriter(database.url, settings=writer_settings) as writer,
    ):
        await monitor.disks_read()  # so that the row's disk figures stand still from here on
        yield Pipeline(uri, monitor, writer, writer.attach(monitor), database)


async def monitor_agrees(
    monitor: HostMonitor,
    connection: libvirt.virConnect,
    describe: str = "",
    deadline_seconds: float = DEADLINE_SECONDS,
) -> Totals:
    """Wait until a monitor's totals equal a recount over the test's own connection."""

    async def agree() -> Totals:
        truth = await asyncio.to_thread(recount_over, connection)
        assert totals_of(monitor.usage) == truth, f"{monitor.usage}, recount {truth}"
        return truth

    return await eventually(agree, deadline_seconds, describe or "totals are true")
