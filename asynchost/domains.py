"""The counted domains of a host, one by one: their table, and what happens to each of them.

Pure: records and a read-only view. Times come in as arguments. Memory: the records are made when
somebody asks for them and are not kept here.
"""

from collections.abc import Callable, ItemsView, Iterator, Mapping, ValuesView
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar, NamedTuple

from asynchost.accounting import Accounting, is_known_state
from asynchost.ledger import Record
from asynchost.model import Cause, DomainState, Usage
from asynchost.plain import PlainRecord


class EventKind(StrEnum):
    """What a :class:`DomainEvent` tells: libvirt's lifecycle events, and one of our own."""

    DEFINED = "defined"
    UNDEFINED = "undefined"
    STARTED = "started"
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    STOPPED = "stopped"
    SHUTDOWN = "shutdown"
    PMSUSPENDED = "pmsuspended"
    CRASHED = "crashed"
    CHANGED = "changed"
    """A read found another record than the last one, and no lifecycle event announced it."""
    OTHER = "other"
    """A lifecycle event that this version does not know; its number is in ``raw_kind``."""


class EventReason(StrEnum):
    """Why a lifecycle event happened: libvirt's detail of the event, by its name."""

    ADDED = "added"
    API_ERROR = "api_error"
    BOOTED = "booted"
    CRASHED = "crashed"
    CRASHLOADED = "crashloaded"
    DESTROYED = "destroyed"
    DISK = "disk"
    FAILED = "failed"
    FINISHED = "finished"
    FROM_SNAPSHOT = "from_snapshot"
    GUEST = "guest"
    HOST = "host"
    IOERROR = "ioerror"
    MEMORY = "memory"
    MIGRATED = "migrated"
    PANICKED = "panicked"
    PAUSED = "paused"
    POSTCOPY = "postcopy"
    POSTCOPY_FAILED = "postcopy_failed"
    REMOVED = "removed"
    RENAMED = "renamed"
    RESTORED = "restored"
    SAVED = "saved"
    SHUTDOWN = "shutdown"
    UNPAUSED = "unpaused"
    UPDATED = "updated"
    WAKEUP = "wakeup"
    WATCHDOG = "watchdog"
    OTHER = "other"
    """A detail that this version does not know; its number is in ``raw_reason``."""


class Origin(StrEnum):
    """How the monitor learned of something."""

    EVENT = "event"
    """libvirt sent an event."""
    RECHECK = "recheck"
    """The domain was read a second time, because an event can come before its number."""
    AUDIT = "audit"
    """The periodic recount found it."""
    RESYNC = "resync"
    """The listing after a (re)connect found it."""


ORIGINS = {
    Cause.EVENT: Origin.EVENT,
    Cause.LOOK_AGAIN: Origin.RECHECK,
    Cause.AUDIT: Origin.AUDIT,
    Cause.RESYNC: Origin.RESYNC,
}


class Lifecycle(NamedTuple):
    """What one of libvirt's lifecycle events says."""

    kind: EventKind
    reason: EventReason
    raw_kind: int
    raw_reason: int


@dataclass(frozen=True, slots=True)
class Domain(PlainRecord):
    """A domain that counts, as it was read last.

    Two are equal when they say the same of the domain: when and why it was read is not compared.
    """

    uuid: str
    name: str
    """As libvirt has it: text from outside, escape it wherever it is shown."""
    id: int | None
    """The number of the running domain; None while the domain is not active."""
    state: DomainState | int
    """libvirt's number where this version does not know the state."""
    vcpus: int
    memory_kib: int
    """The memory that the domain has now."""
    max_memory_kib: int
    cost: Usage
    """What the domain adds to the totals of its host."""
    rule: str
    """Why the domain counts, in a few words."""
    read_at: datetime = field(compare=False)
    """When the domain was read last, in UTC."""
    cause: Cause = field(compare=False)
    """Why the domain was read last."""
    detail: str = field(compare=False)
    """What caused that read, such as ``lifecycle started``; see :attr:`Change.detail`."""


