"""Which domain in which state costs what. The only place that knows.

Pure. Sources of the rules: libvirt's drivers, for what ``virDomainGetInfo`` reports in each
(LXC gives the memory its cgroup uses at the moment, bhyve gives none: there the maximum
counts), and the published description of ``compute_nodes``, for what is summed. What a host's
owner may want otherwise is a :class:`Policy`.
"""

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final

from asynchost.errors import InvalidSettingError
from asynchost.model import KIB_PER_MIB, DomainState, Observation, Usage
from asynchost.plain import PlainRecord

NOTHING: Final = Usage()

DOMAIN_0_UUID: Final = "00000000-0000-0000-0000-000000000000"

# Drivers whose "current memory" is something other than what the guest was given.
_COUNT_MAXIMUM_MEMORY: Final = frozenset({"LXC", "BHYVE"})

# Values of virDomainPausedReason: MIGRATION, SAVE, DUMP, SHUTTING_DOWN, SNAPSHOT, STARTING_UP,
# POSTCOPY. A guest paused by its user, by a watchdog or by an I/O error is not at work.
PAUSED_STARTING_UP: Final = 11
_PAUSED_AT_WORK: Final = frozenset({2, 3, 4, 8, 9, PAUSED_STARTING_UP, 12})
RUNNING_POSTCOPY: Final = 10  # of virDomainRunningReason

_KNOWN_STATES: Final = frozenset(int(state) for state in DomainState)


class Counted(StrEnum):
    """Which domains hold vCPUs and memory."""

    ACTIVE = "active"
    """Those that run, or are paused: what is in use now."""
    DEFINED = "defined"
    """Those that are shut off, too, by their definitions: what has been promised."""


