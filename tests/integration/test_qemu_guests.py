"""Whatever happens to a QEMU guest, totals and row follow, and equal a recount.

Unless a test says otherwise there is no audit and no second listing behind it: events, and the
look-again after some of them, did it all.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import libvirt
import pytest

from asynchost import Cause, Drift, HostMonitor
from tests.integration.pipeline import (
    EVENTS_ONLY,
    NO_SECOND_LOOK,
    monitor_agrees,
    pipeline,
    totals_of,
)
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mariadb import Database
from tests.support.recount import Totals
from tests.support.waiting import eventually

EMPTY = Totals(0, 0, 0, 0)
RESIDENT = Totals(1, 16, 1, 0)
"""What the guest adds that every test has beside the one it acts on."""

# A guest that cannot be, which shows once a file is named after it, or after a minute: libvirt
# asks the real program first what it can do.
_LATE_FAILURE = """\
#!/bin/sh
case "$*" in
*guest=*)
    guest=${*#*guest=}
    tries=0
    while [ ! -e "$0.${guest%%,*}" ] && [ $tries -lt 600 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
    exit 1
    ;;
esac
exec /usr/bin/qemu-system-x86_64 "$@"
"""


@pytest.fixture
def resident(qemu_connection: libvirt.virConnect) -> libvirt.virDomain:
    """A guest that nothing happens to: its share of the totals must stay."""
    return guests.start(qemu_connection, guests.guest_xml("resident"))


async def test_start_pause_resume_and_destroy(
    libvirtd: PrivateLibvirtd,
    qemu_connection: libvirt.virConnect,
    resident: libvirt.virDomain,
    database: Database,
) -> None:
    """From definition to the end; a pause by the user still holds everything."""
    async with pipeline(libvirtd.uri(), database) as host:
        await host.agrees(RESIDENT)
        guest = await asyncio.to_thread(
            guests.define, qemu_connection, guests.guest_xml("g", vcpus=2)
        )
        await host.agrees(RESIDENT)
        await asyncio.to_thread(guest.create)
        both = await host.agrees(Totals(3, 32, 2, 0))
        await asyncio.to_thread(guest.suspend)
        await host.agrees(both)
        await asyncio.to_thread(guest.resume)
        await host.agrees(both)
        await asyncio.to_thread(guest.destroy)
        await host.agrees(RESIDENT)
        await asyncio.to_thread(guest.undefine)
        await host.agrees(RESIDENT)


async def test_a_start_into_pause_counts_and_is_no_workload(
    libvirtd: PrivateLibvirtd,
    qemu_connection: libvirt.virConnect,
    resident: libvirt.virDomain,
    database: Database,
) -> None:
    """libvirt shows it as starting up for a moment; that must not stay in current_workload."""
    async with pipeline(libvirtd.uri(), database) as host:
        guest = await asyncio.to_thread(guests.start, qemu_connection, guests.guest_xml("g"))
        await host.agrees(Totals(2, 32, 2, 0))
        await asyncio.to_thread(guest.resume)
        await host.agrees(Totals(2, 32, 2, 0))


async def test_save_and_restore(
    libvirtd: PrivateLibvirtd,
    qemu_connection: libvirt.virConnect,
    resident: libvirt.virDomain,
    database: Database,
    tmp_path: Path,
) -> None:
    """A saved guest holds nothing, though libvirt still reports its memory."""
    image = str(tmp_path / "image")
    async with pipeline(libvirtd.uri(), database) as host:
        guest = await asyncio.to_thread(
            guests.start, qemu_connection, guests.guest_xml("g", vcpus=2), paused=False
        )
        await host.agrees(Totals(3, 32, 2, 0))
        await asyncio.to_thread(guest.save, image)
        await host.agrees(RESIDENT)
        await asyncio.to_thread(qemu_connection.restore, image)
        await host.agrees(Totals(3, 32, 2, 0))


async def test_managed_save_and_a_restore_into_pause(
    libvirtd: PrivateLibvirtd,
    qemu_connection: libvirt.virConnect,
    resident: libvirt.virDomain,
    database: Database,
) -> None:
    """Restored into pause it is "paused for migration", a task, until somebody resumes it."""
    async with pipeline(libvirtd.uri(), database) as host:
        guest = await asyncio.to_thread(guests.start, qemu_connection, guests.guest_xml("g"))
        await host.agrees(Totals(2, 32, 2, 0))
        await asyncio.to_thread(guest.managedSave)
        await host.agrees(RESIDENT)
        await asyncio.to_thread(guest.createWithFlags, libvirt.VIR_DOMAIN_START_PAUSED)
        await host.agrees(Totals(2, 32, 2, 1))
        await asyncio.to_thread(guest.resume)
        await host.agrees(Totals(2, 32, 2, 0))


async def test_a_killed_qemu_process_holds_nothing_any_more(
    libvirtd: PrivateLibvirtd,
    qemu_connection: libvirt.virConnect,
    resident: libvirt.virDomain,
    database: Database,
) -> None:
    """SIGKILL to its process: a transient guest that is paused, a persistent one that runs."""
    async with pipeline(libvirtd.uri(), database) as host:
        for name, running in (("paused", False), ("running", True)):
            await asyncio.to_thread(
                guests.start,
                qemu_connection,
                guests.guest_xml(name, vcpus=2),
                paused=not running,
                persistent=running,
            )
            await host.agrees(Totals(3, 32, 2, 0))
            os.kill(libvirtd.guest_pid(name), signal.SIGKILL)
            await host.agrees(RESIDENT)


async def test_definitions_count_nothing(
    libvirtd: PrivateLibvirtd,
    qemu_connection: libvirt.virConnect,
    resident: libvirt.virDomain,
    database: Database,
) -> None:
    """Defined, renamed, undefined: heard, read, and without effect on the totals."""
    async with pipeline(libvirtd.uri(), database) as host:
        await host.agrees(RESIDENT)
        events, row = host.monitor.status.events, host.row()
        guest = await asyncio.to_thread(guests.define, qemu_connection, guests.guest_xml("before"))
        await asyncio.to_thread(guest.rename, "after")
        await asyncio.to_thread(guest.undefine)
        await eventually(lambda: host.monitor.status.events >= events + 4)
        await host.agrees(RESIDENT)
        assert host.row() == row


async def test_a_renamed_guest_is_one_guest(
    libvirtd: PrivateLibvirtd,
    qemu_connection: libvirt.virConnect,
    database: Database,
) -> None:
    """The UUID is what counts: after a rename it starts once, under its new name."""
    async with pipeline(libvirtd.uri(), database) as host:
        guest = await asyncio.to_thread(guests.start, qemu_connection, guests.guest_xml("before"))
        await host.agrees(RESIDENT)
        await asyncio.to_thread(guest.destroy)
        await host.agrees(EMPTY)
        events = host.monitor.status.events
        await asyncio.to_thread(guest.rename, "after")
        # The first of its two events still carries the old name, and a read goes by it.
        await eventually(lambda: host.monitor.status.events >= events + 2)
        assert await host.monitor.audit() == []
        with host.monitor.changes() as changes:
            await asyncio.to_thread(guest.createWithFlags, libvirt.VIR_DOMAIN_START_PAUSED)
            change = await anext(changes)
        assert (change.uuid, change.domain_name) == (guest.UUIDString(), "after")
        await host.agrees(RESIDENT)


async def test_a_running_guest_redefined_keeps_what_it_has(
    libvirtd: PrivateLibvirtd,
    qemu_connection: libvirt.virConnect,
    resident: libvirt.virDomain,
    database: Database,
) -> None:
    """A new definition counts from the next start on, not before."""
    uuid = guests.new_uuid()
    async with pipeline(libvirtd.uri(), database) as host:
        guest = await asyncio.to_thread(
            guests.start, qemu_connection, guests.guest_xml("g", uuid, vcpus=2)
        )
        await host.agrees(Totals(3, 32, 2, 0))
        events = host.monitor.status.events
        larger = guests.guest_xml("g", uuid, vcpus=4, memory_kib=2 * guests.QEMU_GUEST_KIB)
        await asyncio.to_thread(qemu_connection.defineXML, larger)
        await eventually(lambda: host.monitor.status.events > events)
        await host.agrees(Totals(3, 32, 2, 0))
        await asyncio.to_thread(guest.destroy)
        await host.agrees(RESIDENT)
        await asyncio.to_thread(guest.createWithFlags, libvirt.VIR_DOMAIN_START_PAUSED)
        await host.agrees(Totals(5, 48, 2, 0))


async def test_a_guest_undefined_while_running_counts_until_it_ends(
    libvirtd: PrivateLibvirtd,
    qemu_connection: libvirt.virConnect,
    resident: libvirt.virDomain,
    database: Database,
) -> None:
    """UNDEFINED does not end it: it is a transient guest from then on."""
    async with pipeline(libvirtd.uri(), database) as host:
        guest = await asyncio.to_thread(guests.start, qemu_connection, guests.guest_xml("g"))
        await host.agrees(Totals(2, 32, 2, 0))
        events = host.monitor.status.events
        await asyncio.to_thread(guest.undefine)
        await eventually(lambda: host.monitor.status.events > events)
        await host.agrees(Totals(2, 32, 2, 0))
        await asyncio.to_thread(guest.destroy)
        await host.agrees(RESIDENT)


async def test_a_transient_guest_comes_and_goes(
    libvirtd: PrivateLibvirtd,
    qemu_connection: libvirt.virConnect,
    resident: libvirt.virDomain,
    database: Database,
) -> None:
    """It vanishes with its end: "no such domain" means gone."""
    async with pipeline(libvirtd.uri(), database) as host:
        guest = await asyncio.to_thread(
            guests.start, qemu_connection, guests.guest_xml("g", vcpus=3), persistent=False
        )
        await host.agrees(Totals(4, 32, 2, 0))
        await asyncio.to_thread(guest.destroy)
        await host.agrees(RESIDENT)


async def test_an_audit_finds_added_vcpus(
    libvirtd: PrivateLibvirtd,
    qemu_connection: libvirt.virConnect,
    resident: libvirt.virDomain,
    database: Database,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """libvirt sends no event: counted, returned, published and logged as drift, with its cause."""
    caplog.set_level("INFO", "asynchost.monitor")
    async with pipeline(libvirtd.uri(), database, NO_SECOND_LOOK) as host:
        guest = await asyncio.to_thread(
            guests.start, qemu_connection, guests.guest_xml("grower", vcpus=1, max_vcpus=4)
        )
        await host.agrees(Totals(2, 32, 2, 0))
        assert await host.monitor.audit() == []
        await asyncio.to_thread(guests.add_vcpus, guest, 3)
        with host.monitor.changes() as changes, host.monitor.drifts() as drifts:
            (drift,) = await host.monitor.audit()
            change = await anext(changes)
            assert await anext(drifts) is drift
        await host.agrees(Totals(4, 32, 2, 0))
        assert drift == Drift(
            *("node", guest.UUIDString(), "grower", "vcpus", 1, 3),
            *(drift.age_seconds, drift.likely_cause),
        )
        assert drift.age_seconds > 0
        assert "vCPU" in drift.likely_cause
        assert (change.cause, change.delta.vcpus_used) == (Cause.AUDIT, 2)
        assert host.monitor.status.drift == 1
        assert host.monitor.status.drift_by_field == {"vcpus": 1}
        assert host.monitor.status.recent_drift == (drift,)
        assert host.monitor.status.audits == 2
    (line,) = [text for text in caplog.messages if "drift" in text]
    for part in ("grower", guest.UUIDString(), "vcpus", "before=1", "after=3", drift.likely_cause):
        assert part in line


async def test_the_periodic_audit_finds_added_vcpus(
    libvirtd: PrivateLibvirtd,
    qemu_connection: libvirt.virConnect,
    resident: libvirt.virDomain,
    database: Database,
) -> None:
    """Nobody asks; within an interval the row is right."""
    grower = await asyncio.to_thread(
        guests.start, qemu_connection, guests.guest_xml("grower", max_vcpus=4)
    )
    settings = replace(EVENTS_ONLY, audit_interval_seconds=0.5)
    async with pipeline(libvirtd.uri(), database, settings) as host:
        await host.agrees(Totals(2, 32, 2, 0))
        await asyncio.to_thread(guests.add_vcpus, grower, 4)
        await host.agrees(Totals(5, 32, 2, 0))
        drifts = host.monitor.status.recent_drift
    # QEMU is given one vCPU after the other, and an audit may read between two of them.
    assert {(drift.domain_name, drift.field) for drift in drifts} == {("grower", "vcpus")}
    steps = [1, *(drift.after for drift in drifts)]
    assert [drift.before for drift in drifts] == steps[:-1]
    assert steps == sorted(set(steps))
    assert steps[-1] == 4


class Doomed(NamedTuple):
    """A guest whose start fails late."""

    name: str
    emulator: Path
    fail: Path
    """Once this file is there, it fails; until then it is listed as starting up."""


@pytest.fixture
def doomed(pytestconfig: pytest.Config) -> Iterator[Doomed]:
    """A guest that waits for its file; its emulator is at a place that stays, because libvirt
    keeps what it found out about each one."""
    assert pytestconfig.cache is not None
    script = pytestconfig.cache.mkdir("late-failing-emulator") / "qemu"
    if not script.exists() or script.read_text() != _LATE_FAILURE:
        new = script.with_name(f"new-{os.getpid()}")
        new.write_text(_LATE_FAILURE)
        new.chmod(0o755)
        new.rename(script)
    # Tests that run at the same time, in several processes, have a guest each.
    name = f"doomed-{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
    fail = script.with_name(f"{script.name}.{name}")
    fail.unlink(missing_ok=True)
    yield Doomed(name, script, fail)
    # Whatever the test came to, its guest does not go on starting.
    fail.touch()


@pytest.mark.parametrize("found_by", ["resync", "audit"])
async def test_a_start_that_fails_late_is_looked_at_again(
    libvirtd: PrivateLibvirtd,
    qemu_connection: libvirt.virConnect,
    resident: libvirt.virDomain,
    doomed: Doomed,
    found_by: str,
) -> None:
    """Seen while it starts, it goes without an event: only a second look can tell."""
    xml = guests.guest_xml(doomed.name, vcpus=2, emulator=str(doomed.emulator))
    guest = await asyncio.to_thread(guests.define, qemu_connection, xml)

    def starting() -> bool:
        return guest.state() == [
            libvirt.VIR_DOMAIN_PAUSED,
            libvirt.VIR_DOMAIN_PAUSED_STARTING_UP,
        ]

    monitor = HostMonitor(libvirtd.uri(), settings=EVENTS_ONLY)
    try:
        if found_by == "audit":
            await monitor.start()
            await monitor.ready()
        attempt = asyncio.create_task(asyncio.to_thread(guest.create))
        await eventually(lambda: asyncio.to_thread(starting))
        if found_by == "resync":
            await monitor.start()
            await monitor.ready()
        else:
            await monitor.audit()
        assert not attempt.done()
        assert totals_of(monitor.usage) == Totals(3, 32, 2, 1)
        with monitor.changes() as changes:
            doomed.fail.touch()
            change = await anext(changes)
        assert (change.cause, change.delta.running_vms) == (Cause.LOOK_AGAIN, -1)
        await monitor_agrees(monitor, qemu_connection)
        assert totals_of(monitor.usage) == RESIDENT
        with pytest.raises(libvirt.libvirtError):
            await attempt
    finally:
        await monitor.aclose()


async def test_guests_that_start_at_once_are_all_counted(
    private_libvirtd: Callable[..., PrivateLibvirtd], database: Database
) -> None:
    """Several guests of one host started and ended side by side."""
    daemon = private_libvirtd()
    with daemon.connection() as connection:
        async with pipeline(daemon.uri(), database) as host:
            started = await asyncio.gather(
                *(
                    asyncio.to_thread(
                        guests.start, connection, guests.guest_xml(f"g{number}", vcpus=number)
                    )
                    for number in range(1, 5)
                )
            )
            await host.agrees(Totals(10, 64, 4, 0))
            await asyncio.gather(*(asyncio.to_thread(guest.destroy) for guest in started))
            await host.agrees(EMPTY)
        started.clear()
