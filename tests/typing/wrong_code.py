"""A user's mistakes, never run: each ignored error below has to be one.

The type checker is asked to complain about an ignore that ignores nothing, so that a promise
that became too weak shows.
"""

from asynchost import Change, HostMonitor, MonitorSettings, Usage


async def mistakes(monitor: HostMonitor, change: Change) -> None:
    """What has to be refused, line by line."""
    HostMonitor()  # type: ignore[call-arg]
    HostMonitor("qemu:///system", "node-1")  # type: ignore[call-arg]
    MonitorSettings(60.0)  # type: ignore[call-arg]
    MonitorSettings(keepalive_count=1.5)  # type: ignore[arg-type]
    monitor.usage = Usage()  # type: ignore[misc]
    change.after = Usage()  # type: ignore[misc]
    _ = monitor.facts.vcpus  # type: ignore[union-attr]
    _ = change.delta.memory_mb_used  # type: ignore[attr-defined]
    _ = monitor.usage + monitor.usage  # type: ignore[operator]
    _ = change.delta + monitor.usage  # type: ignore[operator]
    _ = monitor.usage + 1  # type: ignore[operator]
    _ = monitor.usage < monitor.usage  # type: ignore[operator]
    _ = tuple(monitor.usage)  # type: ignore[arg-type]
    monitor.domains["u"] = None  # type: ignore[index]
    del monitor.domains["u"]  # type: ignore[attr-defined]
    monitor.domain_events(kinds=["started"])  # type: ignore[list-item]
    monitor.audit()  # type: ignore[unused-coroutine]
    for _ in monitor.changes():  # type: ignore[attr-defined]
        pass
