"""asynchost as its users use it."""

import asyncio
import time
from collections import Counter
from typing import Any

import libvirt

import asynchost
from benchmarks.contenders.base import Contender

# What runs by the clock and not by events is measured by a benchmark of its own.
EVENTS_ONLY = asynchost.MonitorSettings(
    audit_interval_seconds=0, second_resync_seconds=0, disk=asynchost.DiskSource.NONE
)


class Monitor(Contender):
    """A :class:`asynchost.HostMonitor` that nobody subscribed to."""

    settings = EVENTS_ONLY

    def __init__(self) -> None:
        super().__init__()
        self._monitor: asynchost.HostMonitor | None = None

    @property
    def monitor(self) -> asynchost.HostMonitor:
        """The one that watches now."""
        assert self._monitor is not None
        return self._monitor

    @property
    def handled(self) -> int:
        """See the base."""
        return self.monitor.status.events

    async def watch(self, uri: str) -> dict[str, Any]:
        """See the base; tells how long it took to be ready."""
        before, cpu = time.monotonic(), time.process_time()
        self._monitor = await asynchost.HostMonitor(uri, settings=self.settings).__aenter__()
        return {"seconds": time.monotonic() - before, "cpu": time.process_time() - cpu}

    async def unwatch(self) -> None:
        """See the base."""
        await self.monitor.aclose()
        self._monitor = None

    async def end(self, expected: int, settle: float) -> dict[str, Any]:
        """See the base; ``active`` is what the totals say, ``reads`` what they took."""
        found = await super().end(expected, settle)
        reader = self.monitor._source._reader
        reads = 0 if reader is None else reader.reads - self._reads
        return {**found, "active": self.monitor.usage.running_vms, "reads": reads}

    async def begin(self) -> dict[str, Any]:
        """See the base."""
        reader = self.monitor._source._reader
        self._reads = 0 if reader is None else reader.reads
        return await super().begin()


class Subscriber(Monitor):
    """The same with a subscriber that notes the time of each change."""

    def __init__(self) -> None:
        super().__init__()
        self._task: asyncio.Task[None] | None = None

    async def watch(self, uri: str) -> dict[str, Any]:
        """See the base."""
        answer = await super().watch(uri)
        changes = self.monitor.changes()
        self._task = asyncio.create_task(self._follow(changes))
        return answer

    async def _follow(self, changes: asynchost.Subscription) -> None:
        async for change in changes:
            now = time.monotonic_ns()
            sign = change.after.running_vms - change.before.running_vms
            if sign:
                self.marks.append((change.uuid or "", now, sign))

    async def unwatch(self) -> None:
        """See the base."""
        await super().unwatch()
        if self._task is not None:
            await self._task


class Idle(Monitor):
    """One with all defaults, whose calls into libvirt are counted."""

    settings = asynchost.MonitorSettings(instances_path="/tmp")

    def __init__(self) -> None:
        super().__init__()
        self._calls: Counter[str] = Counter()
        for name in dir(libvirt.libvirtmod):
            # Those that only look at an object ask nobody.
            if name.startswith(("virDomain", "virConnect", "virNode")) and name not in _LOCAL:
                self._count(name, getattr(libvirt.libvirtmod, name))

    def _count(self, name: str, function: Any) -> None:
        def counted(*arguments: Any, **named: Any) -> Any:
            self._calls[name] += 1
            return function(*arguments, **named)

        setattr(libvirt.libvirtmod, name, counted)

    async def begin(self) -> dict[str, Any]:
        """See the base."""
        self._calls.clear()
        return await super().begin()

    async def end(self, expected: int, settle: float) -> dict[str, Any]:
        """See the base; ``calls`` are those into libvirt, by name."""
        return {**await super().end(expected, settle), "calls": dict(self._calls)}


_LOCAL = {
    *("virDomainGetUUID", "virDomainGetUUIDString", "virDomainGetName", "virDomainGetID"),
    *("virDomainFree", "virConnectClose", "virConnectIsAlive"),
}
