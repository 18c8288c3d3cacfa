"""An account as text: every domain, the sums, nothing unescaped, eighty columns."""

from hypothesis import example, given
from hypothesis import strategies as st

from asynchost import MonitorSettings, Policy
from asynchost.accounting import DOMAIN_0_UUID, Accounting
from asynchost.explanation import Survey, explain
from asynchost.ledger import Ledger
from asynchost.model import DomainState, Observation
from asynchost.service.accounts import plain
from asynchost.service.explained import age, explained
from asynchost.service.terminal import width
from tests.support.strategies import hypervisor_types, observations, policies
from tests.unit.service.known import account, cost, domain


def test_each_domain_with_what_it_adds_and_why() -> None:
    """State, vCPUs, memory, when last read and why, whether it counts and by which rule."""
    web = domain("web")
    idle = domain("idle", counts=False, read_seconds_ago=0.0, cause=None, detail="")
    assert list(explained(account(web, idle))) == [
        "qemu:///system = node1: daemon 4711, fresh, default policy",
        "  domain            state    vCPUs        KiB  last read   why",
        "  web               running      2     131072  3s event    counted: active",
        "  idle              shutoff      2     131072  now         not counted: shut off",
        "  1 counted                      2     131072",
        "  reserved                       0          0",
        "  total                          2     131072",
        "  vcpus_used 2, memory_mb_used 128, running_vms 1, current_workload 0",
    ]


@example(
    "Xen",
    Policy(),
    [Observation(DOMAIN_0_UUID, "Domain-0", 0, DomainState.RUNNING, 0, None, 1, 0, 1024)],
)
@given(
    hypervisor_types, policies, st.lists(observations(), max_size=6, unique_by=lambda one: one.uuid)
)
def test_what_the_counted_domains_add_are_the_sums(
    hypervisor_type: str, policy: Policy, domains: list[Observation]
) -> None:
    """Whatever counts of a domain: its maximum memory, or its memory without its vCPUs."""
    accounting = Accounting(hypervisor_type, policy)
    ledger = Ledger(accounting)
    ledger.replace(domains)
    explanation = explain(ledger, accounting, {}, Survey(tuple(domains)), now=0.0)
    lines = list(explained(account(explanation=plain(explanation))))
    numbers = [(int(line[30:35]), int(line[36:46])) for line in lines[2:-1]]
    *rows, counted, reserved, total = numbers
    adding = [row for row, line in zip(rows, lines[2:], strict=False) if "not counted" not in line]
    assert counted == tuple(sum(row[i] for row in adding) for i in (0, 1))
    assert total == tuple(counted[i] + reserved[i] for i in (0, 1))


def test_the_heading_says_who_knows_it_and_since_when() -> None:
    """A policy that is not the default is told, and so is a frozen total's age."""
    policy = Policy(reserved_vcpus=2, exclude=("test-*",))
    first = next(
        explained(
            account(
                host="rack1", stale_seconds=90.0, settings=MonitorSettings(policy=policy), pid=1
            )
        )
    )
    assert first == (
        "rack1 = node1 (qemu:///system): daemon 1, stale for 2m,"
        " reserved_vcpus=2, exclude=('test-*',)"
    )
    assert next(explained(account(pid=None))).endswith("looked at now, default policy")


def test_before_the_first_listing_there_are_no_numbers() -> None:
    """Unknown is never zero, and not fresh."""
    assert "not ready" in next(explained(account(explanation=None)))
    assert list(explained(account(explanation=None)))[1:] == [
        "  no totals yet: the first listing is not complete"
    ]


def test_what_cannot_be_read_is_named_with_the_reason() -> None:
    """A stuck domain counts by its last record; one that was never read by its UUID, as unknown."""
    stuck = domain("stuck", unreadable="no answer within 5 s")
    never = domain(None, counts=False, state=None, read_seconds_ago=None, cause=None)
    lines = list(explained(account(stuck, never)))
    assert lines[3] == "    cannot be read: no answer within 5 s"
    assert lines[4].split()[:2] == ["uuid-of-None", "unknown"]
    assert " never " in lines[4]


def test_names_that_begin_alike_can_be_told_apart() -> None:
    """Nova's stand in full; of longer ones the ends are seen, of wide ones, too."""
    names = ["instance-0000001a", "instance-0000001b"]
    names += [f"{word * 30}-{number}" for word in ("web", "\u6f22\u5b57") for number in (1, 2)]
    lines = list(explained(account(*map(domain, names))))[2:-4]
    assert [line.split()[0] for line in lines[:2]] == names[:2]
    assert len({line[:20] for line in lines}) == 6
    # The columns stand in line.
    assert {width(line.partition("running")[0]) for line in lines} == {20}


def test_an_incomplete_survey_is_told() -> None:
    """Nobody shall take a missing domain for an absent one."""
    incomplete = account()
    assert incomplete.explanation is not None
    explanation = {**incomplete.explanation, "incomplete": "listing\x1b blocked"}
    assert list(explained(account(explanation=explanation)))[-1] == (
        "  domains that do not count may be missing: listing\\x1b blocked"
    )


@given(
    name=st.text(max_size=40),
    state=st.integers(-1, 99),
    memory_kib=st.integers(0, 2**33),
    vcpus=st.integers(0, 4096),
    seconds=st.floats(0, 1e8),
    cause=st.sampled_from(["event", "look-again", "audit", "resync"]),
)
def test_a_line_fits_a_terminal_and_moves_no_cursor(
    name: str, state: int, memory_kib: int, vcpus: int, seconds: float, cause: str
) -> None:
    """Names come from outside; the policy's own patterns alone can make a line longer."""
    one = domain(
        name,
        state=state,
        memory_kib=memory_kib,
        vcpus=vcpus,
        cost=cost(vcpus, memory_kib, 1),
        read_seconds_ago=seconds,
        cause=cause,
    )
    for line in list(explained(account(one)))[1:]:
        assert line.isprintable()
        assert width(line) <= 80


def test_ages_are_short() -> None:
    """Two to four characters, in the largest unit that fits."""
    ages = [age(seconds) for seconds in (0.0, 0.0123, 1, 59, 60, 3_599, 3_600, 86_400, 864_000)]
    assert ages == ["0.0s", "0.0s", "1s", "59s", "1m", "60m", "1h", "1d", "10d"]
