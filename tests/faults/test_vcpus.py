"""vCPUs that leave a running QEMU guest: libvirt sends an event of each from 12.4 on.

The guest's whole system is 39 bytes that eject each CPU that the host wants back. QEMU 11.1 takes
the CPU out, but was seen to send no event of it, so ``tests/support/qmp_stand_in.py`` puts that in.
libvirt asks QEMU whether it is true.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import libvirt
import pytest

from asynchost import Cause, HostMonitor
from tests.faults.test_guests import WITHOUT_LOOK_AGAIN
from tests.support import guests
from tests.support.images import disk_xml
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.qmp_stand_in import TalkingEmulator
from tests.support.waiting import eventually

# GNU assembler, .code16, .intel_syntax noprefix:
#
#           mov  dx, 0xaf00              # CPU hotplug, its selector; also leaves the old mode
#           xor  eax, eax
#           out  dx, eax
#   again:  mov  cx, 3
#   cpu:    mov  dx, 0xaf00              # which one
#           movzx eax, cx
#           out  dx, eax
#           mov  dl, 4                   # is it to be taken out?
#           in   al, dx
#           test al, 4
#           jz   stays
#           mov  al, 4                   # understood
#           out  dx, al
#           mov  al, 8                   # eject it
#           out  dx, al
#   stays:  loop cpu
#           sti
#           hlt
#           jmp  again
_EJECTOR = bytes.fromhex(
    "ba00af6631c066efb90300ba00af660fb7c166efb204eca8047406b004eeb008eee2e8fbf4ebe1"
)


def write_ejector(folder: Path) -> Path:
    """The disk that the guest boots from."""
    disk = folder / "ejector.img"
    disk.write_bytes((_EJECTOR.ljust(510, b"\0") + b"\x55\xaa").ljust(4096, b"\0"))
    return disk


@pytest.mark.skipif(
    not hasattr(libvirt, "VIR_DOMAIN_EVENT_ID_VCPU_REMOVED"),
    reason="libvirt sends an event of a removed vCPU from 12.4 on",
)
async def test_a_removed_vcpu_is_counted_by_its_event(
    private_libvirtd: Callable[..., PrivateLibvirtd], pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    """Without an audit or a second look. An added vCPU has no event: an audit finds it."""
    assert pytestconfig.cache is not None
    emulator = TalkingEmulator(pytestconfig.cache.mkdir("talking-emulator"))
    daemon = private_libvirtd()
    xml = guests.guest_xml("g", max_vcpus=3, emulator=str(emulator.path))
    boot = disk_xml(write_ejector(tmp_path), "hda", "<shareable/>")
    xml = xml.replace("</devices>", f"{boot}</devices>")
    with daemon.connection() as connection:
        guest = guests.start(connection, xml, paused=False)
        async with HostMonitor(daemon.uri(), settings=WITHOUT_LOOK_AGAIN) as monitor:
            await asyncio.to_thread(guests.add_vcpus, guest, 3)
            await monitor.audit()
            assert monitor.usage.vcpus_used == 3
            with monitor.changes() as changes:
                removal = asyncio.create_task(asyncio.to_thread(guests.add_vcpus, guest, 2))

                def removed() -> bool:
                    emulator.say(
                        "DEVICE_DELETED", {"device": "vcpu2", "path": "/machine/peripheral/vcpu2"}
                    )
                    return monitor.usage.vcpus_used == 2

                await eventually(removed)
                change = await anext(changes)
            await removal
        assert (change.cause, change.detail) == (Cause.EVENT, "vcpu removed")
        del guest
