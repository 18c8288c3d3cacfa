"""Domain events: complete, in order, each told once, and nothing where nobody listens."""

from collections import defaultdict
from dataclasses import astuple
from datetime import timedelta

import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import LogCapture

from asynchost.agenda import Agenda, Mark
from asynchost.domains import Domain, DomainEvent, EventKind, EventReason, Lifecycle, Origin
from asynchost.errors import HypervisorUnavailableError
from asynchost.host_state import HostState
from asynchost.model import Cause, DomainState, Observation, Usage
from asynchost.subscription import DomainEvents, DomainStreams, EventFilter
from tests.support.strategies import (
    AT,
    Gone,
    Lost,
    Observed,
    Resynced,
    Step,
    Unreadable,
    histories,
    hypervisor_types,
)

A = "6f000000-0000-4000-8000-00000000000a"
B = "6f000000-0000-4000-8000-00000000000b"
STARTED = Lifecycle(EventKind.STARTED, EventReason.BOOTED, 2, 0)
RESUMED = Lifecycle(EventKind.RESUMED, EventReason.UNPAUSED, 4, 0)
STOPPED = Lifecycle(EventKind.STOPPED, EventReason.DESTROYED, 5, 1)
EVENT = Mark(Cause.EVENT, "lifecycle started")
BROKEN = HypervisorUnavailableError("h", "broke")


def observed(uuid: str = A, **more: object) -> Observation:
    """A running guest."""
    running = Observation(uuid, f"g-{uuid[-1]}", 7, DomainState.RUNNING, 0, None, 2, 1024, 2048)
    return running._replace(**more)  # type: ignore[arg-type]


class Followed:
    """A host's state, and streams of what happens to its domains."""

    def __init__(self, kind: str = "QEMU") -> None:
        self.now = 100.0
        log = structlog.wrap_logger(None, processors=[LogCapture()])
        self.state = HostState("h", "n", lambda: self.now, log, utc_now=lambda: AT)
        self.streams = DomainStreams()
        self.state.connected(1, kind)
        self.stream: DomainEvents | None = None

    def subscribe(
        self, uuid: str | None = None, kinds: tuple[EventKind, ...] = (), limit: int = 10_000
    ) -> DomainEvents:
        """As a monitor does it."""
        if not self.streams:
            self.state.feed_domains("epoch", self.streams)
        self.stream = DomainEvents(
            *(self.streams.forget, limit, EventFilter(uuid, frozenset(kinds)), self.state.domain),
            host="h",
            check_loop=lambda: None,
        )
        if self.state.ready:
            self.stream.begin(self.state.records)
        return self.streams.add(self.stream)

    @property
    def domains(self) -> dict[str, Domain]:
        """The table now."""
        return {uuid: self.state.domain(one) for uuid, one in self.state.records.items()}

    def told(self) -> list[DomainEvent]:
        """What the newest stream was told since the last time."""
        assert self.stream is not None
        items = list(self.stream._backlog)
        self.stream._backlog.clear()
        return items

    def event(self, uuid: str, lifecycle: Lifecycle) -> Mark:
        """A lifecycle event comes; returns the mark of its read."""
        number = self.state.lifecycle(uuid, lifecycle, lambda: f"g-{uuid[-1]}")
        return Mark(Cause.EVENT, "", number)


def ready() -> Followed:
    """A host with one guest that runs."""
    followed = Followed()
    followed.state.resynced([observed(A)], frozenset())
    return followed


def apply(table: dict[str, Domain], items: list[DomainEvent]) -> None:
    """Put each item's ``after`` in."""
    for item in items:
        if not item.known:
            assert item.after is None
            continue
        assert item.before == table.get(item.uuid)
        if item.after is None:
            table.pop(item.uuid, None)
        else:
            table[item.uuid] = item.after


lifecycles = st.sampled_from((STARTED, RESUMED, STOPPED))


class Reckoning:
    """What a subscriber makes of a stream, and what was sent into it."""

    def __init__(self, followed: Followed) -> None:
        self.followed = followed
        self.table: dict[str, Domain] | None = None
        self.sent: dict[str, list[Lifecycle]] = defaultdict(list)
        self.told: dict[str, list[Lifecycle]] = defaultdict(list)
        self.numbers: list[int] = []

    def send(self, uuid: str, lifecycles: list[Lifecycle]) -> int:
        """Let events come; returns the number for the mark of their read."""
        number = 0
        for lifecycle in lifecycles:
            number = self.followed.event(uuid, lifecycle).number
            if self.followed.stream is not None:
                self.sent[uuid].append(lifecycle)
        return number

    def agrees(self) -> None:
        """Everything that was told so far adds up."""
        followed = self.followed
        if followed.stream is None or not followed.state.ready:
            return
        if self.table is None:
            self.table = dict(followed.stream.initial)
        items = followed.told()
        apply(self.table, items)
        for item in items:
            self.numbers.append(item.number)
            if item.reason is None:
                assert (item.kind, item.before != item.after) == (EventKind.CHANGED, True)
            else:
                raw = (item.raw_kind or 0, item.raw_reason or 0)
                self.told[item.uuid].append(Lifecycle(item.kind, item.reason, *raw))
        assert self.table == followed.domains
        assert self.told == self.sent
        assert self.numbers == list(range(1, len(self.numbers) + 1))


