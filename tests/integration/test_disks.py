"""What disks may still grow by: real images, against qemu-img's word and the file system's.

Sizes are powers of two in GiB, so that a sum tells which images are in it. Others write to the
same file system meanwhile, so sums are compared to the nearest GiB.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt
import libvirt_qemu
import pytest

from asynchost import DiskSource, HostMonitor, MonitorSettings
from asynchost.hypervisor import disk_watch, domain_disks, overcommit_watch
from asynchost.hypervisor.disk import DiskUnknownError, Space, read_local
from asynchost.hypervisor.domain_disks import Place
from asynchost.overcommit import DiskReading
from tests.integration.pipeline import DEADLINE_SECONDS, EVENTS_ONLY, pipeline
from tests.support import guests
from tests.support.disk import file_system, hanging_file_system
from tests.support.images import GIB, disk_xml, fill, growth_bytes, guest_xml, qcow2, raw
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mariadb import Database
from tests.support.waiting import eventually, eventually_equal

LAST = "ffffffff-ffff-4fff-bfff-ffffffffffff"
Make = Callable[..., PrivateLibvirtd]


def settings_for(folder: Path, **more: Any) -> MonitorSettings:
    """The disk is read all the time, and nothing else happens."""
    return replace(EVENTS_ONLY, instances_path=str(folder), disk_interval_seconds=0.1, **more)


@asynccontextmanager
async def watched(uri: str, settings: MonitorSettings) -> AsyncIterator[HostMonitor]:
    """A monitor whose disks have been read once."""
    async with HostMonitor(uri, settings=settings) as monitor:
        await monitor.disks_read()
        yield monitor


def growth_gib(monitor: HostMonitor, folder: Path) -> int:
    """What is missing from what is available: what the monitor says all disks may grow by."""
    disk = monitor.disk
    assert disk is not None
    assert disk.available_least_bytes is not None
    status = os.statvfs(folder)
    return round((status.f_bavail * status.f_frsize - disk.available_least_bytes) / GIB)


async def grows(monitor: HostMonitor, folder: Path, gib: int) -> None:
    """Wait until the monitor says so."""
    await eventually(lambda: growth_gib(monitor, folder) == gib, DEADLINE_SECONDS)


def write(guest: libvirt.virDomain, disk: int, offset_gib: int) -> None:
    """Let a running guest's disk be written, as the guest would."""
    device = f"/machine/peripheral/virtio-disk{disk}/virtio-backend"
    command = f'qemu-io -d {device} "write {offset_gib}G 64k"'
    flags = libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
    assert "rror" not in libvirt_qemu.qemuMonitorCommand(guest, command, flags)


