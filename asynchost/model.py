"""The records that travel between the parts: frozen values, nothing that acts.

May live here: what was observed, what it adds up to, what changed, what a host is.
Must not: libvirt, SQL, a clock, an event loop. Every record is immutable, so it can be
handed to any subscriber or thread without a copy. Memory is bounded by whoever keeps them.

Units: memory of domains in KiB (libvirt's unit; sums are floored to MiB once, when a row
is made), host memory in MiB, disk in bytes until a row is made.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any, ClassVar, NamedTuple, Protocol, overload

from asynchost.plain import PlainRecord, plain

KIB_PER_MIB = 1024
BYTES_PER_GIB = 1024**3


class DomainState(IntEnum):
    """The values of libvirt's ``virDomainState``, kept here so that the core needs no libvirt."""

    NOSTATE = 0
    RUNNING = 1
    BLOCKED = 2
    PAUSED = 3
    SHUTDOWN = 4
    SHUTOFF = 5
    CRASHED = 6
    PMSUSPENDED = 7


class Cause(StrEnum):
    """Why a domain was read, and so why totals moved."""

    RESYNC = "resync"
    """A full listing after a (re)connect replaced the ledger."""
    EVENT = "event"
    """libvirt said that something happened to the domain."""
    LOOK_AGAIN = "look-again"
    """A second read of a domain whose event can come before its number."""
    AUDIT = "audit"
    """The periodic recount; what it corrects is drift."""


class ChangeKind(StrEnum):
    """What a :class:`Change` is, by the totals before and after it."""

    STARTED = "started"
    """A domain became active."""
    STOPPED = "stopped"
    """A domain became inactive."""
    RESIZED = "resized"
    """The vCPUs or the memory that a domain counts for changed; or an inactive domain that
    counts came or went."""
    WORKLOAD = "workload"
    """Only ``current_workload`` moved: such work on a domain began or ended."""
    RESYNC = "resync"
    """The difference over a reconnect, of any number of domains."""
    FOLDED = "folded"
    """Several changes in one, because the subscriber was too slow for the steps."""


