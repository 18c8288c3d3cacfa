"""Following a real host's domains one by one: by events, over a restart, beside slow readers."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import libvirt
import pytest

from asynchost import (
    ClosedError,
    Domain,
    DomainEvent,
    DomainEvents,
    EventKind,
    EventReason,
    HostMonitor,
    HypervisorRefusedError,
    InvalidSettingError,
    MonitorSettings,
    NotReadyError,
    Origin,
    Usage,
)
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.waiting import eventually

SETTINGS = MonitorSettings(
    instances_path="/proc", second_resync_seconds=0, audit_interval_seconds=0
)


def guest(uuid: str, vcpus: int = 2) -> str:
    return guests.guest_xml(uuid, uuid=uuid, vcpus=vcpus, memory_kib=8192, kind="test")


def applied(table: dict[str, Domain], event: DomainEvent) -> None:
    """Put the event's ``after`` in."""
    if event.known and event.after is None:
        table.pop(event.uuid, None)
    elif event.after is not None:
        table[event.uuid] = event.after


async def until_quiet(monitor: HostMonitor, stream: DomainEvents, table: dict[str, Domain]) -> None:
    """Apply what comes until the table is the monitor's."""
    async with asyncio.timeout(10):
        while table != dict(monitor.domains) or stream._backlog:
            applied(table, await anext(stream))


