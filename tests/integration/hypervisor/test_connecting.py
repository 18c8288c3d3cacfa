"""From nothing to the first totals: in which order, and what they need not wait for."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import libvirt
import pytest

from asynchost import DiskSource, HostMonitor
from asynchost.hypervisor import batch, source
from asynchost.hypervisor.connection import Connection
from asynchost.hypervisor.domain_events import EVENTS
from tests.integration.pipeline import EVENTS_ONLY, totals_of
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.proxy import Proxy
from tests.support.recount import Totals
from tests.support.waiting import DEADLINE_SECONDS, eventually

# The disks are read through a connection of their own.
SETTINGS = replace(EVENTS_ONLY, disk=DiskSource.NONE)

REGISTER, LIST, READ = (
    "virConnectDomainEventRegisterAny",
    "virConnectListAllDomains",
    "virDomainGetInfo",
)


async def test_every_event_is_registered_before_the_listing_and_that_before_any_read(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call returns before the next one begins, so no change can fall in between."""
    for name in ("a", "b"):
        guests.start(test_connection, guests.guest_xml(name, kind="test"))
    steps: list[tuple[str, str]] = []
    threads: set[int] = set()

    def note(name: str) -> None:
        call = getattr(libvirt.libvirtmod, name)

        def noted(*arguments: Any) -> Any:
            threads.add(threading.get_ident())
            steps.append((name, "begins"))
            try:
                return call(*arguments)
            finally:
                steps.append((name, "returns"))

        monkeypatch.setattr(libvirt.libvirtmod, name, noted)

    for name in (REGISTER, LIST, READ):
        note(name)
    known = [each for each in EVENTS if hasattr(libvirt, f"VIR_DOMAIN_EVENT_ID_{each.name}")]
    async with HostMonitor(libvirtd.uri("test"), settings=SETTINGS) as monitor:
        assert monitor.usage.running_vms == 2
        assert [name for name, step in steps if step == "begins"] == [
            *(REGISTER for _ in known),
            LIST,
            *(READ, READ),
        ]
        assert [step for _, step in steps] == ["begins", "returns"] * (len(steps) // 2)
        assert len(threads) == 1


async def test_the_first_totals_do_not_wait_for_the_second_connection(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is there, audits and events go through the one that there is."""
    open_connection, may_open = Connection.open, asyncio.Event()
    opened: list[Connection] = []

    async def open_late(connection: Connection, *arguments: Any) -> None:
        if not arguments:
            await may_open.wait()
        await open_connection(connection, *arguments)
        opened.append(connection)

    monkeypatch.setattr(Connection, "open", open_late)
    xml = guests.guest_xml("g", vcpus=2, kind="test")
    async with HostMonitor(libvirtd.uri("test"), settings=SETTINGS) as monitor:
        assert totals_of(monitor.usage) == Totals(0, 0, 0, 0)
        await asyncio.to_thread(guests.start, test_connection, xml)
        await eventually(lambda: totals_of(monitor.usage) == Totals(2, 16, 1, 0))
        assert await monitor.audit() == []
        assert len(opened) == 1
        may_open.set()
        await eventually(lambda: len(opened) == 2)
        assert await monitor.audit() == []
        assert monitor.status.generation == 1


async def test_an_audit_reads_no_object_of_the_connection_that_lists_no_more(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It listed through the only one that there was, and another one reads."""
    open_connection, may_open = Connection.open, asyncio.Event()
    list_domains, read_domain = Connection.list_domains, batch.read_domain
    strangers: list[str] = []

    async def open_late(connection: Connection, *arguments: Any) -> None:
        if not arguments:
            await may_open.wait()
        await open_connection(connection, *arguments)

    async def list_meanwhile(connection: Connection) -> dict[str, libvirt.virDomain]:
        listed = await list_domains(connection)
        may_open.set()
        lanes = monitor._source._reader._lanes  # type: ignore[union-attr]
        await eventually(lambda: lanes.listing is not lanes.events)
        return listed

    def watch(connection: libvirt.virConnect, read: batch.Read) -> Any:
        if read.domain is not None and read.domain.connect() is not connection:
            strangers.append(read.uuid)
        return read_domain(connection, read)

    for number in range(5):
        guests.start(test_connection, guests.guest_xml(f"g{number}", kind="test"))
    monkeypatch.setattr(Connection, "open", open_late)
    monkeypatch.setattr(batch, "read_domain", watch)
    async with HostMonitor(libvirtd.uri("test"), settings=SETTINGS) as monitor:
        monkeypatch.setattr(Connection, "list_domains", list_meanwhile)
        assert await monitor.audit() == []
        assert strangers == []
        reader = monitor._source._reader
        assert reader is not None
        ours, theirs = (
            lane.connection.thread._calls.handles
            for lane in (reader._lanes.events, reader._lanes.listing)
        )
        assert not ours & theirs


async def test_without_a_second_connection_one_does_for_all(
    libvirtd: PrivateLibvirtd,
    test_connection: libvirt.virConnect,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The host is watched all the same: its totals stay fresh, and audits are made."""
    open_connection = Connection.open

    async def refuse_the_second(connection: Connection, *arguments: Any) -> None:
        if not arguments:
            connection.declare_lost("refused")
            raise await connection.lost
        await open_connection(connection, *arguments)

    monkeypatch.setattr(Connection, "open", refuse_the_second)
    async with HostMonitor(libvirtd.uri("test"), settings=SETTINGS) as monitor:
        await eventually(lambda: "no second connection" in caplog.text)
        await asyncio.to_thread(
            guests.start, test_connection, guests.guest_xml("g", vcpus=2, kind="test")
        )
        await eventually(lambda: totals_of(monitor.usage) == Totals(2, 16, 1, 0))
        assert await monitor.audit() == []
        assert (monitor.status.generation, monitor.status.fresh) == (1, True)


@contextmanager
def storm(domains: list[libvirt.virDomain]) -> Iterator[None]:
    """Suspend and resume the domains in turn, some hundred times a second."""
    ended = threading.Event()

    def blow() -> None:
        for domain in cycle(domains):
            domain.suspend()
            domain.resume()
            if ended.wait(0.005):
                return

    thread = threading.Thread(target=blow)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


async def test_a_storm_of_events_keeps_no_far_host_from_being_ready(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, tmp_path: Path
) -> None:
    """Events come faster than domains can be read: each domain is read once before any is read
    again, and then the totals are there."""
    count = 100
    domains = [
        guests.start(test_connection, guests.guest_xml(f"g{number}", kind="test"))
        for number in range(count)
    ]
    with Proxy(libvirtd.socket_path, tmp_path / "s") as proxy, storm(domains[:60]):
        proxy.delay_seconds = 0.01
        uri = libvirtd.uri("test", socket_path=tmp_path / "s")
        async with asyncio.timeout(DEADLINE_SECONDS), HostMonitor(uri, settings=SETTINGS) as far:
            assert far.usage.running_vms == count
            assert far._source._reader is not None
            assert far._source._reader.reads <= 1.5 * count
    domains.clear()


async def test_facts_do_not_wait_for_the_second_connection(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its limit of clients libvirtd accepts no second one, which is given up after long: the
    first connection tells what the host is, and audits are made through it."""
    open_connection, may_open = Connection.open, asyncio.Event()

    async def open_late(connection: Connection, *arguments: Any) -> None:
        if not arguments:
            await may_open.wait()
        await open_connection(connection, *arguments)

    monkeypatch.setattr(Connection, "open", open_late)
    settings = replace(SETTINGS, audit_interval_seconds=0.5, listing_deadline_seconds=3600)
    async with (
        asyncio.timeout(DEADLINE_SECONDS),
        HostMonitor(libvirtd.uri("test"), settings=settings) as monitor,
    ):
        await monitor.ready(facts=True)
        await eventually(lambda: monitor.status.audits)
        assert monitor.status.fresh
        may_open.set()


async def test_slow_capabilities_hold_up_no_audit(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libvirtd may look at all its emulators first: another connection lists meanwhile, and the
    one that was left is closed once it has answered."""
    answer, asked = threading.Event(), threading.Event()
    read_facts = source.read_facts

    def read_slowly(connection: libvirt.virConnect) -> Any:
        asked.set()
        answer.wait(DEADLINE_SECONDS)
        return read_facts(connection)

    monkeypatch.setattr(source, "read_facts", read_slowly)
    async with HostMonitor(libvirtd.uri("test"), settings=SETTINGS) as monitor:
        await eventually(asked.is_set)
        lists_first = monitor._source._listing
        for name in ("a", "b"):
            guests.start(test_connection, guests.guest_xml(name, kind="test"))
            await monitor.audit()
            assert totals_of(monitor.usage).running_vms >= 1
        assert monitor.facts is None
        assert monitor._source._listing is not lists_first
        answer.set()
        await monitor.ready(facts=True)
        assert lists_first is not None
        await lists_first.closed
        await eventually(lambda: monitor.usage.running_vms == 2)
        assert (monitor.status.generation, monitor.status.fresh) == (1, True)
