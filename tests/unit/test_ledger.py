"""The ledger: whatever was lost, repeated or reordered, its totals equal a recount."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynchost.accounting import NOTHING, Accounting, Counted, Policy
from asynchost.ledger import Ledger, Move
from asynchost.model import DomainState, Observation, Usage
from tests.support.strategies import (
    DOMAIN_0,
    Gone,
    Observed,
    Resynced,
    Step,
    deliveries_of,
    histories,
    hypervisor_types,
    last_truths,
    listings,
    observations,
    policies,
)

A = "6f000000-0000-4000-8000-00000000000a"
B = "6f000000-0000-4000-8000-00000000000b"


def observed(uuid: str = A, vcpus: int = 1, memory_kib: int = 1024, **more: Any) -> Observation:
    """A running guest."""
    running = Observation(uuid, "guest", 1, DomainState.RUNNING, 0, None, vcpus, memory_kib, 0)
    return running._replace(**more)


def counted_by_hand(kind: str, policy: Policy, truths: Mapping[str, Observation]) -> Usage:
    """The totals over the last observations, by code that shares nothing with the package."""
    vcpus, memory_kib = policy.reserved_vcpus, policy.reserved_memory_mb * 1024
    running = working = 0
    for one in truths.values():
        if kind == "Xen" and (one.domain_id == 0 or one.uuid == DOMAIN_0):
            vcpus += one.vcpus * policy.domain_0_vcpus
            memory_kib += one.memory_kib * policy.domain_0_memory
            continue
        if policy.include and not any(fnmatchcase(one.name, p) for p in policy.include):
            continue
        if any(fnmatchcase(one.name, p) for p in policy.exclude):
            continue
        active = one.state != 5 and not (one.state == 6 and one.active is not True)
        if not active and policy.count == "active":
            continue
        maximum = kind.lower() in ("lxc", "bhyve") or policy.memory == "maximum"
        memory_kib += one.max_memory_kib if maximum else one.memory_kib
        vcpus += one.vcpus
        running += active
        working += (
            one.state == 4
            or (one.state == 3 and one.reason in (2, 3, 4, 8, 9, 11, 12))
            or (one.state == 1 and one.reason == 10)
        )
    return Usage(vcpus, memory_kib, running, working)


def take_step(ledger: Ledger, truths: dict[str, Observation], step: Step) -> None:
    """Tell the ledger, and the plain dictionary beside it."""
    match step:
        case Observed(observation):
            ledger.apply(observation)
            truths[observation.uuid] = observation
        case Gone(uuid):
            ledger.remove(uuid)
            truths.pop(uuid, None)
        case Resynced(listed, unread):
            ledger.replace(listed, keep=unread)
            kept = {uuid: truths[uuid] for uuid in unread if uuid in truths}
            truths.clear()
            truths.update(kept | {one.uuid: one for one in listed})
        case _:
            pass  # a lost connection or an unreadable domain tells the ledger nothing


@settings(max_examples=150)
@given(hypervisor_types, policies, histories())
def test_totals_equal_a_recount_after_every_step(
    kind: str, policy: Policy, history: list[Step]
) -> None:
    """Under each policy: any sequence of reads, removals, duplicates, reorderings, losses and
    resyncs adds up."""
    ledger, truths = Ledger(Accounting(kind, policy)), dict[str, Observation]()
    for step in history:
        take_step(ledger, truths, step)
        assert ledger.usage == ledger.recount() == counted_by_hand(kind, policy, truths)


@settings(max_examples=50)
@given(hypervisor_types, policies, histories(), last_truths, st.data())
def test_totals_equal_the_truth_once_every_domain_was_read_again(
    kind: str,
    policy: Policy,
    history: list[Step],
    truths: dict[str, Observation | None],
    data: st.DataObject,
) -> None:
    """Whatever came before: each domain's last truth, in any order and repeated, is enough."""
    ledger, ignored = Ledger(Accounting(kind, policy)), dict[str, Observation]()
    for step in [*history, *data.draw(deliveries_of(truths))]:
        take_step(ledger, ignored, step)
    known = {uuid: truth for uuid, truth in truths.items() if truth is not None}
    assert ledger.usage == ledger.recount() == counted_by_hand(kind, policy, known)


