"""Which domain in which state costs what. The only place that knows.

Pure. Sources of the rules: libvirt's drivers, for what ``virDomainGetInfo`` reports in each
(LXC gives the memory its cgroup uses at the moment, bhyve gives none: there the maximum
counts), and the published description of ``compute_nodes``, for what is summed.
"""

from typing import Final

from asynchost.model import DomainState, Observation, Usage

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
    match observation.state:
        case DomainState.SHUTDOWN:
            return True
        case DomainState.PAUSED:
            return observation.reason in _PAUSED_AT_WORK
        case DomainState.RUNNING:
            return observation.reason == RUNNING_POSTCOPY
        case _:
            return False


class Accounting:
    """The rules for one host.

    ``hypervisor_type`` is ``virConnectGetType``'s answer, such as ``QEMU``; case is ignored.
    """

    __slots__ = ("_count_maximum_memory", "_has_domain_0")

    def __init__(self, hypervisor_type: str) -> None:
        kind = hypervisor_type.upper()
        self._count_maximum_memory = kind in _COUNT_MAXIMUM_MEMORY
        self._has_domain_0 = kind == "XEN"

    @property
    def has_domain_0(self) -> bool:
        """Whether the host lists itself as a domain, whose memory moves without events."""
        return self._has_domain_0

    def cost(self, observation: Observation) -> Usage:
        """What the domain adds to its host's totals; ``NOTHING`` for an inactive one.

        Xen's Domain-0 (id 0) adds its memory only: its vCPUs are the host's own, and it is no
        guest.
        """
        if not is_active(observation):
            return NOTHING
        memory_kib = (
            observation.max_memory_kib if self._count_maximum_memory else observation.memory_kib
        )
        if self._has_domain_0 and (observation.domain_id == 0 or observation.uuid == DOMAIN_0_UUID):
            return Usage(memory_kib_used=memory_kib)
        return Usage(observation.vcpus, memory_kib, 1, int(_is_at_work(observation)))
