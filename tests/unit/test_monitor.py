"""The monitor before and without a host, and the classic dictionary. Hosts have real servers."""

import asyncio
from pathlib import Path

import pytest

from asynchost.errors import (
    ClosedError,
    HypervisorRefusedError,
    HypervisorUnavailableError,
    InvalidSettingError,
    NotReadyError,
)
from asynchost.model import BYTES_PER_GIB, DiskUsage, HostFacts, HostSnapshot, Usage
from asynchost.monitor import HostMonitor, host_stats
from asynchost.settings import MonitorSettings

URI = "test:///default"
CPU = {
    "arch": "x86_64",
    "model": "kvm64",
    "vendor": "AMD",
    "topology": {"cells": 1, "sockets": 1, "cores": 2, "threads": 1},
    "features": ["aes", "avx"],
}
FACTS = HostFacts("node-1", "QEMU", 7_002_022, 8, 16_000, CPU)
DISK = DiskUsage(100 * BYTES_PER_GIB, 30 * BYTES_PER_GIB)
USAGE = Usage(6, 2048 * 1024 + 1023, 3, 0)


async def test_before_the_start_nothing_is_known() -> None:
    """Making a monitor opens nothing; asking it for a number is an error that says so."""
    monitor = HostMonitor(URI)
    assert monitor.host == URI
    assert (monitor.facts, monitor.disk) == (None, None)
    assert monitor.snapshot() == HostSnapshot(URI, None, reason="not started")
    assert repr(monitor) == "<HostMonitor 'test:///default' not fresh: 'not started'>"
    assert (monitor.status.ready, monitor.status.generation) == (False, 0)
    with pytest.raises(NotReadyError):
        _ = monitor.usage
    with pytest.raises(NotReadyError):
        await monitor.get_host_stats()
    for waiting in (monitor.ready(), monitor.wait(), monitor.disks_read()):
        with pytest.raises(RuntimeError, match="was not started"):
            await waiting
    with pytest.raises(HypervisorUnavailableError, match="not connected"):
        await monitor.audit()
    changes = monitor.changes()
    await monitor.aclose()
    assert [change async for change in changes] == []
    for waiting in (monitor.ready(), monitor.start()):
        with pytest.raises(ClosedError):
            await waiting
    assert monitor.status.reason == "closed"


async def test_a_given_name_is_the_hosts_name() -> None:
    """In logs and changes, and in the row."""
    monitor = HostMonitor(URI, name="node-1")
    assert monitor.host == monitor.snapshot().name == "node-1"


@pytest.mark.parametrize("uri", ["quemu:///system", "", "qemu+pigeon://node-1/system"])
async def test_a_uri_that_names_no_driver_is_refused_at_once(uri: str) -> None:
    """Before anything is started."""
    with pytest.raises(HypervisorRefusedError):
        HostMonitor(uri)


async def test_a_wrong_setting_is_refused_before_there_is_a_monitor() -> None:
    """By its name."""
    with pytest.raises(InvalidSettingError, match="look_again_seconds"):
        HostMonitor(URI, settings=MonitorSettings(look_again_seconds=0))


async def test_a_monitor_is_started_once() -> None:
    """A second start, also after the close, is a mistake of the program."""
    monitor = HostMonitor(URI)
    await monitor.start()
    with pytest.raises(RuntimeError, match="started once"):
        await monitor.start()
    await monitor.aclose()
    with pytest.raises(RuntimeError, match="started once"):
        await monitor.start()


async def test_closing_before_the_first_round_is_told_to_whoever_waits() -> None:
    """Nothing was opened yet; what is asked for afterwards ends at once."""
    monitor = HostMonitor(URI)
    await monitor.start()
    ready = asyncio.create_task(monitor.ready())
    await monitor.aclose()
    await monitor.aclose()
    with pytest.raises(ClosedError):
        await ready
    await monitor.wait()
    assert [change async for change in monitor.changes()] == []


async def test_an_impatient_one_is_told_of_the_first_failure(tmp_path: Path) -> None:
    """With the reason; the monitor itself goes on trying, and so does who is patient."""
    monitor = HostMonitor(f"qemu+unix:///system?socket={tmp_path}/none")
    await monitor.start()
    patient = asyncio.create_task(monitor.ready())
    async with asyncio.timeout(10):
        with pytest.raises(HypervisorUnavailableError, match="No such file"):
            await monitor.ready(patient=False)
    assert not patient.done()
    await monitor.aclose()
    with pytest.raises(ClosedError):
        await patient


def test_the_classic_dictionary() -> None:
    """Disk in GiB, memory in MiB, floored once."""
    snapshot = HostSnapshot("host", "node-1", usage=USAGE, facts=FACTS, disk=DISK)
    assert host_stats(snapshot) == {
        "vcpus": 8,
        "vcpus_used": 6,
        "cpu_info": CPU,
        "disk_total": 100,
        "disk_used": 30,
        "disk_available": 70,
        "host_memory_total": 16_000,
        "host_memory_free": 16_000 - 2048,
        "hypervisor_type": "QEMU",
        "hypervisor_version": 7_002_022,
    }


def test_an_unknown_disk_is_none_in_the_dictionary() -> None:
    """Never zero."""
    stats = host_stats(HostSnapshot("host", "node-1", usage=USAGE, facts=FACTS))
    assert (stats["disk_total"], stats["disk_used"], stats["disk_available"]) == (None, None, None)


def test_a_stale_dictionary_says_how_old_it_is() -> None:
    """The values are the frozen ones."""
    snapshot = HostSnapshot("host", "node-1", usage=USAGE, facts=FACTS, stale_seconds=3.5)
    assert host_stats(snapshot)["stale_seconds"] == 3.5


def test_the_dictionary_is_the_callers_own() -> None:
    """Changing it, however deep, changes nothing for anybody else."""
    stats = host_stats(HostSnapshot("host", "node-1", usage=USAGE, facts=FACTS))
    stats["cpu_info"]["topology"]["cores"] = 99
    stats["cpu_info"]["features"].append("wings")
    stats["cpu_info"]["arch"] = "pdp-11"
    assert CPU["topology"] == {"cells": 1, "sockets": 1, "cores": 2, "threads": 1}
    assert (CPU["features"], CPU["arch"]) == (["aes", "avx"], "x86_64")


@pytest.mark.parametrize(
    ("known", "missing"),
    [
        ({"usage": USAGE}, "what the host itself is has not been read yet"),
        ({"facts": FACTS}, "no totals before the first resync"),
        ({}, "no totals before the first resync"),
    ],
)
def test_there_is_no_dictionary_of_a_part(known: dict[str, object], missing: str) -> None:
    """Without totals or without facts it would have to guess; it says which of them."""
    with pytest.raises(NotReadyError, match=missing):
        host_stats(HostSnapshot("host", "node-1", **known))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", " ", "n" * 256])
def test_a_name_that_no_row_can_have_is_refused(name: str) -> None:
    """It is named at once, before anything was opened."""
    with pytest.raises(InvalidSettingError, match="name"):
        HostMonitor("test:///default", name=name)
