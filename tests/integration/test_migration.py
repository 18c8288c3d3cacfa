"""A guest that is really migrated, between two private libvirtds: what both hosts say of it.

Each libvirtd is a host of its own, with a name and an identity. The guest's memory is copied over
a Unix socket, as slowly as libvirt can, so that the copy lasts until the test speeds it up.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import libvirt
import pytest

from asynchost import HostMonitor, MonitorSettings
from asynchost.hypervisor import migration_watch
from asynchost.hypervisor.domain_events import EVENTS
from tests.integration.pipeline import EVENTS_ONLY, pipeline, totals_of
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mariadb import Database
from tests.support.recount import Totals
from tests.support.waiting import eventually, eventually_equal

pytestmark = pytest.mark.group("migration")

MIB = 1024
MEMORY_MB = 192
RANDOM_MB = 96
"""Of it filled with what does not compress, so that the copy lasts for a minute and a half."""
STAYS, COPIED, GONE = (
    Totals(2, MEMORY_MB, 1, 0),
    Totals(2, MEMORY_MB, 1, 1),
    Totals(0, 0, 0, 0),
)
SLOWEST_MIB_PER_SECOND, FAST_MIB_PER_SECOND = 1, 4096


@dataclass
class Hosts:
    """Two hosts, and a guest that runs on the first one."""

    source: PrivateLibvirtd
    destination: PrivateLibvirtd
    there: libvirt.virConnect
    guest: libvirt.virDomain
    socket: Path

    def migrate(self) -> None:
        """Migrate the guest; returns when that is done, or raises libvirt's error."""
        self.guest.migrate3(
            self.there,
            {
                libvirt.VIR_MIGRATE_PARAM_URI: f"unix://{self.socket}",
                libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: SLOWEST_MIB_PER_SECOND,
            },
            libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_UNSAFE,
        )

    @property
    def settings(self) -> MonitorSettings:
        """Events alone where libvirt sends an event when a copy begins, else a quick audit too."""
        if self.there.getLibVersion() < 11_004_000:
            return EVENTS_ONLY
        return replace(EVENTS_ONLY, audit_interval_seconds=0.5)

    @asynccontextmanager
    async def copying(self) -> AsyncIterator["asyncio.Task[None]"]:
        """While the guest's memory is copied: the migration's task. Cancels what is left of it."""
        task = asyncio.create_task(asyncio.to_thread(self.migrate))
        try:
            await eventually(self.is_copied, describe="the copy begins")
            yield task
        finally:
            with suppress(libvirt.libvirtError):
                if not task.done():
                    await asyncio.to_thread(self.guest.abortJob)
            with suppress(libvirt.libvirtError):
                await task

    async def is_copied(self) -> bool:
        """Whether libvirt says that the copy is under way, and some of it is done."""
        job = await asyncio.to_thread(self.guest.jobStats)
        return bool(job.get("operation") == 5 and job.get("memory_processed", 0) > 0)

    def speed_up(self) -> None:
        """Let the copy end soon."""
        self.guest.migrateSetMaxSpeed(FAST_MIB_PER_SECOND)


@pytest.fixture
def hosts(private_libvirtd: Callable[..., PrivateLibvirtd], tmp_path: Path) -> Iterator[Hosts]:
    """Two libvirtds and a running guest with much to copy."""
    source = private_libvirtd(hostname="source.example")
    destination = private_libvirtd(hostname="destination.example")
    noise = tmp_path / "noise"
    noise.write_bytes(os.urandom(RANDOM_MB * MIB * MIB))
    xml = guests.guest_xml("g", vcpus=2, memory_kib=MEMORY_MB * MIB)
    loader = f"loader,file={noise},addr=0x2000000,force-raw=on"
    xml = xml.replace(
        "<domain ", "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' "
    )
    xml = xml.replace(
        "</domain>",
        "<qemu:commandline><qemu:arg value='-device'/>"
        f"<qemu:arg value='{loader}'/></qemu:commandline></domain>",
    )
    with source.connection() as here, destination.connection() as there:
        guest = guests.start(here, xml, paused=False, persistent=False)
        yield Hosts(source, destination, there, guest, destination.folder / "migration")
        del guest


