"""Which domain in which state costs what: the table of the rules, driver by driver.

The observations are those that each driver gives; Xen and bhyve, which cannot be started here,
are told by what their drivers are written to report.
"""

from dataclasses import FrozenInstanceError, astuple, replace
from fnmatch import fnmatchcase
from typing import Any

import libvirt
import pytest
from hypothesis import given

from asynchost.accounting import (
    DOMAIN_0_UUID,
    NOTHING,
    PAUSED_STARTING_UP,
    RUNNING_POSTCOPY,
    Accounting,
    Counted,
    CountedMemory,
    Policy,
    is_active,
    is_known_state,
    is_starting_up,
)
from asynchost.errors import InvalidSettingError
from asynchost.model import DomainState, Observation, Usage
from tests.support.strategies import hypervisor_types, observations, policies

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
AT_WORK = replace(COUNTED, current_workload=1)


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


@pytest.mark.parametrize("state", [DomainState.RUNNING, DomainState.BLOCKED, DomainState.PAUSED])
def test_a_domain_that_is_copied_to_another_host_is_workload(state: DomainState) -> None:
    """In whatever active state; a domain that is shut off holds nothing all the same."""
    copied = observed(state)._replace(migrating=True)
    assert Accounting("QEMU").cost(copied) == AT_WORK
    assert "being copied to another host" in Accounting("QEMU").rule(copied)
    assert Accounting("QEMU").cost(copied._replace(state=DomainState.SHUTOFF)) == NOTHING


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
    accounting = Accounting(kind)
    cost = accounting.cost(observation)
    assert min(astuple(cost)) >= 0
    if not is_active(observation) and "Domain-0" not in accounting.rule(observation):
        assert cost == NOTHING
    assert cost.current_workload <= cost.running_vms <= 1


# -- drivers, by what each is written to report for a guest of two vCPUs and 4,096 KiB ------------

# (driver, state, current, maximum): bhyve leaves the current one at 0; LXC gives what its cgroup
# uses while it runs, and the definition's otherwise; Xen, VZ, QEMU and test give the balloon's.
DRIVERS = [
    ("QEMU", DomainState.RUNNING, 2048, 4096, 2048),
    ("QEMU", DomainState.SHUTOFF, 2048, 4096, 2048),
    ("LXC", DomainState.RUNNING, 496, 4096, 4096),
    ("LXC", DomainState.SHUTOFF, 4096, 4096, 4096),
    ("Xen", DomainState.RUNNING, 2049, 4096, 2049),
    ("Xen", DomainState.SHUTOFF, 2048, 4096, 2048),
    ("BHYVE", DomainState.RUNNING, 0, 4096, 4096),
    ("BHYVE", DomainState.SHUTOFF, 0, 4096, 4096),
    ("vz", DomainState.RUNNING, 2048, 4096, 2048),
    ("TEST", DomainState.SHUTOFF, 2048, 4096, 2048),
]


@pytest.mark.parametrize(("kind", "state", "current", "maximum", "counted"), DRIVERS)
def test_a_defined_domain_costs_what_its_driver_can_tell(
    kind: str, state: int, current: int, maximum: int, counted: int
) -> None:
    """Shut off or running, and the same rule for both: a start moves no rule."""
    observation = observed(state, memory_kib=current, max_memory_kib=maximum)
    active = state == DomainState.RUNNING
    cost = Accounting(kind, Policy(count=Counted.DEFINED)).cost(observation)
    assert cost == Usage(2, counted, int(active))
    cost = Accounting(kind).cost(observation)
    assert cost == (Usage(2, counted, 1) if active else NOTHING)
    larger = Policy(count=Counted.DEFINED, memory=CountedMemory.MAXIMUM)
    assert Accounting(kind, larger).cost(observation) == Usage(2, maximum, int(active))


# -- policies --------------------------------------------------------------------------------------


def test_what_is_shut_off_is_no_workload() -> None:
    """Though its state is kept with a reason of its own."""
    crashed = observed(DomainState.CRASHED, active=False)
    assert Accounting("QEMU", Policy(count=Counted.DEFINED)).cost(crashed) == Usage(2, 2048)


@pytest.mark.parametrize(
    ("include", "exclude", "name", "counts"),
    [
        ((), (), "anything", True),
        (("web-*",), (), "web-1", True),
        (("web-*",), (), "db-1", False),
        (("web-*", "db-?"), (), "db-1", True),
        (("web-*",), (), "Web-1", False),
        ((), ("build-*",), "build-1", False),
        ((), ("build-*",), "rebuild-1", True),
        (("*",), ("build-*",), "build-1", False),
        (("[[]x]",), (), "[x]", True),
        (("*",), (), "two\nlines", True),
    ],
)
def test_names_decide(
    include: tuple[str, ...], exclude: tuple[str, ...], name: str, counts: bool
) -> None:
    """Shell patterns over the whole name; exclusion outranks inclusion."""
    policy = Policy(include=include, exclude=exclude)
    cost = Accounting("QEMU", policy).cost(observed()._replace(name=name))
    assert cost == (COUNTED if counts else NOTHING)
    assert policy.may_count(GUEST, name) is counts
    assert policy.by_name is bool(include or exclude)


