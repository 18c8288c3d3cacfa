"""Guests for the tests: the smallest ones that libvirt's drivers start, and their removal.

Blocking libvirt calls throughout; a test with a loop calls them in ``asyncio.to_thread``.
"""

import contextlib
import uuid as uuids
from concurrent.futures import ThreadPoolExecutor
from typing import Literal
from xml.sax.saxutils import escape

import libvirt

Kind = Literal["qemu", "test", "lxc"]

QEMU = "/usr/bin/qemu-system-x86_64"

QEMU_GUEST_KIB = 16 * 1024
"""The default memory of a guest: with no disk and no system, 10-18 MiB of the machine each."""

_QEMU = """
<os><type arch='x86_64' machine='pc'>hvm</type></os>
<features><acpi/></features>
<devices>
  <emulator>{emulator}</emulator>
  <controller type='usb' model='none'/>
  <memballoon model='none'/>
</devices>
"""
# ACPI is what live vCPU add needs; no USB and no balloon save time at each start.

_TEST = "<os><type>hvm</type></os>"

_LXC = """
<os><type>exe</type><init>/bin/sleep</init><initarg>infinity</initarg></os>
<devices>
  <emulator>/usr/lib/libvirt/libvirt_lxc</emulator>
  <console type='pty'/>
</devices>
"""


def new_uuid() -> str:
    """A fresh UUID as libvirt writes it."""
    return str(uuids.uuid4())


def guest_xml(
    name: str,
    uuid: str | None = None,
    vcpus: int = 1,
    max_vcpus: int | None = None,
    memory_kib: int = QEMU_GUEST_KIB,
    kind: Kind = "qemu",
    *,
    emulator: str = QEMU,
    max_memory_kib: int | None = None,
) -> str:
    """The XML of a guest without a disk, emulated (TCG), so that it starts on any machine.

    ``max_vcpus`` above ``vcpus`` leaves room for a live vCPU change; ``max_memory_kib`` above
    ``memory_kib``, for a memory change (test driver). ``uuid`` None lets libvirt choose.
    ``emulator`` takes a wrapper script's path, for slow or failing starts (QEMU only).
    """
    domain_type = {"qemu": "qemu", "test": "test", "lxc": "lxc"}[kind]
    body = {"qemu": _QEMU.format(emulator=escape(emulator)), "test": _TEST, "lxc": _LXC}[kind]
    identity = f"<uuid>{uuid}</uuid>" if uuid is not None else ""
    return (
        f"<domain type='{domain_type}'><name>{escape(name)}</name>{identity}"
        f"<memory unit='KiB'>{max_memory_kib or memory_kib}</memory>"
        f"<currentMemory unit='KiB'>{memory_kib}</currentMemory>"
        f"<vcpu current='{vcpus}'>{max_vcpus or vcpus}</vcpu>{body}</domain>"
    )


def define(connection: libvirt.virConnect, xml: str) -> libvirt.virDomain:
    """Define a persistent guest; it does not start."""
    return connection.defineXML(xml)


def start(
    connection: libvirt.virConnect, xml: str, *, paused: bool = True, persistent: bool = True
) -> libvirt.virDomain:
    """Define a guest (or with ``persistent=False`` make a transient one) and start it.

    ``paused`` asks for a guest that does not run and so costs no CPU; it is ignored where the
    driver has no such start (test, LXC).
    """
    flags = 0
    if paused and connection.getType().upper() == "QEMU":
        flags = libvirt.VIR_DOMAIN_START_PAUSED
    if not persistent:
        return connection.createXML(xml, flags)
    domain = connection.defineXML(xml)
    domain.createWithFlags(flags)
    return domain


def add_vcpus(domain: libvirt.virDomain, vcpus: int) -> None:
    """Set the live number of vCPUs: the change that emits no event."""
    domain.setVcpusFlags(vcpus, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def remove_all(connection: libvirt.virConnect) -> None:
    """Destroy and undefine every guest of the host, also a paused, saved or transient one.

    Destroying a QEMU guest is 0.2 s of waiting, so it is done for several at once.
    """
    domains = connection.listAllDomains(0)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(_remove, domains))
    left = [domain.name() for domain in connection.listAllDomains(0)]
    if left:
        raise AssertionError(f"guests that could not be removed: {left}")


def _remove(domain: libvirt.virDomain) -> None:
    # Each step may find that the guest has ended by itself, or was transient.
    with contextlib.suppress(libvirt.libvirtError):
        if domain.isActive():
            domain.destroy()
    with contextlib.suppress(libvirt.libvirtError):
        if domain.hasManagedSaveImage():
            domain.managedSaveRemove()
    with contextlib.suppress(libvirt.libvirtError):
        domain.undefine()
