"""What a domain's disks may still grow by, where they lie on the space that counts.

Blocking functions, for a thread. What counts, and by which figures, is settled here.

* A disk counts if it is a file, is written by this domain alone, and lies on that space. A block
  device has all of its space already. A backing file is not written, and what it occupies is in
  the used space, once.
* A disk's virtual size is libvirt's figure. What it occupies is the file system's own figure where
  this machine sees the file: libvirt's is another for a raw disk in use, of which it may tell how
  far it was written, or, if nothing was written yet, the length of the file.
* libvirt is asked about a file that this machine sees only after the file has answered here, and
  is a regular file: libvirt opens the file of a domain that is shut off with the domain locked, and
  a locked domain holds up everybody's listing.
* Of a file that this machine does not see, a storage pool's volume tells everything, so that no
  domain is locked while the storage hangs.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import libvirt

from asynchost.hypervisor.listing import list_all
from asynchost.overcommit import (
    DiskReading,
    FileGrowth,
    ImpossibleSizeError,
    UnreadDisk,
    growth_bytes,
)


class DisksUntoldError(Exception):
    """The driver does not tell of disks."""


class DomainUnreadError(Exception):
    """Nothing of a domain's disks could be read; the text says why."""


class DiskUnreadError(Exception):
    """One disk cannot be read; the text says why."""


class Found(NamedTuple):
    """The file of a disk, on the space that counts."""

    file: str
    """The one name that the file has here, however domains call it."""
    occupied_bytes: int | None = None
    """What it occupies; None where this machine does not see it."""
    length: int = 0
    """The file's length; 0 where this machine does not see it."""
    volume: "VolumeName | None" = None
    """The volume that tells of it, where this machine does not see it."""


class VolumeName(NamedTuple):
    """A storage volume, by its pool's name and its own."""

    pool: str
    volume: str


class Place(Protocol):
    """The space that holds the instances."""

    @property
    def in_pool(self) -> bool:
        """Whether a storage pool tells of its files, because this machine does not see them."""

    def look(self, path: str) -> Found | None:
        """The file at ``path``; None where it lies elsewhere, or is a block device.

        Blocks, for as long as a file system does not answer. Raises :class:`DiskUnreadError` for
        a file that cannot be looked at, and one that is neither regular nor a block device.
        """


class Observed:
    """A place, and what a reading of disks waits for at the moment; asked in any thread."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.in_pool = place.in_pool
        self.looks_at: str | None = None
        """The path that this machine's own file system is asked for."""
        self.asks_pool = False
        """Whether a storage pool is asked."""

    @property
    def does_not_answer(self) -> str | None:
        """What keeps a reading that hangs waiting, in words; None if that is the domain itself."""
        if self.looks_at is not None:
            return f"{self.looks_at} does not answer"
        return "the storage pool does not answer" if self.asks_pool else None

    def look(self, path: str) -> Found | None:
        """See :class:`Place`."""
        self.looks_at = path
        try:
            return self._place.look(path)
        finally:
            self.looks_at = None