@asynccontextmanager
async def watched(
    hosts: Hosts, settings: MonitorSettings | None = None
) -> AsyncIterator[tuple[HostMonitor, HostMonitor]]:
    """A monitor of each host."""
    settings = settings or hosts.settings
    async with (
        HostMonitor(hosts.source.uri(), settings=settings) as source,
        HostMonitor(hosts.destination.uri(), settings=settings) as destination,
    ):
        yield source, destination


async def are(source: HostMonitor, totals: Totals, describe: str = "") -> None:
    """Wait until a monitor's totals are these."""
    await eventually_equal(lambda: totals_of(source.usage), totals, describe=describe)


async def test_a_guest_that_migrates_is_at_work_on_both_hosts(
    hosts: Hosts, database: Database
) -> None:
    """From the first phase on; then it runs on the other one. The row says so."""
    async with (
        pipeline(hosts.source.uri(), database, hosts.settings) as source,
        HostMonitor(hosts.destination.uri(), settings=hosts.settings) as destination,
    ):
        await are(source.monitor, STAYS)
        async with hosts.copying() as migration:
            await are(source.monitor, COPIED)
            await are(destination, COPIED)
            await eventually_equal(lambda: source.row()["current_workload"], 1)
            (told,) = (await source.monitor.explain()).domains
            assert "being copied to another host" in told.rule
            await asyncio.to_thread(hosts.speed_up)
            await migration
            await are(source.monitor, GONE)
            await are(destination, STAYS)
            await eventually_equal(lambda: source.row()["current_workload"], 0)
            assert source.row()["running_vms"] == 0


@pytest.mark.parametrize("end", ["cancelled", "destination killed"])
async def test_a_migration_that_fails_leaves_the_guest_where_it_was(hosts: Hosts, end: str) -> None:
    """libvirt sends the source no event of it: being asked, it says that the copy is over."""
    async with watched(hosts) as (source, destination):
        await are(source, STAYS)
        async with hosts.copying() as migration:
            await are(source, COPIED)
            await are(destination, COPIED)
            if end == "cancelled":
                await asyncio.to_thread(hosts.guest.abortJob)
            else:
                os.kill(hosts.destination.guest_pid("g"), signal.SIGKILL)
            with pytest.raises(libvirt.libvirtError):
                await migration
            await are(source, STAYS, "the copy is over")
            await are(destination, GONE)
        # The next one is seen as well.
        async with hosts.copying():
            await are(source, COPIED)


async def test_a_monitor_that_connects_during_a_migration_sees_it(hosts: Hosts) -> None:
    """It asks each domain once; the event that began it came before."""
    async with hosts.copying() as migration, watched(hosts) as (source, _):
        await are(source, COPIED)
        await asyncio.to_thread(hosts.guest.abortJob)
        with pytest.raises(libvirt.libvirtError):
            await migration
        await are(source, STAYS)


async def test_a_libvirt_that_sends_no_iteration_is_asked_in_each_audit_interval(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As 12.8 with QEMU 11.1 was seen to do."""
    without = [event for event in EVENTS if event.name != "MIGRATION_ITERATION"]
    monkeypatch.setattr("asynchost.hypervisor.connection.EVENTS", without)
    monkeypatch.setattr(migration_watch, "_SENDS_ITERATIONS", 0)
    settings = replace(EVENTS_ONLY, audit_interval_seconds=0.5)
    async with watched(hosts, settings) as (source, _):
        await are(source, STAYS)
        async with hosts.copying():
            await are(source, COPIED)


async def test_a_guest_that_hangs_during_its_migration_holds_up_nobody(hosts: Hosts) -> None:
    """It stays what it was last known to be, and what comes after it is seen."""
    settings = replace(hosts.settings, call_deadline_seconds=0.5)
    async with watched(hosts, settings) as (source, _):
        async with hosts.copying():
            await are(source, COPIED)
            process = hosts.source.guest_pid("g")
            os.kill(process, signal.SIGSTOP)
            try:
                await eventually(lambda: source.status.held_threads > 0, describe="it hangs")
                with hosts.source.connection() as connection:
                    other = guests.guest_xml("other")
                    started = await asyncio.to_thread(guests.start, connection, other)
                    both = Totals(3, MEMORY_MB + guests.QEMU_GUEST_KIB // MIB, 2, 1)
                    await are(source, both)
                    assert source.status.unreadable == {}
                    await asyncio.to_thread(started.destroy)
                    del started
                    await are(source, COPIED)
            finally:
                os.kill(process, signal.SIGCONT)
        await are(source, STAYS)
