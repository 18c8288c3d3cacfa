"""Memory modules that come and go, and one whose size changes, in running QEMU guests.

DEVICE_ADDED, DEVICE_REMOVED and MEMORY_DEVICE_SIZE_CHANGE each move a total, and without each of
them the totals stay wrong until an audit. (That a module's number can come after its event is in
``test_guests.py``.) The guest's own driver gives modules back; the size is the host's word, put
in by ``tests/support/qmp_stand_in.py``, since a driver for virtio-mem would be a whole system.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import libvirt
import pytest

from asynchost import Cause, HostMonitor
from asynchost.hypervisor.domain_events import EVENTS
from tests.faults.scenes import EVENTS_ONLY
from tests.faults.test_guests import DIMM_KIB, PATIENT, WITHOUT_LOOK_AGAIN
from tests.integration.pipeline import pipeline
from tests.support import guests
from tests.support.ballooning import balloon_guest_xml, dimm_xml, write_boot_disk
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mariadb import Database
from tests.support.qmp_stand_in import TalkingEmulator, virtio_memory_xml
from tests.support.recount import Totals
from tests.support.waiting import eventually

MIB = 1024
OWN = guests.QEMU_GUEST_KIB // MIB
DIMM = DIMM_KIB // MIB
VIRTIO_MB = 128


@dataclass
class Grower:
    """A running guest, alone on its host, whose memory changes."""

    daemon: PrivateLibvirtd
    domain: libvirt.virDomain
    emulator: TalkingEmulator

    async def add(self) -> int:
        """Put one more module in; the guest's memory afterwards, in MiB."""
        await asyncio.to_thread(self.domain.attachDevice, dimm_xml(DIMM_KIB))
        return OWN + DIMM

    async def take(self) -> int:
        """Ask the guest for a module, which it gives up."""
        await asyncio.to_thread(self.domain.detachDevice, dimm_xml(DIMM_KIB))
        return OWN

    async def resize(self) -> int:
        """The guest has taken a part of the memory that it may have."""
        self.emulator.say(
            "MEMORY_DEVICE_SIZE_CHANGE",
            {
                "id": "virtiomem0",
                "size": 4 * MIB * MIB,
                "qom-path": "/machine/peripheral/virtiomem0",
            },
        )
        return OWN + 4

    async def memory_is(self, memory_mb: int) -> None:
        """Wait until libvirt says so."""

        def says() -> bool:
            return bool(self.domain.info()[2] == memory_mb * MIB)

        await eventually(lambda: asyncio.to_thread(says), describe=f"{memory_mb} MiB")


@pytest.fixture
def grower(
    private_libvirtd: Callable[..., PrivateLibvirtd], pytestconfig: pytest.Config
) -> Iterator[Grower]:
    """With room for modules, and a device of which the guest has nothing yet."""
    assert pytestconfig.cache is not None
    emulator = TalkingEmulator(pytestconfig.cache.mkdir("talking-emulator"))
    daemon = private_libvirtd()
    xml = balloon_guest_xml(
        "grower", write_boot_disk(daemon.folder), memory_slots=8, emulator=str(emulator.path)
    ).replace("<devices>", f"<devices>{virtio_memory_xml(VIRTIO_MB * MIB)}")
    with daemon.connection() as connection:
        domain = guests.start(connection, xml, paused=False)
        yield Grower(daemon, domain, emulator)
        del domain


async def test_modules_that_come_and_go_are_counted(grower: Grower, database: Database) -> None:
    """In and out, time and again: totals and row follow, without an audit."""
    async with pipeline(grower.daemon.uri(), database, PATIENT) as host:
        await host.agrees(Totals(1, OWN, 1, 0))
        for _ in range(3):
            await host.agrees(Totals(1, await grower.add(), 1, 0))
            await host.agrees(Totals(1, await grower.take(), 1, 0))


async def test_a_size_that_changes_is_counted_by_its_event(
    grower: Grower, database: Database
) -> None:
    """Neither audit nor second look: libvirt has the number when it sends the event."""
    async with pipeline(grower.daemon.uri(), database, WITHOUT_LOOK_AGAIN) as host:
        await host.agrees(Totals(1, OWN, 1, 0))
        with host.monitor.changes() as changes:
            await host.agrees(Totals(1, await grower.resize(), 1, 0))
            change = await anext(changes)
        assert (change.cause, change.detail) == (Cause.EVENT, "memory device size")


@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("DEVICE_ADDED", Grower.add),
        ("DEVICE_REMOVED", Grower.take),
        ("MEMORY_DEVICE_SIZE_CHANGE", Grower.resize),
    ],
)
async def test_without_the_event_memory_stays_wrong_until_an_audit(
    grower: Grower,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    act: Callable[[Grower], Awaitable[int]],
) -> None:
    """A libvirt too old for it, as far as the monitor can see."""
    without = [event for event in EVENTS if event.name != name]
    monkeypatch.setattr("asynchost.hypervisor.connection.EVENTS", without)
    before = OWN
    if name == "DEVICE_REMOVED":
        before = await grower.add()
        await grower.memory_is(before)
    async with HostMonitor(grower.daemon.uri(), settings=EVENTS_ONLY) as monitor:
        after = await act(grower)
        await grower.memory_is(after)
        assert monitor.usage.memory_mb_used == before
        (drift,) = await monitor.audit()
        assert (drift.field, drift.before, drift.after) == (
            "memory_kib",
            before * MIB,
            after * MIB,
        )
