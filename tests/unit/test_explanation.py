"""Where the totals come from: each domain once, with what it adds, and nothing made up."""

from hypothesis import given
from hypothesis import strategies as st

from asynchost.accounting import Accounting, Policy
from asynchost.agenda import Mark
from asynchost.explanation import DomainAccount, Explanation, Survey, explain
from asynchost.ledger import Ledger
from asynchost.model import Cause, DomainState, Observation, Usage

ACCOUNTING = Accounting("QEMU", Policy(reserved_vcpus=1))
EVENT = Mark(Cause.EVENT, "lifecycle started")


def seen(uuid: str, state: int = DomainState.RUNNING, vcpus: int = 2) -> Observation:
    """A guest of 1 MiB named after its UUID."""
    return Observation(uuid, f"guest-{uuid}", 1, state, 0, None, vcpus, 1024, 2048)


def explained(
    *records: Observation,
    others: Survey = Survey(),  # noqa: B008 - it is frozen
    unreadable: dict[str, str] | None = None,
) -> tuple[Explanation, dict[str, DomainAccount]]:
    """The account at 10 s of records that were read at 7 s, and its domains by UUID."""
    ledger = Ledger(ACCOUNTING)
    for record in records:
        ledger.apply(record, 7.0, EVENT)
    explanation = explain(ledger, ACCOUNTING, unreadable or {}, others, 10.0)
    assert len({one.uuid for one in explanation.domains}) == len(explanation.domains)
    return explanation, {one.uuid: one for one in explanation.domains}


def test_a_record_says_what_it_adds_and_how_it_is_known() -> None:
    """The cost, the rule, the age, the cause and libvirt's word for it."""
    explanation, domains = explained(seen("a"))
    assert (explanation.usage, explanation.reserved) == (Usage(3, 1024, 1, 0), Usage(1))
    assert domains["a"] == DomainAccount(
        uuid="a",
        name="guest-a",
        state=DomainState.RUNNING,
        vcpus=2,
        memory_kib=1024,
        cost=Usage(2, 1024, 1, 0),
        rule="counted: active",
        read_seconds_ago=3.0,
        cause=Cause.EVENT,
        detail="lifecycle started",
        unreadable=None,
    )


def test_a_domain_that_does_not_count_was_read_for_the_account() -> None:
    """It adds nothing, and its figures are shown all the same."""
    _, domains = explained(others=Survey((seen("b", DomainState.SHUTOFF),)))
    one = domains["b"]
    assert (one.cost, one.vcpus, one.read_seconds_ago, one.cause) == (Usage(), 2, 0.0, None)
    assert one.rule == "not counted: shut off"


def test_a_domain_that_came_just_now_does_not_count_yet() -> None:
    """The totals know it no sooner than its event is read: they stay the sum of what is shown."""
    explanation, domains = explained(others=Survey((seen("c"),)))
    assert (domains["c"].cost, domains["c"].rule) == (Usage(), "not counted yet")
    assert explanation.usage == Usage(1)


def test_what_has_a_record_counts_by_it() -> None:
    """Whatever was read meanwhile."""
    _, domains = explained(seen("a"), others=Survey((seen("a", vcpus=9),)))
    assert domains["a"].vcpus == 2


def test_what_cannot_be_read_is_named_with_the_reason() -> None:
    """With its last record, or as never read, once, by the reason that is known longer."""
    others = Survey(failures={"d": "just now", "e": "busy"}, incomplete="blocked")
    explanation, domains = explained(
        seen("a"), others=others, unreadable={"a": "no answer", "d": "for long"}
    )
    assert (domains["a"].unreadable, domains["a"].cost) == ("no answer", Usage(2, 1024, 1, 0))
    assert (domains["d"].unreadable, domains["e"].unreadable) == ("for long", "busy")
    for never in (domains["d"], domains["e"]):
        assert (never.name, never.state, never.read_seconds_ago) == (None, None, None)
        assert (never.cost, never.rule) == (Usage(), "not counted: never read")
    assert explanation.incomplete == "blocked"


@given(
    st.lists(st.builds(seen, st.sampled_from("abcdef"), st.integers(0, 8), st.integers(0, 9))),
    st.lists(st.builds(seen, st.sampled_from("abcdef"), st.integers(0, 8), st.integers(0, 9))),
    st.dictionaries(st.sampled_from("abcdefgh"), st.just("no answer")),
)
def test_the_parts_are_the_sum(
    records: list[Observation], others: list[Observation], unreadable: dict[str, str]
) -> None:
    """What the domains add and what is reserved, and no domain twice; what counts comes first."""
    survey = Survey(tuple(others), unreadable)
    explanation, _ = explained(*records, others=survey, unreadable=unreadable)
    costs = [one.cost for one in explanation.domains]
    parts = zip(explanation.reserved, *costs, strict=True)
    assert tuple(map(sum, parts)) == explanation.usage
    assert costs == sorted(costs, key=lambda cost: cost == Usage())
