"""How full the instances' space is: this machine's file systems. Pools have a real libvirtd."""

import itertools
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
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
    Space,
    checked,
    instances_path,
    read_local,
    read_pool,
)
from asynchost.hypervisor.domain_disks import DiskUnreadError, Found, Place, VolumeName


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
folder = disk.instances_path(None, local=True)
assert folder == disk.NOVA_INSTANCES, "another folder would be another file system"
try:
    disk.read_local(folder)
except disk.DiskUnknownError as error:
    assert str(error) == (
        f"{folder}: Permission denied; let this user search the folders above it, or name the"
        " folder that holds the instances (instances_path)"
    )
else:
    raise AssertionError("it was read")
"""


def test_a_folder_of_novas_that_may_not_be_searched_is_no_error(tmp_path: Path) -> None:
    """A monitor is made by a user who may not see it: the disk is unknown, and the reason says so.

    libvirt's folder is not taken in its place, since it may be on another file system.
    """
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


def name(place: Place, path: str) -> str | None:
    """The one name of the file at a path; None where it lies elsewhere."""
    found = place.look(path)
    return None if found is None else found.file


def test_a_file_is_on_the_file_system_of_its_folder(tmp_path: Path) -> None:
    """By its one name; what a link points to is what counts."""
    here = FileSystem(tmp_path.stat().st_dev)
    file = tmp_path / "folder" / "disk"
    file.parent.mkdir()
    file.touch()
    (tmp_path / "link").symlink_to(file)
    (tmp_path / "out").symlink_to("/proc/version")
    (tmp_path / "elsewhere").symlink_to("/proc")
    assert name(here, str(file)) == str(file)
    assert name(here, str(tmp_path / "link")) == str(file)
    assert name(here, f"{tmp_path}/folder/../folder//disk") == str(file)
    for path in (tmp_path / "out", tmp_path / "elsewhere" / "version", Path("/dev/null")):
        assert name(here, str(path)) is None
    assert name(FileSystem(Path("/proc").stat().st_dev), "/proc/version") == "/proc/version"


def test_what_a_file_occupies_is_its_blocks(tmp_path: Path) -> None:
    """Not its length: a sparse file has holes."""
    here = FileSystem(tmp_path.stat().st_dev)
    file = tmp_path / "disk"
    with file.open("wb") as image:
        image.truncate(2**30)
        image.write(bytes(8192))
    assert here.look(str(file)) == Found(str(file), file.stat().st_blocks * 512, 2**30)


KINDS: dict[str, Callable[[Path], object]] = {
    "No such file or directory": lambda _path: None,
    "is a FIFO": os.mkfifo,
    "is a folder": Path.mkdir,
    "is a socket": lambda path: socket.socket(socket.AF_UNIX).bind(str(path)),
    "is a character device": lambda path: os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3)),
    "Too many levels of symbolic links": lambda path: path.symlink_to(path),
}


@pytest.mark.parametrize("reason", KINDS)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_is_no_regular_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """With what it is: libvirt is not asked about it."""
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    try:
        KINDS[reason](Path("odd"))
    except PermissionError:
        pytest.skip("only root may make one")
    with pytest.raises(DiskUnreadError) as unread:
        FileSystem(tmp_path.stat().st_dev).look(str(tmp_path / "odd"))
    assert str(tmp_path / "odd") in str(unread.value)
    assert reason in str(unread.value)


def test_a_block_device_is_no_file_that_grows(tmp_path: Path) -> None:
    """All of its room is taken, whatever folder its node is in."""
    try:
        os.mknod(tmp_path / "device", 0o600 | stat.S_IFBLK, os.makedev(7, 0))
    except PermissionError:
        pytest.skip("only root may make one")
    assert FileSystem(tmp_path.stat().st_dev).look(str(tmp_path / "device")) is None


_LOOK = """
import os, sys
from pathlib import Path
from asynchost.hypervisor.disk import FileSystem
from asynchost.hypervisor.domain_disks import DiskUnreadError
if os.geteuid() == 0:
    os.setuid(65534)
open_folder = Path(sys.argv[1])
secret = str(open_folder / "secret" / "disk")
assert FileSystem(Path("/proc").stat().st_dev).look(secret) is None
try:
    FileSystem(open_folder.stat().st_dev).look(secret)
except DiskUnreadError as error:
    assert str(error) == f"{secret}: Permission denied"
else:
    raise AssertionError("it was seen")
"""


def test_a_folder_that_may_not_be_seen_is_taken_for_part_of_the_one_above() -> None:
    """An ordinary user sees no further, and the disk in it is one that cannot be read."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        secret = Path(folder, "secret")
        secret.mkdir(mode=0o700)
        (secret / "disk").touch()
        if os.geteuid() != 0:
            secret.chmod(0)
        command = [sys.executable, "-c", _LOOK, folder]
        ended = subprocess.run(command, capture_output=True, check=False, timeout=60)
        secret.chmod(0o700)
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.parametrize("bytes_told", [-1, 2**61, 2**64 - 1])
def test_a_size_that_no_column_holds_is_unknown(bytes_told: int) -> None:
    """An object store's file system may report one; each other column is written all the same."""
    connection = libvirt.openReadOnly("test:///default")
    try:
        place = read_pool(connection, "/default-pool").place
    finally:
        connection.close()
    for figures in itertools.permutations((bytes_told, 1, 1)):
        with pytest.raises(DiskUnknownError, match=f"here reports {bytes_told} bytes"):
            checked("here", Space(*figures, place))
    most = Space(2**61 - 1, 0, 0, place)
    assert checked("here", most) == most


def test_a_file_is_in_the_innermost_pool() -> None:
    """One inside another may be a file system of its own, and a target is no prefix of a name."""
    outer, inner = PurePosixPath("/srv"), PurePosixPath("/srv/fast")
    pools = (inner, outer)
    assert name(PoolTarget("p", outer, pools), "/srv/a/../b") == "/srv/b"
    assert name(PoolTarget("p", outer, pools), "/srv/fast/a") is None
    assert name(PoolTarget("p", outer, pools), "/srv/faster") == "/srv/faster"
    assert name(PoolTarget("p", inner, pools), "/srv/fast/a") == "/srv/fast/a"
    assert name(PoolTarget("p", inner, pools), "/srv/a") is None
    assert name(PoolTarget("p", outer, pools), "/mnt/a") is None


def test_a_pool_tells_of_the_files_in_its_target_only() -> None:
    """Each is a volume by its name; a file in a folder of the pool is one that cannot be read."""
    target = PurePosixPath("/srv")
    pool = PoolTarget("p", target, (target,))
    assert pool.look("/srv/a") == Found("/srv/a", volume=VolumeName("p", "a"))
    with pytest.raises(
        DiskUnreadError, match="/srv/uuid/disk is no volume of the storage pool 'p'"
    ):
        pool.look("/srv/uuid/disk")


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
    assert name(usage.place, "/default-pool/a") == "/default-pool/a"
    assert name(usage.place, "/srv/a") is None


@pytest.mark.parametrize("path", ["/", "/default-pool-2", "/srv/default-pool"])
def test_a_path_that_no_pool_holds_is_named(path: str) -> None:
    """A common beginning of two names is not a folder above."""
    connection = libvirt.openReadOnly("test:///default")
    try:
        with pytest.raises(DiskUnknownError, match=f"no active storage pool.* holds {path};"):
            read_pool(connection, path)
    finally:
        connection.close()
