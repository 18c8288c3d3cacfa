"""The whole row: each of its 21 columns against a value that the test finds out by itself."""

import asyncio
import json
import os
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import libvirt
import pytest

from asynchost import ComputeNodeWriter, HostMonitor
from tests.integration.pipeline import AT_ONCE, DEADLINE_SECONDS, EVENTS_ONLY, pipeline
from tests.support import guests
from tests.support.libvirtd import Driver, PrivateLibvirtd
from tests.support.mariadb import Database
from tests.support.waiting import eventually

COLUMNS = (
    *("created_at", "updated_at", "deleted_at", "deleted", "id", "service_id", "vcpus"),
    *("memory_mb", "local_gb", "vcpus_used", "memory_mb_used", "local_gb_used"),
    *("hypervisor_type", "hypervisor_version", "cpu_info", "disk_available_least"),
    *("free_ram_mb", "free_disk_gb", "current_workload", "running_vms", "hypervisor_hostname"),
)
TIMES = ("created_at", "updated_at")
GIB = 2**30


def expected_columns(
    connection: libvirt.virConnect, instances_path: Path, vcpus_used: int, memory_mb_used: int
) -> dict[str, Any]:
    """What a new host's row must hold, times and CPU description apart."""
    _, memory_mb, vcpus, *_ = connection.getInfo()
    disk = os.statvfs(instances_path)
    total = disk.f_blocks * disk.f_frsize // GIB
    used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize // GIB
    return {
        "deleted_at": None,
        "deleted": 0,
        "id": 1,
        "service_id": 0,
        "vcpus": vcpus,
        "memory_mb": memory_mb,
        "local_gb": total,
        "vcpus_used": vcpus_used,
        "memory_mb_used": memory_mb_used,
        "local_gb_used": used,
        "hypervisor_type": connection.getType(),
        "hypervisor_version": connection.getVersion(),
        "disk_available_least": disk.f_bavail * disk.f_frsize // GIB,
        "free_ram_mb": memory_mb - memory_mb_used,
        "free_disk_gb": total - used,
        "current_workload": 0,
        "running_vms": 2,
        "hypervisor_hostname": connection.getHostname(),
    }


def expected_cpu_info(connection: libvirt.virConnect) -> dict[str, Any]:
    """The CPU description that libvirt's capabilities document holds, with all that its CPU model
    stands for, as Nova writes it."""
    document = ET.fromstring(connection.getCapabilities())
    cpu = document.find("./host/cpu")
    if cpu.find("model") is not None:
        flag = libvirt.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES
        text = connection.baselineCPU([ET.tostring(cpu, encoding="unicode")], flag)
        features = ET.fromstring(text).findall("./feature")
    else:
        features = cpu.findall("./feature")
    width = cpu.find("maxphysaddr")
    more = {} if width is None else {"mode": width.get("mode"), "bits": int(width.get("bits"))}
    topology = {
        name: int(value)
        for name, value in document.find("./host/cpu/topology").attrib.items()
        if name in ("sockets", "cores", "threads")
    }
    cells = document.findall("./host/topology/cells/cell")
    return {
        "arch": document.find("./host/cpu/arch").text,
        "model": getattr(document.find("./host/cpu/model"), "text", None),
        "vendor": getattr(document.find("./host/cpu/vendor"), "text", None),
        "topology": {"cells": len(cells), **topology},
        # libvirt 11.3 lists what the CPU lacks of its model as well, with this policy.
        "features": sorted(
            feature.attrib["name"] for feature in features if feature.get("policy") != "disable"
        ),
        **({"maxphysaddr": more} if more else {}),
    }


async def test_every_column_of_a_qemu_host_is_true(
    libvirtd: PrivateLibvirtd,
    qemu_connection: libvirt.virConnect,
    database: Database,
    tmp_path: Path,
) -> None:
    """Host, CPU, memory, usage, disk, identity and times, all from other calls than ours."""
    guests.start(qemu_connection, guests.guest_xml("a", vcpus=2))
    guests.start(qemu_connection, guests.guest_xml("b", vcpus=3, memory_kib=20480))
    begun = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    # The disk and a ballooned machine's memory may move while we look: read again until it fits.
    settings = replace(
        EVENTS_ONLY,
        instances_path=str(tmp_path),
        disk_interval_seconds=0.1,
        audit_interval_seconds=1,
    )
    async with (
        HostMonitor(libvirtd.uri(), settings=settings) as monitor,
        ComputeNodeWriter(database.url, settings=AT_ONCE) as writer,
    ):
        attachment = writer.attach(monitor)

        def true() -> dict[str, Any]:
            row = next(iter(database.rows()), None)
            assert row is not None
            expected = expected_columns(qemu_connection, tmp_path, 5, 16 + 20)
            assert {name: row[name] for name in expected} == expected
            return row

        row = await eventually(lambda: asyncio.to_thread(true), DEADLINE_SECONDS)
        # The answer comes after the row.
        await eventually(lambda: attachment.row_id == row["id"])
    assert tuple(row) == COLUMNS
    cpu_info = json.loads(row["cpu_info"])
    assert cpu_info == expected_cpu_info(qemu_connection)
    assert {"arch", "features", "model", "topology", "vendor"} <= cpu_info.keys()
    now = datetime.now(UTC).replace(tzinfo=None)
    for name in TIMES:
        assert begun <= row[name] <= now + timedelta(seconds=1), name


