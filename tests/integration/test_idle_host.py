"""Nothing happens, nothing is written: told by the database server's own log of statements."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import libvirt
import pytest

from asynchost import Cause, HostMonitor, WriterSettings
from asynchost.agenda import Mark
from asynchost.hypervisor.connection import Connection
from asynchost.hypervisor.reader import Reader
from tests.integration.pipeline import AT_ONCE, EVENTS_ONLY, pipeline
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mariadb import Database
from tests.support.recount import Totals
from tests.support.waiting import eventually


@pytest.fixture
def statements(private_database: Database) -> Callable[[], list[str]]:
    """Begin to log every statement on the server; returns those logged so far."""
    log = private_database.server.folder / "statements"
    private_database.execute(f"SET GLOBAL general_log_file = '{log}'")
    private_database.execute("SET GLOBAL general_log = 1")

    def logged() -> list[str]:
        return re.findall(r"\sQuery\t(.*)", log.read_text())

    return logged


def writes_of(statements: list[str]) -> list[list[str]]:
    """The columns that each write to compute_nodes sets, in the order of the statements."""
    return [
        re.findall(r"t\.(\w+) = ", text.partition(" SET ")[2].partition(" WHERE ")[0])
        for text in statements
        if "compute_nodes" in text and not text.startswith("SELECT")
    ]


async def test_an_idle_host_is_audited_and_not_written(
    libvirtd: PrivateLibvirtd,
    test_connection: libvirt.virConnect,
    private_database: Database,
    statements: Callable[[], list[str]],
) -> None:
    """Over several audits: signs of life in the companion table, no word to compute_nodes."""
    for number in range(20):
        guests.start(test_connection, guests.guest_xml(f"g{number}", kind="test"))
    settings = replace(
        EVENTS_ONLY,
        audit_interval_seconds=0.2,
        second_resync_seconds=0.1,
        disk_interval_seconds=0.1,
    )
    renewing = WriterSettings(renewal_interval_seconds=0.1)
    async with pipeline(
        libvirtd.uri("test"), private_database, settings, writer_settings=renewing
    ) as host:
        await host.agrees(Totals(20, 320, 20, 0))
        row, fence = host.row(), private_database.fences()[0]
        begun, audits = len(statements()), host.monitor.status.audits
        await eventually(lambda: host.monitor.status.audits >= audits + 5)
        await eventually(lambda: private_database.fences()[0]["seen_at"] > fence["seen_at"])

        def since() -> list[str]:
            return [text for text in statements()[begun:] if not text.startswith("SELECT")]

        await eventually(lambda: any("asynchost_fence" in text for text in since()))
        assert writes_of(since()) == []
        assert host.row() == row
        assert private_database.fences()[0]["seq"] == fence["seq"]
        assert host.monitor.status.drift == 0


async def test_an_audits_reads_are_spread_over_its_interval(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In chunks, each at its time and none before it; a listing is no reason to be late."""
    for number in range(70):
        guests.start(test_connection, guests.guest_xml(f"g{number}", kind="test"))
    loop = asyncio.get_running_loop()
    listed: list[float] = []
    read: list[tuple[float, int]] = []
    list_domains, read_all = Connection.list_domains, Reader.read_all

    async def listing(connection: Connection) -> dict[str, libvirt.virDomain]:
        listed.append(loop.time())
        return await list_domains(connection)

    async def reading(reader: Reader, uuids: list[str], mark: Mark, *more: Any) -> None:
        if mark.cause is Cause.AUDIT and uuids:
            read.append((loop.time(), len(uuids)))
        await read_all(reader, uuids, mark, *more)

    monkeypatch.setattr(Connection, "list_domains", listing)
    monkeypatch.setattr(Reader, "read_all", reading)
    settings = replace(EVENTS_ONLY, audit_interval_seconds=2.0)
    async with HostMonitor(libvirtd.uri("test"), settings=settings) as monitor:
        await eventually(lambda: monitor.status.audits >= 1)
    sizes = [size for _, size in read[:5]]
    assert sizes == [16, 16, 16, 16, 6]
    spread = 0.8 * settings.audit_interval_seconds
    for number, (at, _) in enumerate(read[:5]):
        # The interval's beginning is a moment before the listing.
        assert at >= listed[0] + spread * number / len(sizes) - 0.05


async def test_only_the_columns_that_differ_are_written(
    libvirtd: PrivateLibvirtd,
    test_connection: libvirt.virConnect,
    private_database: Database,
    statements: Callable[[], list[str]],
) -> None:
    """One statement for each change, with absolute values and the time, and nothing else."""
    guest = guests.define(
        test_connection,
        guests.guest_xml(
            "g", vcpus=2, max_vcpus=4, memory_kib=4096, max_memory_kib=65536, kind="test"
        ),
    )
    async with pipeline(libvirtd.uri("test"), private_database, writer_settings=AT_ONCE) as host:
        await host.agrees(Totals(0, 0, 0, 0))
        begun = len(statements())
        await asyncio.to_thread(guest.create)
        await host.agrees(Totals(2, 4, 1, 0))
        guest.setVcpus(3)
        await host.monitor.audit()
        await host.agrees(Totals(3, 4, 1, 0))
        guest.setMemory(8192)
        await host.monitor.audit()
        await host.agrees(Totals(3, 8, 1, 0))
        # Half a MiB more: the sum moved, its floor did not.
        guest.setMemory(8192 + 512)
        await host.monitor.audit()
        await host.writer.flush()
        await asyncio.to_thread(guest.suspend)
        await asyncio.to_thread(guest.destroy)
        await host.agrees(Totals(0, 0, 0, 0))
        since = statements()[begun:]
    memory = {"memory_mb_used", "free_ram_mb"}
    stamp = {"updated_at"}
    assert [set(columns) for columns in writes_of(since)] == [
        {"vcpus_used", "running_vms"} | memory | stamp,
        {"vcpus_used"} | stamp,
        memory | stamp,
        {"vcpus_used", "running_vms"} | memory | stamp,
    ]
    assert any(re.search(r"t\.vcpus_used = 3\b", text) for text in since)