class CountedMemory(StrEnum):
    """Which of the two figures that libvirt gives is a domain's memory."""

    CURRENT = "current"
    """What it was given; what its balloon leaves it."""
    MAXIMUM = "maximum"
    """What it may get, so that no balloon can overcommit the host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy(PlainRecord):
    """How one host's domains are counted. The defaults are the table's published meaning.

    Raises :class:`InvalidSettingError` for a value that is none.
    """

    count: Counted = Counted.ACTIVE
    memory: CountedMemory = CountedMemory.CURRENT
    """Maximum counts whatever is said here where the driver reports no current memory (bhyve),
    or another thing by that name (LXC); current, for Xen's Domain-0, whose maximum may be
    unlimited."""
    reserved_vcpus: int = 0
    """The host's own, added once to its total: Nova's ``reserved_host_cpus``."""
    reserved_memory_mb: int = 0
    """In MiB, added once to the host's total: Nova's ``reserved_host_memory_mb``."""
    domain_0_memory: bool = True
    """Whether the memory of Xen's Domain-0 counts. It is no guest in any case."""
    domain_0_vcpus: bool = False
    """Whether its vCPUs count, which are the host's own CPUs."""
    include: tuple[str, ...] = ()
    """Shell patterns (``fnmatch``, case matters): only domains whose name matches one count.
    Empty: all. Domain-0 is subject to neither list."""
    exclude: tuple[str, ...] = ()
    """Domains whose name matches one of these do not count, included or not."""

    def __post_init__(self) -> None:
        for name, kind in (("count", Counted), ("memory", CountedMemory)):
            if getattr(self, name) not in list(kind):
                expected = f"give {' or '.join(repr(str(value)) for value in kind)}"
                raise InvalidSettingError(name, getattr(self, name), expected)
        for name in ("reserved_vcpus", "reserved_memory_mb"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise InvalidSettingError(name, value, "give a whole number from 0 on")
        for name in ("domain_0_memory", "domain_0_vcpus"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidSettingError(name, getattr(self, name), "give True or False")
        for name in ("include", "exclude"):
            value = getattr(self, name)
            # A plain string would be taken for a row of one-letter patterns.
            if not isinstance(value, tuple) or not all(isinstance(p, str) and p for p in value):
                raise InvalidSettingError(name, value, "give a tuple of patterns, as ('web-*',)")

    @property
    def by_name(self) -> bool:
        """Whether names decide, so that a name must be as new as the rest of an observation."""
        return bool(self.include or self.exclude)

    def objection(self, name: str) -> str | None:
        """Why a domain of this name does not count; None where the name is no obstacle."""
        for pattern in self.exclude:
            if fnmatchcase(name, pattern):
                return f"name excluded by {pattern!r}"
        if self.include and not any(fnmatchcase(name, pattern) for pattern in self.include):
            return f"name matches none of {', '.join(map(repr, self.include))}"
        return None

    def may_count(self, uuid: str, name: str) -> bool:
        """Whether the domain can count at all, in whatever state, on whatever driver."""
        return uuid == DOMAIN_0_UUID or self.objection(name) is None


DEFAULT_POLICY: Final = Policy()


def is_active(observation: Observation) -> bool:
    """Whether the domain holds resources now.

    Decided by state, because ``info()`` reports memory for inactive domains too. A state that
    this version does not know counts: something that libvirt lists as other than shut off runs.
    """
    if observation.state == DomainState.SHUTOFF:
        return False
    if observation.state == DomainState.CRASHED:
        return bool(observation.active)
    return True


def is_known_state(state: int) -> bool:
    """Whether libvirt's state number is one that this version knows."""
    return state in _KNOWN_STATES


def is_starting_up(observation: Observation) -> bool:
    """Whether the domain may still vanish without an event, as a start that fails late does."""
    return observation.state == DomainState.PAUSED and observation.reason == PAUSED_STARTING_UP


def _is_at_work(observation: Observation) -> bool:
    if observation.migrating:
        return True
    match observation.state:
        case DomainState.RUNNING:
            return observation.reason == RUNNING_POSTCOPY
        case DomainState.PAUSED:
            return observation.reason in _PAUSED_AT_WORK
        case DomainState.SHUTDOWN:
            return True
        case _:
            return False


class Accounting:
    """The rules for one host.

    ``hypervisor_type`` is ``virConnectGetType``'s answer, such as ``QEMU``; case is ignored.
    """

    __slots__ = ("_count_defined", "_count_maximum_memory", "_is_xen", "_kind", "_policy")

    def __init__(self, hypervisor_type: str, policy: Policy = DEFAULT_POLICY) -> None:
        kind = hypervisor_type.upper()
        self._kind = hypervisor_type
        self._policy = policy
        self._is_xen = kind == "XEN"
        self._count_defined = policy.count == Counted.DEFINED
        self._count_maximum_memory = (
            kind in _COUNT_MAXIMUM_MEMORY or policy.memory == CountedMemory.MAXIMUM
        )

    @property
    def has_domain_0(self) -> bool:
        """Whether the host lists itself as a domain, whose memory counts, and moves without
        events."""
        return self._is_xen and self._policy.domain_0_memory

    @property
    def reserved(self) -> Usage:
        """What the host itself takes: the totals where there is no domain."""
        policy = self._policy
        return Usage(policy.reserved_vcpus, policy.reserved_memory_mb * KIB_PER_MIB)

    def cost(self, observation: Observation) -> Usage:
        """What the domain adds to its host's totals; ``NOTHING`` for one that does not count.

        An inactive one that counts is no running one and no workload, and neither is Xen's
        Domain-0 (id 0), of which only what the policy says counts.
        """
        policy = self._policy
        if self._is_domain_0(observation):
            return Usage(
                observation.vcpus if policy.domain_0_vcpus else 0,
                observation.memory_kib if policy.domain_0_memory else 0,
            )
        active = is_active(observation)
        if not (active or self._count_defined) or policy.objection(observation.name) is not None:
            return NOTHING
        memory_kib = (
            observation.max_memory_kib if self._count_maximum_memory else observation.memory_kib
        )
        at_work = active and _is_at_work(observation)
        return Usage(observation.vcpus, memory_kib, int(active), int(at_work))

    def rule(self, observation: Observation) -> str:
        """Whether the domain counts, and by which rule: :meth:`cost` in words, for people.

        It begins with "not counted" where it does not. It holds no name but the policy's patterns.
        """
        policy = self._policy
        if self._is_domain_0(observation):
            return _DOMAIN_0_RULES[policy.domain_0_vcpus, policy.domain_0_memory]
        active = is_active(observation)
        objection = policy.objection(observation.name)
        state = "active" if active else _inactive_state(observation)
        if objection is not None or not (active or self._count_defined):
            return f"not counted: {objection or state}"
        parts = [f"counted: {state if active else f'defined, {state}'}"]
        if not is_known_state(observation.state):
            parts.append(f"unknown state {observation.state}")
        if active and observation.migrating:
            parts.append("being copied to another host")
        if self._count_maximum_memory:
            forced = self._kind.upper() in _COUNT_MAXIMUM_MEMORY
            parts.append(f"maximum memory: {self._kind}" if forced else "maximum memory")
        return ", ".join(parts)

    def _is_domain_0(self, observation: Observation) -> bool:
        return self._is_xen and (observation.domain_id == 0 or observation.uuid == DOMAIN_0_UUID)


# By whether vCPUs and memory count.
_DOMAIN_0_RULES: Final = {
    (False, True): "memory only: Domain-0",
    (True, False): "vCPUs only: Domain-0",
    (True, True): "vCPUs and memory only: Domain-0",
    (False, False): "not counted: Domain-0",
}


def _inactive_state(observation: Observation) -> str:
    return "crashed" if observation.state == DomainState.CRASHED else "shut off"
