"""Doubles with behaviour, for the tests of programs that embed asynchost.

:class:`ScriptedLibvirt` makes real monitors of a host that the test moves. :class:`FakeHost` is
less: a host for tests of a writer alone. Both work without any server, and on fake time too.
Memory: one record for each domain that was started and not stopped.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Final
from uuid import uuid4
from weakref import WeakSet

from asynchost.agenda import Agenda, Mark
from asynchost.domains import EventKind, EventReason, Lifecycle
from asynchost.errors import HypervisorRefusedError, HypervisorUnavailableError
from asynchost.explanation import Survey
from asynchost.host_state import HostState
from asynchost.model import (
    Cause,
    DiskUsage,
    DomainState,
    HostFacts,
    HostSnapshot,
    Observation,
    Usage,
)
from asynchost.monitor import HostMonitor, HostSource
from asynchost.observers import Observers
from asynchost.settings import MonitorSettings
from asynchost.subscription import report_to_loop

_GIB = 1024**3


class FakeHost:
    """A host without libvirt: what a writer attaches to, with domains that you start and stop.

    It begins fresh and complete, with no domain. ``name`` is what the row is called, None for
    the same as ``host``. Listeners are called at once, on each change, as a monitor does.
    """

    def __init__(self, host: str = "fake", *, name: str | None = None) -> None:
        self._host = host
        self._name = host if name is None else name
        self._facts: HostFacts | None = HostFacts(
            hostname=self._name,
            hypervisor_type="fake",
            hypervisor_version=1_002_003,
            vcpus=16,
            memory_mb=32_768,
            cpu_info={
                "arch": "x86_64",
                "model": None,
                "vendor": None,
                "topology": {"cells": 1, "sockets": 1, "cores": 8, "threads": 2},
                "features": [],
            },
        )
        self._disk: DiskUsage | None = DiskUsage(100 * _GIB, 10 * _GIB, 80 * _GIB)
        self._domains: dict[int, tuple[int, int]] = {}
        self._numbers = count(1)
        self._listeners: Observers[[]] = Observers(report_to_loop)
        self._generation = 1
        self._fresh = True

    @property
    def host(self) -> str:
        """The host's name in logs."""
        return self._host

    @property
    def usage(self) -> Usage:
        """The sums over the running domains."""
        return Usage(
            vcpus_used=sum(vcpus for vcpus, _ in self._domains.values()),
            memory_kib_used=sum(memory for _, memory in self._domains.values()),
            running_vms=len(self._domains),
        )

    def start(self, vcpus: int = 1, memory_kib: int = 1024 * 1024) -> int:
        """Start a domain; returns its number, for :meth:`stop`."""
        number = next(self._numbers)
        self._domains[number] = (vcpus, memory_kib)
        self._listeners()
        return number

    def stop(self, number: int) -> None:
        """Stop a domain.

        :raises KeyError: it does not run.
        """
        del self._domains[number]
        self._listeners()

    def set_facts(self, facts: HostFacts | None) -> None:
        """What the host is; None: not known yet, so that no row can be made."""
        self._facts = facts
        self._listeners()

    def set_disk(self, disk: DiskUsage | None) -> None:
        """The space for instances; None: not known, though it was looked at."""
        self._disk = disk
        self._listeners()

    def lose(self) -> None:
        """The connection breaks: the totals are frozen, and not written."""
        self._fresh = False
        self._listeners()

    def find(self) -> None:
        """The connection is back, and a resync is done."""
        self._fresh = True
        self._generation += 1
        self._listeners()

    def snapshot(self) -> HostSnapshot:
        """The state now."""
        return HostSnapshot(
            host=self._host,
            name=self._name,
            generation=self._generation,
            fresh=self._fresh,
            stale_seconds=None if self._fresh else 0.0,
            usage=self.usage,
            facts=self._facts,
            disk=self._disk,
            disk_settled=True,
            disks_settled=True,
        )

    def add_listener(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` on each change; returns the function that removes it."""
        return self._listeners.add(listener)


# libvirt's numbers of its lifecycle events.
_RAW_KINDS: Final = {
    EventKind.DEFINED: 0,
    EventKind.UNDEFINED: 1,
    EventKind.STARTED: 2,
    EventKind.SUSPENDED: 3,
    EventKind.RESUMED: 4,
    EventKind.STOPPED: 5,
    EventKind.SHUTDOWN: 6,
    EventKind.PMSUSPENDED: 7,
    EventKind.CRASHED: 8,
}
_BATCH: Final = 64
_LOOK_FOR_EVENTS_SECONDS: Final = 0.25


@dataclass
class _Host:
    """What the test says of the host."""

    domains: dict[str, Observation] = field(default_factory=dict)
    hanging: set[str] = field(default_factory=set)
    lost: str | None = None
    """Why there is no connection; None while there is one."""
    refusal: HypervisorRefusedError | None = None
    fault: BaseException | None = None
    facts: HostFacts | None = None
    disk: DiskUsage | None = None
    sources: "WeakSet[_ScriptedSource]" = field(default_factory=WeakSet)


class ScriptedLibvirt:
    """A libvirt without a server: a host whose domains the test starts, stops and breaks.

    :meth:`monitor` makes a real :class:`~asynchost.HostMonitor` of it, of which only the part
    that talks to libvirt is replaced: streams, status, audits, explanations and writers are real.

    >>> libvirt = ScriptedLibvirt()
    >>> async with libvirt.monitor() as monitor:  # doctest: +SKIP
    ...     uuid = libvirt.start("web-1", vcpus=2)
    ...     await monitor.wait_for(lambda monitor: uuid in monitor.domains)

    The methods return at once; a monitor follows in the next rounds of its event loop. With
    ``event=False`` something happens that libvirt does not tell: an audit finds it. :meth:`send`
    sends an event alone, so that events can come twice, late or in another order. Call all
    methods on the event loop of the monitors, or before they are started. Times come from the
    event loop, so a test on fake time waits for nothing.
    """

    def __init__(
        self,
        host: str = "scripted",
        *,
        facts: HostFacts | None = None,
        disk: DiskUsage | None = None,
    ) -> None:
        double = FakeHost(host).snapshot()
        self._name = host
        self._script = _Host(facts=facts or double.facts, disk=disk or double.disk)
        self._ids = count(1)

    def monitor(
        self, *, name: str | None = None, settings: MonitorSettings | None = None
    ) -> HostMonitor:
        """A monitor of this host; ``name`` takes the place of the host's own name."""
        return _ScriptedMonitor(self._name, self._script, name, settings)

    # -- domains ---------------------------------------------------------------------------------

    def start(
        self,
        name: str,
        *,
        vcpus: int = 1,
        memory_kib: int = 1024 * 1024,
        uuid: str | None = None,
        reason: EventReason = EventReason.BOOTED,
        event: bool = True,
    ) -> str:
        """Start a domain; returns its UUID, which is a new one where none is given.

        Raises ``ValueError`` where a domain of that UUID runs already.
        """
        uuid = str(uuid4()) if uuid is None else uuid
        if uuid in self._script.domains:
            raise ValueError(f"the domain {uuid} runs already; stop it first, or give another UUID")
        self._script.domains[uuid] = Observation(
            *(uuid, name, next(self._ids), int(DomainState.RUNNING), 0, None),
            *(vcpus, memory_kib, memory_kib),
        )
        if event:
            self.send(uuid, EventKind.STARTED, reason)
        return uuid

    def stop(
        self, uuid: str, reason: EventReason = EventReason.DESTROYED, *, event: bool = True
    ) -> None:
        """Stop a domain. Raises ``KeyError`` where it does not run."""
        name = self._script.domains.pop(uuid).name
        if event:
            self.send(uuid, EventKind.STOPPED, reason, name=name)

    def change(
        self,
        uuid: str,
        *,
        vcpus: int | None = None,
        memory_kib: int | None = None,
        name: str | None = None,
        event: bool = True,
    ) -> None:
        """Give a domain other values; the event is that of a device. Raises ``KeyError``."""
        domain = self._script.domains[uuid]
        self._script.domains[uuid] = domain._replace(
            vcpus=domain.vcpus if vcpus is None else vcpus,
            memory_kib=domain.memory_kib if memory_kib is None else memory_kib,
            name=domain.name if name is None else name,
        )
        if event:
            for source in tuple(self._script.sources):
                source.event(uuid, "device", None, "")

    def suspend(self, uuid: str, *, event: bool = True) -> None:
        """Pause a domain. Raises ``KeyError`` where it does not run."""
        self._set_state(uuid, DomainState.PAUSED)
        if event:
            self.send(uuid, EventKind.SUSPENDED, EventReason.PAUSED)

    def resume(self, uuid: str, *, event: bool = True) -> None:
        """Let a domain run on. Raises ``KeyError`` where it does not run."""
        self._set_state(uuid, DomainState.RUNNING)
        if event:
            self.send(uuid, EventKind.RESUMED, EventReason.UNPAUSED)

    def _set_state(self, uuid: str, state: DomainState) -> None:
        self._script.domains[uuid] = self._script.domains[uuid]._replace(state=int(state), reason=1)

    def send(
        self,
        uuid: str,
        kind: EventKind,
        reason: EventReason = EventReason.OTHER,
        *,
        name: str | None = None,
    ) -> None:
        """Send a lifecycle event, whatever the domain does; ``name`` is libvirt's for it."""
        domain = self._script.domains.get(uuid)
        named = name or ("" if domain is None else domain.name)
        # libvirt's number of a reason is not scripted.
        lifecycle = Lifecycle(kind, reason, _RAW_KINDS.get(kind, -1), -1)
        for source in tuple(self._script.sources):
            source.event(uuid, f"lifecycle {kind}", lifecycle, named)

    # -- what goes wrong -------------------------------------------------------------------------

    def hang(self, uuid: str) -> None:
        """Reads of the domain do not return from now on."""
        self._script.hanging.add(uuid)

    def release(self, uuid: str) -> None:
        """Reads of the domain return again, and so do those that hang."""
        self._script.hanging.discard(uuid)
        for source in tuple(self._script.sources):
            source.release(uuid)

    def disconnect(self, reason: str = "the connection broke") -> None:
        """libvirt goes away; monitors freeze their totals and wait for it."""
        self._script.lost = reason
        self._wake()

    def reconnect(self) -> None:
        """libvirt is back; monitors list all domains anew."""
        self._script.lost = None
        self._wake()

    def refuse(self, reason: str = "access denied") -> None:
        """libvirt refuses connections: a monitor that never had one ends with
        :class:`HypervisorRefusedError`; others lose theirs, until :meth:`reconnect`."""
        self._script.refusal = HypervisorRefusedError(self._name, reason, "let the script go on")
        self.disconnect(reason)

    def fail(self, error: BaseException) -> None:
        """Monitors end with ``error``, as if asynchost had a fault."""
        self._script.fault = error
        self._wake()

    def set_facts(self, facts: HostFacts) -> None:
        """What the host is, from now on."""
        self._script.facts = facts
        self._wake()

    def set_disk(self, disk: DiskUsage | None) -> None:
        """The space for instances from now on; None: not known."""
        self._script.disk = disk
        self._wake()

    def _wake(self) -> None:
        for source in tuple(self._script.sources):
            source.moved.set()


class _ScriptedMonitor(HostMonitor):
    """A monitor whose source is a script, and whose time is the event loop's."""

    def __init__(
        self, host: str, script: _Host, name: str | None, settings: MonitorSettings | None
    ) -> None:
        self._script = script
        super().__init__("test:///scripted", name=name or host, settings=settings)

    def _clocks(self) -> tuple[Callable[[], float], Callable[[], datetime]]:
        begun = datetime.now(UTC)
        origin: list[float] = []

        def clock() -> float:
            try:
                now = asyncio.get_running_loop().time()
            except RuntimeError:  # no loop runs: a test's own synchronous part
                return 0.0
            if not origin:
                origin.append(now)
            return now - origin[0]

        return clock, lambda: begun + timedelta(seconds=clock())

    def _make_source(self, uri: str, settings: MonitorSettings) -> HostSource:  # noqa: ARG002
        source = _ScriptedSource(self._host, settings, self._state, self._script)
        self._script.sources.add(source)
        return source


class _ScriptedSource:
    """Observes a script as the real source observes libvirt: events mark, reads tell."""

    def __init__(
        self, host: str, settings: MonitorSettings, state: HostState, script: _Host
    ) -> None:
        self.moved = asyncio.Event()
        """Set when the script says something else of the host."""
        self._host = host
        self._settings = settings
        self._state = state
        self._script = script
        self._generation = 0
        self._agenda = Agenda()
        self._connected = False
        self._hung: dict[str, Mark] = {}
        self._stuck: set[str] = set()

    @property
    def held_threads(self) -> int:
        """As many as there are domains whose reads hang."""
        return len(self._stuck)

    # -- the life of the connection --------------------------------------------------------------

    async def run(self) -> None:
        """Observe the script until cancelled."""
        try:
            while True:
                error = self._why_lost()
                if error is None:
                    await self._live()
                    error = self._why_lost()
                if isinstance(error, HypervisorRefusedError) and self._generation == 0:
                    raise error
                if error is not None:
                    self._state.disconnected(error)
                    await self.moved.wait()
                    self.moved.clear()
        finally:
            self._connected = False

    def _why_lost(self) -> HypervisorRefusedError | HypervisorUnavailableError | None:
        script = self._script
        if script.fault is not None:
            raise script.fault
        if script.lost is None:
            script.refusal = None
            return None
        return script.refusal or HypervisorUnavailableError(self._host, script.lost)

    async def _live(self) -> None:
        """One time connected. Returns when the connection is lost."""
        self._generation += 1
        self._agenda, self._hung, self._stuck = Agenda(), {}, set()
        self._state.connected(self._generation, "scripted")
        script = self._script
        read = [one for uuid, one in script.domains.items() if uuid not in script.hanging]
        for uuid in script.hanging & script.domains.keys():
            self._stuck.add(uuid)
            self._state.unreadable(uuid, self._late(), stuck=True)
        self._connected = True
        self._state.resynced(read, frozenset(self._stuck))
        interval = self._settings.audit_interval_seconds
        while self._why_lost() is None:
            self._tell_facts()
            self.moved.clear()
            try:
                async with asyncio.timeout(interval or None):
                    await self.moved.wait()
            except TimeoutError:
                await self.audit()
        self._connected = False

    def _tell_facts(self) -> None:
        facts, disk = self._script.facts, self._script.disk
        if facts is not None and facts != self._state.facts:
            self._state.facts_read(facts)
        self._state.disk_read(disk, None if disk is not None else "not scripted")
        self._state.disks_unreadable({})

    def _late(self) -> str:
        return f"no answer within {self._settings.call_deadline_seconds:g} s"

    # -- reads -----------------------------------------------------------------------------------

    def event(self, uuid: str, detail: str, lifecycle: Lifecycle | None, name: str) -> None:
        """libvirt sends an event: the domain is read in the next round of the loop."""
        if not self._connected:
            return
        self._state.event_received(uuid)
        number = 0
        if lifecycle is not None:
            number = self._state.lifecycle(uuid, lifecycle, lambda: name)
        self._mark(uuid, Mark(Cause.EVENT, detail, number))
        if number and uuid in self._stuck:
            self._state.lifecycle_unanswered(uuid)
        if lifecycle is not None and lifecycle.kind is EventKind.STARTED:
            again = Mark(Cause.LOOK_AGAIN)
            delay = self._settings.look_again_seconds
            asyncio.get_running_loop().call_later(delay, self._mark, uuid, again)

    def _mark(self, uuid: str, mark: Mark) -> None:
        self._agenda.mark(uuid, mark)
        asyncio.get_running_loop().call_soon(self._read)

    def _read(self) -> None:
        if not self._connected:
            return
        deadline = self._settings.call_deadline_seconds
        for uuid, mark in self._agenda.take(background=False, most=_BATCH):
            if uuid in self._script.hanging:
                self._hung[uuid] = mark
                asyncio.get_running_loop().call_later(deadline, self._call_stuck, uuid, mark)
            else:
                self._returned(uuid, mark)
        if self._agenda.waiting(background=False):
            asyncio.get_running_loop().call_soon(self._read)

    def _returned(self, uuid: str, mark: Mark) -> None:
        self._agenda.done(uuid)
        self._stuck.discard(uuid)
        observation = self._script.domains.get(uuid)
        if observation is None:
            self._state.gone(uuid, mark)
        else:
            self._state.observed(observation, mark)

    def _call_stuck(self, uuid: str, mark: Mark) -> None:
        if self._hung.get(uuid) is mark:
            self._stuck.add(uuid)
            self._state.unreadable(uuid, self._late(), stuck=True)

    def release(self, uuid: str) -> None:
        """The reads of the domain return that hang."""
        mark = self._hung.pop(uuid, None)
        if mark is None and uuid in self._stuck and self._connected:
            self._mark(uuid, Mark(Cause.LOOK_AGAIN))
        elif mark is not None and self._connected:
            self._returned(uuid, mark)
            asyncio.get_running_loop().call_soon(self._read)

    async def audit(self) -> None:
        """Read every domain that is there or counted, now."""
        if not self._connected:
            raise HypervisorUnavailableError(self._host, "not connected")
        for uuid in {*self._script.domains, *self._state.known_uuids()}:
            if uuid in self._script.hanging:
                self._state.unreadable(uuid, self._late(), stuck=True)
                continue
            observation = self._script.domains.get(uuid)
            if observation is None:
                self._state.gone(uuid, Mark(Cause.AUDIT))
            else:
                self._state.observed(observation, Mark(Cause.AUDIT))
        self._state.audited(0.0)
        while self._state.suspects_drift:
            await asyncio.sleep(_LOOK_FOR_EVENTS_SECONDS)
            self._state.settle_drift()

    async def survey(self) -> Survey:
        """Every domain of a script counts, so there is no other one."""
        return Survey()
