"""Keeps one host observed: connects, resyncs, follows events, audits, reconnects, for ever.

What it finds goes to one sink, on the loop: it keeps no totals itself. At each connect the
order is what makes it gap-free: register the events, then list, then read each listed domain once,
then publish. What became dirty after its read is an ordinary event.

Memory: the reader's, and during a resync one observation per listed domain.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from random import random
from typing import Any, Protocol

from asynchost.accounting import DOMAIN_0_UUID, Accounting, is_active, is_starting_up
from asynchost.agenda import Mark
from asynchost.backoff import Backoff
from asynchost.domains import Lifecycle
from asynchost.errors import (
    CallTimeoutError,
    HypervisorRefusedError,
    HypervisorUnavailableError,
)
from asynchost.explanation import Survey
from asynchost.hypervisor.call_thread import held_threads
from asynchost.hypervisor.connection import Connection, close_orphans
from asynchost.hypervisor.disk_watch import DiskWatch
from asynchost.hypervisor.domain_events import DomainEvent
from asynchost.hypervisor.event_loop import EVENT_LOOP
from asynchost.hypervisor.foreign_loop import why_unserved
from asynchost.hypervisor.host_facts import (
    UNKNOWN_VERSION,
    read_facts,
    read_node,
    read_version,
)
from asynchost.hypervisor.listing import survey
from asynchost.hypervisor.migration_watch import MigrationWatch
from asynchost.hypervisor.reader import Reader, ReadSink
from asynchost.hypervisor.surprises import Surprises
from asynchost.log import get_logger
from asynchost.model import Cause, DiskUsage, HostFacts, Observation
from asynchost.settings import MonitorSettings
from asynchost.together import together

# An audit reads in chunks spread over this share of its interval, after the rest of it, so that
# no domain goes unread for longer than one interval, counted from the resync on.
_SPREAD_SHARE = 0.8
_CHUNK = 16
# For so long a starting domain is looked at every look-again time; then the audit has it.
_STARTING_UP_SECONDS = 60.0
# So long facts wait for the connection that lists. It is there at once, or libvirtd takes none.
_SECOND_CONNECTION_SECONDS = 1.0
# A libvirtd that has nothing to find out first answers in a hundredth of that.
_SLOW_FACTS_SECONDS = 1.0
# How often it is looked whether an event has followed an audit's correction.
_LOOK_FOR_EVENTS_SECONDS = 0.25
_FIRST_LOOK_FOR_EVENTS_SECONDS = 0.005


class SourceSink(ReadSink, Protocol):
    """Who is told what a source finds. Called on the loop; must not raise, must not wait."""

    def connected(self, generation: int, hypervisor_type: str) -> None:
        """A connection is open; nothing is known through it yet."""

    def event_missing(self, name: str) -> None:
        """This libvirt, or this driver, does not have an event."""

    def disconnected(self, error: HypervisorUnavailableError | HypervisorRefusedError) -> None:
        """The connection is lost, or could not be opened: what is known is stale."""

    def event_received(self, uuid: str) -> None:
        """libvirt sent an event of the domain; the read that it causes follows."""

    @property
    def suspects_drift(self) -> bool:
        """Whether a correction was made that is drift unless an event follows."""

    def settle_drift(self) -> None:
        """Count the corrections as drift that no event has followed in time."""

    def lifecycle(self, uuid: str, event: Lifecycle, name: Callable[[], str]) -> int:
        """libvirt sent a lifecycle event; returns the number for the mark of its read."""

    def lifecycle_unanswered(self, uuid: str) -> None:
        """The read that lifecycle events of the domain wait for does not begin."""

    def staged(self, uuid: str, mark: Mark) -> None:
        """A domain was read; what the read found comes with :meth:`resynced`."""

    def audited(self, listed_seconds_ago: float) -> None:
        """An audit has read every domain."""

    def resynced(self, observations: Iterable[Observation], unread: frozenset[str]) -> None:
        """A full listing, with everything that changed while it was made."""

    def facts_read(self, facts: HostFacts) -> None:
        """What the host is, or that it has changed."""

    def disk_read(self, disk: DiskUsage | None, reason: str | None) -> None:
        """The disk's figures; where they cannot be had, the last ones or None, and the reason."""

    def disks_unreadable(self, reasons: Mapping[str, str]) -> None:
        """The domains with a disk that cannot be read, by UUID, each with the reason."""

    def known_uuids(self) -> Iterable[str]:
        """The domains that are counted now."""


