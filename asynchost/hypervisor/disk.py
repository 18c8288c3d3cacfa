"""How full the space is that holds the instances. Blocking functions, for threads.

On a local host that is the file system of a folder; on a remote one, the storage pool whose
target is the longest prefix of that folder. A pool's figures are as old as its last refresh,
which only a read-write connection could ask for.
"""

import os
import posixpath
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

import libvirt

from asynchost.hypervisor.domain_disks import Place

NOVA_INSTANCES: Final = "/var/lib/nova/instances"
LIBVIRT_IMAGES: Final = "/var/lib/libvirt/images"


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

    def file_of(self, path: str) -> str | None:
        """The path without symbolic links. Its folder decides, which needs the least rights.

        What may not be seen, or is not there, lies where the last folder that can be seen does.
        """
        # In bytes: libvirt's paths are UTF-8, and this process's locale may be another.
        real = os.path.realpath(path.encode("utf-8", "surrogateescape"))
        folder = os.path.dirname(real)  # noqa: PTH120 - pathlib takes no bytes
        while True:
            try:
                device = os.stat(folder).st_dev  # noqa: PTH116
            except OSError:
                if folder == (folder := os.path.dirname(folder)):  # noqa: PTH120
                    return None
                continue
            return real.decode("utf-8", "surrogateescape") if device == self.device else None


@dataclass(frozen=True, slots=True)
class PoolTarget:
    """The folder of a storage pool on a machine whose files cannot be seen."""

    target: PurePosixPath
    targets: tuple[PurePosixPath, ...]
    """Those of all pools: one inside another may be a file system of its own."""

    def file_of(self, path: str) -> str | None:
        """The path, if this pool is the innermost that holds it."""
        real = posixpath.normpath(path)
        return real if _innermost(self.targets, real) == self.target else None


def _innermost(targets: Iterable[PurePosixPath], path: str) -> PurePosixPath | None:
    """The longest of the folders that hold a path."""
    holders = [target for target in targets if PurePosixPath(path).is_relative_to(target)]
    return max(holders, key=lambda target: len(target.parts), default=None)


def instances_path(given: str | None, *, local: bool) -> str:
    """The folder whose space counts: the one given, else Nova's if it is there, else libvirt's.

    Of a remote host's folders nothing can be seen, so libvirt's own is taken there.
    """
    if given is not None:
        return given
    # Not pathlib's, which raises where this user may not search the folder above.
    seen = local and os.path.isdir(NOVA_INSTANCES)  # noqa: PTH112
    return NOVA_INSTANCES if seen else LIBVIRT_IMAGES


def read_local(path: str) -> Space:
    """The file system of ``path``: all blocks, and those that are not free even for root.

    Raises :class:`DiskUnknownError`.
    """
    try:
        status, device = os.statvfs(path), Path(path).stat().st_dev
    except OSError as error:
        raise DiskUnknownError(
            f"{path}: {error.strerror}; name the folder that holds the instances (instances_path)"
        ) from None
    return Space(
        total_bytes=status.f_blocks * status.f_frsize,
        used_bytes=(status.f_blocks - status.f_bfree) * status.f_frsize,
        available_bytes=status.f_bavail * status.f_frsize,
        place=FileSystem(device),
    )


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
        info = None if target is None else by_target[target].info()
    except libvirt.libvirtError as error:
        raise DiskUnknownError(f"the storage pools cannot be read: {error}") from None
    if target is None or info is None:
        raise DiskUnknownError(
            f"no active storage pool of the host holds {path}; define one, "
            "or name the folder of one (instances_path)"
        )
    _, capacity, allocation, available = info
    return Space(capacity, allocation, available, PoolTarget(target, tuple(by_target)))


def _target(description: str) -> PurePosixPath | None:
    target = ET.fromstring(description).findtext("target/path")  # noqa: S314 - from libvirtd
    return None if target is None else PurePosixPath(target)
