"""Guests that hang, die in hiding or never come to life: what libvirt says nothing about.

For each way in which one is found out there is a test that it is this way, and that without it
the totals stay wrong until an audit.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from asynchost import Cause, Drift, HostMonitor, MonitorSettings
from asynchost.hypervisor import source
from tests.faults.scenes import EVENTS_ONLY, RECOVERY_SECONDS, scene
from tests.integration.pipeline import monitor_agrees, totals_of
from tests.support import guests
from tests.support.ballooning import balloon_guest_xml, dimm_xml, write_boot_disk
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mariadb import Database
from tests.support.recount import Totals, recount_over
from tests.support.waiting import eventually
from tests.support.workload import Workload

Make = Callable[..., PrivateLibvirtd]

# Longer than it takes libvirt, on a busy machine, to ask QEMU for the number.
PATIENT = replace(EVENTS_ONLY, look_again_seconds=2.0)
WITHOUT_LOOK_AGAIN = replace(EVENTS_ONLY, look_again_seconds=1e6)
# Longer than libvirtd takes, on a busy machine, to see that a guest is gone.
WITH_SECOND_RESYNC = replace(EVENTS_ONLY, second_resync_seconds=5.0)

DIMM_KIB = 2048
SLOTS = 64
"""How often the race between a read and its number may be run; more than half of them it wins."""

# A guest that cannot be, and finds out when it is told to. libvirt asks the real program first
# what it can do.
_LATE_FAILURE = """\
#!/bin/sh
case "$*" in
*guest=*) while [ ! -e "$0-fails" ]; do sleep 0.02; done; exit 1 ;;
esac
exec /usr/bin/qemu-system-x86_64 "$@"
"""


async def test_a_hung_guest_holds_up_nobody(
    private_libvirtd: Make, database: Database, seed: int
) -> None:
    """SIGSTOP to QEMU: it counts as before, the others go on, and its end is seen at once."""
    daemon = private_libvirtd()
    # Two: what hangs on the one would hold up what is asked over it.
    with daemon.connection() as connection, daemon.connection() as other:
        xml = guests.guest_xml("hung", vcpus=2, max_vcpus=4)
        hung = await asyncio.to_thread(guests.start, connection, xml)
        process = daemon.guest_pid("hung")
        async with scene(daemon, database, Workload(daemon, seed)) as here:
            os.kill(process, signal.SIGSTOP)
            # What asks QEMU itself is what hangs with it.
            job = asyncio.create_task(asyncio.to_thread(guests.add_vcpus, hung, 3))
            await here.acted(8)
            await here.monitor.audit()
            # Another one that starts may be slow on a busy machine, but only for a moment.
            assert hung.UUIDString() not in here.monitor.status.unreadable
            await eventually(lambda: here.monitor.status.unreadable == {})
            assert not job.done()
            os.kill(process, signal.SIGKILL)
            with pytest.raises(libvirt.libvirtError):
                await job
            await has_ended(other, "hung")
        del hung


@pytest.mark.parametrize(
    ("settings", "found_by"),
    [(WITH_SECOND_RESYNC, Cause.RESYNC), (EVENTS_ONLY, Cause.AUDIT)],
    ids=["second resync", "none"],
)
async def test_a_wedged_guest_that_dies_while_libvirtd_restarts(
    private_libvirtd: Make, settings: MonitorSettings, found_by: Cause
) -> None:
    """Listed as running by the new libvirtd, then gone without an event."""
    daemon = private_libvirtd()
    with daemon.connection() as connection:
        for name in ("wedged", "well"):
            await asyncio.to_thread(guests.start, connection, guests.guest_xml(name))
    wedged = daemon.guest_pid("wedged")
    async with HostMonitor(daemon.uri(), settings=settings) as monitor:
        os.kill(wedged, signal.SIGSTOP)
        await asyncio.to_thread(daemon.kill)
        await eventually(lambda: not monitor.status.fresh)
        events = monitor.status.events
        listed: list[Totals] = []

        def kill_it_once_listed() -> None:
            # Here, so that the second resync comes after it, however busy the machine is.
            if monitor.status.fresh and not listed:
                listed.append(totals_of(monitor.usage))
                os.kill(wedged, signal.SIGKILL)

        monitor.add_listener(kill_it_once_listed)
        with monitor.changes() as changes:
            await asyncio.to_thread(daemon.start)
            await eventually(lambda: listed, RECOVERY_SECONDS)
            assert listed == [Totals(2, 32, 2, 0)]
            with daemon.connection() as connection:
                await truth_is(connection, Totals(1, 16, 1, 0))
                if found_by is Cause.AUDIT:
                    await stays_wrong_until_an_audit(monitor, Totals(2, 32, 2, 0), "active")
                async with asyncio.timeout(RECOVERY_SECONDS):
                    change = await anext(changes)
                assert (change.cause, change.delta.running_vms) == (found_by, -1)
                assert monitor.status.events == events
                await monitor_agrees(monitor, connection)


@pytest.mark.parametrize(
    ("settings", "found_by"),
    [(EVENTS_ONLY, Cause.LOOK_AGAIN), (WITHOUT_LOOK_AGAIN, Cause.AUDIT)],
    ids=["look again", "none"],
)
async def test_a_start_that_fails_late(
    libvirtd: PrivateLibvirtd,
    qemu_connection: libvirt.virConnect,
    pytestconfig: pytest.Config,
    settings: MonitorSettings,
    found_by: Cause,
) -> None:
    """Counted while it starts up; then it is gone, and libvirt has never mentioned it."""
    emulator = late_failing_emulator(pytestconfig)
    fails = emulator.with_name(f"{emulator.name}-fails")
    fails.unlink(missing_ok=True)
    attempt = asyncio.create_task(asyncio.to_thread(start_doomed, libvirtd, str(emulator)))
    try:
        await truth_is(qemu_connection, Totals(1, 16, 1, 1))
        async with HostMonitor(libvirtd.uri(), settings=settings) as monitor:
            assert totals_of(monitor.usage) == Totals(1, 16, 1, 1)
            with monitor.changes() as changes:
                fails.touch()
                await truth_is(qemu_connection, Totals(0, 0, 0, 0))
                if found_by is Cause.AUDIT:
                    await stays_wrong_until_an_audit(monitor, Totals(1, 16, 1, 1), "active")
                async with asyncio.timeout(RECOVERY_SECONDS):
                    change = await anext(changes)
            assert (change.cause, change.delta.running_vms) == (found_by, -1)
            assert monitor.status.events == 0
    finally:
        fails.touch()
        with pytest.raises(libvirt.libvirtError):
            await attempt


async def test_a_start_that_takes_for_ever_is_not_looked_at_for_ever(
    libvirtd: PrivateLibvirtd,
    qemu_connection: libvirt.virConnect,
    pytestconfig: pytest.Config,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a time (a minute, but here a second) it is the audit's, like everything else."""
    settings = replace(EVENTS_ONLY, look_again_seconds=0.05)
    emulator = late_failing_emulator(pytestconfig)
    fails = emulator.with_name(f"{emulator.name}-fails")
    fails.unlink(missing_ok=True)
    attempt = asyncio.create_task(asyncio.to_thread(start_doomed, libvirtd, str(emulator)))
    try:
        await truth_is(qemu_connection, Totals(1, 16, 1, 1))
        async with HostMonitor(libvirtd.uri(), settings=settings) as monitor:
            reader = monitor._source._reader
            assert reader is not None
            await eventually(lambda: reader.reads >= 1 + 2, describe="at each look until then")
            monkeypatch.setattr(source, "_STARTING_UP_SECONDS", 1.0)
            await eventually(lambda: reader._agenda.next_look is None and not len(reader._agenda))
            assert not attempt.done()
            fails.touch()
            await truth_is(qemu_connection, Totals(0, 0, 0, 0))
            await stays_wrong_until_an_audit(monitor, Totals(1, 16, 1, 1), "active")
    finally:
        fails.touch()
        with pytest.raises(libvirt.libvirtError):
            await attempt


