"""How full the space is that holds the instances. Blocking functions, for threads.

On a local host that is the file system of a folder; on a remote one, the storage pool whose
target is the longest prefix of that folder. A pool's figures are as old as its last refresh,
which only a read-write connection could ask for.
"""

import os
import xml.etree.ElementTree as ET
from pathlib import Path, PurePosixPath
from typing import Final

import libvirt

from asynchost.model import DiskUsage

NOVA_INSTANCES: Final = "/var/lib/nova/instances"
LIBVIRT_IMAGES: Final = "/var/lib/libvirt/images"


class DiskUnknownError(Exception):
    """The disk cannot be told; the text says why, and what to do."""


def instances_path(given: str | None, *, local: bool) -> str:
    """The folder whose space counts: the one given, else Nova's if it is there, else libvirt's.

    Of a remote host's folders nothing can be seen, so libvirt's own is taken there.
    """
    if given is not None:
        return given
    return NOVA_INSTANCES if local and Path(NOVA_INSTANCES).is_dir() else LIBVIRT_IMAGES


def read_local(path: str) -> DiskUsage:
    """The file system of ``path``: all blocks, and those that are not free even for root.

    Raises :class:`DiskUnknownError`.
    """
    try:
        status = os.statvfs(path)
    except OSError as error:
        raise DiskUnknownError(
            f"{path}: {error.strerror}; name the folder that holds the instances "
            "(instances_path, --instances-path)"
        ) from None
    return DiskUsage(
        total_bytes=status.f_blocks * status.f_frsize,
        used_bytes=(status.f_blocks - status.f_bfree) * status.f_frsize,
    )


def read_pool(connection: libvirt.virConnect, path: str) -> DiskUsage:
    """The active storage pool that holds ``path`` on the host of the connection.

    Raises :class:`DiskUnknownError` where no pool does, or the host has none at all.
    """
    try:
        pools = connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE)
        targets = [(_target(pool.XMLDesc(0)), pool) for pool in pools]
    except libvirt.libvirtError as error:
        raise DiskUnknownError(f"the storage pools cannot be read: {error}") from None
    holders = [
        (target, pool)
        for target, pool in targets
        if target is not None and PurePosixPath(path).is_relative_to(target)
    ]
    if not holders:
        raise DiskUnknownError(
            f"no active storage pool of the host holds {path}; define one, "
            "or name the folder of one (instances_path, --instances-path)"
        )
    _, pool = max(holders, key=lambda holder: len(holder[0].parts))
    _, capacity, allocation, _ = pool.info()
    return DiskUsage(total_bytes=capacity, used_bytes=allocation)


def _target(description: str) -> PurePosixPath | None:
    target = ET.fromstring(description).findtext("target/path")  # noqa: S314 - from libvirtd
    return None if target is None else PurePosixPath(target)
