"""Hypothesis strategies for the core's records, and for what can happen to a host.

May live here: how random values are made. Must not: what is promised of them, which is each
test's own. The pools are small on purpose: steps have to meet on the same domain to matter.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise, product

from hypothesis import strategies as st

from asynchost.accounting import Counted, CountedMemory, Policy
from asynchost.model import Cause, Change, ChangeKind, Observation, Usage

DOMAIN_0 = "00000000-0000-0000-0000-000000000000"
UUIDS = (DOMAIN_0, *(f"6f000000-0000-4000-8000-{number:012x}" for number in range(1, 6)))
"""Few domains; the first one's UUID is Domain-0's, an ordinary guest's wherever there is no Xen."""

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
"""When every change was, where the time is no matter of the test."""

HYPERVISOR_TYPES = ("QEMU", "Xen", "LXC", "BHYVE", "TEST", "vz")

uuids = st.sampled_from(UUIDS)
hypervisor_types = st.sampled_from(HYPERVISOR_TYPES)
causes = st.sampled_from(tuple(Cause))

_patterns = st.sampled_from(((), ("web-*",), ("build-*", "*-05"), ("*",), ("web-[!1]",)))
policies = st.builds(
    Policy,
    count=st.sampled_from(Counted),
    memory=st.sampled_from(CountedMemory),
    reserved_vcpus=st.sampled_from((0, 1, 4)),
    reserved_memory_mb=st.sampled_from((0, 512)),
    domain_0_memory=st.booleans(),
    domain_0_vcpus=st.booleans(),
    include=_patterns,
    exclude=_patterns,
)

_counts = st.integers(0, 64)
_memory_kib = st.integers(0, 2**22)


# vCPUs, memory and maximum memory in KiB: none is a sum of others, some are whole MiB, some are 0.
_sizes = st.sampled_from(
    (
        *((0, 0, 0), (1, 0, 2**20), (1, 464, 65_536), (2, 1023, 1024), (3, 1024, 1024)),
        *((5, 4095, 8191), (8, 16_384, 16_385), (16, 2**20, 2**21), (64, 2**22 - 1, 2**23)),
    )
)
# In one draw instead of four: states and reasons to some that are yet to come, ids from Domain-0's.
_circumstances = st.sampled_from(
    tuple(product(range(10), range(15), (None, True, False), (-1, 0, 1)))
)
# The same domain may have another name each time it is read: names are only what they are now.
_names = st.sampled_from(("guest", "web-1", "web-2", "build-1", "Web-1"))


@st.composite
def observations(draw: st.DrawFn, of: st.SearchStrategy[str] = uuids) -> Observation:
    """What a read can return: each known state and reason, and some of the future's."""
    uuid = draw(of)
    state, reason, active, domain_id = draw(_circumstances)
    name = draw(_names)
    vcpus, memory_kib, max_memory_kib = draw(_sizes)
    return Observation(
        uuid=uuid,
        name=name,
        domain_id=domain_id,
        state=state,
        reason=reason,
        active=active,
        vcpus=vcpus,
        memory_kib=memory_kib,
        max_memory_kib=max_memory_kib,
    )


usages = st.builds(Usage, _counts, _memory_kib, _counts, _counts)


@st.composite
def chained_changes(draw: st.DrawFn, max_size: int = 40) -> list[Change]:
    """Changes of one host as a monitor makes them: each begins where the last one ended."""
    totals = draw(st.lists(usages, min_size=1, max_size=max_size + 1))
    return [
        Change(
            *("host", 1, before, after, draw(causes)),
            uuid=draw(uuids),
            kind=draw(st.sampled_from(ChangeKind)),
            number=number,
            at=AT,
        )
        for number, (before, after) in enumerate(pairwise(totals), 1)
    ]


@dataclass(frozen=True)
class Observed:
    """A domain was read."""

    observation: Observation
    cause: Cause


@dataclass(frozen=True)
class Gone:
    """A domain was looked for and is not there any more."""

    uuid: str
    cause: Cause


@dataclass(frozen=True)
class Unreadable:
    """A domain's read failed or hangs."""

    uuid: str
    reason: str


@dataclass(frozen=True)
class Resynced:
    """A full listing; the domains in ``unread`` could not be read."""

    observations: tuple[Observation, ...]
    unread: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Lost:
    """The connection broke; what comes next is a resync."""


Read = Observed | Gone
Step = Observed | Gone | Unreadable | Resynced | Lost

reads = st.one_of(
    st.builds(Observed, observations(), causes),
    st.builds(Gone, uuids, causes),
)


@st.composite
def listings(draw: st.DrawFn) -> Resynced:
    """A listing of some domains, each read once, others listed but not readable."""
    listed = draw(st.lists(observations(), max_size=4, unique_by=lambda one: one.uuid))
    unread = draw(st.frozensets(uuids)) - {one.uuid for one in listed}
    return Resynced(tuple(listed), unread)


_unreadable = st.builds(Unreadable, uuids, st.sampled_from(("timed out", "internal error")))


@st.composite
def histories(draw: st.DrawFn) -> list[Step]:
    """What a source can tell, in an order that it keeps: a resync before any read, none while lost.

    Within that, anything: duplicates, late and reordered reads, domains that come back.
    """
    history: list[Step] = []
    for _ in range(draw(st.integers(1, 3))):
        history.append(draw(listings()))
        history += draw(st.lists(st.one_of(reads, _unreadable), max_size=8))
        history.append(Lost())
    return history if draw(st.booleans()) else history[:-1]


@st.composite
def deliveries_of(draw: st.DrawFn, truths: dict[str, Observation | None]) -> list[Read]:
    """Every domain's last truth, in any order, some of them more than once; None is "gone"."""
    told = [
        Gone(uuid, Cause.EVENT) if truth is None else Observed(truth, Cause.EVENT)
        for uuid, truth in truths.items()
    ]
    repeated = draw(st.lists(st.sampled_from(told), max_size=4)) if told else []
    return draw(st.permutations(told + repeated))


last_truths = st.fixed_dictionaries(
    {uuid: st.one_of(st.none(), observations(st.just(uuid))) for uuid in UUIDS}
)
"""How each domain really is in the end: observed so, or gone."""