def sum_of(domains: dict[str, Domain]) -> Usage:
    """What they add, field by field."""
    costs = [astuple(domain.cost) for domain in domains.values()]
    return Usage(*map(sum, zip((0, 0, 0, 0), *costs, strict=True)))


@settings(max_examples=150)
@given(hypervisor_types, histories(), st.data())
def test_the_initial_table_with_every_after_put_in_is_the_table(
    kind: str, history: list[Step], data: st.DataObject
) -> None:
    """For every domain, after every step, whenever the stream began; every lifecycle event of it
    is told exactly once, in the order of its domain; what the domains add is the usage."""
    followed = Followed(kind)
    state, begins, generation = followed.state, data.draw(st.integers(0, len(history))), 1
    ledger = Reckoning(followed)
    events = st.lists(lifecycles, max_size=3)
    for position, step in enumerate(history):
        if position == begins:
            followed.subscribe()
        match step:
            case Observed(observation, cause):
                number = ledger.send(observation.uuid, data.draw(events))
                state.observed(observation, Mark(cause, "", number))
            case Gone(uuid, cause):
                state.gone(uuid, Mark(cause, "", ledger.send(uuid, data.draw(events))))
            case Unreadable(uuid, reason):
                ledger.send(uuid, data.draw(events))
                state.unreadable(uuid, reason, stuck=False)
            case Resynced(listed, unread):
                state.resynced(listed, unread)
            case Lost():
                ledger.send(A, data.draw(events))
                state.disconnected(BROKEN)
                generation += 1
                state.connected(generation, kind)
        ledger.agrees()
        if state.ready:
            assert state.usage == sum_of(followed.domains)


def test_an_event_is_told_when_its_read_has_returned() -> None:
    """With the numbers of that read, and everything libvirt said."""
    followed = ready()
    followed.subscribe()
    mark = followed.event(B, STARTED)
    assert followed.told() == []
    followed.state.observed(observed(B), mark)
    (item,) = followed.told()
    domain = Domain(
        *(B, "g-b", 7, DomainState.RUNNING, 2, 1024, 2048, Usage(2, 1024, 1), "counted: active"),
        *(AT, Cause.EVENT, ""),
    )
    assert item == DomainEvent(
        *(1, "epoch", AT, 1, "h", B, "g-b", EventKind.STARTED, EventReason.BOOTED, 2, 0),
        *(None, domain, True, Origin.EVENT),
    )
    assert item.id == "epoch-1"


def test_two_events_that_one_read_answers_are_two_items() -> None:
    """The first has the step, the second finds the domain as the first left it."""
    followed = ready()
    followed.subscribe()
    followed.event(A, RESUMED)
    mark = followed.event(A, STOPPED)
    followed.state.gone(A, mark)
    first, second = followed.told()
    assert (first.kind, first.after, second.kind) == (EventKind.RESUMED, None, EventKind.STOPPED)
    assert first.before is not None
    assert second.before is second.after is None
    assert second.name == "g-a"


def test_an_event_that_comes_during_a_read_waits_for_the_next_read() -> None:
    """The read that is under way began before the event, so it does not answer the event."""
    followed, agenda = ready(), Agenda()
    followed.subscribe()
    agenda.mark(A, followed.event(A, RESUMED))
    ((_, first),) = agenda.take(background=False, most=1)
    agenda.mark(A, followed.event(A, STOPPED))
    agenda.mark(A, Mark(Cause.LOOK_AGAIN))
    agenda.mark(A, Mark(Cause.AUDIT))
    followed.state.observed(observed(A), first)
    agenda.done(A)
    assert [item.kind for item in followed.told()] == [EventKind.RESUMED]
    ((_, second),) = agenda.take(background=False, most=1)
    followed.state.gone(A, second)
    assert [item.kind for item in followed.told()] == [EventKind.STOPPED]


def test_a_read_that_is_taken_back_answers_both() -> None:
    """It never began, so the read that takes its place began after both events."""
    followed, agenda = ready(), Agenda()
    followed.subscribe()
    agenda.mark(A, followed.event(A, RESUMED))
    ((_, mark),) = agenda.take(background=False, most=1)
    agenda.mark(A, followed.event(A, STOPPED))
    agenda.put_back(A, mark)
    ((_, mark),) = agenda.take(background=False, most=1)
    followed.state.gone(A, mark)
    assert [item.kind for item in followed.told()] == [EventKind.RESUMED, EventKind.STOPPED]


