"""What the disks of a host's domains may still grow by: last known, file by file, and the sum.

Pure. A disk that cannot be read keeps the value that its file had last; one that never had any
adds nothing. Either is named until it is read. Memory: one entry for each file of each domain.
"""

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple


class FileGrowth(NamedTuple):
    """What a file may still grow by."""

    file: str
    """The one name that the file has here, however domains call it."""
    size_bytes: int


class UnreadDisk(NamedTuple):
    """A disk that counts, or may count, and could not be read."""

    target: str
    """Its name in the domain, such as ``vda``."""
    source: str
    """What the domain says that it is."""
    reason: str


class DiskReading(NamedTuple):
    """What one read of one domain's disks returned."""

    growth: Mapping[str, FileGrowth]
    """The disks that count, by what the domain says that they are."""
    unread: tuple[UnreadDisk, ...] = ()
    diskless: bool = False
    """Whether the domain has no disk that could ever count, as it is defined now."""


LARGEST_DISK_BYTES: Final = 2**52
"""A disk of this virtual size, 4 PiB, is taken for one with a damaged header, unless its file
really has that length: QEMU opens no qcow2 image of more than half of it with clusters of the usual
size, ext4 holds no file of more than a 256th."""
_LARGEST_FILE_BYTES: Final = 2**63


class ImpossibleSizeError(ValueError):
    """A disk's virtual size, or what it occupies, is a number that cannot be."""


def growth_bytes(capacity: int, occupied: int, length: int = 0) -> int:
    """What a disk may still grow by: its virtual size less what it occupies, never below 0.

    ``length`` is that of its file, where it is known. Raises :class:`ImpossibleSizeError` for a
    virtual size that no file system can hold, which is what libvirt reads, without an error, in
    an image whose header is damaged.
    """
    if not 0 <= capacity < max(LARGEST_DISK_BYTES, min(length + 1, _LARGEST_FILE_BYTES)):
        raise ImpossibleSizeError(f"a virtual size of {capacity} bytes cannot be: damaged image?")
    if not 0 <= occupied < _LARGEST_FILE_BYTES:
        raise ImpossibleSizeError(f"{occupied} occupied bytes cannot be")
    return max(0, capacity - occupied)


class Overcommit:
    """The disks of all domains of one host, whether they are active or not."""

    def __init__(self) -> None:
        self._growth: dict[str, Mapping[str, FileGrowth]] = {}
        self._unread: dict[str, str] = {}

    def read(self, uuid: str, reading: DiskReading) -> None:
        """A domain was read. Disks that it has no more are forgotten."""
        before = self._growth.get(uuid, {})
        kept = {
            disk.source: before[disk.source] for disk in reading.unread if disk.source in before
        }
        growth = {**kept, **reading.growth}
        if growth:
            self._growth[uuid] = growth
        else:
            self._growth.pop(uuid, None)
        if reading.unread:
            self._unread[uuid] = "; ".join(f"{one.target}: {one.reason}" for one in reading.unread)
        else:
            self._unread.pop(uuid, None)

    def gone(self, uuid: str) -> None:
        """There is no such domain any more."""
        self._growth.pop(uuid, None)
        self._unread.pop(uuid, None)

    def failed(self, uuid: str, reason: str) -> None:
        """Nothing of a domain could be read: all its disks keep their last values."""
        self._unread[uuid] = reason

    def keep_only(self, uuids: Collection[str]) -> None:
        """Forget the domains that are not among ``uuids``."""
        for known in (self._growth, self._unread):
            for uuid in known.keys() - set(uuids):
                del known[uuid]

    def knows(self, uuid: str) -> bool:
        """Whether anything is known of a domain."""
        return uuid in self._growth or uuid in self._unread

    @property
    def uuids(self) -> frozenset[str]:
        """The domains of which anything is known."""
        return frozenset(self._growth.keys() | self._unread.keys())

    @property
    def total_bytes(self) -> int:
        """The sum over all files, each once: two domains may have the same one."""
        files: dict[str, int] = {}
        for growth in self._growth.values():
            for file, size in growth.values():
                # Read at two moments they may differ: the larger one promises less.
                files[file] = max(size, files.get(file, 0))
        return sum(files.values())

    @property
    def unread(self) -> dict[str, str]:
        """The domains with a disk that could not be read, by UUID, each with the reason."""
        return dict(self._unread)