class FileDisk(NamedTuple):
    """A disk that counts if its file lies on the space that counts."""

    target: str
    path: str

    @property
    def source(self) -> str:
        """What the domain says that it is."""
        return self.path


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

    Waits for its files, then, where it is active, for its QEMU: for ever, if one of them does not
    answer. Raises :class:`DisksUntoldError` if the driver cannot tell of any disk,
    :class:`DomainUnreadError` if nothing can be read of this domain, and libvirt's error if the
    connection is lost.
    """
    unread: list[UnreadDisk] = []
    try:
        domain = connection.lookupByUUIDString(uuid)
        active, files, volumes = describe(domain.XMLDesc(0))
        found = _find(connection, [*files, *volumes], place, unread)
        by_domain = any(file.volume is None for _, file in found)
        in_use = _capacities_in_use(connection, domain) if active and by_domain else {}
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        if not connection.isAlive():
            raise
        raise DomainUnreadError(str(error)) from None
    growth: dict[str, FileGrowth] = {}
    for disk, file in found:
        try:
            size = (
                _growth_by_domain(connection, domain, disk.target, file, in_use)
                if file.volume is None
                else _growth_by_volume(connection, file.volume, file, place)
            )
        except (DiskUnreadError, ImpossibleSizeError) as error:
            unread.append(UnreadDisk(disk.target, disk.source, str(error)))
        else:
            if size is not None:
                growth[disk.source] = FileGrowth(file.file, size)
    return DiskReading(growth, tuple(unread), diskless=not (files or volumes))


def _find(
    connection: libvirt.virConnect,
    disks: Iterable[FileDisk | VolumeDisk],
    place: Place,
    unread: list[UnreadDisk],
) -> list[tuple[FileDisk | VolumeDisk, Found]]:
    """The disks that lie on the space that counts, with their files; adds to ``unread``."""
    found: list[tuple[FileDisk | VolumeDisk, Found]] = []
    for disk in disks:
        try:
            file = _look(connection, disk, place)
        except DiskUnreadError as error:
            unread.append(UnreadDisk(disk.target, disk.source, str(error)))
        else:
            if file is not None:
                found.append((disk, file))
    return found


def _look(
    connection: libvirt.virConnect, disk: FileDisk | VolumeDisk, place: Place
) -> Found | None:
    if isinstance(disk, FileDisk):
        return place.look(disk.path)
    name = VolumeName(disk.pool, disk.volume)
    with _asking_pool(connection, place):
        path = _volume(connection, name).path()
    file = place.look(path)
    return None if file is None else file._replace(volume=name)


def _capacities_in_use(connection: libvirt.virConnect, domain: libvirt.virDomain) -> dict[str, int]:
    """Virtual sizes in bytes by target, as QEMU has them of an active domain.

    Empty where the driver has no such statistics, and where the domain has just ended.
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
            capacity = statistics.get(of + "capacity")
            if capacity is not None:
                found[statistics[of + "name"]] = capacity
    return found


def _growth_by_domain(
    connection: libvirt.virConnect,
    domain: libvirt.virDomain,
    target: str,
    file: Found,
    in_use: Mapping[str, int],
) -> int:
    """Of a file that this machine sees: its virtual size is the domain's figure."""
    capacity = in_use.get(target)
    occupied = file.occupied_bytes
    if capacity is None or occupied is None:
        try:
            told = domain.blockInfo(target)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
                raise DisksUntoldError(str(error)) from None
            if not connection.isAlive():
                raise
            raise DiskUnreadError(str(error)) from None
        capacity = told[0] if capacity is None else capacity
        occupied = told[1] if occupied is None else occupied
    return growth_bytes(capacity, occupied, file.length)


def _growth_by_volume(
    connection: libvirt.virConnect, name: VolumeName, file: Found, place: Place
) -> int | None:
    """Of a volume, by its pool's figures; None where it is no file."""
    with _asking_pool(connection, place):
        kind, capacity, occupied = _volume(connection, name).info()
    if kind != libvirt.VIR_STORAGE_VOL_FILE:
        return None
    if file.occupied_bytes is not None:
        occupied = file.occupied_bytes
    return growth_bytes(capacity, occupied, file.length)


@contextmanager
def _asking_pool(connection: libvirt.virConnect, place: Place) -> Iterator[None]:
    """Note that a pool is asked, and turn its errors, but a lost connection, into a disk's."""
    observed = place if isinstance(place, Observed) else Observed(place)
    observed.asks_pool = True
    try:
        yield
    except libvirt.libvirtError as error:
        if not connection.isAlive():
            raise
        advice = (
            "; if the file is there, refresh its pool (virsh pool-refresh)"
            if error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_VOL
            else ""
        )
        raise DiskUnreadError(f"{error}{advice}") from None
    finally:
        observed.asks_pool = False


def _volume(connection: libvirt.virConnect, name: VolumeName) -> libvirt.virStorageVol:
    return connection.storagePoolLookupByName(name.pool).storageVolLookupByName(name.volume)
