"""Which domain in which state costs what: the table of the rules, driver by driver.

The observations are those that each driver gives; Xen and bhyve, which cannot be started here,
are told by what their drivers are written to report.
"""

import libvirt
import pytest
from hypothesis import given

from asynchost.accounting import (
    DOMAIN_0_UUID,
    NOTHING,
    PAUSED_STARTING_UP,
    RUNNING_POSTCOPY,
    Accounting,
    is_active,
    is_known_state,
    is_starting_up,
)
from asynchost.model import DomainState, Observation, Usage
from tests.support.strategies import hypervisor_types, observations

GUEST = "6f000000-0000-4000-8000-000000000001"


def observed(
    state: int = DomainState.RUNNING,
    reason: int = 0,
    *,
    uuid: str = GUEST,
    domain_id: int = 1,
    active: bool | None = None,
    memory_kib: int = 2048,
    max_memory_kib: int = 4096,
) -> Observation:
    """What a read of one guest with two vCPUs returned."""
    return Observation(
        uuid, "guest", domain_id, state, reason, active, 2, memory_kib, max_memory_kib
    )


COUNTED = Usage(vcpus_used=2, memory_kib_used=2048, running_vms=1)
AT_WORK = COUNTED._replace(current_workload=1)


@pytest.mark.parametrize(
    ("state", "cost"),
    [
        (DomainState.NOSTATE, COUNTED),
        (DomainState.RUNNING, COUNTED),
        (DomainState.BLOCKED, COUNTED),
        (DomainState.PAUSED, COUNTED),
        (DomainState.SHUTDOWN, AT_WORK),
        (DomainState.SHUTOFF, NOTHING),
        (DomainState.CRASHED, NOTHING),
        (DomainState.PMSUSPENDED, COUNTED),
    ],
    ids=lambda value: value.name if isinstance(value, DomainState) else None,
)
def test_cost_follows_the_state(state: DomainState, cost: Usage) -> None:
    """Every active state holds vCPUs and memory; a domain that is shut off holds none."""
    assert Accounting("QEMU").cost(observed(state)) == cost


@pytest.mark.parametrize(("active", "cost"), [(True, COUNTED), (False, NOTHING), (None, NOTHING)])
def test_a_crashed_domain_counts_while_libvirt_calls_it_active(
    active: bool | None, cost: Usage
) -> None:
    """A crashed guest may be kept for a dump or be gone; the state alone does not tell."""
    assert Accounting("QEMU").cost(observed(DomainState.CRASHED, active=active)) == cost


@pytest.mark.parametrize("active", [None, True, False])
def test_activity_is_asked_of_a_crashed_domain_alone(active: bool | None) -> None:
    """Elsewhere the state is the newer word: the two are read one after the other."""
    assert is_active(observed(DomainState.RUNNING, active=active))
    assert not is_active(observed(DomainState.SHUTOFF, active=active))


@pytest.mark.parametrize("state", [8, 99])
def test_an_unknown_future_state_counts(state: int) -> None:
    """What libvirt lists as other than shut off holds resources, as far as can be told."""
    assert not is_known_state(state)
    assert Accounting("QEMU").cost(observed(state)) == COUNTED


def test_every_state_up_to_libvirt_s_last_is_known() -> None:
    """No number is left out."""
    assert all(is_known_state(state) for state in range(libvirt.VIR_DOMAIN_PMSUSPENDED + 1))


# By libvirt's names, so that a number mistyped in the code is found.
@pytest.mark.parametrize(
    ("reason", "at_work"),
    [
        ("UNKNOWN", False),
        ("USER", False),
        ("MIGRATION", True),
        ("SAVE", True),
        ("DUMP", True),
        ("IOERROR", False),
        ("WATCHDOG", False),
        ("FROM_SNAPSHOT", False),
        ("SHUTTING_DOWN", True),
        ("SNAPSHOT", True),
        ("CRASHED", False),
        ("STARTING_UP", True),
        ("POSTCOPY", True),
        ("POSTCOPY_FAILED", False),
    ],
)
def test_a_paused_domain_is_workload_by_its_reason(reason: str, at_work: bool) -> None:
    """Something is being done with it, or somebody let it rest."""
    number = getattr(libvirt, f"VIR_DOMAIN_PAUSED_{reason}")
    cost = Accounting("QEMU").cost(observed(DomainState.PAUSED, number))
    assert cost == (AT_WORK if at_work else COUNTED)


