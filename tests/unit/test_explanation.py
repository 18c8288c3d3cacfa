"""An explanation: every domain once, by what it is known, and the costs add up to the totals."""

from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynchost.accounting import NOTHING, Accounting, Policy
from asynchost.agenda import Mark
from asynchost.explanation import DomainAccount, Explanation, Survey, explain
from asynchost.ledger import Ledger
from asynchost.model import Cause, DomainState, Observation, Usage
from tests.support.strategies import (
    Gone,
    Observed,
    Resynced,
    Step,
    histories,
    hypervisor_types,
    observations,
    policies,
    uuids,
)

A = "6f000000-0000-4000-8000-00000000000a"
B = "6f000000-0000-4000-8000-00000000000b"
NOW = 1000.0
STARTED = Mark(Cause.EVENT, "lifecycle started")

surveys = st.builds(
    Survey,
    # The same domain may be listed twice: active and not, where it started in between.
    st.lists(observations(), max_size=5).map(tuple),
    st.dictionaries(uuids, st.just("internal error"), max_size=3),
    st.sampled_from((None, "the listing did not answer within 30 s")),
)
reasons = st.dictionaries(uuids, st.just("no answer within 5 s"), max_size=3)


def observed(uuid: str = A, **more: Any) -> Observation:
    """A running guest of two vCPUs and a MiB, named after the end of its UUID."""
    running = Observation(uuid, f"guest-{uuid[-1]}", 1, DomainState.RUNNING, 0, None, 2, 1024, 2048)
    return running._replace(**more)


def account_of(
    ledger: Ledger,
    accounting: Accounting,
    unreadable: Mapping[str, str] | None = None,
    others: Survey | None = None,
) -> DomainAccount:
    """The only account in an explanation."""
    (account,) = explain(ledger, accounting, unreadable or {}, others or Survey(), NOW).domains
    return account


@pytest.fixture
def accounting() -> Accounting:
    """The default rules, on QEMU."""
    return Accounting("QEMU")


@settings(max_examples=150)
@given(hypervisor_types, policies, histories(), reasons, surveys)
def test_every_domain_once_and_the_costs_add_up(
    kind: str,
    policy: Policy,
    history: list[Step],
    unreadable: dict[str, str],
    others: Survey,
) -> None:
    """After any history, under each policy, whatever else was found beside the records."""
    accounting = Accounting(kind, policy)
    ledger = Ledger(accounting)
    for step in history:
        match step:
            case Observed(observation, cause):
                ledger.apply(observation, 900.0, Mark(cause))
            case Gone(uuid):
                ledger.remove(uuid)
            case Resynced(listed, unread):
                ledger.replace(listed, unread, 800.0)
    explanation = explain(ledger, accounting, unreadable, others, NOW)

    named = [account.uuid for account in explanation.domains]
    read = {one.uuid for one in others.observations}
    assert len(named) == len(set(named))
    assert set(named) == {*ledger.uuids, *read, *others.failures, *unreadable}

    costs = [account.cost for account in explanation.domains]
    assert explanation.usage == ledger.usage
    columns = zip(*map(astuple, (explanation.reserved, *costs)), strict=True)
    assert explanation.usage == Usage(*map(sum, columns))
    assert explanation.reserved == accounting.reserved
    assert explanation.incomplete == others.incomplete

    for account in explanation.domains:
        record = ledger.record(account.uuid)
        # What costs something has a record, and no other thing has.
        assert account.cost == (NOTHING if record is None else record.cost)
        assert account.cost == NOTHING or not account.rule.startswith("not counted")
        if record is not None:
            assert account.read_seconds_ago in (100.0, 200.0)
            assert account.cause is record.mark.cause
        else:
            assert account.cause is None
            assert account.read_seconds_ago == (0.0 if account.uuid in read else None)
    keys = [
        (account.cost == NOTHING, account.name or "", account.uuid)
        for account in explanation.domains
    ]
    assert keys == sorted(keys)


def test_nothing_is_explained_by_what_is_reserved() -> None:
    """A host without domains has its reserves, and nothing beside."""
    accounting = Accounting("QEMU", Policy(reserved_vcpus=2, reserved_memory_mb=3))
    reserved = Usage(2, 3072)
    assert explain(Ledger(accounting), accounting, {}, Survey(), NOW) == Explanation(
        reserved, reserved, (), None
    )


def test_a_survey_that_found_nothing_is_empty() -> None:
    """Each has failures of its own."""
    survey = Survey()
    assert (survey.observations, survey.failures, survey.incomplete) == ((), {}, None)
    assert survey.failures is not Survey().failures