@settings(max_examples=30)
@given(hypervisor_types, policies, histories(), listings())
def test_a_full_listing_makes_everything_before_it_forgotten(
    kind: str, policy: Policy, history: list[Step], listing: Resynced
) -> None:
    """A resync that could read every domain leads to the same ledger from anywhere."""
    ledger, fresh = Ledger(Accounting(kind, policy)), Ledger(Accounting(kind, policy))
    for step in history:
        take_step(ledger, {}, step)
    ledger.replace(listing.observations)
    fresh.replace(reversed(listing.observations))
    assert ledger.usage == fresh.usage
    assert ledger.uuids == fresh.uuids


@settings(max_examples=30)
@given(hypervisor_types, policies, histories(), observations())
def test_the_same_observation_twice_moves_the_totals_once(
    kind: str, policy: Policy, history: list[Step], observation: Observation
) -> None:
    """A duplicate is harmless, and says that it did nothing."""
    ledger = Ledger(Accounting(kind, policy))
    for step in history:
        take_step(ledger, {}, step)
    ledger.apply(observation)
    once = ledger.usage
    move = ledger.apply(observation)
    assert ledger.usage == once
    assert move.before == move.after
    assert move.corrections() == []


@settings(max_examples=30)
@given(hypervisor_types, policies, histories(), observations())
def test_a_move_is_the_difference_of_the_totals(
    kind: str, policy: Policy, history: list[Step], observation: Observation
) -> None:
    """What one application reports is exactly what it did."""
    ledger = Ledger(Accounting(kind, policy))
    for step in history:
        take_step(ledger, {}, step)
    for act in (partial(ledger.apply, observation), partial(ledger.remove, observation.uuid)):
        before = ledger.usage
        move = act()
        assert ledger.usage - before == move.after - move.before


@settings(max_examples=30)
@given(hypervisor_types, policies, histories())
def test_the_ledger_keeps_only_what_costs_something(
    kind: str, policy: Policy, history: list[Step]
) -> None:
    """Defined guests that do not run weigh nothing, unless the policy counts them."""
    ledger = Ledger(Accounting(kind, policy))
    for step in history:
        take_step(ledger, {}, step)
    for uuid in ledger.uuids:
        record = ledger.record(uuid)
        assert record is not None
        assert record.observation.uuid == uuid
        assert record.cost != NOTHING
    assert list(ledger.records()) == [ledger.record(uuid) for uuid in ledger.uuids]


def test_a_ledger_begins_empty() -> None:
    """No domain, no cost, and a recount of nothing is nothing."""
    ledger = Ledger(Accounting("QEMU"))
    assert ledger.usage == ledger.recount() == NOTHING
    assert not ledger.uuids
    assert ledger.record(A) is None


def test_what_is_reserved_is_counted_once() -> None:
    """Before the first domain, beside domains, after a listing and after the last one."""
    policy = Policy(reserved_vcpus=2, reserved_memory_mb=512)
    ledger = Ledger(Accounting("QEMU", policy))
    reserved = Usage(vcpus_used=2, memory_kib_used=512 * 1024)
    assert ledger.usage == ledger.recount() == reserved
    ledger.apply(observed(A, vcpus=3))
    ledger.replace([observed(A, vcpus=3), observed(B)])
    assert ledger.usage == ledger.recount() == Usage(6, 512 * 1024 + 2048, 2)
    ledger.remove(A)
    ledger.replace([])
    assert ledger.usage == ledger.recount() == reserved


def test_a_defined_domain_is_kept_while_it_is_shut_off() -> None:
    """It starts and stops, and what it holds stays; it goes with its definition."""
    ledger = Ledger(Accounting("QEMU", Policy(count=Counted.DEFINED)))
    off = observed(A, state=DomainState.SHUTOFF)
    assert ledger.apply(off) == Move(NOTHING, Usage(1, 1024))
    assert ledger.apply(observed(A)).after == Usage(1, 1024, 1)
    assert ledger.apply(off).corrections() == [("active", 1, 0)]
    assert ledger.record(A) is not None
    ledger.remove(A)
    assert ledger.usage == NOTHING


