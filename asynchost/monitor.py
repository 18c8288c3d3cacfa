"""One host, watched: the public face of a source and the state that it fills.

The asynchronous part is thin: what happens to the numbers is in :mod:`asynchost.host_state`,
what happens to the connection in :mod:`asynchost.hypervisor`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self
from weakref import WeakSet

from asynchost.errors import (
    ClosedError,
    HypervisorRefusedError,
    HypervisorUnavailableError,
    InvalidSettingError,
    NotReadyError,
)
from asynchost.explanation import Explanation, Survey
from asynchost.host_state import HostState
from asynchost.hypervisor.source import Source
from asynchost.log import get_logger
from asynchost.model import (
    Change,
    DiskUsage,
    Drift,
    HostFacts,
    HostSnapshot,
    MonitorStatus,
    Usage,
)
from asynchost.settings import MonitorSettings
from asynchost.subscription import DriftSubscription, Subscription

_LONGEST_NAME: Final = 255  # what the column hypervisor_hostname holds


class HostMonitor:
    """What is used on one libvirt host, now and as it changes.

    >>> async with HostMonitor("qemu:///system") as monitor:  # doctest: +SKIP
    ...     print(monitor.usage)
    ...     async for change in monitor.changes():
    ...         print(change.delta, change.cause)

    ``uri`` names the hypervisor as for any libvirt program. ``name`` takes the place of the host
    name that libvirt reports, which all drivers of one machine share. Entering waits for the
    first resync, however long libvirtd takes to come up: put ``asyncio.timeout`` around it where
    that matters. It belongs to the event loop that it is started on, and owns nothing but its
    own tasks, threads and connection, all of which are gone after leaving, also by cancellation;
    only a thread inside a call that libvirt does not answer may outlive it, and that one never
    delays the exit of the process.

    Raises :class:`HypervisorRefusedError` at once for a URI whose driver is not known, and
    :class:`InvalidSettingError` for a name that is empty or longer than 255 characters.
    """

    def __init__(
        self, uri: str, *, name: str | None = None, settings: MonitorSettings | None = None
    ) -> None:
        if name is not None and not 0 < len(name.strip()) <= _LONGEST_NAME:
            raise InvalidSettingError("name", name, f"give 1 to {_LONGEST_NAME} characters")
        self._host = name or uri
        self._log = get_logger("asynchost.monitor", host=self._host)
        settings = settings or MonitorSettings()
        self._state = HostState(self._host, name, monotonic, self._log, settings.policy)
        self._source = Source(uri, settings, self._state)
        # Weakly: whoever breaks out of a loop over changes() and forgets it is forgotten too.
        self._subscriptions: WeakSet[Subscription] = WeakSet()
        self._drift_subscriptions: WeakSet[DriftSubscription] = WeakSet()
        self._fans_out = False
        self._task: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()
        self._state.on_drift(self._tell_drift)
        self._state.add_listener(self._moved.set)

    # -- life ----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        try:
            await self.ready()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Begin to watch, and return at once. A monitor is started once."""
        if self._task is not None:
            raise RuntimeError(f"{self._host}: a monitor is started once; make another one")
        self._task = asyncio.create_task(self._source.run(), name=f"asynchost {self._host}")
        # Not within the task: one that is cancelled before its first step never runs.
        self._task.add_done_callback(self._stopped)

    def _stopped(self, _task: asyncio.Task[None]) -> None:
        self._state.stopped()
        self._moved.set()
        for changes in list(self._subscriptions):
            changes.end()
        for drifts in list(self._drift_subscriptions):
            drifts.end()

    async def ready(self, *, patient: bool = True) -> None:
        """Wait for the first resync, however long libvirtd takes to come up. Cancelling is safe.

        Raises :class:`HypervisorRefusedError` when libvirt refuses the connection, and
        :class:`ClosedError` when the monitor is closed before. If not ``patient``, also
        :class:`HypervisorUnavailableError` once an attempt to connect has failed; the monitor
        goes on trying.
        """
        state = self._state
        await self._until(lambda: state.ready or not (patient or state.down is None))
        if not state.ready and isinstance(state.down, HypervisorUnavailableError):
            raise state.down

    async def wait(self) -> None:
        """Wait until the monitor is closed. Cancelling is safe, and closes nothing.

        Raises :class:`HypervisorRefusedError` when libvirt refused the first connection.
        """
        task = self._running_task()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    async def aclose(self) -> None:
        """Stop watching and close everything. Idempotent.

        Cancelling it is safe: the clean-up is under way by then and ends by itself.
        """
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])
            held = self._source.held_threads
            self._log.info("closed", **({"held_threads": held} if held else {}))

    def _running_task(self) -> asyncio.Task[None]:
        if self._task is None:
            raise ClosedError(f"the monitor of {self._host}")
        return self._task

    async def _until(self, condition: Callable[[], bool]) -> None:
        task = self._running_task()
        while not condition():
            if task.done():
                if not task.cancelled():
                    task.result()
                raise ClosedError(f"the monitor of {self._host}")
            self._moved.clear()
            await self._moved.wait()

    # -- what is known -------------------------------------------------------------------------

    @property
    def host(self) -> str:
        """The name given, else the URI: what this host is called in logs and changes."""
        return self._host

    @property
    def usage(self) -> Usage:
        """The totals now; frozen while stale. Memory in KiB, ``memory_mb_used`` in MiB.

        Raises :class:`NotReadyError` before the first resync: unknown is never zero.
        """
        return self._state.usage

    @property
    def facts(self) -> HostFacts | None:
        """What the host is; None until its capabilities came, some time after the totals."""
        return self._state.facts

    @property
    def disk(self) -> DiskUsage | None:
        """The space for instances, in bytes; None where it is not known."""
        return self._state.disk

    async def disks_read(self) -> None:
        """Wait until ``disk.available_least_bytes`` is known, or is known not to be.

        That takes a few milliseconds for each disk, and five seconds for a domain that hangs.
        Returns at once while the host is stale. Raises :class:`ClosedError` once the monitor was
        closed, or what ended it. Cancelling is safe.
        """
        await self._until(
            lambda: self._state.snapshot().disks_settled or self._state.stale_seconds is not None
        )

    @property
    def status(self) -> MonitorStatus:
        """How the monitoring goes: freshness, what cannot be read, counters."""
        return replace(self._state.status(), held_threads=self._source.held_threads)

    def snapshot(self) -> HostSnapshot:
        """Everything known at this moment, for those who write it somewhere."""
        return self._state.snapshot()

    def add_listener(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` on the loop whenever :meth:`snapshot` would differ.

        Returns the function that removes it. A listener must neither raise nor wait.
        """
        return self._state.add_listener(listener)

    # -- what changes --------------------------------------------------------------------------

    def changes(self) -> Subscription:
        """Every change of the totals from this call on, as an asynchronous iterator.

        Each call makes a subscription of its own, with its own bounded backlog.
        """
        if not self._fans_out:  # until then no change is even made
            self._fans_out = True
            self._state.on_change(self._fan_out)
        subscription = Subscription(self._subscriptions.discard)
        self._subscriptions.add(subscription)
        if self._task is not None and self._task.done():
            subscription.end()
        return subscription

    def _fan_out(self, change: Change) -> None:
        for subscription in list(self._subscriptions):
            subscription.push(change)

    def drifts(self) -> DriftSubscription:
        """Every correction that an audit makes from this call on, as :meth:`changes` gives
        changes: what no event told, with the time that the wrong value stood."""
        subscription = DriftSubscription(self._drift_subscriptions.discard)
        self._drift_subscriptions.add(subscription)
        if self._task is not None and self._task.done():
            subscription.end()
        return subscription

    def _tell_drift(self, drift: Drift) -> None:
        for subscription in list(self._drift_subscriptions):
            subscription.push(drift)

    async def audit(self) -> list[Drift]:
        """Recount now: list, read every domain, and correct what differs.

        Returns the corrections. Raises :class:`HypervisorUnavailableError` while not connected
        or when the listing does not come back in time; the totals then stand. Cancelling is safe.
        """
        corrections: list[Drift] = []
        remove = self._state.on_drift(corrections.append)
        try:
            await self._source.audit()
        finally:
            remove()
        return corrections

    async def explain(self) -> Explanation:
        """Where the totals come from: every domain of the host, whether it counts and why, and
        when it was read last and why.

        Lists the host's domains for it, with a read of each that does not count. Where libvirt
        does not answer, those may be missing, and ``incomplete`` says why. Raises
        :class:`NotReadyError` before the first resync. Cancelling is safe.
        """
        if not self._state.ready:
            raise NotReadyError(self._host)
        try:
            others = await self._source.survey()
        except (HypervisorUnavailableError, HypervisorRefusedError) as error:
            others = Survey(incomplete=error.message)
        return self._state.explain(others)

    async def get_host_stats(self, refresh: bool = False) -> dict[str, Any]:
        """The classic host state: a fresh dictionary, disk in GiB and memory in MiB.

        Keys: ``vcpus``, ``vcpus_used``, ``cpu_info`` (a dictionary), ``disk_total``,
        ``disk_used``, ``disk_available`` (each None where the disk is not known),
        ``host_memory_total``, ``host_memory_free``, ``hypervisor_type``,
        ``hypervisor_version``; while the host is stale also ``stale_seconds``, and the values
        are frozen. ``refresh`` audits first, unless stale.

        Waits for the host's capabilities where they have not come yet. Raises
        :class:`NotReadyError` before the first resync, and where the connection was lost before
        they came; and whatever :meth:`audit` raises.
        """
        if not self._state.ready:
            raise NotReadyError(self._host)
        if refresh and self._state.stale_seconds is None:
            try:
                await self.audit()
            except HypervisorUnavailableError:
                if self._state.stale_seconds is None:
                    raise
        await self._until(
            lambda: (
                (self._state.facts is not None and self._state.snapshot().disk_settled)
                or self._state.stale_seconds is not None
            )
        )
        return host_stats(self._state.snapshot())


def host_stats(snapshot: HostSnapshot) -> dict[str, Any]:
    """The classic dictionary of one snapshot. Raises :class:`NotReadyError` without facts."""
    usage, facts, disk = snapshot.usage, snapshot.facts, snapshot.disk
    if usage is None:
        raise NotReadyError(snapshot.host)
    if facts is None:
        raise NotReadyError(snapshot.host, "what the host itself is has not been read yet")
    cpu_info = dict(facts.cpu_info)
    cpu_info["topology"] = dict(cpu_info["topology"])
    cpu_info["features"] = list(cpu_info["features"])
    stats = {
        "vcpus": facts.vcpus,
        "vcpus_used": usage.vcpus_used,
        "cpu_info": cpu_info,
        "disk_total": None if disk is None else disk.local_gb,
        "disk_used": None if disk is None else disk.local_gb_used,
        "disk_available": None if disk is None else disk.free_disk_gb,
        "host_memory_total": facts.memory_mb,
        "host_memory_free": facts.memory_mb - usage.memory_mb_used,
        "hypervisor_type": facts.hypervisor_type,
        "hypervisor_version": facts.hypervisor_version,
    }
    if snapshot.stale_seconds is not None:
        stats["stale_seconds"] = snapshot.stale_seconds
    return stats