async def test_a_start_and_a_stop_are_told_with_their_reasons(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> None:
    """With the domain as it was and as it is; suspend and resume move no total and are told."""
    uuid = guests.new_uuid()
    async with HostMonitor(libvirtd.uri("test"), settings=SETTINGS) as monitor:
        with monitor.domain_events(uuid=uuid.upper()) as events:
            assert dict(events.initial) == {}
            domain = await asyncio.to_thread(test_connection.createXML, guest(uuid))
            started = await anext(events)
            assert started.kind is EventKind.STARTED
            assert started.reason is EventReason.BOOTED
            assert started.after == monitor.domains[uuid]
            assert started.after is not None
            assert (started.after.vcpus, started.after.cost) == (2, Usage(2, 8192, 1))
            await asyncio.to_thread(domain.suspend)
            suspended = await anext(events)
            assert (suspended.kind, suspended.reason) == (EventKind.SUSPENDED, EventReason.PAUSED)
            await asyncio.to_thread(domain.resume)
            assert (await anext(events)).kind is EventKind.RESUMED
            await asyncio.to_thread(domain.destroy)
            stopped = await anext(events)
            assert (stopped.kind, stopped.reason) == (EventKind.STOPPED, EventReason.DESTROYED)
            assert (stopped.after, stopped.known, stopped.origin) == (None, True, Origin.EVENT)
            assert (stopped.raw_kind, stopped.raw_reason) == (5, 1)
            assert uuid not in monitor.domains
        ids = [one.id for one in (started, suspended, stopped)]
        assert len(set(ids)) == 3
        assert started.epoch == stopped.epoch


async def test_at_full_speed_every_event_is_told_once_and_the_table_is_complete(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> None:
    """Where changes() folds, this does not: each start and each stop of each guest, in order."""
    uuids = [guests.new_uuid() for _ in range(10)]
    rounds = 20

    def churn() -> None:
        for _ in range(rounds):
            running = [test_connection.createXML(guest(uuid)) for uuid in uuids]
            for domain in running:
                domain.destroy()
        test_connection.createXML(guest(uuids[0]))

    async with HostMonitor(libvirtd.uri("test"), settings=SETTINGS) as monitor:
        stream, sleeping = monitor.domain_events(), monitor.domain_events(limit=5)
        table = dict(stream.initial)
        assert table == dict(monitor.domains)
        churning = asyncio.create_task(asyncio.to_thread(churn))
        kinds: dict[str, list[EventKind]] = {uuid: [] for uuid in uuids}
        total = (2 * rounds * len(uuids)) + 1
        numbers: list[int] = []
        async with asyncio.timeout(30):
            while sum(map(len, kinds.values())) < total:
                event = await anext(stream)
                assert event.before == table.get(event.uuid)
                applied(table, event)
                numbers.append(event.number)
                if event.uuid in kinds and event.kind is not EventKind.CHANGED:
                    kinds[event.uuid].append(event.kind)
        await churning
        await until_quiet(monitor, stream, table)
        assert table == dict(monitor.domains)
        pair = [EventKind.STARTED, EventKind.STOPPED]
        assert kinds == {
            uuid: pair * rounds + ([EventKind.STARTED] if uuid == uuids[0] else [])
            for uuid in uuids
        }
        assert numbers == list(range(1, len(numbers) + 1))
        late = await anext(sleeping)
        assert late.lost == late.number - 1 >= total - 5
        costs = Counter[str]()
        for domain in monitor.domains.values():
            costs.update(vcpus=domain.cost.vcpus_used, domains=domain.cost.running_vms)
        assert (costs["vcpus"], costs["domains"]) == (
            monitor.usage.vcpus_used,
            monitor.usage.running_vms,
        )


async def test_what_happens_while_libvirtd_is_away_is_told_by_the_resync(
    private_libvirtd: Callable[..., PrivateLibvirtd],
) -> None:
    """What came and went unseen is marked so; the snapshots say why the host was not fresh."""
    libvirtd = private_libvirtd()
    uuid = guests.new_uuid()
    async with HostMonitor(libvirtd.uri("test"), settings=SETTINGS) as monitor:
        connection = await asyncio.to_thread(libvirt.open, libvirtd.uri("test"))
        with monitor.domain_events() as events, monitor.snapshots() as snapshots:
            table = dict(events.initial)
            await asyncio.to_thread(connection.createXML, guest(uuid))
            while uuid not in table:
                applied(table, await anext(events))
            await asyncio.to_thread(connection.close)
            await asyncio.to_thread(libvirtd.kill)
            reasons: list[str | None] = []
            async for snapshot in snapshots:
                reasons.append(snapshot.reason)
                if not snapshot.fresh:
                    break
            assert uuid in monitor.domains  # frozen
            await asyncio.to_thread(libvirtd.start)
            async for snapshot in snapshots:
                if snapshot.fresh:
                    break
            # The test driver forgets its guests when it ends.
            event = await anext(events)
            assert (event.kind, event.origin) == (EventKind.CHANGED, Origin.RESYNC)
            assert (event.uuid, event.after, event.generation) == (uuid, None, 2)
            applied(table, event)
            await until_quiet(monitor, events, table)
            assert snapshot.generation == 2
            assert reasons[-1] is not None


async def test_an_audit_finds_what_has_no_event(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> None:
    """A change of vCPUs is an item of its own, and says how it was found."""
    uuid = guests.new_uuid()
    domain = await asyncio.to_thread(
        test_connection.createXML,
        guests.guest_xml(uuid, uuid=uuid, vcpus=2, max_vcpus=4, kind="test"),
    )
    async with HostMonitor(libvirtd.uri("test"), settings=SETTINGS) as monitor:
        with monitor.domain_events(kinds=[EventKind.CHANGED]) as events:
            await asyncio.to_thread(domain.setVcpus, 3)
            await monitor.audit()
            event = await anext(events)
            assert event.before is not None
            assert event.after is not None
            assert (event.before.vcpus, event.after.vcpus) == (2, 3)
            assert (event.origin, event.reason) == (Origin.AUDIT, None)


async def test_a_stream_may_begin_before_the_host_is_ready(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> None:
    """Its table is that of the first resync."""
    uuid = guests.new_uuid()
    await asyncio.to_thread(test_connection.createXML, guest(uuid))
    monitor = HostMonitor(libvirtd.uri("test"), settings=SETTINGS)
    events = monitor.domain_events()
    assert (dict(monitor.domains), len(monitor.domains)) == ({}, 0)
    with pytest.raises(NotReadyError, match="synced"):
        _ = events.initial
    synced = asyncio.create_task(events.synced())
    await monitor.start()
    table = await synced
    assert table is events.initial
    assert uuid in table
    assert table == dict(monitor.domains)
    await monitor.aclose()
    assert [one async for one in events] == []
    unready = HostMonitor(libvirtd.uri("test"))
    never = unready.domain_events()
    await unready.aclose()
    with pytest.raises(ClosedError):
        await never.synced()


async def test_streams_of_a_monitor_that_was_refused_say_so(libvirtd: PrivateLibvirtd) -> None:
    """Each way to wait: the items, the table, the snapshots and the condition."""
    monitor = HostMonitor(libvirtd.uri("test").replace("test", "xen", 1), settings=SETTINGS)
    events, snapshots = monitor.domain_events(), monitor.snapshots()
    await monitor.start()
    for ask in (
        events.__anext__,
        events.synced,
        lambda: monitor.wait_for(lambda _: False),
    ):
        with pytest.raises(HypervisorRefusedError):
            await ask()
    while (snapshot := await anext(snapshots)).reason != monitor.status.reason:
        assert not snapshot.fresh
    with pytest.raises(HypervisorRefusedError):
        await anext(snapshots)
    await monitor.aclose()


async def test_waiting_for_a_condition(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> None:
    """Tried at once, woken by a record, a fact and freshness; its error is the caller's."""
    uuid = guests.new_uuid()
    async with HostMonitor(libvirtd.uri("test"), settings=SETTINGS) as monitor:
        assert await monitor.wait_for(lambda one: one.usage.running_vms + 1) >= 1
        facts = await monitor.wait_for(lambda one: one.facts)
        assert facts is monitor.facts
        waiting = asyncio.create_task(monitor.wait_for(lambda one: one.domains.get(uuid)))
        domain = await asyncio.to_thread(test_connection.createXML, guest(uuid))
        found = await waiting
        assert found is not None
        assert found.uuid == uuid
        # No total moves by this: only the record does.
        paused = asyncio.create_task(
            monitor.wait_for(lambda one: one.domains[uuid].state != found.state)
        )
        await asyncio.to_thread(domain.suspend)
        await paused

        def own_fault(_: HostMonitor) -> bool:
            raise LookupError("my own")

        with pytest.raises(LookupError, match="my own"):
            await monitor.wait_for(own_fault)
        forever = asyncio.create_task(monitor.wait_for(lambda _: False))
        await asyncio.sleep(0)
    with pytest.raises(ClosedError):
        await forever
    assert not monitor._state._on_record


async def test_a_slow_reader_of_snapshots_gets_the_newest(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> None:
    """There is no backlog, and nothing comes twice."""
    async with HostMonitor(libvirtd.uri("test"), settings=SETTINGS) as monitor:
        await monitor.ready(facts=True)
        await eventually(lambda: monitor.snapshot().disks_settled)
        with monitor.snapshots() as snapshots:
            now = await anext(snapshots)
            assert now == monitor.snapshot()
            before = monitor.usage.running_vms
            for _ in range(3):
                xml = guest(guests.new_uuid())
                await asyncio.to_thread(test_connection.createXML, xml)
            await eventually(lambda: monitor.usage.running_vms == before + 3)
            newest = await anext(snapshots)
            assert newest.usage == monitor.usage
            with suppress(TimeoutError):
                async with asyncio.timeout(0):
                    pytest.fail(f"another one: {await anext(snapshots)}")


async def test_wrong_filters_are_refused_by_name(libvirtd: PrivateLibvirtd) -> None:
    """At once."""
    monitor = HostMonitor(libvirtd.uri("test"))
    with pytest.raises(InvalidSettingError, match="kinds"):
        monitor.domain_events(kinds=["started"])  # type: ignore[list-item]
    with pytest.raises(InvalidSettingError, match="limit"):
        monitor.domain_events(limit=0)