class Observation(NamedTuple):
    """What one read of one domain returned.

    ``state`` is libvirt's number, also one that this version does not know. ``active`` is
    ``virDomainIsActive``'s answer where the state alone does not tell (CRASHED), else None.
    ``reason`` is ``virDomainGetState``'s second number, or 0 when it was not asked for.
    ``domain_id`` is the running domain's number, -1 for an inactive one. ``migrating`` says that a
    live migration is copying the domain to another host, which no read tells by itself.
    """

    uuid: str
    name: str
    domain_id: int
    state: int
    reason: int
    active: bool | None
    vcpus: int
    memory_kib: int
    max_memory_kib: int
    migrating: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, as JSON types."""
        return dict(plain(self))


@dataclass(frozen=True, slots=True)
class Usage(PlainRecord):
    """What is used on a host: sums over its counted domains, and what is reserved.

    ``usage + delta`` and ``usage - delta`` are a :class:`Usage`, ``usage - usage`` is a
    :class:`UsageDelta`. Two usages cannot be added: those of two hosts are no usage of either.
    """

    _derived: ClassVar[tuple[str, ...]] = ("memory_mb_used",)

    vcpus_used: int = 0
    memory_kib_used: int = 0
    running_vms: int = 0
    current_workload: int = 0

    @property
    def memory_mb_used(self) -> int:
        """The memory in MiB, floored once over the whole sum."""
        return self.memory_kib_used // KIB_PER_MIB

    def __add__(self, delta: "UsageDelta") -> "Usage":
        if not isinstance(delta, UsageDelta):
            return NotImplemented
        return Usage(
            self.vcpus_used + delta.vcpus_used,
            self.memory_kib_used + delta.memory_kib_used,
            self.running_vms + delta.running_vms,
            self.current_workload + delta.current_workload,
        )

    @overload
    def __sub__(self, other: "Usage") -> "UsageDelta": ...
    @overload
    def __sub__(self, other: "UsageDelta") -> "Usage": ...
    def __sub__(self, other: "Usage | UsageDelta") -> "Usage | UsageDelta":
        if isinstance(other, UsageDelta):
            return self + -other
        if not isinstance(other, Usage):
            return NotImplemented
        return UsageDelta(
            self.vcpus_used - other.vcpus_used,
            self.memory_kib_used - other.memory_kib_used,
            self.running_vms - other.running_vms,
            self.current_workload - other.current_workload,
        )


@dataclass(frozen=True, slots=True)
class UsageDelta(PlainRecord):
    """A difference of two usages. Memory stays in KiB: flooring a difference would lie.

    Deltas can be added to each other, subtracted from each other and negated.
    """

    vcpus_used: int = 0
    memory_kib_used: int = 0
    running_vms: int = 0
    current_workload: int = 0

    def __add__(self, other: "UsageDelta") -> "UsageDelta":
        if not isinstance(other, UsageDelta):
            return NotImplemented
        return UsageDelta(
            self.vcpus_used + other.vcpus_used,
            self.memory_kib_used + other.memory_kib_used,
            self.running_vms + other.running_vms,
            self.current_workload + other.current_workload,
        )

    def __neg__(self) -> "UsageDelta":
        return UsageDelta(
            -self.vcpus_used, -self.memory_kib_used, -self.running_vms, -self.current_workload
        )

    def __sub__(self, other: "UsageDelta") -> "UsageDelta":
        if not isinstance(other, UsageDelta):
            return NotImplemented
        return self + -other


@dataclass(frozen=True, slots=True)
class Change(PlainRecord):
    """A difference in a host's totals.

    Consecutive changes of one subscription always chain: ``before`` is the ``after`` of the
    change delivered before, also across a reconnect and across a backlog that was folded.
    """

    _derived: ClassVar[tuple[str, ...]] = ("delta",)

    host: str
    """The host's name: the one given to the monitor, else its URI."""
    generation: int
    """The number of the libvirt connection in this process, from 1."""
    before: Usage
    after: Usage
    cause: Cause
    detail: str = ""
    """What caused the read, such as ``lifecycle resumed``: the event that was waiting when the
    domain was read. The read may have seen something newer, so this is not what happened to the
    domain: :attr:`kind` is. Empty where no event caused the read."""
    uuid: str | None = None
    """The domain that moved the totals; None when it was more than one (resync, folded)."""
    domain_name: str | None = None
    """The domain's name as libvirt has it: text from outside, escape it wherever it is shown."""
    folded: int = 1
    """How many changes this one stands for: more than 1 where a slow subscriber's backlog was
    folded into one, so that no difference is lost, only the steps between."""
    kind: ChangeKind = field(kw_only=True)
    """What happened, by the totals before and after."""
    number: int = field(kw_only=True)
    """Changes of a monitor are numbered from 1, whoever listens. A folded change has the number
    of its newest change."""
    at: datetime = field(kw_only=True)
    """When the totals moved, in UTC."""

    @property
    def delta(self) -> UsageDelta:
        """``after - before``, field by field."""
        return self.after - self.before


@dataclass(frozen=True, slots=True)
class Drift(PlainRecord):
    """One correction that an audit made: the ledger said one thing, the domain another."""

    host: str
    uuid: str
    domain_name: str
    field: str
    """``active``, ``counted``, ``vcpus``, ``memory_kib`` or ``at_work``."""
    before: int
    after: int
    age_seconds: float
    """How long the wrong value stood, at most: the time since the domain was last read before;
    since the last complete recount's listing for one that was not counted at all."""
    likely_cause: str


@dataclass(frozen=True, slots=True)
class HostFacts(PlainRecord):
    """What a host is, apart from its use."""

    hostname: str
    hypervisor_type: str
    hypervisor_version: int
    """libvirt's integer, 1,000,000 times major plus 1,000 times minor plus release. 0 where libvirt
    cannot tell it, because it finds no emulator."""
    vcpus: int
    """Physical CPUs."""
    memory_mb: int
    cpu_info: Mapping[str, Any]
    """``arch``, ``model``, ``vendor``, ``topology`` (``cells``, ``sockets``, ``cores``,
    ``threads``) and ``features`` (sorted names): all five always there, unknown ones None. Where
    libvirt tells it, also ``maxphysaddr`` (``mode``, ``bits``)."""
    supported_instances: tuple[tuple[str, str, str], ...] = ()
    """The guests that it can run, as (architecture, hypervisor, mode) in Nova's names, such as
    ``("x86_64", "kvm", "hvm")``."""


