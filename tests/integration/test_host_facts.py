"""What a host is can change while it runs: the next audit notices, and so does the row."""

import asyncio
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from asynchost import HostFacts, HostMonitor, MonitorSettings
from asynchost.hypervisor import source
from asynchost.hypervisor.host_facts import read_facts, read_node
from tests.integration.pipeline import DEADLINE_SECONDS, pipeline
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mariadb import Database
from tests.support.waiting import eventually, eventually_equal


async def test_cpus_that_come_and_go_are_noticed_at_the_audit(
    private_libvirtd: Callable[..., PrivateLibvirtd],
    database: Database,
) -> None:
    """A host's own CPUs send no event; the totals over its domains are no part of it."""
    daemon = await asyncio.to_thread(private_libvirtd)
    if not daemon.privileged:
        pytest.skip("only root may show a daemon other CPUs than the machine's")
    await asyncio.to_thread(daemon.see_cpus, "0")
    async with pipeline(daemon.uri("qemu"), database) as host:
        await host.agrees()
        await eventually_equal(lambda: host.row()["vcpus"], 1, DEADLINE_SECONDS)
        changes = host.monitor.changes()
        for online, vcpus in (("0-1", 2), ("0", 1)):
            await asyncio.to_thread(daemon.see_cpus, online)
            assert await host.monitor.audit() == []
            assert host.monitor.facts is not None
            assert host.monitor.facts.vcpus == vcpus
            await eventually_equal(lambda: host.row()["vcpus"], vcpus, DEADLINE_SECONDS)
            # What the rest of the facts say was read anew with them.
            assert host.monitor.facts.cpu_info["arch"] == "x86_64"
    assert [change async for change in changes] == []


async def test_capabilities_that_do_not_come_are_asked_for_at_the_next_audit(
    private_libvirtd: Callable[..., PrivateLibvirtd], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new CPUs are told at once; what else changed with them is not forgotten."""
    daemon = await asyncio.to_thread(private_libvirtd)
    if not daemon.privileged:
        pytest.skip("only root may show a daemon other CPUs than the machine's")
    await asyncio.to_thread(daemon.see_cpus, "0")
    refused: list[bool] = []

    def read(connection: libvirt.virConnect) -> HostFacts:
        refused.append(len(refused) == 0)
        if refused[-1]:
            raise libvirt.libvirtError("busy")
        return replace(read_facts(connection), memory_mb=memory_mb)

    settings = MonitorSettings(audit_interval_seconds=0, second_resync_seconds=0)
    async with HostMonitor(daemon.uri("qemu"), settings=settings) as monitor:
        await monitor.get_host_stats()
        assert monitor.facts is not None
        # The machine's own memory may change at any moment, and would be one more reason to ask.
        memory_mb = monitor.facts.memory_mb
        monkeypatch.setattr(source, "read_node", lambda host: (read_node(host)[0], memory_mb))
        monkeypatch.setattr(source, "read_facts", read)
        await asyncio.to_thread(daemon.see_cpus, "0-1")
        for asked in ([True], [True, False], [True, False]):
            await monitor.audit()
            assert refused == asked
            assert monitor.facts.vcpus == 2


async def test_features_are_those_of_the_cpu_model_too(
    libvirtd: PrivateLibvirtd, qemu_connection: libvirt.virConnect, database: Database
) -> None:
    """As Nova writes them. A read-only connection suffices, which is what a monitor opens."""
    capabilities = ET.fromstring(qemu_connection.getCapabilities())
    cpu = capabilities.find("host/cpu")
    assert cpu is not None
    if cpu.find("model") is None:
        pytest.skip("libvirt does not know this machine's CPU")
    flag = libvirt.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES
    expanded = ET.fromstring(
        qemu_connection.baselineCPU([ET.tostring(cpu, encoding="unicode")], flag)
    )
    expected = sorted(
        feature.attrib["name"]
        for feature in expanded.iter("feature")
        if feature.get("policy") != "disable"
    )
    listed = {feature.attrib["name"] for feature in cpu.iter("feature")}
    assert set(expected) - listed, "those that the model stands for"
    async with pipeline(libvirtd.uri("qemu"), database) as host:
        row = await eventually(lambda: asyncio.to_thread(host.row), DEADLINE_SECONDS)
        cpu_info = json.loads(row["cpu_info"])
        assert cpu_info["features"] == expected
        width = cpu.find("maxphysaddr")
        if width is not None:
            assert cpu_info["maxphysaddr"]["bits"] == int(width.attrib["bits"])


async def test_a_host_without_an_emulator_where_libvirt_looks_has_a_row(
    private_libvirtd: Callable[..., PrivateLibvirtd],
    database: Database,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its version is 0, and the log says why. A guest with an emulator of its own is counted. The
    version is in the row as soon as libvirt finds an emulator."""
    daemon = await asyncio.to_thread(private_libvirtd)
    if not daemon.privileged:
        pytest.skip("only root may show a daemon other files than the machine's")
    emulator = tmp_path / "qemu"
    await asyncio.to_thread(daemon.hide_emulators, emulator)
    with daemon.connection() as connection:
        with pytest.raises(libvirt.libvirtError, match=r"emulator|could not find capabilities"):
            connection.getVersion()
        xml = guests.guest_xml("g", vcpus=2, emulator=str(emulator))
        async with pipeline(daemon.uri("qemu"), database) as host:
            await host.agrees()
            await eventually_equal(lambda: host.row()["hypervisor_version"], 0, DEADLINE_SECONDS)
            assert host.row()["hypervisor_type"] == "QEMU"
            await asyncio.to_thread(guests.start, connection, xml)
            await eventually_equal(lambda: host.row()["vcpus_used"], 2, DEADLINE_SECONDS)
            assert [line for line in caplog.messages if "version not known" in line]
            assert not [line for line in caplog.messages if "no row yet" in line]
            await asyncio.to_thread(daemon.show_emulators)
            version = connection.getVersion()
            await eventually_equal(
                lambda: host.row()["hypervisor_version"], version, DEADLINE_SECONDS
            )
            await asyncio.to_thread(guests.remove_all, connection)


async def test_memory_that_comes_and_goes_is_noticed_at_the_audit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As that of a hypervisor which is itself ballooned; the CPUs are the same all the time."""
    settings = MonitorSettings(audit_interval_seconds=0, second_resync_seconds=0)
    async with HostMonitor("test:///default", settings=settings) as monitor:
        await monitor.get_host_stats()
        told = libvirt.virConnect.getInfo
        for memory_mb in (4096, 2048):
            monkeypatch.setattr(
                libvirt.virConnect,
                "getInfo",
                lambda one, memory_mb=memory_mb: [told(one)[0], memory_mb, *told(one)[2:]],
            )
            await monitor.audit()
            assert monitor.facts is not None
            assert (monitor.facts.vcpus, monitor.facts.memory_mb) == (16, memory_mb)
