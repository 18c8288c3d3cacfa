"""A user's program, never run: the type checker reads it as it reads the user's own code."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, assert_never, assert_type

import asynchost
from asynchost import (
    Cause,
    Change,
    ChangeKind,
    ComputeNodeWriter,
    DiskUsage,
    Domain,
    DomainEvent,
    DomainEvents,
    Drift,
    EventKind,
    EventReason,
    HostFacts,
    HostMonitor,
    HostSnapshot,
    MonitorSettings,
    MonitorStatus,
    Origin,
    SnapshotSource,
    Subscription,
    Usage,
    UsageDelta,
    WriterSettings,
)


async def watch(uri: str) -> None:
    """Everything that a monitor says."""
    settings = MonitorSettings(audit_interval_seconds=30, instances_path="/srv/instances")
    async with HostMonitor(uri, name="node-1", settings=settings) as monitor:
        assert_type(monitor, HostMonitor)
        assert_type(monitor.host, str)
        assert_type(monitor.usage, Usage)
        assert_type(monitor.usage.vcpus_used, int)
        assert_type(monitor.usage.memory_mb_used, int)
        assert_type(monitor.facts, HostFacts | None)
        assert_type(monitor.disk, DiskUsage | None)
        assert_type(monitor.status, MonitorStatus)
        assert_type(monitor.status.unreadable, Mapping[str, str])
        assert_type(monitor.snapshot(), HostSnapshot)
        assert_type(monitor.snapshot().stuck, frozenset[str])
        assert_type(monitor.snapshot().writable, bool)
        assert_type(await monitor.audit(), list[Drift])
        assert_type(await monitor.get_host_stats(refresh=True), dict[str, Any])
        remove = monitor.add_listener(lambda: print("it moved"))
        assert_type(remove, Callable[[], None])
        remove()
        await monitor.wait()


async def start_and_close(uri: str) -> None:
    """The same without a with block."""
    monitor = HostMonitor(uri)
    await monitor.start()
    try:
        await monitor.ready()
    finally:
        await monitor.aclose()


async def follow(monitor: HostMonitor) -> None:
    """Every change, each part of it typed."""
    with monitor.changes() as changes:
        assert_type(changes, Subscription)
        async for change in changes:
            assert_type(change, Change)
            assert_type(change.before, Usage)
            assert_type(change.delta, UsageDelta)
            assert_type(change.delta.vcpus_used, int)
            assert_type(change.before + change.delta, Usage)
            assert_type(change.after - change.delta, Usage)
            assert_type(change.after - change.before, UsageDelta)
            assert_type(change.delta + change.delta, UsageDelta)
            assert_type(change.cause, Cause)
            assert_type(change.number, int)
            assert_type(change.at, datetime)
            assert_type(change.as_dict(), dict[str, Any])
            match change.kind:
                case ChangeKind.STARTED | ChangeKind.STOPPED | ChangeKind.RESIZED:
                    print(change.uuid)
                case ChangeKind.WORKLOAD | ChangeKind.RESYNC | ChangeKind.FOLDED:
                    pass
                case _:
                    assert_never(change.kind)
            assert_type(change.uuid, str | None)
            match change.cause:
                case Cause.RESYNC | Cause.EVENT | Cause.LOOK_AGAIN | Cause.AUDIT:
                    print(f"{change.cause}: {change.delta.memory_kib_used} KiB")
        assert_type(changes.folded, int)


async def follow_domains(monitor: HostMonitor) -> Domain | None:
    """Each domain, and what happens to it."""
    with monitor.domain_events(uuid="u", kinds=[EventKind.STARTED], limit=10) as events:
        assert_type(events, DomainEvents)
        assert_type(await events.synced(), Mapping[str, Domain])
        async for event in events:
            assert_type(event, DomainEvent)
            assert_type(event.before, Domain | None)
            assert_type(event.reason, EventReason | None)
            assert_type(event.origin, Origin)
            match event.kind:
                case EventKind.STARTED | EventKind.RESUMED | EventKind.DEFINED:
                    print(event.id)
                case EventKind.STOPPED | EventKind.SHUTDOWN | EventKind.CRASHED:
                    print(event.reason)
                case EventKind.SUSPENDED | EventKind.PMSUSPENDED | EventKind.UNDEFINED:
                    pass
                case EventKind.CHANGED | EventKind.OTHER:
                    pass
                case _:
                    assert_never(event.kind)
    async for snapshot in monitor.snapshots():
        assert_type(snapshot, HostSnapshot)
    assert_type(await monitor.wait_for(lambda one: one.usage.running_vms > 3), bool)
    assert_type(monitor.domains, Mapping[str, Domain])
    return monitor.domains.get("u")


async def write(uri: str, database_url: str) -> None:
    """A row kept true, of a monitor and of a source of the user's own."""
    settings = WriterSettings(quiet_seconds=0, maximum_delay_seconds=0)
    writer = ComputeNodeWriter(database_url, password=None, settings=settings)
    async with HostMonitor(uri) as monitor, writer:
        writer.attach(monitor)
        writer.attach(OwnSource(), service_id=7)
        await writer.flush()
        await writer.wait()


class OwnSource:
    """A host that the user observes in some other way: nothing to inherit."""

    @property
    def host(self) -> str:
        """Its name in logs."""
        return "own"

    def snapshot(self) -> HostSnapshot:
        """Its state."""
        return HostSnapshot(self.host, "own-1", usage=Usage(1, 1024, 1))

    def add_listener(self, listener: Callable[[], None]) -> Callable[[], None]:
        """It never changes."""
        return lambda: None


source: SnapshotSource = OwnSource()


def explain(error: asynchost.AsynchostError) -> str:
    """Errors hold their data, typed."""
    match error:
        case asynchost.HypervisorRefusedError():
            return assert_type(error.uri, str) + assert_type(error.remedy, str)
        case asynchost.AmbiguousRowError():
            return str(assert_type(error.rows, tuple[tuple[int, int | None], ...]))
        case asynchost.DatabaseUnavailableError():
            return str(assert_type(error.code, int | None))
        case asynchost.FencedError():
            return f"{assert_type(error.owner, str)} {assert_type(error.term, int)}"
    return "again" if assert_type(error.retryable, bool) else assert_type(error.message, str)