class Source:
    """The supervised connection to one host."""

    def __init__(self, uri: str, settings: MonitorSettings, sink: SourceSink, host: str) -> None:
        """``host`` is what the host is called in the log: the URI may hold a password."""
        self._uri = uri
        self._settings = settings
        self._sink = sink
        self._log = get_logger("asynchost.hypervisor", host=host)
        self._surprises = Surprises(self._log)
        self._generation = 0
        self._reader: Reader | None = None
        self._listing: Connection | None = None
        self._staged: dict[str, Observation] | None = None
        self._published = False
        self._unread: set[str] = set()
        self._starting: dict[str, float] = {}
        self._has_domain_0 = False
        self._facts: HostFacts | None = None
        self._node: tuple[int, int] | None = None
        """CPUs and memory when the capabilities were read last."""
        self._disk = DiskWatch(
            uri, settings, sink.disk_read, sink.disks_unreadable, self._events_wait, host=host
        )
        self._migrations = MigrationWatch(
            uri, settings, self._migration_moved, sink.known_uuids, host=host
        )
        self._unclosed: list[Connection] = []
        self._drift_timer: asyncio.TimerHandle | None = None
        self._listing_settled = asyncio.Event()
        self._listing_free = asyncio.Event()
        self._listing_free.set()
        self._rereading: asyncio.Task[None] | None = None
        self._others: list[Connection] = []
        """What is to be closed beside the events' connection: the one that lists, and those that
        were left to slow capabilities."""

    @property
    def held_threads(self) -> int:
        """How many threads are in a call that has outlived its deadline, or its connection."""
        stuck = 0 if self._reader is None else len(self._reader.stuck)
        return stuck + held_threads(self._uri)

    # -- the life of the connection ------------------------------------------------------------

    async def run(self) -> None:
        """Watch the host until cancelled; closes everything it opened.

        Raises :class:`HypervisorRefusedError` when libvirt refuses the *first* connection, and
        whatever unexpected error ends the first attempt to connect. Later, what was right once is
        waited for: an unexpected error ends the connection, and another one takes its place.
        """
        loop = asyncio.get_running_loop()
        ours = EVENT_LOOP.register()
        EVENT_LOOP.attach(loop)
        backoff = Backoff(random)
        try:
            close_orphans()
            while True:
                events = Connection(self._uri, self._settings)
                try:
                    if not ours:
                        await self._check_served()
                        ours = True
                    await self._live(events, backoff)
                except HypervisorRefusedError as error:
                    if self._generation == 0:
                        raise
                    self._sink.disconnected(error)
                except HypervisorUnavailableError as error:
                    self._sink.disconnected(error)
                except Exception as error:
                    if self._generation == 0 or loop.is_closed():
                        raise
                    reason = self._surprises.tell("the connection", error)
                    self._sink.disconnected(HypervisorUnavailableError(self._uri, reason))
                finally:
                    # A loop that was closed under it closes nothing any more; the next one does.
                    if not loop.is_closed():
                        await self._close(events)
                await self._wait_for_unclosed()
                await asyncio.sleep(backoff.next_delay())
        finally:
            if not loop.is_closed():
                await asyncio.gather(self._disk.aclose(), self._migrations.aclose())
                # One more round, so that libvirt lets go of what was closed.
                await asyncio.sleep(0)
                EVENT_LOOP.detach(loop)

    async def _check_served(self) -> None:
        """Whether the event loop that the program has registered with libvirt can be relied on."""
        try:
            unserved = await why_unserved()
        except RuntimeError as error:  # no thread to look at it with
            raise HypervisorUnavailableError(self._uri, str(error)) from None
        if unserved is not None:
            raise HypervisorRefusedError(self._uri, *unserved)

    async def _close(self, events: Connection) -> None:
        reader, self._reader, self._listing = self._reader, None, None
        if self._drift_timer is not None:
            self._drift_timer.cancel()
            self._drift_timer = None
        self._listing_settled.clear()
        rereading, self._rereading = self._rereading, None
        if rereading is not None:
            rereading.cancel()
        connections, self._others = [events, *self._others], []
        # Begun without waiting, so that a second cancellation comes too late.
        for connection in connections:
            connection.close()
        await asyncio.gather(
            *(connection.aclose() for connection in connections),
            *(() if reader is None else (reader.aclose(),)),
            *(() if rereading is None else (asyncio.wait([rereading]),)),
        )
        self._unclosed += connections

    async def _wait_for_unclosed(self) -> None:
        """Do not begin what would hang as well, for a time that doubles with each that does.

        Opening has no keepalive: in a libvirtd that takes connections and says nothing, each
        attempt holds a thread and a connection until it goes on. Then all of them return.
        """
        hung = [one.closed for one in self._unclosed if not one.closed.done()]
        self._unclosed = [one for one in self._unclosed if not one.closed.done()]
        if len(hung) > 1:  # one alone may have been unlucky
            patience = self._settings.listing_deadline_seconds * 2.0 ** (len(hung) - 2)
            await asyncio.wait(hung, timeout=patience, return_when=asyncio.FIRST_COMPLETED)

    async def _live(self, events: Connection, backoff: Backoff) -> None:
        """One time connected, from opening to loss. Returns only by raising."""
        await events.open(self._on_event, self._after_events)
        self._generation += 1
        self._has_domain_0 = Accounting(events.kind, self._settings.policy).has_domain_0
        self._sink.connected(self._generation, events.kind)
        for name in events.missing_events:
            self._sink.event_missing(name)
        self._starting.clear()
        self._migrations.forget()
        self._listing = events
        self._reader = Reader(
            events,
            lambda: Connection(self._uri, self._settings),
            self,
            self._settings,
        )
        try:
            await together(
                self._fail_when_lost(events),
                self._follow(events, self._reader, backoff),
            )
        finally:
            # What is read from here on would move totals that are frozen.
            self._published = False
            self._reader.close()

    async def _follow(self, events: Connection, reader: Reader, backoff: Backoff) -> None:
        await self._resync(events, reader)
        await asyncio.sleep(0)  # who waits for the totals has them first
        backoff.reset()
        endure = self._surprises.endure
        await together(
            self._keep_listing(events, reader),
            endure("host facts", self._keep_facts),
            endure("disk", self._disk.run),
            endure("migrations", partial(self._keep_migrations, events.kind)),
            self._second_resync(),
            self._audit_for_ever(),
        )

    async def _keep_listing(self, events: Connection, reader: Reader) -> None:
        """Open the connection that lists; raise when the one that lists is lost.

        Until it is open, which takes half a minute where libvirtd accepts no more clients, facts
        and audits go through the first connection.
        """
        try:
            await self._second_connection(events, reader)
        except (HypervisorUnavailableError, HypervisorRefusedError) as error:
            # The totals are right all the same; only that audits and events wait for each other.
            self._log.warning("no second connection, one does for all", reason=error.message)
        self._listing_settled.set()
        while True:
            connection = self._listing or events
            loss = await asyncio.shield(connection.lost)
            if connection is (self._listing or events):  # else another one has taken its place
                raise loss

    async def _second_connection(self, events: Connection, reader: Reader) -> Connection:
        """The one that lists and audits from now on; opened if it is not yet.

        So late, for until there are totals no read of an event's can come too late.
        """
        if self._listing is events and not events.in_process:  # else it may be another host
            listing = Connection(self._uri, self._settings)
            self._others.append(listing)
            await listing.open()
            reader.list_through(listing)
            self._listing = listing
        return self._listing or events

    async def _fail_when_lost(self, connection: Connection) -> None:
        raise await asyncio.shield(connection.lost)

    # -- resync, audit -------------------------------------------------------------------------

    async def _resync(self, events: Connection, reader: Reader) -> None:
        self._staged, self._unread = {}, set()
        try:
            domains, reasons = await self._list_at_connect(events, reader)
            # What was read already, for an event, was read since the events were registered.
            for uuid in self._staged:
                domains.pop(uuid, None)
            for uuid in self._unread:
                reasons.pop(uuid, None)  # what its event told of may be newer
            await reader.read_first(list(domains), Mark(Cause.RESYNC), domains, reasons)
            staged = self._staged
        finally:
            self._staged = None
        self._published = True
        self._sink.resynced(staged.values(), frozenset(self._unread - staged.keys()))

    async def _list_at_connect(
        self, events: Connection, reader: Reader
    ) -> tuple[dict[str, Any], dict[str, int]]:
        """List, however long that takes: one locked domain blocks every listing.

        Which one it is, reading those that were counted before tells: its read hangs as well.
        A new connection would be no better off, so this one waits.
        """
        with suppress(CallTimeoutError):
            return await events.list_domains_and_reasons(self._settings.call_deadline_seconds)
        connection = await self._second_connection(events, reader)
        while True:
            for uuid in self._sink.known_uuids():
                reader.mark(uuid, Mark(Cause.LOOK_AGAIN, "probed"))
            try:
                return await connection.list_domains_and_reasons()
            except CallTimeoutError as error:
                self._log.warning(
                    "listing blocked, still not ready",
                    reason=error.reason,
                    stuck=sorted(reader.stuck),
                )

    async def audit(self) -> None:
        """List, and read every domain that is listed or counted, now.

        Waits up to about a second longer where something was corrected of which an event may still
        come. Raises :class:`HypervisorUnavailableError`; the ledger is then as it was. Cancelling
        is safe.
        """
        await self._recount(Cause.AUDIT, spread_seconds=0.0)
        pause = _FIRST_LOOK_FOR_EVENTS_SECONDS  # most come at once
        while self._sink.suspects_drift:
            await asyncio.sleep(pause)
            self._sink.settle_drift()
            pause = min(2 * pause, _LOOK_FOR_EVENTS_SECONDS)

    async def survey(self) -> Survey:
        """Read the domains that have no record, now.

        Raises :class:`HypervisorUnavailableError`. Cancelling is safe.
        """
        await self._wait_for_listing()
        connection = self._listing
        if connection is None:
            raise HypervisorUnavailableError(self._uri, "not connected")
        known = frozenset(self._sink.known_uuids())
        try:
            return await connection.ask(
                "virConnectListAllDomains",
                lambda handle: survey(handle, known),
                self._settings.listing_deadline_seconds,
            )
        except (HypervisorUnavailableError, HypervisorRefusedError):
            raise
        except Exception as error:
            reason = self._surprises.tell("explain", error)
            raise HypervisorUnavailableError(self._uri, reason) from error

    async def _recount(self, cause: Cause, spread_seconds: float) -> None:
        await self._wait_for_listing()
        connection, reader = self._listing, self._reader
        if connection is None or reader is None or not self._published:
            raise HypervisorUnavailableError(self._uri, "not connected")
        loop = asyncio.get_running_loop()
        start = loop.time()  # what the listing takes is not added to the interval
        # The listing decides only who is read. A domain that it does not name may have been
        # started since, so that one is read as well, and only its own answer counts.
        blocked = None
        try:
            listed = await connection.list_domains()
        except CallTimeoutError as error:
            # One locked domain blocks every listing. Those that are counted can be read all the
            # same, and the locked one is named by it.
            listed, blocked = {}, error
        known = set(self._sink.known_uuids())
        seen = known if blocked is not None else known.intersection(listed)
        # What only one of the two knows came or went unseen: read at once, not in its turn.
        unseen = [] if blocked is not None else sorted(known.symmetric_difference(listed))
        # Those that answer are read in an instant. If libvirtd itself stands still, nobody does,
        # and it is the keepalive's business, not the audit's, to wait for that.
        patience = (
            None if blocked is None else spread_seconds + self._settings.call_deadline_seconds
        )
        try:
            async with asyncio.timeout(patience):
                if blocked is None:
                    await self._refresh_node(connection)
                await reader.read_all(unseen, Mark(cause), self._if_listed_by(connection, listed))
                uuids = sorted(seen)  # only now: together they would hold the loop up for long
                chunks = range(0, len(uuids), _CHUNK)
                for number, first in enumerate(chunks):
                    await asyncio.sleep(start + spread_seconds * number / len(chunks) - loop.time())
                    await reader.read_all(
                        uuids[first : first + _CHUNK],
                        Mark(cause),
                        self._if_listed_by(connection, listed),
                    )
        except TimeoutError:
            pass  # only where the listing is blocked, which is raised below
        finally:
            listed.clear()  # a traceback may keep this frame, and each domain the connection
        if blocked is not None:
            raise blocked
        if cause is Cause.AUDIT:
            self._sink.audited(loop.time() - start)

    def _if_listed_by(
        self, connection: Connection, listed: dict[str, Any]
    ) -> dict[str, Any] | None:
        """What was listed, unless another connection reads it now: it is of use to its own only."""
        return listed if connection is self._listing else None

    async def _second_resync(self) -> None:
        if self._settings.second_resync_seconds:
            await asyncio.sleep(self._settings.second_resync_seconds)
            await self._try_recount(Cause.RESYNC, spread_seconds=0.0)

    async def _audit_for_ever(self) -> None:
        interval = self._settings.audit_interval_seconds
        if interval == 0:
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + interval * (1 - _SPREAD_SHARE)
        while True:
            await asyncio.sleep(due - loop.time())
            await self._try_recount(Cause.AUDIT, interval * _SPREAD_SHARE)
            due = max(due + interval, loop.time())

    async def _try_recount(self, cause: Cause, spread_seconds: float) -> None:
        try:
            await self._recount(cause, spread_seconds)
        except (HypervisorUnavailableError, HypervisorRefusedError) as error:
            # The events go on, so the totals stand; a dead connection is told of elsewhere.
            self._log.warning("audit incomplete, totals stand", reason=str(error))
        except Exception as error:  # noqa: BLE001 - the next audit tries again
            self._surprises.tell("audit", error)

    # -- facts ---------------------------------------------------------------------------------

    async def _keep_facts(self) -> None:
        # The other connection first: capabilities can take seconds, for which events would wait.
        with suppress(TimeoutError):
            async with asyncio.timeout(_SECOND_CONNECTION_SECONDS):
                await self._listing_settled.wait()
        backoff = Backoff(random)
        while (connection := self._listing) is not None:
            try:
                facts = await self._read_facts(connection)
            except (HypervisorUnavailableError, HypervisorRefusedError) as error:
                # The totals need no facts. If the connection is dead, that is told elsewhere.
                if self._facts is None:
                    self._log.warning("host facts not available, no row yet", reason=str(error))
                else:
                    self._log.warning(
                        "host facts not read again, the last ones stand", reason=str(error)
                    )
                await asyncio.sleep(backoff.next_delay())
            else:
                self._tell_facts(facts)
                self._node = facts.vcpus, facts.memory_mb
                if facts.hypervisor_version == UNKNOWN_VERSION and self._listing is not None:
                    await self._wait_for_version(self._listing)
                return

    async def _wait_for_version(self, connection: Connection) -> None:
        """Ask for the hypervisor's version until libvirt can tell it, and tell the facts then."""
        backoff = Backoff(random)
        told: str | None = None
        while True:
            try:
                version = await connection.ask(
                    "virConnectGetVersion", read_version, self._settings.listing_deadline_seconds
                )
            except (HypervisorUnavailableError, HypervisorRefusedError) as error:
                if self._facts is not None and error.reason != told:
                    told = error.reason
                    self._log.warning(
                        "hypervisor's version not known, the last one stands, or 0",
                        written=self._facts.hypervisor_version,
                        reason=error.reason,
                    )
                await asyncio.sleep(backoff.next_delay())
            else:
                if self._facts is not None:
                    self._tell_facts(replace(self._facts, hypervisor_version=version))
                return

    async def _read_facts(self, connection: Connection) -> HostFacts:
        """Ask for everything. If that is slow, lists and audits get another connection.

        libvirt may look at each of its emulators before it answers.
        """
        asking = asyncio.create_task(
            connection.ask(
                "virConnectGetCapabilities", read_facts, self._settings.listing_deadline_seconds
            )
        )
        self._listing_free.clear()
        try:
            done, _ = await asyncio.wait([asking], timeout=_SLOW_FACTS_SECONDS)
            if not done:
                await self._list_through_another(connection)
                self._listing_free.set()
            return await asking
        finally:
            self._listing_free.set()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            if connection in self._others and connection is not self._listing:
                connection.close()

    async def _list_through_another(self, busy: Connection) -> None:
        """Leave the connection that lists to the call that is slow, and open another one."""
        reader = self._reader
        if reader is None or busy is not self._listing or reader.has_events_of(busy):
            return
        connection = Connection(self._uri, self._settings)
        self._others = [one for one in self._others if not one.closed.done()] + [connection]
        try:
            await connection.open()
        except (HypervisorUnavailableError, HypervisorRefusedError) as error:
            connection.close()
            self._log.info("audits wait for the host's capabilities", reason=error.message)
        else:
            reader.list_through(connection)
            self._listing = connection

    async def _refresh_node(self, connection: Connection) -> None:
        """Tell the host's CPUs and memory if they are others, and have all facts read again."""
        if self._facts is None:
            return
        try:
            node = await connection.ask("virNodeGetInfo", read_node)
        except (HypervisorUnavailableError, HypervisorRefusedError) as error:
            self._log.warning("host's CPUs and memory not read again", reason=str(error))
            return
        except Exception as error:  # noqa: BLE001 - no audit needs it
            self._surprises.tell("host facts", error)
            return
        if node == self._node:
            return
        # CPUs or memory came or went: so may what is told of them have changed.
        if self._rereading is None or self._rereading.done():
            self._rereading = asyncio.create_task(self._reread_facts(self._facts, node))
        # The audit does not wait for long: they may be slow.
        await asyncio.wait([self._rereading], timeout=_SLOW_FACTS_SECONDS)

    async def _reread_facts(self, facts: HostFacts, node: tuple[int, int]) -> None:
        vcpus, memory_mb = node
        self._tell_facts(replace(facts, vcpus=vcpus, memory_mb=memory_mb))
        try:
            if self._listing is not None:
                self._tell_facts(await self._read_facts(self._listing))
                self._node = node
        except (HypervisorUnavailableError, HypervisorRefusedError) as error:
            # What is known is told; the next audit asks once more for the rest.
            self._log.warning("host's capabilities not read again", reason=str(error))
        except Exception as error:  # noqa: BLE001 - no audit needs it
            self._surprises.tell("host facts", error)

    async def _wait_for_listing(self) -> None:
        """Wait while capabilities are asked for over the connection that lists.

        They come in an instant, or another connection takes its place soon.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * _SLOW_FACTS_SECONDS):
                await self._listing_free.wait()

    def _tell_facts(self, facts: HostFacts) -> None:
        if facts.hypervisor_version == UNKNOWN_VERSION and self._facts is not None:
            facts = replace(facts, hypervisor_version=self._facts.hypervisor_version)
        if facts != self._facts:
            self._facts = facts
            self._sink.facts_read(facts)

    # -- migrations ----------------------------------------------------------------------------

    async def _keep_migrations(self, kind: str) -> None:
        # No other driver copies a running domain, or tells of it.
        if kind.upper() == "QEMU":
            await self._migrations.run()

    def _migration_moved(self, uuid: str) -> None:
        if self._reader is not None:
            self._reader.mark(uuid, Mark(Cause.LOOK_AGAIN, "migration"))

    # -- what comes in, on the loop ------------------------------------------------------------

    def _on_event(self, event: DomainEvent) -> None:
        if self._reader is None:
            return
        self._sink.event_received(event.uuid)
        if event.disk:
            self._disk.look_soon(event.uuid, redefined=event.redefined)
        if event.copied:
            self._migrations.begun(event.uuid)
        number = 0
        if event.lifecycle is not None:
            number = self._sink.lifecycle(event.uuid, event.lifecycle, event.domain.name)
        self._reader.event(event, number)
        if number and event.uuid in self._reader.stuck:
            self._sink.lifecycle_unanswered(event.uuid)
        if self._has_domain_0:
            # Its memory makes room for a guest's without an event of its own.
            self._reader.mark(DOMAIN_0_UUID, Mark(Cause.EVENT, "another domain's event"))

    def _after_events(self) -> None:
        if self._reader is not None:
            self._reader.pump()

    def _events_wait(self) -> bool:
        return self._reader is not None and self._reader.events_wait

    def observed(self, observation: Observation, mark: Mark) -> None:
        """See :class:`ReadSink`; held back while a resync is being put together."""
        if is_starting_up(observation):
            self._follow_start(observation.uuid)
        else:
            self._starting.pop(observation.uuid, None)
        if not is_active(observation):
            self._migrations.ended(observation.uuid)
        elif self._migrations.copies(observation.uuid):
            observation = observation._replace(migrating=True)
        if self._staged is not None:
            self._staged[observation.uuid] = observation
            self._sink.staged(observation.uuid, mark)
        elif self._published:
            self._sink.observed(observation, self._told(observation.uuid, mark))

    def _follow_start(self, uuid: str) -> None:
        """Look again while a domain is starting up: a start that fails late sends no event."""
        now = asyncio.get_running_loop().time()
        since = self._starting.setdefault(uuid, now)
        if self._reader is not None and now - since < _STARTING_UP_SECONDS:
            self._reader.look_again(uuid)

    def gone(self, uuid: str, mark: Mark) -> None:
        """See :class:`ReadSink`."""
        self._starting.pop(uuid, None)
        self._migrations.ended(uuid)
        self._unread.discard(uuid)
        if self._staged is not None:
            self._staged.pop(uuid, None)
            self._sink.staged(uuid, mark)
        elif self._published:
            self._sink.gone(uuid, self._told(uuid, mark))

    def _told(self, uuid: str, mark: Mark) -> Mark:
        """Why the domain was read: an event that came during an audit's read has told of it."""
        if mark.cause is Cause.AUDIT:
            if self._reader is not None:
                waiting = self._reader.event_that_waits(uuid)
                # The read began before the event, so it does not answer the event itself.
                mark = mark if waiting is None else waiting._replace(number=0)
            if self._drift_timer is None:
                loop = asyncio.get_running_loop()
                self._drift_timer = loop.call_later(_LOOK_FOR_EVENTS_SECONDS, self._settle_drift)
        return mark

    def _settle_drift(self) -> None:
        self._drift_timer = None
        self._sink.settle_drift()
        if self._sink.suspects_drift:
            loop = asyncio.get_running_loop()
            self._drift_timer = loop.call_later(_LOOK_FOR_EVENTS_SECONDS, self._settle_drift)

    def unreadable(self, uuid: str, reason: str, *, stuck: bool) -> None:
        """See :class:`ReadSink`."""
        self._unread.add(uuid)
        self._sink.unreadable(uuid, reason, stuck=stuck)