def test_a_domain_renamed_into_the_filter_goes() -> None:
    """The name that it was read with last decides."""
    ledger = Ledger(Accounting("QEMU", Policy(exclude=("build-*",))))
    ledger.apply(observed(A))
    ledger.apply(observed(A, name="build-1"))
    assert (ledger.usage, ledger.record(A)) == (NOTHING, None)
    ledger.apply(observed(A))
    assert ledger.usage == Usage(1, 1024, 1)


def test_removing_an_unknown_domain_changes_nothing() -> None:
    """A late "gone" for a domain that never counted is harmless."""
    ledger = Ledger(Accounting("QEMU"))
    ledger.apply(observed(A))
    assert ledger.remove(B) == Move(NOTHING, NOTHING)
    assert ledger.usage == Usage(1, 1024, 1)


def test_a_domain_that_shut_off_is_no_longer_recorded() -> None:
    """Its memory is still reported, and no longer counts."""
    ledger = Ledger(Accounting("QEMU"))
    ledger.apply(observed(A), read_at=5.0)
    move = ledger.apply(observed(A, state=DomainState.SHUTOFF))
    assert move == Move(Usage(1, 1024, 1), NOTHING, read_at=5.0)
    assert ledger.record(A) is None
    assert ledger.usage == NOTHING


def test_an_unread_domain_keeps_its_record_through_a_resync() -> None:
    """What could not be read stands; what was never read adds nothing; the rest goes."""
    ledger = Ledger(Accounting("QEMU"))
    ledger.apply(observed(A, vcpus=3))
    ledger.apply(observed(B, vcpus=5))
    ledger.replace([], keep=[A, "never seen"])
    assert set(ledger.uuids) == {A}
    assert ledger.usage == Usage(3, 1024, 1)


def test_a_listing_outranks_the_record_it_would_keep() -> None:
    """A domain that was read after all has its new number."""
    ledger = Ledger(Accounting("QEMU"))
    ledger.apply(observed(A, vcpus=3))
    ledger.replace([observed(A, vcpus=4)], keep=[A])
    assert ledger.usage == Usage(4, 1024, 1)


def test_a_listing_that_breaks_off_changes_nothing() -> None:
    """Half a listing is none."""
    ledger = Ledger(Accounting("QEMU"))
    ledger.apply(observed(A))

    def half() -> object:
        yield observed(B)
        raise ConnectionError("in the middle")

    with pytest.raises(ConnectionError):
        ledger.replace(half())  # type: ignore[arg-type]
    assert set(ledger.uuids) == {A}
    assert ledger.usage == ledger.recount() == Usage(1, 1024, 1)


@pytest.mark.parametrize(
    ("before", "after", "corrections"),
    [
        (NOTHING, NOTHING, []),
        (NOTHING, Usage(2, 1024, 1, 1), [("active", 0, 1)]),
        (Usage(2, 1024, 1, 1), NOTHING, [("active", 1, 0)]),
        (Usage(2, 1024, 1), Usage(3, 1024, 1), [("vcpus", 2, 3)]),
        (Usage(2, 1024, 1), Usage(2, 512, 1), [("memory_kib", 1024, 512)]),
        (Usage(2, 1024, 1, 0), Usage(2, 1024, 1, 1), [("at_work", 0, 1)]),
        (NOTHING, Usage(2, 1024), [("counted", 0, 1)]),
        (Usage(0, 1024), NOTHING, [("counted", 1, 0)]),
        (Usage(2, 1024), Usage(2, 512), [("memory_kib", 1024, 512)]),
        (Usage(2, 1024), Usage(4, 2048, 1), [("active", 0, 1)]),
        (
            Usage(2, 1024, 1, 0),
            Usage(1, 2048, 1, 1),
            [("vcpus", 2, 1), ("memory_kib", 1024, 2048), ("at_work", 0, 1)],
        ),
    ],
)
def test_corrections_name_each_field_that_differs(
    before: Usage, after: Usage, corrections: list[tuple[str, int, int]]
) -> None:
    """A domain that came or went is one correction; its numbers only follow."""
    assert Move(before, after).corrections() == corrections