@dataclass(frozen=True, slots=True)
class DiskUsage(PlainRecord):
    """The space that holds the instances, in bytes. Unknown is None, never zero."""

    _derived: ClassVar[tuple[str, ...]] = ("local_gb", "local_gb_used", "free_disk_gb")

    total_bytes: int
    used_bytes: int
    available_least_bytes: int | None = None
    """What were left to write if every disk that lies on it grew to its full size; negative where
    more is promised than there is. None until the disks were read, and where they cannot be."""

    @property
    def local_gb(self) -> int:
        """Size in GiB, floored."""
        return self.total_bytes // BYTES_PER_GIB

    @property
    def local_gb_used(self) -> int:
        """Used space in GiB, floored."""
        return self.used_bytes // BYTES_PER_GIB

    @property
    def free_disk_gb(self) -> int:
        """``local_gb - local_gb_used``, so that the three columns always agree."""
        return self.local_gb - self.local_gb_used


@dataclass(frozen=True, slots=True)
class HostSnapshot(PlainRecord):
    """Everything known of one host at one moment: what a row is made from.

    ``usage`` is None before the first resync. ``facts`` is None until the capabilities came.
    ``disk_settled`` says that the first disk reading has ended, with a value or without;
    ``disks_settled``, that of what the domains' disks may grow by, which no row waits for.
    """

    _derived: ClassVar[tuple[str, ...]] = ("writable",)

    host: str
    name: str | None
    """The row's ``hypervisor_hostname``: the name given, else the one libvirt reported first."""
    generation: int = 0
    fresh: bool = False
    stale_seconds: float | None = None
    usage: Usage | None = None
    facts: HostFacts | None = None
    disk: DiskUsage | None = None
    disk_settled: bool = False
    disks_settled: bool = False
    stuck: frozenset[str] = frozenset()
    """UUIDs of the domains that could not be read; their last record is what counts."""
    reason: str | None = None
    """Why the host is not fresh, or why its monitor ended; None while it is fresh."""

    @property
    def writable(self) -> bool:
        """Whether a row may be made from it: kept up to date and complete."""
        return (
            self.fresh
            and self.usage is not None
            and self.facts is not None
            and self.name is not None
            and self.disk_settled
        )


@dataclass(frozen=True, slots=True)
class MonitorStatus(PlainRecord):
    """How a monitor is doing: what is kept, since when, and what it cost."""

    host: str
    ready: bool
    """Whether there are totals: the first resync is complete."""
    fresh: bool
    stale_seconds: float | None
    """How old the frozen totals are; None while fresh, and before there are any."""
    generation: int
    unreadable: Mapping[str, str]
    """The domains that could not be read, by UUID, each with the reason. Their last record is
    what counts; one that was never read adds nothing."""
    events: int
    """Domain events received."""
    resyncs: int
    audits: int
    drift: int
    """Corrections that audits made."""
    drift_by_field: Mapping[str, int]
    """The same, by the field that was wrong, as in :class:`Drift`."""
    recent_drift: tuple["Drift", ...]
    """The last sixteen of them, the newest last."""
    missing_events: tuple[str, ...]
    """Events that this libvirt or driver does not have; the audit stands in for them."""
    unreadable_disks: Mapping[str, str] = field(default_factory=dict)
    """The domains with a disk that could not be read, by UUID, each with the reason. Its last
    value is what counts; a disk that was never read adds nothing."""
    held_threads: int = 0
    """How many threads are in a call into libvirt that has outlived its deadline, or outlived the
    monitor: daemon threads, each of which ends with its call and delays no exit. Of all monitors
    of this URI in the process."""
    reason: str | None = None
    """Why the totals are not fresh, or why the monitor ended; None while they are fresh."""
    connects: int = 0
    """Connections that were opened for events, the present one included."""
    connect_failures: int = 0
    """Attempts to connect that failed, and connections that were lost."""
    reads: int = 0
    """Reads of one domain that libvirt answered, those of audits and resyncs included."""
    read_failures: int = 0
    """Reads of one domain that failed or were not answered in time."""
    last_contact_seconds: float | None = None
    """How long ago libvirt was heard of last: a connection, an answer or an event. None: never."""
    last_event_seconds: float | None = None
    """How long ago the last domain event came; None before the first one."""
    last_audit_seconds: float | None = None
    """How long ago the last complete recount was, an audit or a resync; None before the first."""


class SnapshotSource(Protocol):
    """What a writer needs of a monitor: the newest state on demand, and a nudge when it moved."""

    @property
    def host(self) -> str:
        """The host's name for logs, unique in the process."""

    def snapshot(self) -> HostSnapshot:
        """The state now. Cheap; called at the moment of writing."""

    def add_listener(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` on the loop whenever :meth:`snapshot` would differ.

        Returns the function that removes it, which may be called any number of times. A listener
        must not wait. One that raises must not keep the others from being called.
        """
