"""Everything known of one host, moved one synchronous step at a time.

It is what a source tells its findings to, and what subscribers, the writer and the status read.
No loop, no libvirt, no database; time comes in as a function. Memory: the ledger's, one entry
per domain that cannot be read, and the subscribers' bounded backlogs.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from asynchost.accounting import (
    DEFAULT_POLICY,
    Accounting,
    Policy,
    is_known_state,
    is_starting_up,
)
from asynchost.agenda import Mark
from asynchost.contacts import Contacts
from asynchost.domain_feed import DomainFeed, DomainListeners
from asynchost.domains import Domain, DomainMaker, Lifecycle
from asynchost.errors import AsynchostError, NotReadyError
from asynchost.explanation import Explanation, Survey, explain
from asynchost.ledger import Ledger, Move, Record
from asynchost.model import (
    Cause,
    Change,
    ChangeKind,
    DiskUsage,
    Drift,
    HostFacts,
    HostSnapshot,
    MonitorStatus,
    Observation,
    Usage,
)
from asynchost.observers import Observers, Report

_RECENT_DRIFT = 16
# libvirt tells of these by an event. A listing, over another connection, may know first.
_TOLD_BY_EVENTS = frozenset({"active", "counted"})
EVENT_MAY_FOLLOW_SECONDS = 1.0
"""An event that comes later than this after an audit's correction did not tell of it in time."""
_NAMED_IN_A_LINE = 8
_LIKELY_CAUSE = {
    "active": "its start or end came without an event, or the event was lost",
    "counted": "its definition came, went or was renamed without an event",
    "vcpus": "libvirt sends no event of an added vCPU, and before 12.4 none of a removed one",
    "memory_kib": "its memory changed without an event, or the event was lost",
    "at_work": "libvirt sends no event when this work begins or ends",
}
_STARTING = "it is starting up: the event comes when that is done"

_NOT_STARTED: Final = "not started"
_NOT_CONNECTED: Final = "not connected yet"
_CONNECTED: Final = "connected, its domains are being read"
UNDER_WAY: Final = frozenset((_NOT_STARTED, _NOT_CONNECTED, _CONNECTED))
"""The reasons for not being fresh while no attempt to connect has failed."""