@pytest.mark.parametrize(
    ("policy", "cost"),
    [
        (Policy(), Usage(0, 1_048_576)),
        (Policy(domain_0_vcpus=True), Usage(2, 1_048_576)),
        (Policy(domain_0_memory=False), NOTHING),
        (Policy(domain_0_memory=False, domain_0_vcpus=True), Usage(2, 0)),
        (Policy(memory=CountedMemory.MAXIMUM), Usage(0, 1_048_576)),
        (Policy(include=("web-*",), exclude=("guest",)), Usage(0, 1_048_576)),
    ],
)
def test_xen_domain_0_has_a_rule_of_its_own(policy: Policy, cost: Usage) -> None:
    """Its maximum may be without a limit, and its name is not a guest's."""
    accounting = Accounting("Xen", policy)
    assert accounting.cost(DOMAIN_0) == cost
    assert accounting.has_domain_0 is policy.domain_0_memory
    assert policy.may_count(DOMAIN_0_UUID, "Domain-0")


def test_reserves_are_the_hosts_and_in_kib() -> None:
    """They are no domain's cost."""
    policy = Policy(reserved_vcpus=2, reserved_memory_mb=512)
    assert Accounting("QEMU", policy).reserved == Usage(2, 524_288)
    assert Accounting("QEMU", policy).cost(observed()) == COUNTED
    assert Accounting("QEMU").reserved == NOTHING


@pytest.mark.parametrize(
    ("kind", "policy", "observation", "rule"),
    [
        ("QEMU", Policy(), observed(), "counted: active"),
        ("QEMU", Policy(), observed(DomainState.SHUTOFF), "not counted: shut off"),
        ("QEMU", Policy(), observed(DomainState.CRASHED), "not counted: crashed"),
        ("QEMU", Policy(), observed(99), "counted: active, unknown state 99"),
        (
            "QEMU",
            Policy(count=Counted.DEFINED),
            observed(DomainState.SHUTOFF),
            "counted: defined, shut off",
        ),
        (
            "QEMU",
            Policy(memory=CountedMemory.MAXIMUM),
            observed(),
            "counted: active, maximum memory",
        ),
        ("LXC", Policy(), observed(), "counted: active, maximum memory: LXC"),
        ("Xen", Policy(), DOMAIN_0, "memory only: Domain-0"),
        ("Xen", Policy(domain_0_memory=False), DOMAIN_0, "not counted: Domain-0"),
        ("Xen", Policy(domain_0_vcpus=True), DOMAIN_0, "vCPUs and memory only: Domain-0"),
        (
            "Xen",
            Policy(domain_0_vcpus=True, domain_0_memory=False),
            DOMAIN_0,
            "vCPUs only: Domain-0",
        ),
        (
            "QEMU",
            Policy(exclude=("gu*", "x")),
            observed(),
            "not counted: name excluded by 'gu*'",
        ),
        (
            "QEMU",
            Policy(include=("a", "b\n*")),
            observed(),
            "not counted: name matches none of 'a', 'b\\n*'",
        ),
    ],
)
def test_rules_in_words(kind: str, policy: Policy, observation: Observation, rule: str) -> None:
    """As they are shown to people."""
    assert Accounting(kind, policy).rule(observation) == rule


@given(hypervisor_types, policies, observations())
def test_a_rule_says_what_the_cost_is(kind: str, policy: Policy, observation: Observation) -> None:
    """Each statement of the text holds for the numbers, and the other way round."""
    accounting = Accounting(kind, policy)
    # Figures that tell which of them was taken.
    observation = observation._replace(vcpus=3, memory_kib=5, max_memory_kib=7)
    cost, rule = accounting.cost(observation), accounting.rule(observation)
    assert min(astuple(cost)) >= 0
    assert (cost == NOTHING) is rule.startswith("not counted: ")
    assert (cost.running_vms == 1) is rule.startswith("counted: active")
    assert (cost.vcpus_used > 0 and not cost.running_vms) is rule.startswith(
        ("counted: defined", "vCPUs")
    )
    assert (cost.memory_kib_used == 7) is ("maximum memory" in rule)
    assert ("Domain-0" in rule) is (
        kind == "Xen" and (observation.domain_id == 0 or observation.uuid == DOMAIN_0_UUID)
    )
    if "excluded by" in rule:
        assert any(fnmatchcase(observation.name, pattern) for pattern in policy.exclude)
    if policy.count == Counted.ACTIVE and not is_active(observation):
        assert cost == NOTHING or "Domain-0" in rule


@pytest.mark.parametrize(
    ("field", "value", "way_out"),
    [
        ("count", "all", "give 'active' or 'defined'"),
        ("count", None, "give 'active' or 'defined'"),
        ("memory", "used", "give 'current' or 'maximum'"),
        ("reserved_vcpus", -1, "give a whole number from 0 on"),
        ("reserved_vcpus", 1.5, "give a whole number from 0 on"),
        ("reserved_vcpus", True, "give a whole number from 0 on"),
        ("reserved_memory_mb", "512", "give a whole number from 0 on"),
        ("domain_0_memory", 1, "give True or False"),
        ("domain_0_vcpus", "no", "give True or False"),
        ("include", "web-*", "give a tuple of patterns"),
        ("exclude", ("",), "give a tuple of patterns"),
        ("exclude", (1,), "give a tuple of patterns"),
    ],
)
def test_a_policy_that_is_none_is_refused(field: str, value: Any, way_out: str) -> None:
    """By the field's name, with the value and what would do."""
    with pytest.raises(InvalidSettingError, match=way_out) as refused:
        Policy(**{field: value})
    assert (refused.value.setting, refused.value.value) == (field, value)


def test_a_policy_is_a_value() -> None:
    """Named, frozen, the published meaning by default; an enumeration's text will do."""
    assert Policy() == Policy(count="active", memory="current")  # type: ignore[arg-type]
    with pytest.raises(FrozenInstanceError):
        Policy().reserved_vcpus = 1  # type: ignore[misc]