async def test_every_kind_of_disk_counts_as_documented(
    libvirtd: PrivateLibvirtd,
    qemu_connection: libvirt.virConnect,
    database: Database,
    tmp_path: Path,
) -> None:
    """Thin files of inactive domains, each once, and nothing else; the row says the same."""
    half_full = raw(tmp_path / "half.raw", 2, filled_gib=1)
    thin = qcow2(tmp_path / "thin.qcow2", 2)
    spread = qcow2(tmp_path / "spread.qcow2", 4, "-o", "preallocation=metadata")
    full = raw(tmp_path / "full.raw", 1, filled_gib=1)
    base = qcow2(tmp_path / "base.qcow2", 2048)
    overlays = [qcow2(tmp_path / f"overlay{n}.qcow2", 8 << n, backing=base) for n in range(2)]
    twice = raw(tmp_path / "twice.raw", 32)
    (tmp_path / "link.raw").symlink_to(twice)
    not_counted = raw(tmp_path / "not.raw", 4096)
    # Another file system; libvirtd need not even see it.
    elsewhere = raw(Path(f"/dev/shm/{tmp_path.name}.raw"), 64)
    network = "<source protocol='rbd' name='p/i'><host name='127.0.0.1' port='1'/></source>"
    try:
        for xml in (
            guest_xml(
                "a",
                disk_xml(half_full),
                disk_xml(thin, "vdb"),
                disk_xml(spread, "vdc"),
                disk_xml(full, "vdd"),
                disk_xml(overlays[0], "vde"),
                disk_xml(twice, "vdf"),
            ),
            guest_xml(
                "b",
                disk_xml(overlays[1]),
                disk_xml(tmp_path / "link.raw", "vdb"),
                disk_xml(not_counted, "hdc", device="cdrom"),
                disk_xml(not_counted, "vdd", "<readonly/>"),
                disk_xml(not_counted, "vde", "<shareable/>"),
                disk_xml(elsewhere, "vdf"),
                disk_xml(network, "vdg", kind="network"),
                disk_xml("<source dev='/dev/no-such-device'/>", "vdh", kind="block"),
                "<disk type='file' device='floppy'><target dev='fda' bus='fdc'/></disk>",
            ),
        ):
            guests.define(qemu_connection, xml)
        counted = (half_full, thin, spread, full, *overlays, twice)
        assert round(growth_bytes(*counted) / GIB) == 1 + 2 + 4 + 8 + 16 + 32
        async with pipeline(libvirtd.uri(), database, settings_for(tmp_path)) as host:
            await grows(host.monitor, tmp_path, 63)

            def true() -> bool:
                status = os.statvfs(tmp_path)
                available = status.f_bavail * status.f_frsize
                least = (available - growth_bytes(*counted)) // GIB
                return bool(host.row()["disk_available_least"] == least)

            await eventually(lambda: asyncio.to_thread(true), DEADLINE_SECONDS)
            assert host.monitor.status.unreadable_disks == {}
    finally:
        elsewhere.unlink()


async def test_more_can_be_promised_than_there_is(
    libvirtd: PrivateLibvirtd,
    qemu_connection: libvirt.virConnect,
    database: Database,
    tmp_path: Path,
) -> None:
    """The row's figure is then negative; without a disk it is what is available."""
    settings = replace(settings_for(tmp_path), disk_interval_seconds=1e6)
    async with pipeline(libvirtd.uri(), database, settings) as host:
        await grows(host.monitor, tmp_path, 0)
        image = qcow2(tmp_path / "a.qcow2", 1 << 20)
        # An event is what has it read: the timer is far away.
        await asyncio.to_thread(guests.define, qemu_connection, guest_xml("a", disk_xml(image)))
        await grows(host.monitor, tmp_path, 1 << 20)
        await eventually(lambda: host.row()["disk_available_least"] < 0, DEADLINE_SECONDS)
        await asyncio.to_thread(guests.remove_all, qemu_connection)
        await grows(host.monitor, tmp_path, 0)
        await eventually(lambda: host.row()["disk_available_least"] >= 0, DEADLINE_SECONDS)