class HostState:
    """The state of one host: ledger, freshness, facts, disk, and who wants to know.

    ``clock`` returns seconds that only grow; ``log`` is a structlog logger bound to the host.
    ``report`` is given the error of an observer that raises; by default it is logged.
    ``utc_now`` returns the time at which a change is dated.
    """

    def __init__(
        self,
        host: str,
        name: str | None,
        clock: Callable[[], float],
        log: Any,
        policy: Policy = DEFAULT_POLICY,
        *,
        report: Report | None = None,
        utc_now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.host = host
        self._name = name
        self._clock = clock
        self._log = log
        self._policy = policy
        self._utc_now = utc_now
        self._ledger: Ledger | None = None
        self._accounting: Accounting | None = None
        self._ready = False
        self._fresh = False
        self._stale_since: float | None = None
        self._generation = 0
        self._facts: HostFacts | None = None
        self._disk: DiskUsage | None = None
        self._disk_settled = False
        self._disk_reason: str | None = None
        self._unreadable: dict[str, str] = {}
        self._unreadable_disks: dict[str, str] = {}
        self._disks_settled = False
        self._unknown_states: set[int] = set()
        self._missing_events: dict[str, None] = {}
        self._missed_before: set[str] = set()
        self._changes = 0
        self._events = self._resyncs = self._audits = 0
        self._contacts = Contacts(clock)
        self._drift: Counter[str] = Counter()
        self._recent_drift: deque[Drift] = deque(maxlen=_RECENT_DRIFT)
        self._suspected: dict[str, tuple[float, Drift]] = {}
        """Corrections that are no drift if an event follows: when they are, by UUID."""
        self._recounted_at = clock()
        self._down: AsynchostError | None = None
        self._reason: str | None = _NOT_STARTED
        self._over = False
        report = report or self._log_report
        self._listeners: Observers[[]] = Observers(report)
        self._on_change: Observers[[Change]] = Observers(report)
        self._on_drift: Observers[[Drift]] = Observers(report)
        self._on_record: Observers[[]] = Observers(report)
        self._feed: DomainFeed | None = None
        self._make_domain: DomainMaker | None = None

    # -- what is read --------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether the first resync is complete."""
        return self._ready

    @property
    def down(self) -> AsynchostError | None:
        """Why there is no connection; None while there is one, and before the first attempt."""
        return self._down

    @property
    def reason(self) -> str | None:
        """Why the totals are not fresh, or why the monitor ended; None while they are fresh."""
        return self._reason

    @property
    def counted(self) -> int:
        """How many domains count."""
        return 0 if self._ledger is None else len(self._ledger.uuids)

    @property
    def records(self) -> Mapping[str, Record]:
        """The records of the counted domains; none before the first resync."""
        return {} if not self._ready or self._ledger is None else self._ledger.by_uuid

    def domain(self, record: Record) -> Domain:
        """The domain of one of :attr:`records`."""
        if self._make_domain is None:
            raise NotReadyError(self.host)
        return self._make_domain(record)

    @property
    def usage(self) -> Usage:
        """The totals; frozen while stale. Raises :class:`NotReadyError` before there are any."""
        if not self._ready or self._ledger is None:
            raise NotReadyError(self.host)
        return self._ledger.usage

    @property
    def facts(self) -> HostFacts | None:
        """What the host is; None until its capabilities came."""
        return self._facts

    @property
    def disk(self) -> DiskUsage | None:
        """The disk's last known figures; None where they never were known."""
        return self._disk

    @property
    def stale_seconds(self) -> float | None:
        """The age of frozen totals; None while they are kept, and before there are any."""
        return None if self._stale_since is None else self._clock() - self._stale_since

    def snapshot(self) -> HostSnapshot:
        """Everything at this moment."""
        return HostSnapshot(
            host=self.host,
            name=self._name,
            generation=self._generation,
            fresh=self._fresh,
            stale_seconds=self.stale_seconds,
            usage=self.usage if self._ready else None,
            facts=self._facts,
            disk=self._disk,
            disk_settled=self._disk_settled,
            disks_settled=self._disks_settled or (self._disk_settled and self._disk is None),
            stuck=frozenset(self._unreadable),
            reason=self._reason,
        )

    def status(self) -> MonitorStatus:
        """How the monitoring goes."""
        return MonitorStatus(
            host=self.host,
            ready=self._ready,
            fresh=self._fresh,
            stale_seconds=self.stale_seconds,
            generation=self._generation,
            unreadable=dict(self._unreadable),
            events=self._events,
            resyncs=self._resyncs,
            audits=self._audits,
            drift=self._drift.total(),
            drift_by_field=dict(self._drift),
            recent_drift=tuple(self._recent_drift),
            missing_events=tuple(self._missing_events),
            unreadable_disks=dict(self._unreadable_disks),
            reason=self._reason,
            connects=self._generation,
            connect_failures=self._contacts.failures,
            reads=self._contacts.reads,
            read_failures=self._contacts.read_failures,
            last_contact_seconds=self._contacts.age("contact"),
            last_event_seconds=self._contacts.age("event"),
            last_audit_seconds=self._contacts.age("audit"),
        )

    def explain(self, others: Survey) -> Explanation:
        """Where the totals come from, domain by domain; ``others`` are those without a record.

        Raises :class:`NotReadyError` before there are totals.
        """
        if not self._ready or self._ledger is None or self._accounting is None:
            raise NotReadyError(self.host)
        return explain(self._ledger, self._accounting, self._unreadable, others, self._clock())

    # -- who wants to know ---------------------------------------------------------------------

    def add_listener(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` whenever :meth:`snapshot` would differ; returns what removes it."""
        return self._listeners.add(listener)

    def on_change(self, receive: Callable[[Change], None]) -> Callable[[], None]:
        """Give ``receive`` every change of the totals; returns what removes it."""
        return self._on_change.add(receive)

    def on_drift(self, receive: Callable[[Drift], None]) -> Callable[[], None]:
        """Give ``receive`` every correction of an audit; returns what removes it."""
        return self._on_drift.add(receive)

    def on_record(self, receive: Callable[[], None]) -> Callable[[], None]:
        """Call ``receive`` whenever a read found something else; returns what removes it."""
        return self._on_record.add(receive)

    def feed_domains(self, epoch: str, listeners: DomainListeners) -> None:
        """Tell ``listeners`` what happens to each domain from now on.

        To be called before the first of them listens, and again after all have left.
        """
        if self._feed is None:
            self._feed = DomainFeed(self.host, epoch, listeners, self._utc_now)
            self._feed.generation = self._generation
            self._feed.make = self.domain
        self._feed.forget()

    def _log_report(self, error: BaseException, observer: object) -> None:
        self._log.error("listener failed", listener=repr(observer), exc_info=error)

    # -- what a source tells -------------------------------------------------------------------

    def started(self) -> None:
        """The monitor begins to watch; nothing is known yet."""
        self._reason = _NOT_CONNECTED

    def connected(self, generation: int, hypervisor_type: str) -> None:
        """A connection is open: from here the host's kind is known, and so what counts."""
        self._generation = generation
        self._contacts.heard()
        self._down = None
        self._missing_events.clear()
        self._reason = _CONNECTED
        self._accounting = Accounting(hypervisor_type, self._policy)
        self._make_domain = DomainMaker(self._accounting, self._clock, self._utc_now)
        if self._feed is not None:
            self._feed.generation = generation
        self._log.info("connected", generation=generation, hypervisor_type=hypervisor_type)
        self._listeners()

    def event_missing(self, name: str) -> None:
        """An event does not exist on this connection. Said once."""
        self._missing_events[name] = None
        if name not in self._missed_before:
            self._missed_before.add(name)
            self._log.warning("event not available, the audit stands in", event_id=name)

    def disconnected(self, error: AsynchostError) -> None:
        """The totals freeze; their age counts from now. Said once for each reason."""
        self._give_up_events()
        before, self._down = self._down, error
        self._contacts.failures += 1
        self._reason = error.message
        if self._fresh:
            self._fresh = False
            self._stale_since = self._clock()
            self._log.warning("connection lost, totals frozen", reason=error.message)
        elif before is None or error.message != before.message:
            self._log.warning("not connected, trying again", reason=error.message)
        else:
            return
        self._listeners()

    def stopped(self, reason: str = "closed") -> None:
        """The monitor has ended: what is known stays readable, and grows old."""
        self._give_up_events()
        if self._fresh:
            self._fresh = False
            self._stale_since = self._clock()
        if self._reason != reason or not self._over:
            self._reason, self._over = reason, True
            self._listeners()

    def event_received(self, uuid: str = "") -> None:
        """One more event; the read it causes tells what it did. A correction that an audit has
        just made of this domain is no drift then."""
        self._events += 1
        self._suspected.pop(uuid, None)
        self._contacts.heard("event")

    def lifecycle(self, uuid: str, event: Lifecycle, name: Callable[[], str]) -> int:
        """libvirt sent a lifecycle event; returns the number for the mark of its read."""
        return 0 if self._feed is None else self._feed.received(uuid, event, name)

    def lifecycle_unanswered(self, uuid: str) -> None:
        """The read that lifecycle events of the domain wait for does not begin."""
        if self._feed is not None and self._ready:
            self._feed.give_up(uuid, self.records.get(uuid))

    def _give_up_events(self) -> None:
        """What lifecycle events wait for is not read any more."""
        if self._feed is not None:
            if self._ready:
                self._feed.give_up_all(self.records)
            self._feed.forget()

    def staged(self, uuid: str, mark: Mark) -> None:
        """A domain was read; what the read found comes with :meth:`resynced`."""
        if self._feed is not None:
            self._feed.staged(uuid, mark)

    @property
    def suspects_drift(self) -> bool:
        """Whether a correction was made that is drift unless an event follows."""
        return bool(self._suspected)

    def settle_drift(self) -> None:
        """Count the corrections as drift that no event has followed in time."""
        now = self._clock()
        for uuid, (due, drift) in list(self._suspected.items()):
            if due <= now:
                del self._suspected[uuid]
                self._drifted(drift)

    def audited(self, listed_seconds_ago: float) -> None:
        """One more complete audit, which listed so long ago: who came since was not in it."""
        self._audits += 1
        self._contacts.heard("audit")
        self._recounted_at = self._clock() - listed_seconds_ago

    def known_uuids(self) -> Iterable[str]:
        """The domains that are counted now."""
        return () if self._ledger is None else tuple(self._ledger.uuids)

    def resynced(self, observations: Iterable[Observation], unread: frozenset[str]) -> None:
        """A full listing takes the place of all records, and the totals are fresh."""
        ledger = self._ledger_in_use()
        before, records = ledger.usage, ledger.by_uuid
        listed = list(observations)
        for state in {observation.state for observation in listed}:
            self._look_at_state(state)
        self._recounted_at = self._clock()
        self._contacts.heard("audit", reads=len(listed))
        ledger.replace(listed, keep=unread, read_at=self._recounted_at)
        self._unreadable = {
            uuid: self._unreadable.get(uuid, "it could not be read") for uuid in unread
        }
        self._resyncs += 1
        was_ready, self._ready = self._ready, True
        self._fresh, self._stale_since, self._reason = True, None, None
        self._log.info(
            "totals ready", generation=self._generation, unread=len(unread), **_shown(ledger.usage)
        )
        if was_ready and before != ledger.usage:
            self._publish(before, Cause.RESYNC, "reconnected")
        if self._feed is not None and (self._feed or not was_ready):
            self._feed.resynced(records, ledger.by_uuid, first=not was_ready)
        self._listeners()

    def observed(self, observation: Observation, mark: Mark) -> None:
        """One domain was read: its record is replaced, and the totals move by the difference."""
        self._contacts.heard(reads=1)
        self._look_at_state(observation.state)
        ledger = self._ledger_in_use()
        before, record = ledger.usage, ledger.record(observation.uuid)
        move = ledger.apply(observation, self._clock(), mark)
        cause = _STARTING if is_starting_up(observation) else None
        self._moved(before, move, mark, observation.uuid, observation.name, known_cause=cause)
        self._record_read(observation.uuid, record, mark)

    def gone(self, uuid: str, mark: Mark) -> None:
        """libvirt knows the domain no more."""
        self._contacts.heard(reads=1)
        ledger = self._ledger_in_use()
        record = ledger.record(uuid)
        name = "" if record is None else record.observation.name
        before = ledger.usage
        move = ledger.remove(uuid)
        self._moved(before, move, mark, uuid, name)
        self._record_read(uuid, record, mark)

    def unreadable(self, uuid: str, reason: str, *, stuck: bool) -> None:
        """A domain could not be read; its last record stands."""
        self._contacts.read_failures += 1
        self.lifecycle_unanswered(uuid)
        if self._unreadable.get(uuid) != reason:
            self._unreadable[uuid] = reason
            self._log.warning(
                "domain cannot be read, its last record stands",
                uuid=uuid,
                reason=reason,
                stuck=stuck,
            )
            self._listeners()

    def facts_read(self, facts: HostFacts) -> None:
        """The host's own figures. The name that a monitor began with is kept."""
        if self._name is None:
            self._name = facts.hostname
        elif self._facts is not None and facts.hostname != self._facts.hostname:
            self._log.warning(
                "the host reports another name, which is not followed",
                name=self._name,
                reported=facts.hostname,
            )
        self._facts = facts
        self._log.info(
            "host facts read", name=self._name, vcpus=facts.vcpus, memory_mb=facts.memory_mb
        )
        self._listeners()

    def disk_read(self, disk: DiskUsage | None, reason: str | None) -> None:
        """The disk's figures; what was known once is kept when a later reading fails."""
        if reason is not None and reason != self._disk_reason:
            self._log.warning("disk not known", reason=reason, kept=self._disk is not None)
        self._disk_reason = reason
        settled, self._disk_settled = self._disk_settled, True
        if not settled or (disk is not None and disk != self._disk):
            self._disk = disk
            self._listeners()

    def disks_unreadable(self, reasons: Mapping[str, str]) -> None:
        """The domains with a disk that cannot be read. What is new is said once, by reason."""
        news: dict[str, list[str]] = {}
        for uuid, reason in reasons.items():
            if self._unreadable_disks.get(uuid) != reason:
                news.setdefault(reason, []).append(uuid)
        for reason, uuids in news.items():
            self._log.warning(
                "disks cannot be read, their last values stand",
                reason=reason,
                domains=len(uuids),
                uuids=sorted(uuids)[:_NAMED_IN_A_LINE],
            )
        self._unreadable_disks = dict(reasons)
        settled, self._disks_settled = self._disks_settled, True
        if not settled:
            self._listeners()

    # -- how the totals move -------------------------------------------------------------------

    def _record_read(self, uuid: str, before: Record | None, mark: Mark) -> None:
        """Tell those who follow the domains one by one that one of them was read."""
        if not self._on_record and not self._feed:
            return
        after = self._ledger_in_use().record(uuid)
        if self._feed:
            self._feed.read(uuid, before, after, mark)
        if (before and before.observation) != (after and after.observation):
            self._on_record()

    def _ledger_in_use(self) -> Ledger:
        if self._accounting is None:
            raise RuntimeError("nothing can be observed before a connection is open")
        if self._ledger is None:
            self._ledger = Ledger(self._accounting)
        return self._ledger

    def _look_at_state(self, state: int) -> None:
        if not is_known_state(state) and state not in self._unknown_states:
            self._unknown_states.add(state)
            self._log.warning("unknown domain state counts as active", state=state)

    def _moved(
        self,
        before: Usage,
        move: Move,
        mark: Mark,
        uuid: str,
        name: str,
        *,
        known_cause: str | None = None,
    ) -> None:
        if _wants_debug(self._log):
            self._log.debug(
                "domain read",
                uuid=uuid,
                domain=name,
                cause=mark.cause.value,
                detail=mark.detail,
                before=_short(move.before),
                after=_short(move.after),
            )
        if mark.cause is Cause.AUDIT:
            self.settle_drift()
            since = self._recounted_at if move.read_at is None else move.read_at
            for field, old, new in move.corrections():
                age = self._clock() - since
                cause = known_cause or _LIKELY_CAUSE[field]
                drift = Drift(self.host, uuid, name, field, old, new, age, cause)
                if field in _TOLD_BY_EVENTS:
                    self._suspected[uuid] = (self._clock() + EVENT_MAY_FOLLOW_SECONDS, drift)
                else:
                    self._drifted(drift)
        readable_again = self._unreadable.pop(uuid, None) is not None
        moved = move.before != move.after
        if moved and self._ready:
            self._publish(before, mark.cause, mark.detail, uuid, name)
        if moved or readable_again:
            self._listeners()

    def _drifted(self, drift: Drift) -> None:
        self._drift[drift.field] += 1
        self._recent_drift.append(drift)
        self._log.info(
            "drift corrected",
            uuid=drift.uuid,
            domain=drift.domain_name,
            field=drift.field,
            before=drift.before,
            after=drift.after,
            age_seconds=round(drift.age_seconds, 3),
            likely_cause=drift.likely_cause,
        )
        self._on_drift(drift)

    def _publish(
        self,
        before: Usage,
        cause: Cause,
        detail: str,
        uuid: str | None = None,
        name: str | None = None,
    ) -> None:
        self._changes += 1
        if not self._on_change:
            return
        after = self.usage
        change = Change(
            self.host,
            self._generation,
            before,
            after,
            cause,
            detail,
            uuid,
            name,
            kind=ChangeKind.RESYNC if uuid is None else _kind(before, after),
            number=self._changes,
            at=self._utc_now(),
        )
        self._on_change(change)


def _kind(before: Usage, after: Usage) -> ChangeKind:
    """What one domain's change is: the totals of its host move by what the domain moved by."""
    if before.running_vms != after.running_vms:
        return ChangeKind.STARTED if before.running_vms < after.running_vms else ChangeKind.STOPPED
    if (before.vcpus_used, before.memory_kib_used) != (after.vcpus_used, after.memory_kib_used):
        return ChangeKind.RESIZED
    return ChangeKind.WORKLOAD


def _shown(usage: Usage) -> dict[str, int]:
    return {
        "vcpus_used": usage.vcpus_used,
        "memory_mb_used": usage.memory_mb_used,
        "running_vms": usage.running_vms,
    }


def _wants_debug(log: Any) -> bool:
    """Whether anybody may want a line to each read, as far as the logger can tell."""
    # Of the type: structlog's plainest logger takes whatever it is asked for as a line to log.
    return not hasattr(type(log), "is_enabled_for") or log.is_enabled_for(logging.DEBUG)


def _short(cost: Usage) -> str:
    return f"{cost.vcpus_used} vCPU {cost.memory_kib_used} KiB"