def start_doomed(libvirtd: PrivateLibvirtd, emulator: str) -> None:
    """Over a connection of its own: nobody else's calls shall wait for this one."""
    with libvirtd.connection() as connection:
        guests.define(connection, guests.guest_xml("doomed", emulator=emulator)).create()


def late_failing_emulator(config: pytest.Config) -> Path:
    """At a place that stays: libvirt keeps what it found out about each emulator."""
    assert config.cache is not None
    # One for each of the processes that tests may be spread over.
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    script = config.cache.mkdir("told-to-fail-emulator") / f"qemu-{worker}"
    if not script.exists() or script.read_text() != _LATE_FAILURE:
        script.write_text(_LATE_FAILURE)
        script.chmod(0o755)
    return script


async def test_memory_added_to_a_running_guest_is_right_by_looking_again(
    private_libvirtd: Make,
) -> None:
    """DEVICE_ADDED comes before the number that it announces."""
    async with (
        guest_with_slots(private_libvirtd) as (daemon, connection, guest),
        HostMonitor(daemon.uri(), settings=PATIENT) as monitor,
    ):
        for number in range(1, 7):
            await asyncio.to_thread(guest.attachDevice, dimm_xml(DIMM_KIB))
            await monitor_agrees(monitor, connection)
            assert monitor.usage.memory_kib_used == guests.QEMU_GUEST_KIB + number * DIMM_KIB