@dataclass(frozen=True, slots=True)
class DomainEvent(PlainRecord):
    """Something that happened to one domain, and the domain before and after.

    The numbers come from the read that the event caused, never from the event. Where one read
    answered two events, the first has the step and the second has ``before == after``.
    """

    _derived: ClassVar[tuple[str, ...]] = ("id",)

    number: int
    """Events of a monitor are numbered from 1; all its subscribers get the same numbers."""
    epoch: str
    """A random word made with the monitor, since numbers begin anew with each monitor."""
    at: datetime
    """When the event was told, in UTC."""
    generation: int
    """The number of the libvirt connection in this process, from 1."""
    host: str
    uuid: str
    name: str
    """Text from outside: escape it wherever it is shown. Empty where it is not known."""
    kind: EventKind
    reason: EventReason | None
    """None where no lifecycle event happened."""
    raw_kind: int | None
    """libvirt's number of the event; None where no lifecycle event happened."""
    raw_reason: int | None
    before: Domain | None
    """The domain as it was told before; None where it did not count."""
    after: Domain | None
    """The domain as the read found it; None where it does not count, and where ``known`` is
    False."""
    known: bool
    """False where the domain could not be read in time: ``after`` is unknown then."""
    origin: Origin
    lost: int = 0
    """How many events this subscriber has lost just before this one, because it was too slow."""

    @property
    def id(self) -> str:
        """``epoch`` and ``number``: unique for each event, also across restarts."""
        return f"{self.epoch}-{self.number}"


class DomainMaker:
    """Makes :class:`Domain` records from the ledger's records.

    ``clock`` is the clock by which records are dated; ``utc_now`` returns the time.
    """

    __slots__ = ("_accounting", "_clock", "_utc_now")

    def __init__(
        self, accounting: Accounting, clock: Callable[[], float], utc_now: Callable[[], datetime]
    ) -> None:
        self._accounting = accounting
        self._clock = clock
        self._utc_now = utc_now

    def __call__(self, record: Record) -> Domain:
        """The domain of one record."""
        seen = record.observation
        now = self._utc_now()
        return Domain(
            seen.uuid,
            seen.name,
            seen.domain_id if seen.domain_id >= 0 else None,
            DomainState(seen.state) if is_known_state(seen.state) else seen.state,
            seen.vcpus,
            seen.memory_kib,
            seen.max_memory_kib,
            record.cost,
            self._accounting.rule(seen),
            now - timedelta(seconds=max(self._clock() - record.read_at, 0.0)),
            record.mark.cause,
            record.mark.detail,
        )


class DomainTable(Mapping[str, Domain]):
    """A read-only mapping from UUID to :class:`Domain`; ``records`` returns what it shows now.

    Iterating goes over the moment at which the iteration began, whatever happens meanwhile.
    """

    __slots__ = ("_make", "_records")

    def __init__(
        self,
        records: Callable[[], Mapping[str, Record]],
        make: Callable[[Record], Domain],
    ) -> None:
        self._records = records
        self._make = make

    def __getitem__(self, uuid: str) -> Domain:
        return self._make(self._records()[uuid])

    def __contains__(self, uuid: object) -> bool:
        return uuid in self._records()

    def __len__(self) -> int:
        return len(self._records())

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._records()))

    def values(self) -> ValuesView[Domain]:
        """The domains."""
        return _Domains(self)

    def items(self) -> ItemsView[str, Domain]:
        """The domains with their UUIDs."""
        return _Pairs(self)

    def __repr__(self) -> str:
        return f"<DomainTable of {len(self)} domains>"

    def at_once(self) -> Iterator[Domain]:
        """The domains of this moment, each made when it is asked for."""
        return map(self._make, tuple(self._records().values()))


class _Domains(ValuesView[Domain]):
    _mapping: DomainTable

    def __iter__(self) -> Iterator[Domain]:
        return self._mapping.at_once()


class _Pairs(ItemsView[str, Domain]):
    _mapping: DomainTable

    def __iter__(self) -> Iterator[tuple[str, Domain]]:
        return ((domain.uuid, domain) for domain in self._mapping.at_once())
