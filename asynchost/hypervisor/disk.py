"""How full the space is that holds the instances. Blocking functions, for threads.

On a local host that is the file system of a folder; on a remote one, the storage pool whose
target is the longest prefix of that folder. A pool's figures are as old as its last refresh,
which only a read-write connection could ask for.
"""

import os
import posixpath
import stat
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

import libvirt

from asynchost.hypervisor.domain_disks import DiskUnreadError, Found, Place, VolumeName

NOVA_INSTANCES: Final = "/var/lib/nova/instances"
LIBVIRT_IMAGES: Final = "/var/lib/libvirt/images"

_BLOCK_BYTES: Final = 512
"""The unit of ``st_blocks``, whatever the file system's blocks are."""
_LARGEST_SPACE_BYTES: Final = 2**61
"""2 EiB: its GiB are too many for the column, and more than any file system holds. Some that are
backed by object stores report such sizes."""
_KINDS: Final = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFDIR: "a folder",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
}


class DiskUnknownError(Exception):
    """The disk cannot be told; the text says why, and what to do."""


class Space(NamedTuple):
    """The space that holds the instances, as one reading found it."""

    total_bytes: int
    used_bytes: int
    available_bytes: int
    """What may still be written: less than what is free, where some is kept for root."""
    place: Place
    """Which files lie on it."""


@dataclass(frozen=True, slots=True)
class FileSystem:
    """A file system of this machine."""

    device: int
    """``st_dev`` of the folder."""
    in_pool = False

    def look(self, path: str) -> Found | None:
        """The file, by its path without symbolic links; see :class:`Place`.

        Its folder decides whether it lies here, which needs the least rights. What may not be
        seen, or is not there, lies where the last folder that can be seen does.
        """
        # In bytes: libvirt's paths are UTF-8, and this process's locale may be another.
        real = os.path.realpath(path.encode("utf-8", "surrogateescape"))
        if not self._holds(real):
            return None
        name = real.decode("utf-8", "surrogateescape")
        try:
            status = os.stat(real)  # noqa: PTH116 - pathlib takes no bytes
        except OSError as error:
            raise DiskUnreadError(f"{name}: {error.strerror}") from None
        if stat.S_ISBLK(status.st_mode):
            return None
        if not stat.S_ISREG(status.st_mode):
            # libvirt would open it, and some kinds answer only when somebody else writes.
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no regular file")
            raise DiskUnreadError(f"{name} is {kind}, about which libvirt is not asked")
        return Found(name, status.st_blocks * _BLOCK_BYTES, status.st_size)

    def _holds(self, path: bytes) -> bool:
        folder = os.path.dirname(path)  # noqa: PTH120
        while True:
            try:
                device = os.stat(folder).st_dev  # noqa: PTH116
            except OSError:
                if folder == (folder := os.path.dirname(folder)):  # noqa: PTH120
                    return False
                continue
            return device == self.device


@dataclass(frozen=True, slots=True)
class PoolTarget:
    """The folder of a storage pool on a machine whose files cannot be seen."""

    pool: str
    """The name of the pool."""
    target: PurePosixPath
    targets: tuple[PurePosixPath, ...]
    """Those of all pools: one inside another may be a file system of its own."""
    in_pool = True

    def look(self, path: str) -> Found | None:
        """The path, if this pool is the innermost that holds it; see :class:`Place`.

        Nothing is asked for it. Raises :class:`DiskUnreadError` for a path in a folder of the
        pool: libvirt's volumes are the files in the target itself.
        """
        real = PurePosixPath(posixpath.normpath(path))
        if _innermost(self.targets, str(real)) != self.target:
            return None
        if real.parent != self.target:
            raise DiskUnreadError(
                f"{real} is no volume of the storage pool {self.pool!r}, which tells only of"
                f" files in {self.target} itself"
            )
        return Found(str(real), volume=VolumeName(self.pool, real.name))


def _innermost(targets: Iterable[PurePosixPath], path: str) -> PurePosixPath | None:
    """The longest of the folders that hold a path."""
    holders = [target for target in targets if PurePosixPath(path).is_relative_to(target)]
    return max(holders, key=lambda target: len(target.parts), default=None)


def instances_path(given: str | None, *, local: bool) -> str:
    """The folder whose space counts: the one given, else Nova's if it is there, else libvirt's.

    Of a remote host's folders nothing can be seen, so libvirt's own is taken there. Nova's folder
    is taken, too, where this user may not see whether it is there: then it cannot be read, and
    another file system's figures would be wrong. Blocks, for as long as a file system does not
    answer.
    """
    if given is not None:
        return given
    if not local:
        return LIBVIRT_IMAGES
    try:
        there = stat.S_ISDIR(Path(NOVA_INSTANCES).stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        there = False
    except OSError:
        there = True
    return NOVA_INSTANCES if there else LIBVIRT_IMAGES


def read_local(path: str) -> Space:
    """The file system of ``path``: all blocks, and those that are not free even for root.

    Raises :class:`DiskUnknownError`.
    """
    try:
        # In bytes: the path is UTF-8, and this process's locale may be another.
        folder = path.encode("utf-8", "surrogateescape")
        status, device = os.statvfs(folder), os.stat(folder).st_dev  # noqa: PTH116
    except (OSError, ValueError) as error:  # ValueError: a path that no file can have
        reason = getattr(error, "strerror", None) or str(error)
        may = (
            "let this user search the folders above it, or "
            if isinstance(error, PermissionError)
            else ""
        )
        raise DiskUnknownError(
            f"{path}: {reason}; {may}name the folder that holds the instances (instances_path)"
        ) from None
    return checked(
        path,
        Space(
            total_bytes=status.f_blocks * status.f_frsize,
            used_bytes=(status.f_blocks - status.f_bfree) * status.f_frsize,
            available_bytes=status.f_bavail * status.f_frsize,
            place=FileSystem(device),
        ),
    )


def checked(name: str, space: Space) -> Space:
    """The same; raises :class:`DiskUnknownError` for figures that no column could hold."""
    for figure in space[:3]:
        if not 0 <= figure < _LARGEST_SPACE_BYTES:
            raise DiskUnknownError(f"{name} reports {figure} bytes, which cannot be")
    return space


def read_pool(connection: libvirt.virConnect, path: str) -> Space:
    """The active storage pool that holds ``path`` on the host of the connection.

    Raises :class:`DiskUnknownError` where no pool does, or the host has none at all.
    """
    try:
        pools = connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE)
        by_target = {
            target: pool for pool in pools if (target := _target(pool.XMLDesc(0))) is not None
        }
        target = _innermost(by_target, path)
        found = None if target is None else (by_target[target].name(), by_target[target].info())
    except libvirt.libvirtError as error:
        raise DiskUnknownError(f"the storage pools cannot be read: {error}") from None
    if target is None or found is None:
        raise DiskUnknownError(
            f"no active storage pool of the host holds {path}; define one, "
            "or name the folder of one (instances_path)"
        )
    name, (_, capacity, allocation, available) = found
    place = PoolTarget(name, target, tuple(by_target))
    return checked(f"the storage pool {name!r}", Space(capacity, allocation, available, place))


def _target(description: str) -> PurePosixPath | None:
    target = ET.fromstring(description).findtext("target/path")  # noqa: S314 - from libvirtd
    return None if target is None else PurePosixPath(target)
