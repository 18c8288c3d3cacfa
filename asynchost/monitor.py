"""One host, watched: the public face of a source and the state that it fills.

The asynchronous part is thin: what happens to the numbers is in :mod:`asynchost.host_state`,
what happens to the connection in :mod:`asynchost.hypervisor`.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from secrets import token_hex
from time import monotonic
from types import TracebackType
from typing import Any, Final, Never, Protocol, Self, TypeVar

from asynchost.domains import Domain, DomainTable, EventKind
from asynchost.errors import (
    AsynchostError,
    ClosedError,
    HypervisorRefusedError,
    HypervisorUnavailableError,
    InvalidSettingError,
    NotReadyError,
)
from asynchost.explanation import Explanation, Survey
from asynchost.host_state import HostState
from asynchost.hypervisor.source import Source
from asynchost.hypervisor.uri import check_uri
from asynchost.log import get_logger
from asynchost.masking import masked_uri
from asynchost.model import (
    DiskUsage,
    Drift,
    HostFacts,
    HostSnapshot,
    MonitorStatus,
    Usage,
)
from asynchost.settings import MonitorSettings
from asynchost.subscription import (
    DEFAULT_LIMIT,
    DomainEvents,
    DomainStreams,
    DriftSubscription,
    Ending,
    EventFilter,
    Snapshots,
    Streams,
    Subscription,
    report_to_loop,
)

T = TypeVar("T")

_LONGEST_NAME: Final = 255  # what the column hypervisor_hostname holds


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not 0 < len(name.strip()) <= _LONGEST_NAME:
        raise InvalidSettingError("name", name, f"give 1 to {_LONGEST_NAME} characters")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InvalidSettingError("name", name, "give characters that UTF-8 has") from None


class HostSource(Protocol):
    """What a monitor needs of the part that observes its host."""

    @property
    def held_threads(self) -> int:
        """How many threads are in a call that has outlived its deadline, or its connection."""

    async def run(self) -> None:
        """Observe the host until cancelled."""

    async def audit(self) -> None:
        """Read every domain now."""

    async def survey(self) -> Survey:
        """Read the domains that have no record, now."""


class HostMonitor:
    """What is used on one libvirt host, now and as it changes.

    >>> async with HostMonitor("qemu:///system") as monitor:  # doctest: +SKIP
    ...     with monitor.changes() as changes:  # subscribe first, then read
    ...         print(monitor.usage)
    ...         async for change in changes:
    ...             print(change.delta, change.cause)

    ``uri`` names the hypervisor as for any libvirt program. ``name`` takes the place of the host
    name that libvirt reports, which all drivers of one machine share. Entering waits for the
    first resync, however long libvirtd takes to come up: put ``asyncio.timeout`` around it where
    that matters. It owns nothing but its own tasks, threads and connections, all of which are
    gone after leaving, also by cancellation; only a thread inside a call that libvirt does not
    answer may outlive the monitor, and such a thread never delays the exit of the process.

    A monitor belongs to the event loop that it is started on: every method that waits raises
    ``RuntimeError`` on another loop. From another thread, use
    ``asyncio.run_coroutine_threadsafe``. A monitor that dies tells everybody who holds it: streams
    and :meth:`wait` raise the error that ended it, so does leaving the block where nothing else
    has raised the error, ``status.reason`` holds its text, and the log has a line
    ``monitor ended``.

    Raises :class:`HypervisorRefusedError` at once for a URI whose driver is not known, and
    :class:`InvalidSettingError` for a name that is empty or longer than 255 characters.
    """

    def __init__(
        self, uri: str, *, name: str | None = None, settings: MonitorSettings | None = None
    ) -> None:
        check_uri(uri)
        if name is not None:
            _check_name(name)
        self._host = name or masked_uri(uri)
        self._log = get_logger("asynchost.monitor", host=self._host)
        settings = settings or MonitorSettings()
        clock, utc_now = self._clocks()
        self._state = HostState(
            *(self._host, name, clock, self._log, settings.policy),
            report=report_to_loop,
            utc_now=utc_now,
        )
        self._source = self._make_source(uri, settings)
        self._change_streams: Streams[Subscription] = Streams()
        self._drift_streams: Streams[DriftSubscription] = Streams()
        self._domain_streams = DomainStreams()
        self._snapshot_streams: Streams[Snapshots] = Streams()
        self._domains = DomainTable(lambda: self._state.records, self._state.domain)
        self._epoch = token_hex(8)
        self._fans_out = self._feeds_snapshots = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._ending: Ending | None = None
        self._moved = asyncio.Event()
        self._state.on_drift(self._drift_streams.push)
        self._state.add_listener(self._moved.set)

    def __repr__(self) -> str:
        state, count = self._state, self._state.counted
        known = "" if not state.ready else f", {count} domain{'' if count == 1 else 's'}"
        how = "fresh" if state.reason is None else f"not fresh: {state.reason!r}"
        return f"<HostMonitor {self._host!r} {how}{known}>"

    # What asynchost.testing puts something else in place of.

    def _clocks(self) -> tuple[Callable[[], float], Callable[[], datetime]]:
        """The clock by which ages are told, and what dates events."""
        return monotonic, lambda: datetime.now(UTC)

    def _make_source(self, uri: str, settings: MonitorSettings) -> HostSource:
        """What observes the host and tells ``self._state``."""
        return Source(uri, settings, self._state, self._host)

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
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
        if error is None and self._ending is not None and not self._ending.told:
            self._ending.throw()

    async def start(self) -> None:
        """Begin to watch, and return at once. A monitor is started once."""
        if self._task is not None:
            raise RuntimeError(f"{self._host}: a monitor is started once; make another one")
        if self._closing:
            raise ClosedError(f"the monitor of {self._host}")
        self._state.started()
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._source.run(), name=f"asynchost {self._host}")
        # Not within the task: one that is cancelled before its first step never runs.
        self._task.add_done_callback(self._stopped)

    def _stopped(self, task: asyncio.Task[None]) -> None:
        ending = self._ended(task)
        reason = "closed" if ending is None else _in_words(ending.error)
        self._state.stopped(reason)
        self._moved.set()
        self._end_streams(ending)
        if ending is not None:
            expected = isinstance(ending.error, AsynchostError)
            traceback = {} if expected else {"exc_info": ending.error}
            self._log.error("monitor ended", reason=reason, **traceback)

    def _end_streams(self, ending: Ending | None) -> None:
        self._change_streams.end(ending)
        self._drift_streams.end(ending)
        self._domain_streams.end(ending)
        self._snapshot_streams.end(ending)

    def _ended(self, task: asyncio.Task[None]) -> Ending | None:
        """Why the monitor ended; None where :meth:`aclose` ended it."""
        if self._ending is None:
            error = None if task.cancelled() else task.exception()
            if error is None and not self._closing:
                error = ClosedError(f"the monitor of {self._host}, whose task was cancelled,")
            if error is not None:
                self._ending = Ending(error)
        return self._ending

    async def ready(self, *, patient: bool = True, facts: bool = False) -> None:
        """Wait for the first resync, however long libvirtd takes to come up. Cancelling is safe.

        With ``facts`` also wait until :attr:`facts` are known. If not ``patient``, give up once
        an attempt to connect has failed; the monitor goes on trying.

        :raises RuntimeError: the monitor was not started.
        :raises HypervisorRefusedError: libvirt refuses the connection.
        :raises HypervisorUnavailableError: not ``patient``, and there is no connection.
        :raises ClosedError: the monitor was closed before it was ready.
        """
        state = self._state

        def known() -> bool:
            return state.ready and not (facts and state.facts is None)

        await self._until(lambda: known() or not (patient or state.down is None))
        if not known() and isinstance(state.down, HypervisorUnavailableError):
            raise state.down

    async def wait(self) -> None:
        """Wait until the monitor is closed. Cancelling is safe, and closes nothing.

        Await it beside your own tasks, for instance in their task group: it raises what ended
        the monitor, such as :class:`HypervisorRefusedError` when libvirt refused the first
        connection, or an error that nobody expected.

        :raises RuntimeError: the monitor was not started.
        """
        task = self._running_task()
        await asyncio.wait([task])
        ending = self._ended(task)
        if ending is not None:
            ending.throw()

    async def aclose(self) -> None:
        """Stop watching and close everything. Idempotent.

        When cancelled, it closes everything all the same, and raises the cancellation at the
        end. That takes milliseconds, and up to a second while libvirtd does not answer.
        """
        self._closing = True
        task = self._task
        if task is None:
            self._state.stopped()
            self._end_streams(None)
            return
        if task.done():
            return
        self._check_loop()
        task.cancel()
        cancelled: asyncio.CancelledError | None = None
        # A scope of anyio cancels again at each wait, so one wait is not enough.
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
        held = self._source.held_threads
        self._log.info("closed", **({"held_threads": held} if held else {}))
        if cancelled is not None:
            raise cancelled

    def _running_task(self) -> asyncio.Task[None]:
        if self._task is None:
            if self._closing:
                raise ClosedError(f"the monitor of {self._host}")
            raise RuntimeError(
                f"the monitor of {self._host} was not started: await start() first, or use"
                " 'async with'"
            )
        self._check_loop()
        return self._task

    def _check_loop(self) -> None:
        """Raise ``RuntimeError`` on another event loop than the monitor's, while it runs."""
        if self._task is None or self._task.done() or self._loop is None:
            return
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError(
                f"the monitor of {self._host} belongs to another event loop; call it there, from"
                " another thread by asyncio.run_coroutine_threadsafe"
            )

    async def _until(self, condition: Callable[[], bool]) -> None:
        task = self._running_task()
        while not condition():
            if task.done():
                self._throw_end(task)
            self._moved.clear()
            await self._moved.wait()

    def _throw_end(self, task: asyncio.Task[None]) -> Never:
        ending = self._ended(task)
        if ending is not None:
            ending.throw()
        raise ClosedError(f"the monitor of {self._host}")

    # -- what is known -------------------------------------------------------------------------

    @property
    def host(self) -> str:
        """The name given, else the URI without a password: what this host is called in logs and
        changes."""
        return self._host

    @property
    def usage(self) -> Usage:
        """The totals now; frozen while stale. Memory in KiB, ``memory_mb_used`` in MiB.

        Raises :class:`NotReadyError` before the first resync: unknown is never zero.
        """
        return self._state.usage

    @property
    def domains(self) -> Mapping[str, Domain]:
        """The domains that count, by UUID: live and read-only, frozen while stale.

        At any moment the sum of what they add, and what is reserved, is :attr:`usage`. Empty
        before the first resync: :meth:`ready` tells. Iterating goes over the moment at which the
        iteration began, so it may be interrupted by an ``await``.
        """
        return self._domains

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

        Returns the function that removes it, which may be called any number of times. A listener
        must not wait. One that raises is reported to the loop's exception handler, and the other
        listeners are called all the same.
        """
        return self._state.add_listener(listener)

    # -- what changes --------------------------------------------------------------------------

    def changes(self, *, limit: int = DEFAULT_LIMIT) -> Subscription:
        """Every change of the totals from this call on, as an asynchronous iterator.

        Subscribe first and read :attr:`usage` then, without an ``await`` between the two: the
        first change begins where those totals end. What moves no total is not told: a guest that
        is suspended, or restarted within one read. A subscriber that falls ``limit`` changes
        behind gets them folded into one. After the backlog, iteration stops when the monitor was
        closed, and raises what ended the monitor when it died.

        Each call makes a subscription of its own. Close it, or use it in a ``with`` block.

        :raises InvalidSettingError: ``limit`` is not a whole number from 1 on.
        """
        if not self._fans_out:  # until then no change is even made
            self._fans_out = True
            self._state.on_change(self._change_streams.push)
        streams = self._change_streams
        return streams.add(
            Subscription(streams.forget, limit, host=self._host, check_loop=self._check_loop)
        )

    def drifts(self, *, limit: int = DEFAULT_LIMIT) -> DriftSubscription:
        """Every correction that an audit makes from this call on, as an asynchronous iterator.

        A correction is what no event told, with the time that the wrong value stood. It ends as
        :meth:`changes` does. A subscriber that falls ``limit`` behind loses the oldest.

        :raises InvalidSettingError: ``limit`` is not a whole number from 1 on.
        """
        streams = self._drift_streams
        return streams.add(
            DriftSubscription(streams.forget, limit, host=self._host, check_loop=self._check_loop)
        )

    def domain_events(
        self,
        *,
        uuid: str | None = None,
        kinds: Collection[EventKind] = (),
        limit: int = DEFAULT_LIMIT,
    ) -> DomainEvents:
        """What happens to each domain from this call on, as an asynchronous iterator.

        One item for each of libvirt's lifecycle events, in libvirt's order for a domain and never
        merged, told when the read that the event caused has returned. A domain that a read found
        otherwise without such an event is an item of kind ``CHANGED``. So ``stream.initial``, the
        table at this moment, with every item's ``after`` put in, is :attr:`domains` at that item;
        items with ``known`` False change nothing.

        ``uuid`` asks for one domain only, ``kinds`` for some kinds only. A subscriber that falls
        ``limit`` events behind loses the oldest, counted in the next item's ``lost``. It ends as
        :meth:`changes` does. Close it, or use it in a ``with`` block.

        :raises InvalidSettingError: ``limit`` is no whole number from 1 on, or one of ``kinds`` is
            no kind.
        """
        for kind in kinds:
            if not isinstance(kind, EventKind):
                raise InvalidSettingError("kinds", kind, "give members of EventKind")
        wanted = EventFilter(None if uuid is None else uuid.lower(), frozenset(kinds))
        streams = self._domain_streams
        stream = DomainEvents(
            *(streams.forget, limit, wanted, self._state.domain),
            host=self._host,
            check_loop=self._check_loop,
        )
        if not streams:
            self._state.feed_domains(self._epoch, streams)
        if self._state.ready:
            stream.begin(self._state.records)
        return streams.add(stream)

    def snapshots(self) -> Snapshots:
        """The host's state now and whenever it moved, as an asynchronous iterator.

        Facts, disk, freshness and its reason are part of the state. A slow subscriber gets the
        newest state and none in between. It ends as :meth:`changes` does; the last item is the
        state in which the monitor ended. Close it, or use it in a ``with`` block.
        """
        if not self._feeds_snapshots:
            self._feeds_snapshots = True
            self._state.add_listener(self._push_snapshot)
        streams = self._snapshot_streams
        stream = Snapshots(
            streams.forget, self.snapshot, host=self._host, check_loop=self._check_loop
        )
        stream.push(self.snapshot())
        return streams.add(stream)

    def _push_snapshot(self) -> None:
        if self._snapshot_streams:
            self._snapshot_streams.push(self.snapshot())

    async def wait_for(self, condition: Callable[["HostMonitor"], T]) -> T:
        """Wait until ``condition`` is true of this monitor, and return what it returned.

        It is called with the monitor at once, and again whenever a domain, the totals, a fact or
        the freshness changed: so it must be cheap and must not wait. Cancelling is safe.

        Raises whatever ``condition`` raises; what ended the monitor, if it died meanwhile; and
        :class:`ClosedError` once the monitor was closed.
        """
        task = self._running_task()
        moved = asyncio.Event()
        remove_listener = self._state.add_listener(moved.set)
        remove_record = self._state.on_record(moved.set)
        try:
            while not (answer := condition(self)):
                if task.done():
                    self._throw_end(task)
                await moved.wait()
                moved.clear()
            return answer
        finally:
            remove_listener()
            remove_record()

    async def audit(self) -> list[Drift]:
        """Recount now: list, read every domain, and correct what differs.

        Returns the corrections. Raises :class:`HypervisorUnavailableError` while not connected
        or when the listing does not come back in time; the totals then stand. Cancelling is safe.
        """
        self._check_loop()
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
        self._check_loop()
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
        self._check_loop()
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


def _in_words(error: BaseException) -> str:
    """An error as text, with its kind where this package did not write the text."""
    if isinstance(error, AsynchostError):
        return error.message
    return f"{type(error).__name__}: {error}"


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
