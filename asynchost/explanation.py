"""Where a host's totals come from, domain by domain.

Pure. Memory: one account for each domain of the host, for as long as somebody looks at it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from asynchost.accounting import Accounting
from asynchost.agenda import Mark
from asynchost.ledger import Ledger
from asynchost.model import Cause, Observation, Usage
from asynchost.plain import PlainRecord


@dataclass(frozen=True, slots=True)
class Survey:
    """The domains that have no record, because they do not count or could not be read."""

    observations: tuple[Observation, ...] = ()
    """Read just now."""
    failures: Mapping[str, str] = field(default_factory=dict)
    """UUIDs of those that could not be read now, each with the reason."""
    incomplete: str | None = None
    """Why the domains that do not count could not be listed; None if they were."""


@dataclass(frozen=True, slots=True)
class DomainAccount(PlainRecord):
    """One domain's part in its host's totals, and how it is known."""

    uuid: str
    name: str | None
    """Text from outside: escape it wherever it is shown. None if it was never read."""
    state: int | None
    """libvirt's number, as in :class:`~asynchost.model.DomainState`; None if it was never read."""
    vcpus: int
    """As libvirt reports them, whether they count or not; so for the memory."""
    memory_kib: int
    cost: Usage
    """What it adds to the totals."""
    rule: str
    """Whether it counts, and why, in a few words."""
    read_seconds_ago: float | None
    """0 for one that was read for this account; None if it was never read."""
    cause: Cause | None
    """Why it was read last; None if that was for this account."""
    detail: str
    """libvirt's word for what led to it, such as ``lifecycle started``."""
    unreadable: str | None
    """Why it cannot be read at the moment; None if it can."""


@dataclass(frozen=True, slots=True)
class Explanation(PlainRecord):
    """A host's totals as a sum: that of its domains' costs, and what is reserved."""

    usage: Usage
    reserved: Usage
    domains: tuple[DomainAccount, ...]
    """Those that count first, by name."""
    incomplete: str | None
    """Why domains that do not count may be missing here; None if none is."""


def explain(
    ledger: Ledger,
    accounting: Accounting,
    unreadable: Mapping[str, str],
    others: Survey,
    now: float,
) -> Explanation:
    """Account for every domain. What has a record counts by it, whatever ``others`` say."""
    accounts = [
        _account(
            accounting,
            record.observation,
            now - record.read_at,
            record.mark,
            unreadable.get(record.observation.uuid),
        )
        for record in ledger.records()
    ]
    known = set(ledger.uuids)
    for observation in others.observations:
        if observation.uuid not in known:
            known.add(observation.uuid)
            # Read just now: whatever was in the way of an earlier read is over.
            accounts.append(_account(accounting, observation, 0.0, None, None))
    accounts += [
        DomainAccount(
            uuid, None, None, 0, 0, Usage(), "not counted: never read", None, None, "", reason
        )
        for uuid, reason in {**others.failures, **unreadable}.items()
        if uuid not in known
    ]
    accounts.sort(key=lambda account: (account.cost == Usage(), account.name or "", account.uuid))
    return Explanation(ledger.usage, accounting.reserved, tuple(accounts), others.incomplete)


def _account(
    accounting: Accounting,
    observation: Observation,
    age_seconds: float,
    mark: Mark | None,
    unreadable: str | None,
) -> DomainAccount:
    cost, rule = accounting.cost(observation), accounting.rule(observation)
    if mark is None and cost != Usage():
        # It came just now, and its event is on its way.
        cost, rule = Usage(), "not counted yet"
    return DomainAccount(
        uuid=observation.uuid,
        name=observation.name,
        state=observation.state,
        vcpus=observation.vcpus,
        memory_kib=observation.memory_kib,
        cost=cost,
        rule=rule,
        read_seconds_ago=age_seconds,
        cause=None if mark is None else mark.cause,
        detail="" if mark is None else mark.detail,
        unreadable=unreadable,
    )
