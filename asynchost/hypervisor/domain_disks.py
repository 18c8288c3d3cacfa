"""What a domain's disks may still grow by, where they lie on the space that counts.

Blocking functions, for a thread. What counts, and by which figure of libvirt's, is settled here.

* A disk counts if it is a file, is written by this domain alone, and lies on that space. A block
  device has all of its space already. A backing file is not written, and what it occupies is in
  the used space, once.
* What a file occupies is asked for in two ways, because ``virDomainGetBlockInfo`` gives another
  figure for a raw disk that is in use: how far it has been written (libvirt 9.0, measured).
"""

import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple, Protocol

import libvirt

from asynchost.hypervisor.listing import list_all
from asynchost.overcommit import DiskReading, FileGrowth, UnreadDisk, growth_bytes


class DisksUntoldError(Exception):
    """The driver does not tell of disks."""


class DomainUnreadError(Exception):
    """Nothing of a domain's disks could be read; the text says why."""


class Place(Protocol):
    """The space that holds the instances."""

    def file_of(self, path: str) -> str | None:
        """The file at ``path``, by the one name that it has here; None where it lies elsewhere.

        Blocks, for as long as a file system does not answer.
        """


class FileDisk(NamedTuple):
    """A disk that counts if its file lies on the space that counts."""

    target: str
    path: str


class VolumeDisk(NamedTuple):
    """A disk that counts if its volume is such a file."""

    target: str
    pool: str
    volume: str

    @property
    def source(self) -> str:
        """What the domain says that it is."""
        return f"volume {self.volume} of pool {self.pool}"


class Description(NamedTuple):
    """What a domain's XML says of its disks."""

    active: bool
    files: tuple[FileDisk, ...]
    volumes: tuple[VolumeDisk, ...]


def describe(description: str) -> Description:
    """The disks of a domain that can count, from libvirt's XML of it."""
    domain = ET.fromstring(description)  # noqa: S314 - from libvirtd
    files: list[FileDisk] = []
    volumes: list[VolumeDisk] = []
    for disk in domain.iterfind("./devices/disk"):
        target, source = disk.find("target"), disk.find("source")
        if (
            target is None
            or source is None  # an empty drive
            or disk.get("device", "disk") != "disk"  # a CD-ROM, a floppy, a LUN
            or disk.find("readonly") is not None
            or disk.find("shareable") is not None
        ):
            continue
        name, path = target.get("dev", ""), source.get("file")
        if disk.get("type") == "file" and path:
            files.append(FileDisk(name, path))
        elif disk.get("type") == "volume":
            volumes.append(VolumeDisk(name, source.get("pool", ""), source.get("volume", "")))
    return Description("id" in domain.attrib, tuple(files), tuple(volumes))


def list_uuids(connection: libvirt.virConnect) -> list[str]:
    """All domains, active or not."""
    return [domain.UUIDString() for domain in list_all(connection)]


def read_disks(connection: libvirt.virConnect, uuid: str, place: Place) -> DiskReading | None:
    """Read one domain's disks; None if libvirt knows the domain no more.

    Waits for the domain's job where it is active: for ever, if its QEMU does not answer. Raises
    :class:`DisksUntoldError` if the driver cannot tell of any disk, :class:`DomainUnreadError`
    if nothing can be read of this domain, and libvirt's error if the connection is lost.
    """
    try:
        domain = connection.lookupByUUIDString(uuid)
        active, files, volumes = describe(domain.XMLDesc(0))
        here = [(disk, file) for disk in files if (file := place.file_of(disk.path)) is not None]
        in_use = _in_use(connection, domain) if active and here else {}
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        if not connection.isAlive():
            raise
        raise DomainUnreadError(str(error)) from None
    # What to call it, what the domain says that it is, how to read it.
    reads: list[tuple[str, str, Callable[[], FileGrowth | None]]] = [
        (disk.target, disk.path, partial(_read_file, domain, disk.target, file, in_use))
        for disk, file in here
    ] + [
        (disk.target, disk.source, partial(_read_volume, connection, disk, place))
        for disk in volumes
    ]
    growth: dict[str, FileGrowth] = {}
    unread: list[UnreadDisk] = []
    for target, source, read in reads:
        try:
            found = read()
        except libvirt.libvirtError as error:
            if not connection.isAlive():
                raise
            unread.append(UnreadDisk(target, source, str(error)))
        else:
            if found is not None:
                growth[source] = found
    return DiskReading(growth, tuple(unread), diskless=not (files or volumes))


def _in_use(
    connection: libvirt.virConnect, domain: libvirt.virDomain
) -> dict[str, tuple[int, int]]:
    """Capacity and occupied space in bytes by target, as QEMU has them of an active domain.

    What a file occupies is called ``physical`` there. Empty where the driver has no such
    statistics, and where the domain has just ended: what libvirt then finds in the file has
    another meaning.
    """
    wanted = libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_BLOCK
    try:
        records = connection.domainListGetStats([domain], wanted)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            return {}
        raise
    found = {}
    for _, statistics in records:
        if statistics.get("state.state") == libvirt.VIR_DOMAIN_SHUTOFF:
            continue
        for number in range(statistics.get("block.count", 0)):
            of = f"block.{number}."
            capacity, occupied = (statistics.get(of + name) for name in ("capacity", "physical"))
            if capacity is not None and occupied is not None:
                found[statistics[of + "name"]] = (capacity, occupied)
    return found


def _read_file(
    domain: libvirt.virDomain, target: str, file: str, in_use: Mapping[str, tuple[int, int]]
) -> FileGrowth:
    try:
        capacity, occupied = in_use.get(target) or domain.blockInfo(target)[:2]
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            raise DisksUntoldError(str(error)) from None
        raise
    return FileGrowth(file, growth_bytes(capacity, occupied))


def _read_volume(
    connection: libvirt.virConnect, disk: VolumeDisk, place: Place
) -> FileGrowth | None:
    """A volume, of which its pool knows all there is, whatever the domain does."""
    volume = connection.storagePoolLookupByName(disk.pool).storageVolLookupByName(disk.volume)
    kind, capacity, occupied = volume.info()
    if kind != libvirt.VIR_STORAGE_VOL_FILE:
        return None
    file = place.file_of(volume.path())
    return None if file is None else FileGrowth(file, growth_bytes(capacity, occupied))