@pytest.mark.parametrize("driver", ["test", "lxc"])
async def test_a_driver_that_tells_little_fills_every_column_too(
    libvirtd: PrivateLibvirtd,
    request: pytest.FixtureRequest,
    database: Database,
    driver: Driver,
) -> None:
    """All five keys of cpu_info are there, what is not known is null, and features a list."""
    connection = request.getfixturevalue(f"{driver}_connection")

    def true() -> dict[str, Any]:
        row = next(iter(database.rows()), None)
        assert row is not None
        assert (row["memory_mb"], row["vcpus"]) == tuple(connection.getInfo()[1:3])
        return row

    # A container's host is this machine, whose memory may change while we look.
    settings = replace(EVENTS_ONLY, audit_interval_seconds=1)
    async with pipeline(libvirtd.uri(driver), database, settings, name="named") as host:
        row = await eventually(lambda: asyncio.to_thread(true), DEADLINE_SECONDS)
        assert host.monitor.facts is not None
    cpu_info = json.loads(row["cpu_info"])
    assert {"arch", "features", "model", "topology", "vendor"} <= cpu_info.keys()
    assert sorted(cpu_info["topology"]) == ["cells", "cores", "sockets", "threads"]
    assert isinstance(cpu_info["features"], list)
    assert row["hypervisor_type"] == connection.getType()
    assert row["hypervisor_version"] == connection.getVersion()
    assert row["hypervisor_hostname"] == "named"


UNKNOWN_DISK = {
    "local_gb": 0,
    "local_gb_used": 0,
    "free_disk_gb": None,
    "disk_available_least": None,
}


def disk_of(database: Database) -> dict[str, Any] | None:
    """The disk's columns of the only row; None while there is no row."""
    rows = database.rows()
    return {name: rows[0][name] for name in UNKNOWN_DISK} if rows else None


async def test_an_instances_path_that_is_missing_makes_the_disk_unknown(
    libvirtd: PrivateLibvirtd,
    test_connection: libvirt.virConnect,
    database: Database,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """0, 0 and NULL, and one line that says why; known as soon as the folder is there."""
    folder = tmp_path / "instances"
    settings = replace(EVENTS_ONLY, instances_path=str(folder), disk_interval_seconds=0.1)
    async with pipeline(libvirtd.uri("test"), database, settings) as host:
        await eventually(lambda: asyncio.to_thread(disk_of, database), DEADLINE_SECONDS)
        assert disk_of(database) == UNKNOWN_DISK
        assert host.monitor.disk is None
        stats = await host.monitor.get_host_stats()
        assert [stats[f"disk_{part}"] for part in ("total", "used", "available")] == [None] * 3
        folder.mkdir()
        total = os.statvfs(folder).f_blocks * os.statvfs(folder).f_frsize // GIB
        await eventually(lambda: database.row()["local_gb"] == total, DEADLINE_SECONDS)
        row = database.row()
        assert row["free_disk_gb"] == row["local_gb"] - row["local_gb_used"]
        # Gone again: what was known is kept.
        lines = len(caplog.messages)
        folder.rmdir()
        await eventually(lambda: any("disk not known" in m for m in caplog.messages[lines:]))
        assert database.row()["local_gb"] == total
    (first, second) = [message for message in caplog.messages if "disk not known" in message]
    for line in (first, second):
        assert str(folder) in line
        assert "(instances_path)" in line


async def test_a_remote_host_without_a_pool_has_an_unknown_disk_until_it_gets_one(
    private_libvirtd: Callable[..., PrivateLibvirtd], database: Database, tmp_path: Path
) -> None:
    """Over TCP the folders of the host cannot be seen; its storage pool can."""
    daemon = private_libvirtd(listen_tcp=True)
    instances = tmp_path / "pool" / "instances"
    instances.mkdir(parents=True)
    settings = replace(EVENTS_ONLY, instances_path=str(instances), disk_interval_seconds=0.1)
    async with pipeline(daemon.tcp_uri(), database, settings):
        await eventually(lambda: asyncio.to_thread(disk_of, database), DEADLINE_SECONDS)
        assert disk_of(database) == UNKNOWN_DISK
        with daemon.connection() as connection:

            def make_pools() -> list[int]:
                for name, target in (("outer", tmp_path), ("inner", tmp_path / "pool")):
                    pool = connection.storagePoolDefineXML(
                        f"<pool type='dir'><name>{name}</name>"
                        f"<target><path>{target}</path></target></pool>"
                    )
                    pool.create()
                return pool.info()

            _, capacity, allocation, available = await asyncio.to_thread(make_pools)
        total, used = capacity // GIB, allocation // GIB
        known = {
            "local_gb": total,
            "local_gb_used": used,
            "free_disk_gb": total - used,
            "disk_available_least": available // GIB,
        }
        await eventually(lambda: disk_of(database) == known, DEADLINE_SECONDS)


async def test_a_given_name_stands_in_the_row(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, database: Database
) -> None:
    """And without one, what libvirt reports."""
    async with (
        HostMonitor(libvirtd.uri("test"), settings=EVENTS_ONLY) as unnamed,
        HostMonitor(libvirtd.uri("test"), name="named", settings=EVENTS_ONLY) as named,
        ComputeNodeWriter(database.url, settings=AT_ONCE) as writer,
    ):
        writer.attach(unnamed)
        writer.attach(named, service_id=7)
        await eventually(lambda: len(database.rows()) == 2, DEADLINE_SECONDS)
    found = {row["hypervisor_hostname"]: row["service_id"] for row in database.rows()}
    assert found == {test_connection.getHostname(): 0, "named": 7}
