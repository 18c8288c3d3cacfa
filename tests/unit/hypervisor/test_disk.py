"""How full the instances' space is: this machine's file systems. Pools have a real libvirtd."""

import os
import subprocess
import sys
from pathlib import Path, PurePosixPath

import libvirt
import pytest

from asynchost.hypervisor import disk
from asynchost.hypervisor.disk import (
    LIBVIRT_IMAGES,
    NOVA_INSTANCES,
    DiskUnknownError,
    FileSystem,
    PoolTarget,
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
    available = [one.f_bavail * one.f_frsize for one in (before, after)]
    assert min(available) - slack <= usage.available_bytes <= max(available) + slack
    assert usage.place == FileSystem(tmp_path.stat().st_dev)


@pytest.mark.parametrize(
    ("path", "reason"),
    [("/no/such/folder", "No such file or directory"), ("/" + 300 * "x", "File name too long")],
)
def test_a_folder_that_cannot_be_measured_is_named(path: str, reason: str) -> None:
    """With the reason, and with the setting that would mend it; a path alone is no help."""
    with pytest.raises(DiskUnknownError) as unknown:
        read_local(path)
    assert str(unknown.value) == (
        f"{path}: {reason}; name the folder that holds the instances (instances_path)"
    )


def test_the_given_path_is_taken_as_it_is() -> None:
    """There or not, here or on another machine."""
    assert instances_path("/srv/instances", local=True) == "/srv/instances"
    assert instances_path("/srv/instances", local=False) == "/srv/instances"


_CONSTRUCT = """
import os, sys
from asynchost import HostMonitor
from asynchost.hypervisor import disk
disk.NOVA_INSTANCES = sys.argv[1]
if os.geteuid() == 0:
    os.setuid(65534)
HostMonitor("qemu:///system")
assert disk.instances_path(None, local=True) == disk.LIBVIRT_IMAGES
"""


def test_a_folder_of_novas_that_may_not_be_searched_is_no_error(tmp_path: Path) -> None:
    """A monitor is made by a user who sees nothing below the folder."""
    locked = tmp_path / "locked"
    (locked / "instances").mkdir(parents=True)
    locked.chmod(0)
    ended = subprocess.run(
        [sys.executable, "-c", _CONSTRUCT, str(locked / "instances")],
        capture_output=True,
        check=False,
        timeout=60,
    )
    locked.chmod(0o700)
    assert (ended.returncode, ended.stderr) == (0, b"")


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


def test_a_file_is_on_the_file_system_of_its_folder(tmp_path: Path) -> None:
    """By its one name, whether or not it is there; what a link points to is what counts."""
    here = FileSystem(tmp_path.stat().st_dev)
    file = tmp_path / "folder" / "disk"
    assert here.file_of(str(file)) == str(file)
    file.parent.mkdir()
    file.touch()
    (tmp_path / "link").symlink_to(file)
    (tmp_path / "out").symlink_to("/proc/version")
    (tmp_path / "elsewhere").symlink_to("/proc")
    assert here.file_of(str(tmp_path / "link")) == str(file)
    assert here.file_of(f"{tmp_path}/folder/../folder//disk") == str(file)
    for path in (tmp_path / "out", tmp_path / "elsewhere" / "version", Path("/dev/null")):
        assert here.file_of(str(path)) is None
    assert FileSystem(Path("/proc").stat().st_dev).file_of("/proc/version") == "/proc/version"


def test_a_folder_that_may_not_be_seen_is_taken_for_part_of_the_one_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ordinary user sees no further."""
    stat = Path.stat

    def denied(self: Path, **options: bool) -> os.stat_result:
        if self.name == "secret":
            raise PermissionError
        return stat(self, **options)

    monkeypatch.setattr(Path, "stat", denied)
    file = tmp_path / "secret" / "disk"
    assert FileSystem(stat(tmp_path).st_dev).file_of(str(file)) == str(file)
    assert FileSystem(stat(Path("/proc")).st_dev).file_of(str(file)) is None


def test_a_file_is_in_the_innermost_pool() -> None:
    """One inside another may be a file system of its own, and a target is no prefix of a name."""
    outer, inner = PurePosixPath("/srv"), PurePosixPath("/srv/fast")
    pools = (inner, outer)
    assert PoolTarget(outer, pools).file_of("/srv/a/../b") == "/srv/b"
    assert PoolTarget(outer, pools).file_of("/srv/fast/a") is None
    assert PoolTarget(outer, pools).file_of("/srv/faster/a") == "/srv/faster/a"
    assert PoolTarget(inner, pools).file_of("/srv/fast/a") == "/srv/fast/a"
    assert PoolTarget(inner, pools).file_of("/srv/a") is None
    assert PoolTarget(outer, pools).file_of("/mnt/a") is None


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
    assert usage[:3] == tuple(pool[1:])
    assert usage.place.file_of("/default-pool/a") == "/default-pool/a"
    assert usage.place.file_of("/srv/a") is None


@pytest.mark.parametrize("path", ["/", "/default-pool-2", "/srv/default-pool"])
def test_a_path_that_no_pool_holds_is_named(path: str) -> None:
    """A common beginning of two names is not a folder above."""
    connection = libvirt.openReadOnly("test:///default")
    try:
        with pytest.raises(DiskUnknownError, match=f"no active storage pool.* holds {path};"):
            read_pool(connection, path)
    finally:
        connection.close()