async def test_memory_added_to_a_running_guest_stays_wrong_without_looking_again(
    private_libvirtd: Make,
) -> None:
    """Read at the event alone, the number is that of before; the audit finds it."""
    async with (
        guest_with_slots(private_libvirtd) as (daemon, connection, guest),
        HostMonitor(daemon.uri(), settings=WITHOUT_LOOK_AGAIN) as monitor,
    ):
        drift: list[Drift] = []
        for number in range(1, SLOTS + 1):
            await asyncio.to_thread(guest.attachDevice, dimm_xml(DIMM_KIB))
            await eventually(lambda: monitor.status.events >= number)  # noqa: B023
            drift += await monitor.audit()
            await monitor_agrees(monitor, connection)
            if drift:
                break
        assert drift
        assert {correction.field for correction in drift} == {"memory_kib"}


@asynccontextmanager
async def guest_with_slots(
    make: Make,
) -> AsyncIterator[tuple[PrivateLibvirtd, libvirt.virConnect, libvirt.virDomain]]:
    """A running guest whose memory can grow, alone on its host."""
    daemon = make()
    xml = balloon_guest_xml("grower", write_boot_disk(daemon.folder), memory_slots=SLOTS)
    with daemon.connection() as connection:
        guest = await asyncio.to_thread(guests.start, connection, xml, paused=False)
        yield daemon, connection, guest
        del guest


async def has_ended(connection: libvirt.virConnect, name: str) -> None:
    """Wait until libvirt says that the guest does not run."""

    def ended() -> bool:
        return not connection.lookupByName(name).isActive()

    await eventually(lambda: asyncio.to_thread(ended), describe=f"the end of {name}")


async def truth_is(connection: libvirt.virConnect, expected: Totals) -> None:
    """Wait until a recount is ``expected``."""

    async def is_true() -> bool:
        return await asyncio.to_thread(recount_over, connection) == expected

    await eventually(is_true, describe=f"a recount of {expected}")


async def stays_wrong_until_an_audit(monitor: HostMonitor, wrong: Totals, field: str) -> None:
    """The totals are still what they were; one audit corrects this one thing."""
    assert totals_of(monitor.usage) == wrong
    (drift,) = await monitor.audit()
    assert drift.field == field