def test_what_no_lifecycle_event_told_is_a_change_with_its_origin() -> None:
    """A balloon's event, a recheck, an audit: each says how the monitor learned of it."""
    followed = ready()
    followed.subscribe()
    for vcpus, cause in enumerate(Cause, 3):
        followed.state.observed(observed(A, vcpus=vcpus), Mark(cause))
        followed.state.observed(observed(A, vcpus=vcpus), Mark(cause))
    items = followed.told()
    assert [item.kind for item in items] == [EventKind.CHANGED] * 4
    assert [item.origin for item in items] == [
        Origin.RESYNC,
        Origin.EVENT,
        Origin.RECHECK,
        Origin.AUDIT,
    ]
    assert {(item.reason, item.raw_kind, item.raw_reason) for item in items} == {(None, None, None)}


def test_a_read_that_outlives_its_deadline_is_told_as_unknown() -> None:
    """Never with the old record as if it were new; the late result is a change of its own."""
    followed = ready()
    followed.subscribe()
    mark = followed.event(A, STOPPED)
    followed.state.unreadable(A, "no answer within 5 s", stuck=True)
    (item,) = followed.told()
    assert (item.kind, item.known, item.after) == (EventKind.STOPPED, False, None)
    assert item.before == followed.domains[A]
    followed.event(A, STOPPED)
    followed.state.lifecycle_unanswered(A)
    assert [one.known for one in followed.told()] == [False]
    followed.state.gone(A, mark)
    (late,) = followed.told()
    assert (late.kind, late.known, late.after) == (EventKind.CHANGED, True, None)


def test_a_lost_connection_leaves_no_event_untold() -> None:
    """Its reads will not return."""
    followed = ready()
    followed.subscribe()
    followed.event(A, STOPPED)
    followed.state.disconnected(BROKEN)
    assert [(one.kind, one.known) for one in followed.told()] == [(EventKind.STOPPED, False)]


def test_a_resync_tells_what_came_and_went_unseen() -> None:
    """And the events whose reads were part of it carry their step."""
    followed = ready()
    followed.subscribe()
    followed.state.disconnected(BROKEN)
    followed.state.connected(2, "QEMU")
    mark = followed.event(B, STARTED)
    followed.state.staged(B, mark)
    late = followed.event(B, RESUMED)
    followed.state.resynced([observed(B)], frozenset())
    started, went = followed.told()
    assert (started.uuid, started.kind, started.before) == (B, EventKind.STARTED, None)
    assert started.after == followed.domains[B]
    assert (went.uuid, went.kind, went.after) == (A, EventKind.CHANGED, None)
    assert (went.origin, went.generation) == (Origin.RESYNC, 2)
    followed.state.observed(observed(B), late)
    assert [item.kind for item in followed.told()] == [EventKind.RESUMED]


def test_a_stream_can_want_one_domain_or_some_kinds() -> None:
    """Its table is of that domain; its numbers are everybody's."""
    followed = ready()
    followed.state.observed(observed(B), EVENT)
    stream = followed.subscribe(uuid=B, kinds=(EventKind.STOPPED,))
    assert list(stream.initial) == [B]
    for uuid in (A, B):
        followed.state.observed(observed(uuid), followed.event(uuid, RESUMED))
        followed.state.gone(uuid, followed.event(uuid, STOPPED))
    assert [(one.number, one.uuid, one.kind) for one in followed.told()] == [
        (4, B, EventKind.STOPPED)
    ]


async def test_what_a_slow_subscriber_loses_is_counted_in_the_next_item() -> None:
    """Of each stream by itself; the others have everything."""
    followed = ready()
    slow, quick = followed.subscribe(limit=2), followed.subscribe()
    for vcpus in range(3, 8):
        followed.state.observed(observed(A, vcpus=vcpus), Mark(Cause.AUDIT))
    lost = [(one.number, one.lost) for one in [await anext(slow), await anext(slow)]]
    assert lost == [(4, 3), (5, 0)]
    assert [one.lost for one in [await anext(quick) for _ in range(5)]] == [0] * 5


def test_nothing_is_kept_where_nobody_listens() -> None:
    """No number, no waiting event; what waited when the last one left is nobody's."""
    followed = ready()
    assert followed.event(A, STOPPED).number == 0
    stream = followed.subscribe()
    followed.event(A, RESUMED)
    stream.close()
    assert followed.event(A, STOPPED).number == 0
    followed.subscribe()
    followed.state.gone(A, followed.event(A, STOPPED))
    assert [one.kind for one in followed.told()] == [EventKind.STOPPED]


def test_a_domain_is_dated_by_its_read() -> None:
    """Two records of one domain are equal whenever they were read."""
    followed = ready()
    before = followed.domains[A]
    followed.now += 5
    assert followed.domains[A].read_at == AT - timedelta(seconds=5)
    assert followed.domains[A] == before