def test_a_running_domain_is_workload_in_post_copy_only() -> None:
    """Its memory still comes from the other host; pre-copy cannot be seen in its state."""
    assert RUNNING_POSTCOPY == libvirt.VIR_DOMAIN_RUNNING_POSTCOPY
    for reason in range(libvirt.VIR_DOMAIN_RUNNING_POSTCOPY + 2):
        expected = AT_WORK if reason == RUNNING_POSTCOPY else COUNTED
        assert Accounting("QEMU").cost(observed(DomainState.RUNNING, reason)) == expected


def test_a_domain_is_starting_up_only_while_paused_for_it() -> None:
    """The same number means another thing in another state."""
    assert PAUSED_STARTING_UP == libvirt.VIR_DOMAIN_PAUSED_STARTING_UP
    assert is_starting_up(observed(DomainState.PAUSED, PAUSED_STARTING_UP))
    assert not is_starting_up(observed(DomainState.PAUSED, 1))
    assert not is_starting_up(observed(DomainState.RUNNING, PAUSED_STARTING_UP))


# -- Xen: what libxl reports. Domain-0 has id 0, the all-zero UUID and no event of its own. -------

DOMAIN_0 = observed(uuid=DOMAIN_0_UUID, domain_id=0, memory_kib=1_048_576, max_memory_kib=2**42)


def test_xen_domain_0_counts_for_memory_alone() -> None:
    """It is the host itself: its memory is taken, its vCPUs are the host's, it is no guest."""
    assert Accounting("Xen").cost(DOMAIN_0) == Usage(memory_kib_used=1_048_576)


@pytest.mark.parametrize(
    "part",
    [DOMAIN_0._replace(uuid=GUEST), DOMAIN_0._replace(domain_id=-1)],
    ids=["by-id", "by-uuid"],
)
def test_xen_domain_0_is_known_by_either_mark(part: Observation) -> None:
    """The id of one read, or the UUID that never changes."""
    assert Accounting("Xen").cost(part) == Usage(memory_kib_used=1_048_576)


def test_xen_domain_0_is_never_workload() -> None:
    """Even in a state that would make a guest so."""
    cost = Accounting("Xen").cost(DOMAIN_0._replace(state=DomainState.SHUTDOWN))
    assert cost.current_workload == 0


def test_xen_guest_counts_as_everywhere() -> None:
    """libxl reports a guest's current memory, with ids from 1."""
    assert Accounting("Xen").cost(observed()) == COUNTED


@pytest.mark.parametrize("kind", ["QEMU", "TEST", "LXC"])
def test_id_0_and_the_zero_uuid_mean_nothing_elsewhere(kind: str) -> None:
    """Only Xen lists its host among the domains."""
    accounting = Accounting(kind)
    assert not accounting.has_domain_0
    assert accounting.cost(DOMAIN_0).running_vms == 1


def test_xen_has_a_domain_0() -> None:
    """Its memory moves without events, so somebody has to know."""
    assert Accounting("Xen").has_domain_0


# -- LXC and bhyve: current memory is something else, so the maximum counts. ----------------------


@pytest.mark.parametrize(
    ("kind", "memory_kib"),
    [("LXC", 464), ("BHYVE", 0), ("lxc", 464), ("bhyve", 0)],
)
def test_maximum_memory_counts_where_current_memory_is_something_else(
    kind: str, memory_kib: int
) -> None:
    """LXC tells what the cgroup uses at the moment, bhyve nothing: neither is what was given."""
    cost = Accounting(kind).cost(observed(memory_kib=memory_kib, max_memory_kib=65_536))
    assert cost == Usage(2, 65_536, 1)


@pytest.mark.parametrize("kind", ["QEMU", "TEST", "vz", "Xen", "anything else"])
def test_current_memory_counts_elsewhere(kind: str) -> None:
    """What the guest has now, after ballooning, not what it might get."""
    assert Accounting(kind).cost(observed()).memory_kib_used == 2048


@given(hypervisor_types, observations())
def test_an_inactive_domain_costs_nothing_and_no_cost_is_negative(
    kind: str, observation: Observation
) -> None:
    """Whatever a driver reports: only what is active counts, and it never counts below zero."""
    cost = Accounting(kind).cost(observation)
    assert min(cost) >= 0
    if not is_active(observation):
        assert cost == NOTHING
    assert cost.current_workload <= cost.running_vms <= 1