def test_a_record_tells_how_it_came(accounting: Accounting) -> None:
    """Its numbers as libvirt reports them, its age, and the event that led to it."""
    ledger = Ledger(accounting)
    ledger.apply(observed(), 997.0, STARTED)
    assert account_of(ledger, accounting) == DomainAccount(
        uuid=A,
        name="guest-a",
        state=DomainState.RUNNING,
        vcpus=2,
        memory_kib=1024,
        cost=Usage(2, 1024, 1),
        rule="counted: active",
        read_seconds_ago=3.0,
        cause=Cause.EVENT,
        detail="lifecycle started",
        unreadable=None,
    )


def test_a_domain_that_does_not_count_keeps_its_numbers(accounting: Accounting) -> None:
    """It was read for this account, so it was read now, and nothing led to it."""
    off = observed(state=DomainState.SHUTOFF)
    assert account_of(Ledger(accounting), accounting, others=Survey((off,))) == DomainAccount(
        uuid=A,
        name="guest-a",
        state=DomainState.SHUTOFF,
        vcpus=2,
        memory_kib=1024,
        cost=NOTHING,
        rule="not counted: shut off",
        read_seconds_ago=0.0,
        cause=None,
        detail="",
        unreadable=None,
    )


def test_the_record_stands_against_the_survey(accounting: Accounting) -> None:
    """The totals hold what the ledger has; what was just seen of the domain has its own event."""
    ledger = Ledger(accounting)
    ledger.apply(observed(), 997.0, STARTED)
    survey = Survey((observed(vcpus=5),), {A: "internal error"})
    account = account_of(ledger, accounting, others=survey)
    assert (account.vcpus, account.cost.vcpus_used, account.unreadable) == (2, 2, None)


def test_a_domain_that_came_just_now_is_not_in_the_sum(accounting: Accounting) -> None:
    """The totals do not have it yet, so neither may the account, or it would not add up."""
    account = account_of(Ledger(accounting), accounting, others=Survey((observed(),)))
    assert (account.cost, account.rule) == (NOTHING, "not counted yet")
    assert (account.vcpus, account.memory_kib) == (2, 1024)


def test_a_stuck_domain_counts_by_its_record_and_says_why(accounting: Accounting) -> None:
    """The reason stands beside the number that it makes old."""
    ledger = Ledger(accounting)
    ledger.apply(observed(), 700.0, STARTED)
    account = account_of(ledger, accounting, {A: "no answer within 5 s"})
    assert (account.cost.vcpus_used, account.read_seconds_ago) == (2, 300.0)
    assert account.unreadable == "no answer within 5 s"


def test_a_domain_that_was_read_just_now_can_be_read(accounting: Accounting) -> None:
    """What stood in the way before is over."""
    off = observed(state=DomainState.SHUTOFF)
    survey = Survey((off,))
    account = account_of(Ledger(accounting), accounting, {A: "no answer within 5 s"}, survey)
    assert account.unreadable is None


@pytest.mark.parametrize(
    ("unreadable", "failures", "reason"),
    [
        ({A: "no answer within 5 s"}, {}, "no answer within 5 s"),
        ({}, {A: "internal error"}, "internal error"),
        ({A: "no answer within 5 s"}, {A: "internal error"}, "no answer within 5 s"),
    ],
)
def test_a_domain_that_was_never_read_is_named_by_its_uuid(
    accounting: Accounting, unreadable: dict[str, str], failures: dict[str, str], reason: str
) -> None:
    """With the reason, and without a guess at a number."""
    survey = Survey(failures=failures)
    assert account_of(Ledger(accounting), accounting, unreadable, survey) == DomainAccount(
        uuid=A,
        name=None,
        state=None,
        vcpus=0,
        memory_kib=0,
        cost=NOTHING,
        rule="not counted: never read",
        read_seconds_ago=None,
        cause=None,
        detail="",
        unreadable=reason,
    )


def test_those_that_count_come_first_and_each_kind_by_name(accounting: Accounting) -> None:
    """Equal names, which the two halves of a rename can have, by their UUIDs."""
    ledger = Ledger(accounting)
    ledger.apply(observed(B, name="b"))
    ledger.apply(observed(A, name="c"))
    survey = Survey(
        tuple(observed(uuid, name="a", state=DomainState.SHUTOFF) for uuid in ("2", "1")),
        {"0": "internal error"},
    )
    explanation = explain(ledger, accounting, {}, survey, NOW)
    assert [(one.name, one.uuid) for one in explanation.domains] == [
        *(("b", B), ("c", A)),
        *((None, "0"), ("a", "1"), ("a", "2")),
    ]


def test_why_domains_may_be_missing_is_told(accounting: Accounting) -> None:
    """Libvirt did not list them, and this explanation does not pretend that it did."""
    survey = Survey(incomplete="not connected")
    assert explain(Ledger(accounting), accounting, {}, survey, NOW).incomplete == "not connected"
