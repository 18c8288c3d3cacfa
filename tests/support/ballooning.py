"""A guest whose whole system is 94 bytes: a driver for its memory balloon and memory modules.

BALLOON_CHANGE comes only when a guest's own driver hands memory back, and a Linux kernel for that
is tens of megabytes and seconds of emulation away. This one is a boot sector. It finds the
balloon among the PCI devices, then copies the number of pages that the host asks for into the
number of pages that it gave, lets go of each memory module that the host wants back, and sleeps
until the next clock tick: eighteen times a second.
"""

import xml.etree.ElementTree as ET
from pathlib import Path

from tests.support import guests

# GNU assembler, .code16, .intel_syntax noprefix, linked at 0x7c00:
#
#           mov  ebx, 0x80000000         # PCI bus 0, device 0, register 0
#   next:   mov  eax, ebx
#           mov  dx, 0xcf8               # PCI configuration: address ...
#           out  dx, eax
#           mov  dl, 0xfc                # ... and data
#           in   eax, dx
#           cmp  eax, 0x10021af4         # a virtio balloon (legacy)?
#           je   found
#           add  ebx, 0x800
#           jmp  next
#   found:  lea  eax, [ebx + 0x10]       # its first base address: I/O ports
#           mov  dl, 0xf8
#           out  dx, eax
#           mov  dl, 0xfc
#           in   eax, dx
#           and  al, 0xfc
#           xchg ebx, eax
#   again:  lea  dx, [bx + 0x14]         # num_pages: what the host wants back
#           in   eax, dx
#           lea  dx, [bx + 0x18]         # actual: what the guest has given back
#           out  dx, eax
#           mov  ecx, 63                 # ACPI memory hotplug, its slots
#   slot:   mov  dx, 0xa00               # which one
#           mov  eax, ecx
#           out  dx, eax
#           mov  dl, 0x14                # is it to be taken out?
#           in   al, dx
#           and  al, 4
#           jz   stays
#           out  dx, al                  # understood
#           mov  al, 8                   # eject it
#           out  dx, al
#   stays:  dec  cx
#           jns  slot
#           sti
#           hlt
#           jmp  again
_DRIVER = bytes.fromhex(
    "66bb000000806689d8baf80c66efb2fc66ed663df41a021074096681c300080000ebe3"
    "67668d4310b2f866efb2fc66ed24fc66938d571466ed8d571866ef66b93f000000ba00"
    "0a6689c866efb214ec24047404eeb008ee4979eafbf4ebd6"
)
_SECTOR_BYTES = 512
# QEMU from 10 on opens no disk for writing whose size is not a multiple of this.
_DISK_BYTES = 4096
_BOOT_SIGNATURE = b"\x55\xaa"


def write_boot_disk(folder: Path) -> Path:
    """The disk that such guests boot from; one is enough for all of a daemon's."""
    disk = folder / "balloon.img"
    sector = _DRIVER.ljust(_SECTOR_BYTES - 2, b"\0") + _BOOT_SIGNATURE
    disk.write_bytes(sector.ljust(_DISK_BYTES, b"\0"))
    return disk


def balloon_guest_xml(
    name: str,
    boot_disk: Path,
    uuid: str | None = None,
    vcpus: int = 1,
    max_vcpus: int | None = None,
    memory_kib: int = guests.QEMU_GUEST_KIB,
    max_memory_kib: int | None = None,
    *,
    memory_slots: int = 0,
    emulator: str = guests.QEMU,
) -> str:
    """The XML of a QEMU guest with a balloon and the driver for it.

    It gives back what ``max_memory_kib`` exceeds ``memory_kib`` by within a tenth of a second of
    running, and follows ``setMemory``. With ``memory_slots`` it takes :func:`dimm_xml` while it
    runs, as many as there are slots, and gives them back.
    """
    maximum_kib = max_memory_kib or memory_kib
    domain = ET.fromstring(
        guests.guest_xml(
            name,
            uuid,
            vcpus,
            max_vcpus,
            memory_kib=memory_kib,
            max_memory_kib=maximum_kib,
            emulator=emulator,
        )
    )
    devices = domain.find("devices")
    assert devices is not None
    for balloon in devices.findall("memballoon"):
        balloon.set("model", "virtio")
    disk = ET.SubElement(devices, "disk", type="file", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type="raw")
    ET.SubElement(disk, "source", file=str(boot_disk))
    ET.SubElement(disk, "target", dev="hda", bus="ide")
    # All guests boot from this one; none writes to it.
    ET.SubElement(disk, "shareable")
    if memory_slots:
        room = ET.Element("maxMemory", slots=str(memory_slots), unit="KiB")
        room.text = str(512 * 1024)
        domain.insert(0, room)
        numa = ET.SubElement(ET.SubElement(domain, "cpu"), "numa")
        cpus = f"0-{(max_vcpus or vcpus) - 1}"
        ET.SubElement(numa, "cell", id="0", cpus=cpus, memory=str(maximum_kib), unit="KiB")
    return ET.tostring(domain, encoding="unicode")


def dimm_xml(size_kib: int) -> str:
    """A memory module to be attached to a running guest; a multiple of 2 MiB."""
    return (
        "<memory model='dimm'><target>"
        f"<size unit='KiB'>{size_kib}</size><node>0</node></target></memory>"
    )
