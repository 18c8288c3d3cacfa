"""One look at what watching a host takes, on real drivers."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from asynchost import (
    DiskSource,
    HypervisorRefusedError,
    HypervisorUnavailableError,
    MonitorSettings,
)
from asynchost.hypervisor import checkup
from asynchost.hypervisor.checkup import check_up, probe_delivery
from asynchost.hypervisor.connection import Connection
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd

SETTINGS = MonitorSettings()


async def test_a_look_leaves_nothing_and_sees_everything(
    libvirtd: PrivateLibvirtd, qemu_connection: libvirt.virConnect
) -> None:
    """Type, versions, domains, events, keepalive: and a second look sees the same."""
    guests.start(qemu_connection, guests.guest_xml("a"))
    for _ in range(2):
        found = await check_up(libvirtd.uri("qemu"), SETTINGS)
        assert found.hypervisor_type == "QEMU"
        assert found.hypervisor_version == qemu_connection.getVersion()
        assert found.libvirt_version == qemu_connection.getLibVersion()
        assert (found.domains, found.missing_events) == (1, ())
        # A removed vCPU has an event since libvirt 12.4, in the library and in the daemon.
        told = hasattr(libvirt, "VIR_DOMAIN_EVENT_ID_VCPU_REMOVED")
        assert found.registered == 8 + (told and found.libvirt_version >= 12_004_000)
        assert found.read_seconds is not None
        assert found.keepalive is True


async def test_a_domain_that_ends_during_the_look_is_not_the_hosts_fault(
    libvirtd: PrivateLibvirtd,
    qemu_connection: libvirt.virConnect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another one is read, if there is one."""
    guests.start(qemu_connection, guests.guest_xml("a"))
    list_domains = Connection.list_domains

    async def list_then_end(connection: Connection) -> dict[str, libvirt.virDomain]:
        listed = await list_domains(connection)
        await asyncio.to_thread(guests.remove_all, qemu_connection)
        return listed

    monkeypatch.setattr(Connection, "list_domains", list_then_end)
    found = await check_up(libvirtd.uri("qemu"), SETTINGS)
    assert (found.domains, found.read_seconds, found.keepalive) == (1, None, True)


async def test_a_driver_inside_the_process_needs_no_keepalive() -> None:
    """There is no connection that could be lost."""
    assert (await check_up("test:///default", SETTINGS)).keepalive is None


async def test_a_daemon_that_stands_still_answers_no_keepalive(
    private_libvirtd: Callable[..., PrivateLibvirtd], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told from one that answers as soon as libvirt says so."""
    interval, count = checkup._KEEPALIVE
    assert interval * (count + 1) < checkup._KEEPALIVE_SECONDS
    # Whether it is told within half a second more, only a machine that has it to spare can say.
    monkeypatch.setattr(checkup, "_KEEPALIVE_SECONDS", 60.0)
    daemon = await asyncio.to_thread(private_libvirtd)
    answers = checkup._answers_keepalive

    async def stand_still(connection: Connection) -> bool:
        daemon.pause()
        try:
            return await answers(connection)
        finally:
            daemon.resume()

    monkeypatch.setattr(checkup, "_answers_keepalive", stand_still)
    assert (await check_up(daemon.uri("test"), SETTINGS)).keepalive is False


async def test_what_is_not_there_is_said(tmp_path: object) -> None:
    """Not up is one thing, and no such thing another."""
    with pytest.raises(HypervisorUnavailableError):
        await check_up(f"qemu+unix:///system?socket={tmp_path}/none", SETTINGS)
    with pytest.raises(HypervisorRefusedError, match="unknown driver"):
        await check_up("nosuch:///system", SETTINGS)


async def test_an_event_is_heard_and_its_domain_is_gone() -> None:
    """The probe's domain is nobody else's, and leaves nothing in this process, either."""
    for _ in range(2):
        assert 0 < await probe_delivery() < 5
    connection = libvirt.open("test:///default")
    try:
        assert [domain.name() for domain in connection.listAllDomains()] == ["test"]
    finally:
        connection.close()


async def test_the_space_of_the_instances_is_looked_at(tmp_path: Path) -> None:
    """Why it cannot be read is told; nothing is where it can, or no disk is wanted."""
    for path, disk, told in (
        (tmp_path, None, False),
        (tmp_path / "missing", None, True),
        (tmp_path / "missing", DiskSource.NONE, False),
    ):
        settings = replace(SETTINGS, instances_path=str(path), disk=disk)
        reason = (await check_up("test:///default", settings)).disk_reason
        assert (reason is not None) == told
        assert not told or str(path) in str(reason)


async def test_a_libvirt_that_finds_no_emulator_is_no_libvirt_that_is_away(
    private_libvirtd: Callable[..., PrivateLibvirtd], tmp_path: Path
) -> None:
    """The look goes on, and says why the version is not known."""
    daemon = await asyncio.to_thread(private_libvirtd)
    if not daemon.privileged:
        pytest.skip("only root may show a daemon other files than the machine's")
    await asyncio.to_thread(daemon.hide_emulators, tmp_path / "qemu")
    found = await check_up(daemon.uri("qemu"), SETTINGS)
    assert found.hypervisor_version is None
    assert "x86_64" in str(found.version_reason)
    assert (found.domains, found.missing_events) == (0, ())
