"""How full the instances' space is: this machine's file systems. Pools have a real libvirtd."""

import os
from pathlib import Path

import libvirt
import pytest

from asynchost.hypervisor import disk
from asynchost.hypervisor.disk import (
    LIBVIRT_IMAGES,
    NOVA_INSTANCES,
    DiskUnknownError,
    instances_path,
    read_local,
    read_pool,
)


def test_a_folders_file_system_is_measured(tmp_path: Path) -> None:
    """All blocks, and those that are not free even for root."""
    before = os.statvfs(tmp_path)
    usage = read_local(str(tmp_path))
    after = os.statvfs(tmp_path)
    assert usage.total_bytes == before.f_blocks * before.f_frsize
    used = [(one.f_blocks - one.f_bfree) * one.f_frsize for one in (before, after)]
    # Others write to the same file system meanwhile.
    slack = 64 * 1024 * 1024
    assert min(used) - slack <= usage.used_bytes <= max(used) + slack
    assert usage.available_least_bytes is None


@pytest.mark.parametrize(
    ("path", "reason"),
    [("/no/such/folder", "No such file or directory"), ("/" + 300 * "x", "File name too long")],
)
def test_a_folder_that_cannot_be_measured_is_named(path: str, reason: str) -> None:
    """With the reason, and with the setting that would mend it; a path alone is no help."""
    with pytest.raises(DiskUnknownError) as unknown:
        read_local(path)
    assert str(unknown.value) == (
        f"{path}: {reason}; name the folder that holds the instances "
        "(instances_path, --instances-path)"
    )


def test_the_given_path_is_taken_as_it_is() -> None:
    """There or not, here or on another machine."""
    assert instances_path("/srv/instances", local=True) == "/srv/instances"
    assert instances_path("/srv/instances", local=False) == "/srv/instances"


def test_novas_folder_is_taken_where_it_exists(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of a local host only: a remote one's folders cannot be seen from here."""
    monkeypatch.setattr(disk, "NOVA_INSTANCES", str(tmp_path))
    assert instances_path(None, local=True) == str(tmp_path)
    assert instances_path(None, local=False) == LIBVIRT_IMAGES
    monkeypatch.setattr(disk, "NOVA_INSTANCES", str(tmp_path / "missing"))
    assert instances_path(None, local=True) == LIBVIRT_IMAGES


def test_the_folders_are_those_of_nova_and_libvirt() -> None:
    """Where both put their instances unless told otherwise."""
    assert NOVA_INSTANCES == "/var/lib/nova/instances"
    assert LIBVIRT_IMAGES == "/var/lib/libvirt/images"


# The test driver inside this process has one pool: /default-pool, 100 GiB, empty.


@pytest.mark.parametrize("path", ["/default-pool", "/default-pool/instances"])
def test_the_pool_that_holds_the_path_is_measured(path: str) -> None:
    """Its capacity and allocation, as libvirt has them."""
    connection = libvirt.openReadOnly("test:///default")
    try:
        pool = connection.storagePoolLookupByName("default-pool").info()
        usage = read_pool(connection, path)
    finally:
        connection.close()
    assert (usage.total_bytes, usage.used_bytes) == (pool[1], pool[2])


@pytest.mark.parametrize("path", ["/", "/default-pool-2", "/srv/default-pool"])
def test_a_path_that_no_pool_holds_is_named(path: str) -> None:
    """A common beginning of two names is not a folder above."""
    connection = libvirt.openReadOnly("test:///default")
    try:
        with pytest.raises(DiskUnknownError, match=f"no active storage pool.* holds {path};"):
            read_pool(connection, path)
    finally:
        connection.close()