async def test_a_domain_is_read_again_only_where_its_disks_can_be_others(
    libvirtd: PrivateLibvirtd,
    test_connection: libvirt.virConnect,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A start or an end of one that is known has none of them read; a new definition does; and a
    round leaves out those without a disk, until the tenth."""
    reads: list[str] = []

    def counted(connection: libvirt.virConnect, uuid: str, place: Place) -> DiskReading | None:
        reads.append(uuid)
        return domain_disks.read_disks(connection, uuid, place)

    monkeypatch.setattr(overcommit_watch, "read_disks", counted)
    monkeypatch.setattr(overcommit_watch, "_LEAST_SPACING_SECONDS", 0.01)
    xml = [guests.guest_xml(name, kind="test") for name in "abc"]
    known = [guests.define(test_connection, one) for one in xml]
    uuids = sorted(domain.UUIDString() for domain in known)
    settings = replace(settings_for(tmp_path), disk_interval_seconds=1e6)
    async with watched(libvirtd.uri("test"), settings):
        assert sorted(reads) == uuids
        reads.clear()
        for _ in range(3):
            await asyncio.to_thread(known[0].create)
            await asyncio.to_thread(known[0].destroy)
        new = await asyncio.to_thread(
            guests.define, test_connection, guests.guest_xml("d", kind="test")
        )
        await eventually(lambda: new.UUIDString() in reads)
        again = guests.guest_xml("a", known[0].UUIDString(), vcpus=2, kind="test")
        await asyncio.to_thread(guests.define, test_connection, again)
        await eventually(lambda: known[0].UUIDString() in reads)
        assert set(reads) == {new.UUIDString(), known[0].UUIDString()}
    reads.clear()
    async with watched(libvirtd.uri("test"), settings_for(tmp_path)) as monitor:
        del monitor
        await eventually(lambda: len(reads) >= 8)
    assert len(reads) == 8, "each of the four in the first round and in the eleventh"


async def test_disks_in_use_are_measured_by_what_they_occupy(
    libvirtd: PrivateLibvirtd, qemu_connection: libvirt.virConnect, tmp_path: Path
) -> None:
    """Not by how far they were written, which libvirt 9.0 then reports as a raw disk's allocation.

    libvirt 11.3 with QEMU 10 reports what the disk occupies.
    """
    images = [
        raw(tmp_path / "a.raw", 4, filled_gib=1),
        raw(tmp_path / "full.raw", 2, filled_gib=2),
        qcow2(tmp_path / "b.qcow2", 8),
    ]
    names = ("vda", "vdb", "vdc")
    disks = [disk_xml(image, name) for image, name in zip(images, names, strict=True)]
    guest = guests.start(qemu_connection, guest_xml("g", *disks), paused=False)
    async with watched(libvirtd.uri(), settings_for(tmp_path)) as monitor:
        await grows(monitor, tmp_path, 3 + 0 + 8)
        for number, offset_gib in ((0, 3), (1, 1), (2, 7)):
            await asyncio.to_thread(write, guest, number, offset_gib)
        assert round(growth_bytes(*images) / GIB) == 11
        # Read after all others, so that what it adds is there when they were read again.
        last = qcow2(tmp_path / "last.qcow2", 16)
        xml = guest_xml("last", disk_xml(last)).replace("<name>", f"<uuid>{LAST}</uuid><name>")
        await asyncio.to_thread(guests.define, qemu_connection, xml)
        await grows(monitor, tmp_path, 11 + 16)
        await asyncio.to_thread(guest.destroy)
        await monitor_has_seen_the_end_of(monitor)
        assert growth_gib(monitor, tmp_path) == 11 + 16
    del guest


async def monitor_has_seen_the_end_of(monitor: HostMonitor) -> None:
    """Wait until no guest runs."""
    await eventually(lambda: monitor.usage.running_vms == 0, DEADLINE_SECONDS)


@pytest.mark.parametrize("kind", ["here", "ext4", "xfs", "tmpfs"])
async def test_a_blank_disk_in_use_grows_and_a_preallocated_one_does_not(
    private_libvirtd: Make, tmp_path: Path, kind: str
) -> None:
    """libvirt calls both full while they are in use, since nothing was written to either."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(file_system(kind, tmp_path))
        daemon = private_libvirtd()  # now, so that it sees the new file system
        connection = stack.enter_context(daemon.connection())
        blank, full = raw(folder / "blank.raw", 100), raw(folder / "full.raw", 0)
        with full.open("r+b") as image:
            os.posix_fallocate(image.fileno(), 0, GIB // 16)
        xml = guest_xml("g", disk_xml(blank), disk_xml(full, "vdb"))
        guest = guests.start(connection, xml)
        async with watched(daemon.uri(), settings_for(folder)) as monitor:
            await grows(monitor, folder, 100)
            await asyncio.to_thread(guest.destroy)
            await monitor_has_seen_the_end_of(monitor)
            await grows(monitor, folder, 100)
            assert monitor.status.unreadable_disks == {}
        await asyncio.to_thread(guests.remove_all, connection)
        del guest


DAMAGES = {
    "everything after the magic": (8, b"\xff" * 500),
    "2^64-1": (24, b"\xff" * 8),
    "2^63": (24, b"\x80" + bytes(7)),
    "2^61, more than the column holds": (24, b"\x20" + bytes(7)),
    "2^52, which QEMU does not open": (24, b"\x00\x10" + bytes(6)),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_image_is_a_disk_that_cannot_be_read(
    libvirtd: PrivateLibvirtd,
    qemu_connection: libvirt.virConnect,
    database: Database,
    tmp_path: Path,
    damage: str,
) -> None:
    """It is named and adds nothing, and every other column is written as ever."""
    offset, written = DAMAGES[damage]
    bad = qcow2(tmp_path / "bad.qcow2", 1)
    with bad.open("r+b") as image:
        image.seek(offset)
        image.write(written)
    good = qcow2(tmp_path / "good.qcow2", 8)
    uuid = guests.define(qemu_connection, guest_xml("bad", disk_xml(bad))).UUIDString()
    guests.define(qemu_connection, guest_xml("good", disk_xml(good)))
    async with pipeline(libvirtd.uri(), database, settings_for(tmp_path)) as host:
        await host.monitor.disks_read()
        await grows(host.monitor, tmp_path, 8)
        assert host.monitor.status.unreadable_disks.keys() == {uuid}
        assert host.monitor.status.unreadable_disks[uuid].startswith("vda: ")
        await asyncio.to_thread(guests.start, qemu_connection, guests.guest_xml("g", vcpus=2))
        await eventually_equal(lambda: host.row()["vcpus_used"], 2, DEADLINE_SECONDS)


ODD: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a link to a FIFO": lambda path: (
        os.mkfifo(path.with_name("fifo")),
        path.symlink_to(path.with_name("fifo")),
    ),
    "a folder": Path.mkdir,
}


@pytest.mark.parametrize("kind", ODD)
async def test_a_disk_that_is_no_regular_file_locks_no_domain(
    private_libvirtd: Make, tmp_path: Path, kind: str
) -> None:
    """libvirt is not asked about it, which would open it with the domain locked; it is named."""
    daemon = private_libvirtd()
    odd = tmp_path / "odd.raw"
    ODD[kind](odd)
    good = qcow2(tmp_path / "good.qcow2", 8)
    with daemon.connection() as connection:
        stuck = guests.define(connection, guest_xml("a", disk_xml(odd))).UUIDString()
        guests.define(connection, guest_xml("b", disk_xml(good)))
        async with watched(daemon.uri(), settings_for(tmp_path)) as monitor:
            assert growth_gib(monitor, tmp_path) == 8
            assert monitor.status.unreadable_disks.keys() == {stuck}
            assert await asyncio.to_thread(connection.listAllDomains, 0)
            assert monitor.status.held_threads == 0


async def test_a_remote_hosts_disk_that_is_no_volume_locks_no_domain(
    private_libvirtd: Make, tmp_path: Path
) -> None:
    """A pool takes no FIFO for a volume; neither does it know a file in a folder of its own."""
    daemon = private_libvirtd(listen_tcp=True)
    os.mkfifo(tmp_path / "fifo.raw")
    (tmp_path / "folder").mkdir()
    deep = qcow2(tmp_path / "folder" / "deep.qcow2", 4)
    good = qcow2(tmp_path / "good.qcow2", 8)
    with daemon.connection() as connection:
        pool = connection.storagePoolDefineXML(
            f"<pool type='dir'><name>p</name><target><path>{tmp_path}</path></target></pool>"
        )
        pool.create()
        disks = {"a": tmp_path / "fifo.raw", "b": deep, "c": good}
        uuids = {
            name: guests.define(connection, guest_xml(name, disk_xml(disk))).UUIDString()
            for name, disk in disks.items()
        }
        late = qcow2(tmp_path / "late.qcow2", 1)
        uuids["d"] = guests.define(connection, guest_xml("d", disk_xml(late))).UUIDString()
        async with watched(daemon.tcp_uri(), settings_for(tmp_path)) as monitor:
            unread = monitor.status.unreadable_disks
            assert unread.keys() == {uuids[name] for name in "abd"}
            assert "is no volume of the storage pool 'p'" in unread[uuids["b"]]
            assert "virsh pool-refresh" in unread[uuids["d"]]
            assert await asyncio.to_thread(connection.listAllDomains, 0)
            assert monitor.disk is not None
            assert monitor.disk.available_least_bytes == pool.info()[3] - growth_bytes(good)
            await asyncio.to_thread(pool.refresh, 0)
            await eventually(lambda: uuids["d"] not in monitor.status.unreadable_disks)
        del pool


async def lists(connection: libvirt.virConnect) -> int:
    """How many domains libvirt lists; a locked domain would hold the listing up."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        return len(await asyncio.to_thread(connection.listAllDomains, 0))


async def test_a_file_on_storage_that_hangs_holds_up_nobody(
    private_libvirtd: Make, tmp_path: Path
) -> None:
    """Looking at it holds one thread; libvirt is not asked, and the others are read on."""
    settings = settings_for(tmp_path, call_deadline_seconds=0.5)
    good = qcow2(tmp_path / "good.qcow2", 8)
    with contextlib.ExitStack() as stack:
        hanging = stack.enter_context(contextlib.ExitStack())
        hanging.enter_context(hanging_file_system(tmp_path / "nfs"))
        daemon = private_libvirtd()
        connection = stack.enter_context(daemon.connection())
        stuck = guests.define(connection, guest_xml("a", disk_xml(tmp_path / "nfs" / "a.raw")))
        uuid = stuck.UUIDString()
        guests.define(connection, guest_xml("b", disk_xml(good)))
        del stuck
        async with watched(daemon.uri(), settings) as monitor:
            await grows(monitor, tmp_path, 8)
            reason = f"{tmp_path}/nfs/a.raw does not answer"
            assert monitor.status.unreadable_disks == {uuid: reason}
            assert await lists(connection) == 2
            assert monitor.status.held_threads == 1
            later = qcow2(tmp_path / "later.qcow2", 1)
            await asyncio.to_thread(guests.define, connection, guest_xml("c", disk_xml(later)))
            await grows(monitor, tmp_path, 8 + 1)
            assert monitor.status.held_threads == 1, "one look at it, not one in each round"
            await asyncio.to_thread(hanging.close)
            await eventually(lambda: monitor.status.unreadable_disks.get(uuid, reason) != reason)
            assert monitor.status.held_threads == 0


async def test_while_the_space_hangs_no_disk_is_asked_for(
    private_libvirtd: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """libvirt would hang as well, and with it everybody's listing; the totals go on."""
    space = tmp_path / "nfs"
    settings = settings_for(space, call_deadline_seconds=0.5)
    with contextlib.ExitStack() as stack:
        stack.enter_context(hanging_file_system(space))
        daemon = private_libvirtd()
        connection = stack.enter_context(daemon.connection())
        guests.define(connection, guest_xml("a", disk_xml(space / "a.raw")))
        async with HostMonitor(daemon.uri(), settings=settings) as monitor:
            await eventually(lambda: any("does not answer" in line for line in caplog.messages))
            assert await lists(connection) == 1
            await asyncio.to_thread(guests.start, connection, guests.guest_xml("g"))
            await eventually(lambda: monitor.usage.running_vms == 1)
            assert monitor.disk is None
            assert monitor.status.held_threads == 1, "the look at the space, and no other"


async def test_a_pool_whose_storage_hangs_locks_no_domain(
    private_libvirtd: Make, tmp_path: Path
) -> None:
    """One call hangs in the pool, and no other is made: of a remote host's files it alone tells."""
    settings = settings_for(tmp_path / "pool", call_deadline_seconds=0.5)
    (tmp_path / "pool").mkdir()
    images = [qcow2(tmp_path / "pool" / f"{name}.qcow2", 1) for name in "abc"]
    with contextlib.ExitStack() as stack:
        hanging = stack.enter_context(contextlib.ExitStack())
        hanging.enter_context(hanging_file_system(tmp_path / "nfs"))
        daemon = private_libvirtd(listen_tcp=True)
        connection = stack.enter_context(daemon.connection())
        target = f"<target><path>{tmp_path / 'pool'}</path></target>"
        pool = connection.storagePoolDefineXML(f"<pool type='dir'><name>p</name>{target}</pool>")
        pool.create()
        xmls = [guest_xml(image.stem, disk_xml(image)) for image in images]
        uuids = {guests.define(connection, xml).UUIDString() for xml in xmls}
        async with watched(daemon.tcp_uri(), settings) as monitor:
            assert monitor.status.unreadable_disks == {}
            for image in images:
                image.unlink()
                image.symlink_to(tmp_path / "nfs" / "gone")
            await eventually(lambda: monitor.status.held_threads > 0, describe="the pool hangs")
            assert await lists(connection) == 3
            await asyncio.to_thread(guests.start, connection, guests.guest_xml("g"))
            await eventually(lambda: monitor.usage.running_vms == 1)
            # One in the disks' own connection, one in the space's, which waits for the pool too.
            assert monitor.status.held_threads <= 2
            await asyncio.to_thread(hanging.close)
            await eventually(lambda: monitor.status.unreadable_disks.keys() == uuids)
            assert monitor.status.held_threads == 0
        del pool


async def test_a_remote_hosts_disks_are_those_of_its_pool(
    private_libvirtd: Make, database: Database, tmp_path: Path
) -> None:
    """Files below its target and volumes of it, but not those of a pool inside; by its figures."""
    daemon = private_libvirtd(listen_tcp=True)
    (tmp_path / "inner").mkdir()
    file = qcow2(tmp_path / "file.qcow2", 1)
    volume = qcow2(tmp_path / "volume.qcow2", 2)
    inner = qcow2(tmp_path / "inner" / "inner.qcow2", 4)
    with daemon.connection() as connection:
        for name, target in (("outer", tmp_path), ("inner", tmp_path / "inner")):
            pool = connection.storagePoolDefineXML(
                f"<pool type='dir'><name>{name}</name><target><path>{target}</path></target></pool>"
            )
            pool.create()
        volume_source = f"<source pool='outer' volume='{volume.name}'/>"
        guests.define(
            connection,
            guest_xml(
                "a",
                disk_xml(file),
                disk_xml(volume_source, "vdb", kind="volume", image_format="qcow2"),
                disk_xml(inner, "vdc"),
                disk_xml("<source pool='gone' volume='v'/>", "vdd", kind="volume"),
            ),
        )
        settings = settings_for(tmp_path)
        async with pipeline(daemon.tcp_uri(), database, settings) as host:
            pool = connection.storagePoolLookupByName("outer")
            _, _, _, available = pool.info()
            expected = available - growth_bytes(file, volume)
            disk = host.monitor.disk
            assert disk is not None
            assert disk.available_least_bytes == expected
            await eventually(
                lambda: host.row()["disk_available_least"] == expected // GIB, DEADLINE_SECONDS
            )
            ((uuid, reason),) = host.monitor.status.unreadable_disks.items()
            assert uuid == connection.lookupByName("a").UUIDString()
            assert reason.startswith("vdd: ")
            assert "gone" in reason
        # This machine's own host can be told to be measured so as well.
        pooled = replace(settings, disk=DiskSource.POOL)
        async with watched(daemon.uri(), pooled) as monitor:
            assert monitor.disk == disk
        del pool


async def test_a_disk_that_cannot_be_read_keeps_its_value_or_is_left_out(
    libvirtd: PrivateLibvirtd,
    qemu_connection: libvirt.virConnect,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Named either way, with one line for each reason, until it can be read."""
    there = qcow2(tmp_path / "there.qcow2", 1)
    missing = tmp_path / "missing.qcow2"
    xml = guest_xml("a", disk_xml(there), disk_xml(missing, "vdb"))
    uuid = guests.define(qemu_connection, xml).UUIDString()
    async with watched(libvirtd.uri(), settings_for(tmp_path)) as monitor:
        assert growth_gib(monitor, tmp_path) == 1
        unread = monitor.status.unreadable_disks
        assert unread.keys() == {uuid}
        assert unread[uuid].startswith("vdb: ")
        assert str(missing) in unread[uuid]
        qcow2(missing, 2)
        await grows(monitor, tmp_path, 3)
        await eventually(lambda: monitor.status.unreadable_disks == {})
        there.rename(tmp_path / "away")
        await eventually(lambda: uuid in monitor.status.unreadable_disks, DEADLINE_SECONDS)
        assert growth_gib(monitor, tmp_path) == 3
    lines = [line for line in caplog.messages if "their last values stand" in line]
    assert len(lines) == 2
    assert str(missing) in lines[0]
    assert str(there) in lines[1]


async def test_disks_are_told_of_though_the_space_could_not_be_read_again(
    libvirtd: PrivateLibvirtd,
    qemu_connection: libvirt.virConnect,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the space as it was read last: once they are read, their sum is known."""
    image = qcow2(tmp_path / "a.qcow2", 1)
    guests.define(qemu_connection, guest_xml("a", disk_xml(image)))
    spaces: list[Space] = []

    def read_once(path: str) -> Space:
        if spaces:
            raise DiskUnknownError("it hangs")
        spaces.append(read_local(path))
        return spaces[0]

    monkeypatch.setattr(disk_watch, "read_local", read_once)
    async with watched(libvirtd.uri(), settings_for(tmp_path)) as monitor:
        assert monitor.disk is not None
        expected = spaces[0].available_bytes - growth_bytes(image)
        assert monitor.disk.available_least_bytes == expected


async def test_a_hung_guest_keeps_its_last_value_and_holds_up_nobody(
    private_libvirtd: Make, tmp_path: Path
) -> None:
    """Its disks are named; the others', and the space itself, are read on; it comes back."""
    daemon = private_libvirtd()
    settings = settings_for(tmp_path, call_deadline_seconds=1.0)
    with daemon.connection() as connection:
        hung = qcow2(tmp_path / "hung.qcow2", 1)
        guest = guests.start(connection, guest_xml("hung", disk_xml(hung)))
        uuid = guest.UUIDString()
        del guest
        async with watched(daemon.uri(), settings) as monitor:
            await grows(monitor, tmp_path, 1)
            process = daemon.guest_pid("hung")
            os.kill(process, signal.SIGSTOP)
            await eventually(lambda: uuid in monitor.status.unreadable_disks, DEADLINE_SECONDS)
            assert "virDomainGetBlockInfo" in monitor.status.unreadable_disks[uuid]
            other = raw(tmp_path / "other.raw", 4, filled_gib=2)
            xml = guest_xml("other", disk_xml(other))
            await asyncio.to_thread(guests.start, connection, xml)
            await grows(monitor, tmp_path, 1 + 2)
            fill(other, 3)
            await grows(monitor, tmp_path, 1 + 1)
            await eventually(lambda: monitor.status.unreadable == {})
            await eventually(lambda: monitor.status.unreadable_disks.keys() == {uuid})
            os.kill(process, signal.SIGCONT)
            await eventually(lambda: monitor.status.unreadable_disks == {}, DEADLINE_SECONDS)
            await grows(monitor, tmp_path, 1 + 1)


async def test_four_that_hang_are_as_many_as_libvirtd_is_burdened_with(
    private_libvirtd: Make, tmp_path: Path
) -> None:
    """The rest is not asked for, and named; who was never read adds nothing."""
    daemon = private_libvirtd()
    settings = settings_for(tmp_path, call_deadline_seconds=0.5)
    with daemon.connection() as connection:
        for number in range(6):
            image = qcow2(tmp_path / f"{number}.qcow2", 1)
            guests.start(connection, guest_xml(f"g{number}", disk_xml(image)))
        processes = list(daemon.guest_pids().values())
        assert len(processes) == 6
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        async with watched(daemon.uri(), settings) as monitor:
            assert growth_gib(monitor, tmp_path) == 0
            reasons = sorted(monitor.status.unreadable_disks.values())
            assert reasons[:2] == ["not asked for, 4 others hang"] * 2
            assert all("virDomainGetBlockInfo" in reason for reason in reasons[2:])
            assert (monitor.usage.running_vms, monitor.status.unreadable) == (6, {})
            for process in processes:
                os.kill(process, signal.SIGCONT)
            await grows(monitor, tmp_path, 6)
            # The sum is of now, and those that were not read are those of the last whole round.
            await eventually(lambda: monitor.status.unreadable_disks == {})


async def test_disk_and_disks_are_read_on_after_a_reconnect(
    private_libvirtd: Make, tmp_path: Path
) -> None:
    """Over new connections: the pool's, and the disks' one."""
    daemon = private_libvirtd(listen_tcp=True)

    def prepare() -> None:
        with daemon.connection() as connection:
            pool = connection.storagePoolDefineXML(
                f"<pool type='dir'><name>p</name><target><path>{tmp_path}</path></target></pool>"
            )
            pool.create()
            pool.setAutostart(1)

    def change() -> int:
        with daemon.connection() as connection:
            fill(tmp_path / "full", 1)
            guests.define(connection, guest_xml("a", disk_xml(image)))
            pool = connection.storagePoolLookupByName("p")
            pool.refresh(0)
            return int(pool.info()[3]) - growth_bytes(image)

    image = qcow2(tmp_path / "a.qcow2", 4)
    await asyncio.to_thread(prepare)
    async with watched(daemon.tcp_uri(), settings_for(tmp_path)) as monitor:
        generation = monitor.status.generation
        await asyncio.to_thread(daemon.restart)
        await eventually(
            lambda: monitor.status.fresh and monitor.status.generation > generation,
            DEADLINE_SECONDS,
        )
        left = await asyncio.to_thread(change)
        await eventually(lambda: monitor.disk.available_least_bytes == left, DEADLINE_SECONDS)


async def test_where_no_disk_is_wanted_it_is_not_known(
    libvirtd: PrivateLibvirtd,
    qemu_connection: libvirt.virConnect,
    database: Database,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """0, 0 and NULL, and no word about it."""
    settings = settings_for(tmp_path, disk=DiskSource.NONE)
    async with pipeline(libvirtd.uri(), database, settings) as host:
        row = await eventually(lambda: asyncio.to_thread(database.rows), DEADLINE_SECONDS)
        assert (row[0]["local_gb"], row[0]["local_gb_used"]) == (0, 0)
        assert (row[0]["free_disk_gb"], row[0]["disk_available_least"]) == (None, None)
        assert host.monitor.disk is None
    assert not [line for line in caplog.messages if "disk" in line and "row written" not in line]


async def test_a_driver_inside_this_process_has_made_up_disks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are not counted, and that is said once."""
    caplog.set_level("INFO")
    async with watched("test:///default", settings_for(tmp_path)) as monitor:
        assert monitor.disk is not None
        assert monitor.disk.available_least_bytes is None
        assert monitor.status.unreadable_disks == {}
    lines = [line for line in caplog.messages if "disk_available_least not known" in line]
    assert len(lines) == 1


async def test_a_driver_that_tells_of_no_disk_leaves_it_unknown(
    libvirtd: PrivateLibvirtd, lxc_connection: libvirt.virConnect, tmp_path: Path
) -> None:
    """Without disks there is nothing to tell, so that is known; with one it is not."""
    async with watched(libvirtd.uri("lxc"), settings_for(tmp_path)) as monitor:
        assert growth_gib(monitor, tmp_path) == 0
        xml = guest_xml("a", disk_xml(raw(tmp_path / "a.raw", 1), "sda"), kind="lxc")
        await asyncio.to_thread(guests.define, lxc_connection, xml)
        disk = await eventually(lambda: monitor.disk, DEADLINE_SECONDS)
        await eventually(lambda: monitor.disk.available_least_bytes is None, DEADLINE_SECONDS)
        assert disk.total_bytes == monitor.disk.total_bytes
        assert monitor.status.unreadable_disks == {}
