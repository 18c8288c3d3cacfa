"""One host's state: what it says of totals, freshness, drift, facts and disk, step by step."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from structlog.testing import LogCapture

from asynchost.accounting import PAUSED_STARTING_UP
from asynchost.agenda import Mark
from asynchost.errors import HypervisorUnavailableError, NotReadyError
from asynchost.explanation import Survey
from asynchost.host_state import EVENT_MAY_FOLLOW_SECONDS, HostState
from asynchost.model import (
    Cause,
    Change,
    ChangeKind,
    DiskUsage,
    DomainState,
    Drift,
    HostFacts,
    Observation,
    Usage,
)
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

URI = "qemu:///system"
A = "6f000000-0000-4000-8000-00000000000a"
B = "6f000000-0000-4000-8000-00000000000b"
EVENT = Mark(Cause.EVENT, "lifecycle started")
AUDIT = Mark(Cause.AUDIT)
FACTS = HostFacts("node-1", "QEMU", 7_002_022, 8, 16_000, {})
BROKEN = HypervisorUnavailableError(URI, "the connection broke")


def observed(uuid: str = A, vcpus: int = 1, memory_kib: int = 1024, **more: Any) -> Observation:
    """A running guest named after the end of its UUID."""
    running = Observation(
        uuid, f"guest-{uuid[-1]}", 1, DomainState.RUNNING, 0, None, vcpus, memory_kib, 0
    )
    return running._replace(**more)


class Watched:
    """A state with a clock of its own, and everything that it told somebody."""

    def __init__(self, name: str | None = None) -> None:
        self.now = 100.0
        self.capture = LogCapture()
        log = structlog.wrap_logger(None, processors=[self.capture])
        self.state = HostState(URI, name, lambda: self.now, log, utc_now=lambda: AT)
        self.changes: list[Change] = []
        self.drifts: list[Drift] = []
        self.notified = 0
        self.state.on_change(self.changes.append)
        self.state.on_drift(self.drifts.append)
        self.remove_listener = self.state.add_listener(self._notice)

    def _notice(self) -> None:
        self.notified += 1

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The lines with this event."""
        return [dict(line) for line in self.capture.entries if line["event"] == event]

    def tells(self, act: Callable[[], object]) -> bool:
        """Whether listeners are called by it, and at most once."""
        before = self.notified
        act()
        assert self.notified - before <= 1
        return self.notified > before


@pytest.fixture
def watched() -> Watched:
    """A state before any connection."""
    return Watched()


@pytest.fixture
def ready() -> Watched:
    """A state after its first resync, with one domain A of one vCPU and a MiB."""
    watched = Watched()
    watched.state.connected(1, "QEMU")
    watched.state.resynced([observed(A)], frozenset())
    return watched


def test_a_programs_own_logger_will_do() -> None:
    """Also structlog's plainest, which takes whatever it is asked for as a line to log."""
    log = structlog.wrap_logger(
        logging.getLogger("of a program"),
        processors=[structlog.stdlib.filter_by_level, structlog.processors.KeyValueRenderer()],
        wrapper_class=structlog.BoundLogger,
    )
    state = HostState(URI, None, lambda: 0.0, log)
    changes: list[Change] = []
    state.on_change(changes.append)
    state.connected(1, "QEMU")
    state.resynced([], frozenset())
    state.observed(observed(vcpus=2), EVENT)
    assert [change.after.vcpus_used for change in changes] == [2]


# -- totals and changes ---------------------------------------------------------------------------


@settings(max_examples=60)
@given(hypervisor_types, histories())
def test_changes_chain_over_any_history(kind: str, history: list[Step]) -> None:
    """``before`` is the last ``after``, also across reconnects, and the sum is the totals."""
    watched = Watched()
    state, generation, first = watched.state, 1, None
    state.connected(generation, kind)
    for step in history:
        match step:
            case Observed(observation, cause):
                state.observed(observation, Mark(cause))
            case Gone(uuid, cause):
                state.gone(uuid, Mark(cause))
            case Unreadable(uuid, reason):
                state.unreadable(uuid, reason, stuck=False)
            case Resynced(listed, unread):
                state.resynced(listed, unread)
            case Lost():
                frozen = state.usage
                state.disconnected(BROKEN)
                assert state.usage == frozen
                generation += 1
                state.connected(generation, kind)
        first = state.usage if first is None else first
        totals = [first, *(change.after for change in watched.changes)]
        assert [change.before for change in watched.changes] == totals[:-1]
        assert totals[-1] == state.usage
    assert first is not None
    for change in watched.changes:
        assert change.before != change.after
        assert change.generation <= generation


def test_totals_are_refused_before_the_first_resync(watched: Watched) -> None:
    """Unknown is never zero: not before a connection, and not after it either."""
    for _ in range(2):
        assert not watched.state.ready
        assert watched.state.snapshot().usage is None
        with pytest.raises(NotReadyError) as refused:
            _ = watched.state.usage
        assert refused.value.host == URI
        watched.state.connected(1, "QEMU")


def test_nothing_can_be_observed_before_a_connection(watched: Watched) -> None:
    """What counts depends on the kind of hypervisor."""
    with pytest.raises(RuntimeError, match="before a connection is open"):
        watched.state.observed(observed(), EVENT)


def test_the_first_resync_is_no_change(ready: Watched) -> None:
    """There was no number before it that could have changed."""
    assert ready.state.usage == Usage(1, 1024, 1)
    assert ready.changes == []
    assert ready.state.ready


def test_an_observation_moves_the_totals_and_says_why(ready: Watched) -> None:
    """The change names the domain, the cause and libvirt's word for it."""
    assert ready.tells(lambda: ready.state.observed(observed(B, 2, 2048), EVENT))
    assert ready.changes == [
        Change(
            host=URI,
            generation=1,
            before=Usage(1, 1024, 1),
            after=Usage(3, 3072, 2),
            cause=Cause.EVENT,
            detail="lifecycle started",
            uuid=B,
            domain_name="guest-b",
            kind=ChangeKind.STARTED,
            number=1,
            at=AT,
        )
    ]


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        (lambda state: state.observed(observed(B), EVENT), ChangeKind.STARTED),
        (lambda state: state.observed(observed(B), AUDIT), ChangeKind.STARTED),
        (lambda state: state.observed(observed(B), Mark(Cause.RESYNC)), ChangeKind.STARTED),
        (lambda state: state.gone(A, EVENT), ChangeKind.STOPPED),
        # A destroy whose read was caused by the event of a resumption is a stop all the same.
        (
            lambda state: state.observed(
                observed(A, state=5, vcpus=9), Mark(Cause.EVENT, "lifecycle resumed")
            ),
            ChangeKind.STOPPED,
        ),
        (lambda state: state.observed(observed(A, vcpus=2), EVENT), ChangeKind.RESIZED),
        (lambda state: state.observed(observed(A, memory_kib=9), EVENT), ChangeKind.RESIZED),
        (lambda state: state.observed(observed(A, state=4), EVENT), ChangeKind.WORKLOAD),
    ],
)
def test_the_kind_of_a_change_is_what_the_record_did(
    ready: Watched, act: Callable[[HostState], object], kind: ChangeKind
) -> None:
    """Whatever caused the read."""
    act(ready.state)
    assert [change.kind for change in ready.changes] == [kind]


def test_changes_are_numbered_whoever_listens() -> None:
    """A subscriber that comes late sees how many it missed."""
    state = HostState(
        URI, None, lambda: 0.0, structlog.wrap_logger(None, processors=[LogCapture()])
    )
    state.connected(1, "QEMU")
    state.resynced([], frozenset())
    state.observed(observed(A), EVENT)
    changes: list[Change] = []
    state.on_change(changes.append)
    state.observed(observed(B), EVENT)
    state.observed(observed(B), EVENT)
    state.gone(B, EVENT)
    assert [change.number for change in changes] == [2, 3]
    assert changes[0].at.tzinfo is UTC
    assert changes[0].at <= changes[1].at <= datetime.now(UTC)


def test_an_observation_that_moves_nothing_is_no_change(ready: Watched) -> None:
    """Most events change no total: a pause, a reboot, a rename."""
    assert not ready.tells(lambda: ready.state.observed(observed(A, state=3), EVENT))
    assert ready.changes == []


def test_a_domain_that_is_gone_is_named_by_its_last_record(ready: Watched) -> None:
    """libvirt knows its name no more."""
    assert ready.tells(lambda: ready.state.gone(A, EVENT))
    (change,) = ready.changes
    assert (change.uuid, change.domain_name, change.after) == (A, "guest-a", Usage())


def test_a_domain_that_never_counted_goes_without_a_change(ready: Watched) -> None:
    """An undefined guest that did not run."""
    assert not ready.tells(lambda: ready.state.gone(B, EVENT))
    assert ready.changes == []


def test_a_resync_after_a_reconnect_is_one_change(ready: Watched) -> None:
    """Whatever happened meanwhile is one step, of no domain in particular."""
    ready.state.disconnected(BROKEN)
    ready.state.connected(2, "QEMU")
    ready.state.resynced([observed(A), observed(B)], frozenset())
    assert ready.changes == [
        Change(
            *(URI, 2, Usage(1, 1024, 1), Usage(2, 2048, 2), Cause.RESYNC, "reconnected"),
            kind=ChangeKind.RESYNC,
            number=1,
            at=AT,
        )
    ]


def test_a_resync_that_finds_everything_as_it_was_is_no_change(ready: Watched) -> None:
    """But the host is fresh again, and listeners hear of that."""
    ready.state.disconnected(BROKEN)
    ready.state.connected(2, "QEMU")
    assert ready.tells(lambda: ready.state.resynced([observed(A)], frozenset()))
    assert ready.changes == []


def test_known_uuids_are_the_counted_domains(ready: Watched, watched: Watched) -> None:
    """An audit reads those too that a listing does not name."""
    assert list(watched.state.known_uuids()) == []
    ready.state.observed(observed(B, state=DomainState.SHUTOFF), EVENT)
    assert list(ready.state.known_uuids()) == [A]


# -- fresh and stale ------------------------------------------------------------------------------


def test_a_lost_connection_freezes_the_totals_and_counts_their_age(ready: Watched) -> None:
    """They stay readable, are called stale, and are not writable."""
    ready.state.facts_read(FACTS)
    ready.state.disk_read(None, "no folder")
    assert ready.state.snapshot().writable
    assert ready.tells(lambda: ready.state.disconnected(BROKEN))
    ready.now += 2.5
    snapshot = ready.state.snapshot()
    assert (snapshot.fresh, snapshot.stale_seconds, snapshot.writable) == (False, 2.5, False)
    assert snapshot.usage == ready.state.usage == Usage(1, 1024, 1)


def test_a_reconnect_alone_makes_nothing_fresh(ready: Watched) -> None:
    """Only the resync does; until then the age goes on."""
    ready.state.disconnected(BROKEN)
    ready.now += 1
    ready.state.connected(2, "QEMU")
    assert ready.state.stale_seconds == 1
    ready.state.resynced([], frozenset())
    snapshot = ready.state.snapshot()
    assert (snapshot.fresh, snapshot.stale_seconds) == (True, None)


def test_further_failures_do_not_make_the_totals_younger(ready: Watched) -> None:
    """The age counts from the loss, however often a reconnect fails."""
    ready.state.disconnected(BROKEN)
    ready.now += 1
    refused = HypervisorUnavailableError(URI, "refused")
    assert ready.tells(lambda: ready.state.disconnected(refused))
    assert not ready.tells(lambda: ready.state.disconnected(refused))
    assert ready.state.stale_seconds == 1


def test_the_reason_says_why_the_totals_are_not_fresh(watched: Watched) -> None:
    """Snapshot and status both hold it; it is None exactly while the totals are fresh."""
    state, reasons = watched.state, []

    def note() -> None:
        snapshot, status = state.snapshot(), state.status()
        assert snapshot.reason == status.reason == state.reason
        assert snapshot.fresh == (snapshot.reason is None)
        reasons.append(snapshot.reason)

    note()
    for act in (
        state.started,
        lambda: state.disconnected(BROKEN),
        lambda: state.connected(1, "QEMU"),
        lambda: state.resynced([], frozenset()),
        lambda: state.disconnected(HypervisorUnavailableError(URI, "refused")),
        state.stopped,
    ):
        act()
        note()
    assert reasons == [
        "not started",
        "not connected yet",
        BROKEN.message,
        "connected, its domains are being read",
        None,
        f"{URI}: refused",
        "closed",
    ]


def test_an_observer_that_raises_keeps_nothing_from_the_others(ready: Watched) -> None:
    """Of each kind: listeners, changes and corrections. The error is reported with the observer."""
    log = structlog.wrap_logger(None, processors=[LogCapture()])
    reported: list[tuple[BaseException, object]] = []
    state = HostState(URI, None, lambda: 0.0, log, report=lambda *one: reported.append(one))
    called: list[str] = []

    def broken(*_: object) -> None:
        raise ValueError("the user's own")

    def cancelled(*_: object) -> None:
        raise asyncio.CancelledError

    for bad in (broken, cancelled):
        state.add_listener(bad)
        state.on_change(bad)
        state.on_drift(bad)
    state.add_listener(lambda: called.append("listener"))
    state.on_change(lambda _: called.append("change"))
    state.on_drift(lambda _: called.append("drift"))
    state.connected(1, "QEMU")
    state.resynced([observed()], frozenset())
    called.clear()
    reported.clear()
    state.observed(observed(vcpus=2), AUDIT)
    assert sorted(called) == ["change", "drift", "listener"]
    assert len(reported) == 6
    assert {observer for _, observer in reported} == {broken, cancelled}


def test_without_anybody_to_report_to_the_error_is_logged(watched: Watched) -> None:
    """With its traceback."""
    error = ValueError("the user's own")

    def broken() -> None:
        raise error

    watched.state.add_listener(broken)
    watched.state.connected(1, "QEMU")
    (line,) = watched.logged("listener failed")
    assert line["exc_info"] is error


def test_each_reason_for_a_failed_connection_is_logged_once(watched: Watched) -> None:
    """A server that is away for an hour is not an hour of lines."""
    for reason in ("no socket", "no socket", "refused", "refused", "no socket"):
        watched.state.disconnected(HypervisorUnavailableError(URI, reason))
    lines = watched.logged("not connected, trying again")
    assert [line["reason"] for line in lines] == [
        f"{URI}: no socket",
        f"{URI}: refused",
        f"{URI}: no socket",
    ]
    watched.state.connected(1, "QEMU")
    watched.state.disconnected(HypervisorUnavailableError(URI, "no socket"))
    assert len(watched.logged("not connected, trying again")) == 4


def test_a_failure_before_the_first_resync_has_no_age(watched: Watched) -> None:
    """There is nothing that could be old."""
    watched.state.disconnected(BROKEN)
    assert watched.state.stale_seconds is None
    assert watched.state.status().ready is False


def test_a_closed_monitors_totals_grow_old(ready: Watched) -> None:
    """What is known stays readable; said once."""
    assert ready.tells(ready.state.stopped)
    ready.now += 3
    assert not ready.tells(ready.state.stopped)
    assert ready.state.stale_seconds == 3
    assert ready.state.usage == Usage(1, 1024, 1)


# -- domains that cannot be read ------------------------------------------------------------------


def test_an_unreadable_domain_keeps_its_record_and_is_named(ready: Watched) -> None:
    """A guess is never counted, and the gap is not hidden."""
    assert ready.tells(lambda: ready.state.unreadable(A, "timed out", stuck=True))
    assert ready.state.usage == Usage(1, 1024, 1)
    assert ready.state.snapshot().stuck == {A}
    assert ready.state.status().unreadable == {A: "timed out"}
    (line,) = ready.logged("domain cannot be read, its last record stands")
    assert (line["uuid"], line["reason"], line["stuck"]) == (A, "timed out", True)


def test_the_same_reason_is_said_once(ready: Watched) -> None:
    """A guest that hangs for a day is two lines at most: the reason, and a new one."""
    ready.state.unreadable(A, "timed out", stuck=True)
    assert not ready.tells(lambda: ready.state.unreadable(A, "timed out", stuck=True))
    assert ready.tells(lambda: ready.state.unreadable(A, "internal error", stuck=False))
    assert ready.state.status().unreadable == {A: "internal error"}


@pytest.mark.parametrize(
    "answer",
    [lambda state: state.observed(observed(A), EVENT), lambda state: state.gone(A, EVENT)],
    ids=["observed", "gone"],
)
def test_an_answer_ends_being_unreadable(
    ready: Watched, answer: Callable[[HostState], None]
) -> None:
    """Whatever it says."""
    ready.state.unreadable(A, "timed out", stuck=True)
    answer(ready.state)
    assert ready.state.snapshot().stuck == frozenset()


def test_a_resync_says_anew_which_domains_are_unreadable(ready: Watched) -> None:
    """Those that it could not read keep their record and reason; the others are forgotten."""
    ready.state.unreadable(A, "timed out", stuck=True)
    ready.state.unreadable(B, "internal error", stuck=False)
    ready.state.resynced([], frozenset({A, "c"}))
    assert ready.state.status().unreadable == {A: "timed out", "c": "it could not be read"}
    assert ready.state.usage == Usage(1, 1024, 1)
    ready.state.resynced([], frozenset())
    assert ready.state.status().unreadable == {}


def test_the_state_says_why_there_is_no_connection(watched: Watched) -> None:
    """From the first failed attempt on, until there is one; also where it was fresh before."""
    assert watched.state.down is None
    watched.state.disconnected(BROKEN)
    assert watched.state.down is BROKEN
    watched.state.connected(1, "QEMU")
    assert watched.state.down is None
    watched.state.resynced([], frozenset())
    watched.state.disconnected(BROKEN)
    assert watched.state.down is BROKEN


# -- explanations ---------------------------------------------------------------------------------


def test_an_explanation_has_records_reasons_and_the_rest(ready: Watched) -> None:
    """All that is known of the host comes together, at the age that it has now."""
    ready.state.unreadable(A, "timed out", stuck=True)
    ready.now += 7.0
    off = observed(B, state=DomainState.SHUTOFF)
    explanation = ready.state.explain(Survey((off,), incomplete="not connected"))
    assert explanation.usage == ready.state.usage
    assert explanation.incomplete == "not connected"
    assert [
        (one.uuid, one.cause, one.read_seconds_ago, one.unreadable, one.rule)
        for one in explanation.domains
    ] == [
        (A, Cause.RESYNC, 7.0, "timed out", "counted: active"),
        (B, None, 0.0, None, "not counted: shut off"),
    ]


def test_there_is_nothing_to_explain_before_the_first_resync(watched: Watched) -> None:
    """Unknown is never zero, so it is no sum either."""
    watched.state.connected(1, "QEMU")
    with pytest.raises(NotReadyError):
        watched.state.explain(Survey())


# -- drift ----------------------------------------------------------------------------------------


def no_event_follows(ready: Watched) -> None:
    """Time goes on until an event would come too late."""
    ready.now += EVENT_MAY_FOLLOW_SECONDS
    ready.state.settle_drift()


def test_a_start_or_end_that_an_event_tells_of_a_little_later_is_no_drift(ready: Watched) -> None:
    """The listing knew first. The totals are right at once; of others no event has told."""
    ready.state.gone(A, AUDIT)
    ready.state.observed(observed("new"), AUDIT)
    ready.state.observed(observed("silent"), AUDIT)
    assert ready.state.suspects_drift
    ready.now += EVENT_MAY_FOLLOW_SECONDS / 2
    ready.state.event_received(A)
    ready.state.event_received("new")
    ready.state.settle_drift()
    assert ready.drifts == []
    no_event_follows(ready)
    assert [drift.uuid for drift in ready.drifts] == ["silent"]
    assert ready.state.status().drift == 1
    assert not ready.state.suspects_drift


@pytest.mark.parametrize(
    ("observation", "field", "before", "after"),
    [
        (observed(A, vcpus=4), "vcpus", 1, 4),
        (observed(A, memory_kib=512), "memory_kib", 1024, 512),
        (observed(A, state=DomainState.SHUTDOWN), "at_work", 0, 1),
        (observed(A, state=DomainState.SHUTOFF), "active", 1, 0),
        (observed(B, vcpus=4), "active", 0, 1),
    ],
)
def test_what_an_audit_corrects_is_drift(
    ready: Watched, observation: Observation, field: str, before: int, after: int
) -> None:
    """Counted, explained and told, with the domain and both numbers."""
    ready.state.observed(observation, AUDIT)
    no_event_follows(ready)
    (drift,) = ready.drifts
    assert (drift.host, drift.uuid, drift.domain_name) == (URI, observation.uuid, observation.name)
    assert (drift.field, drift.before, drift.after) == (field, before, after)
    assert drift.likely_cause
    assert ready.state.status().drift == 1
    (line,) = ready.logged("drift corrected")
    assert {name: line.get(name) for name in ("uuid", "domain", "field", "before", "after")} == {
        "uuid": observation.uuid,
        "domain": observation.name,
        "field": field,
        "before": before,
        "after": after,
    }
    assert (line["age_seconds"], line["likely_cause"]) == (drift.age_seconds, drift.likely_cause)
    assert [change.cause for change in ready.changes] == [Cause.AUDIT]


def test_drift_has_the_age_of_what_was_wrong(ready: Watched) -> None:
    """Since the domain's last read, whatever the cause of that was; for one that was not counted
    since the last complete recount listed."""
    ready.now = 110.0
    ready.state.observed(observed(A, vcpus=2), EVENT)
    ready.now = 117.0
    ready.state.observed(observed(A, vcpus=5), AUDIT)
    ready.now = 120.0
    # Its listing is what a domain that is new was not in; the reading took the rest.
    ready.state.audited(48.0)
    ready.now = 150.0
    ready.state.observed(observed("new"), AUDIT)
    no_event_follows(ready)
    assert [(drift.uuid, drift.age_seconds) for drift in ready.drifts] == [(A, 7.0), ("new", 78.0)]
    ready.now = 160.0
    ready.state.gone("new", AUDIT)
    no_event_follows(ready)
    assert ready.drifts[-1].age_seconds == 10.0


def test_a_domain_that_is_starting_up_has_lost_no_event(ready: Watched) -> None:
    """libvirt lists it before the start is done, and only then sends its event."""
    ready.state.observed(
        observed("new", state=DomainState.PAUSED, reason=PAUSED_STARTING_UP), AUDIT
    )
    ready.state.observed(observed("other"), AUDIT)
    no_event_follows(ready)
    assert ["starting up" in drift.likely_cause for drift in ready.drifts] == [True, False]


def test_the_last_corrections_are_kept_and_all_are_counted(ready: Watched) -> None:
    """Sixteen, the newest last; by the field that was wrong."""
    for vcpus in range(2, 22):
        ready.state.observed(observed(A, vcpus=vcpus), AUDIT)
    ready.state.gone(A, AUDIT)
    no_event_follows(ready)
    status = ready.state.status()
    assert status.drift_by_field == {"vcpus": 20, "active": 1}
    assert status.drift == 21
    assert status.recent_drift == tuple(ready.drifts[-16:])


def test_a_domain_that_an_audit_finds_gone_is_drift(ready: Watched) -> None:
    """It ended without an event."""
    ready.state.gone(A, AUDIT)
    no_event_follows(ready)
    (drift,) = ready.drifts
    assert (drift.field, drift.before, drift.after, drift.domain_name) == (
        "active",
        1,
        0,
        "guest-a",
    )


def test_each_field_that_differs_is_one_correction(ready: Watched) -> None:
    """Two numbers that were wrong are two."""
    ready.state.observed(observed(A, vcpus=2, memory_kib=2048), AUDIT)
    assert [drift.field for drift in ready.drifts] == ["vcpus", "memory_kib"]
    assert ready.state.status().drift == 2
    assert len(ready.changes) == 1


@pytest.mark.parametrize("cause", [Cause.EVENT, Cause.LOOK_AGAIN, Cause.RESYNC])
def test_only_an_audit_finds_drift(ready: Watched, cause: Cause) -> None:
    """What an event or a resync brings is news, not a correction."""
    ready.state.observed(observed(A, vcpus=4), Mark(cause))
    assert ready.drifts == []
    assert ready.state.status().drift == 0
    assert len(ready.changes) == 1


def test_an_audit_that_finds_all_well_says_nothing(ready: Watched) -> None:
    """And is counted when it is complete."""
    ready.state.observed(observed(A), AUDIT)
    ready.state.audited(0)
    assert ready.drifts == []
    assert (ready.state.status().audits, ready.state.status().drift) == (1, 0)


def test_a_drift_receiver_can_be_removed(ready: Watched) -> None:
    """It hears nothing more; the others do."""
    extra: list[Drift] = []
    remove = ready.state.on_drift(extra.append)
    ready.state.observed(observed(A, vcpus=2), AUDIT)
    remove()
    ready.state.observed(observed(A, vcpus=3), AUDIT)
    assert len(extra) == 1
    assert len(ready.drifts) == 2


# -- facts and disk -------------------------------------------------------------------------------


def test_the_reported_name_is_taken_once(ready: Watched) -> None:
    """The row's name is the one that the monitor began with; another one is told, not followed."""
    assert ready.tells(lambda: ready.state.facts_read(FACTS))
    assert ready.state.snapshot().name == "node-1"
    assert ready.logged("the host reports another name, which is not followed") == []
    renamed = HostFacts("node-2", "QEMU", 7_002_022, 8, 16_000, {})
    ready.state.facts_read(renamed)
    assert ready.state.snapshot().name == "node-1"
    assert ready.state.facts == renamed
    (line,) = ready.logged("the host reports another name, which is not followed")
    assert (line["name"], line["reported"]) == ("node-1", "node-2")
    ready.state.facts_read(renamed)
    assert len(ready.logged("the host reports another name, which is not followed")) == 1


def test_a_given_name_takes_the_reported_ones_place() -> None:
    """All drivers of one machine report the same name, and that is no news."""
    watched = Watched(name="node-1-lxc")
    watched.state.facts_read(FACTS)
    assert watched.state.snapshot().name == "node-1-lxc"
    assert watched.logged("the host reports another name, which is not followed") == []


def test_the_disk_is_settled_by_the_first_reading(ready: Watched) -> None:
    """With a value or without: the row waits for it no longer."""
    assert not ready.state.snapshot().disk_settled
    assert ready.tells(lambda: ready.state.disk_read(None, "no folder"))
    assert ready.state.snapshot().disk_settled
    assert ready.state.disk is None
    assert not ready.tells(lambda: ready.state.disk_read(None, "no folder"))


def test_the_disk_is_kept_when_a_later_reading_fails(ready: Watched) -> None:
    """Once known, never unknown again."""
    disk = DiskUsage(100, 10)
    assert ready.tells(lambda: ready.state.disk_read(disk, None))
    assert not ready.tells(lambda: ready.state.disk_read(None, "it does not answer"))
    assert ready.state.disk == disk
    (line,) = ready.logged("disk not known")
    assert (line["reason"], line["kept"]) == ("it does not answer", True)


def test_the_disk_is_news_only_when_it_differs(ready: Watched) -> None:
    """The timer reads it; the row is written when it moved."""
    ready.state.disk_read(DiskUsage(100, 10), None)
    assert not ready.tells(lambda: ready.state.disk_read(DiskUsage(100, 10), None))
    assert ready.tells(lambda: ready.state.disk_read(DiskUsage(100, 11), None))
    assert ready.state.disk == DiskUsage(100, 11)


def test_each_reason_for_an_unknown_disk_is_logged_once(ready: Watched) -> None:
    """And again after it was known in between."""
    for disk, reason in [
        (None, "no folder"),
        (None, "no folder"),
        (None, "no answer"),
        (DiskUsage(1, 1), None),
        (None, "no answer"),
    ]:
        ready.state.disk_read(disk, reason)
    assert [line["reason"] for line in ready.logged("disk not known")] == [
        "no folder",
        "no answer",
        "no answer",
    ]


def test_disks_that_cannot_be_read_are_named_until_they_can(ready: Watched) -> None:
    """One line for each new reason, however many domains have it; the row waits for none."""
    assert not ready.state.snapshot().disks_settled
    many = {f"{number:02}": "no answer" for number in range(20)}
    assert ready.tells(lambda: ready.state.disks_unreadable(many | {A: "vda: denied"}))
    assert ready.state.status().unreadable_disks == many | {A: "vda: denied"}
    assert ready.state.snapshot().disks_settled
    lines = ready.logged("disks cannot be read, their last values stand")
    assert [(line["reason"], line["domains"]) for line in lines] == [
        ("no answer", 20),
        ("vda: denied", 1),
    ]
    assert lines[0]["uuids"] == sorted(many)[:8]
    assert not ready.tells(lambda: ready.state.disks_unreadable({A: "vda: denied"}))
    assert ready.state.status().unreadable_disks == {A: "vda: denied"}
    assert len(ready.logged("disks cannot be read, their last values stand")) == 2
    ready.state.disks_unreadable({})
    ready.state.disks_unreadable({A: "vda: denied"})
    assert len(ready.logged("disks cannot be read, their last values stand")) == 3


def test_without_a_disk_there_are_no_disks_to_wait_for(ready: Watched) -> None:
    """Nobody reads what lies nowhere."""
    ready.state.disk_read(None, None)
    assert ready.state.snapshot().disks_settled
    assert ready.logged("disk not known") == []


# -- who is told ----------------------------------------------------------------------------------


def test_a_removed_listener_hears_nothing_more(ready: Watched) -> None:
    """Removing it twice is harmless, and the others stay."""
    other: list[None] = []
    ready.state.add_listener(lambda: other.append(None))
    ready.remove_listener()
    ready.remove_listener()
    assert not ready.tells(lambda: ready.state.observed(observed(B), EVENT))
    assert len(other) == 1


def test_a_listener_may_remove_itself(ready: Watched) -> None:
    """And one that is added meanwhile is called from the next time on."""
    calls: list[str] = []

    def once() -> None:
        calls.append("once")
        remove()
        ready.state.add_listener(lambda: calls.append("later"))

    remove = ready.state.add_listener(once)
    ready.state.observed(observed(B), EVENT)
    assert calls == ["once"]
    ready.state.observed(observed(B, vcpus=2), EVENT)
    assert calls == ["once", "later"]


def test_the_same_listener_twice_is_called_twice(ready: Watched) -> None:
    """Each addition has a removal of its own."""
    calls: list[None] = []
    remove = ready.state.add_listener(lambda: calls.append(None))
    same = ready.state.add_listener(lambda: calls.append(None))
    ready.state.observed(observed(B), EVENT)
    remove()
    ready.state.observed(observed(B, vcpus=2), EVENT)
    same()
    assert len(calls) == 3


# -- status and log -------------------------------------------------------------------------------


def test_the_status_counts(ready: Watched) -> None:
    """Events, resyncs, audits, corrections, and what is missing."""
    ready.state.event_received()
    ready.state.event_received()
    ready.state.event_missing("JOB_COMPLETED")
    ready.state.event_missing("JOB_COMPLETED")
    ready.state.event_missing("REBOOT")
    status = ready.state.status()
    assert status.host == URI
    assert (status.ready, status.fresh, status.stale_seconds) == (True, True, None)
    assert (status.generation, status.events, status.resyncs) == (1, 2, 1)
    assert (status.audits, status.drift, status.unreadable) == (0, 0, {})
    assert status.missing_events == ("JOB_COMPLETED", "REBOOT")
    assert len(ready.logged("event not available, the audit stands in")) == 2


def test_missing_events_are_those_of_the_connection_and_told_once(ready: Watched) -> None:
    """A libvirtd that comes back newer may have them; one that comes back as it was is known."""
    ready.state.event_missing("REBOOT")
    ready.state.connected(2, "QEMU")
    assert ready.state.status().missing_events == ()
    ready.state.event_missing("REBOOT")
    assert ready.state.status().missing_events == ("REBOOT",)
    assert len(ready.logged("event not available, the audit stands in")) == 1


def test_a_snapshot_and_a_status_are_of_their_moment(ready: Watched) -> None:
    """What was handed out does not move along."""
    snapshot, status = ready.state.snapshot(), ready.state.status()
    ready.state.observed(observed(B), EVENT)
    ready.state.unreadable(A, "timed out", stuck=True)
    assert snapshot.usage == Usage(1, 1024, 1)
    assert snapshot.stuck == frozenset()
    assert status.unreadable == {}


def test_an_unknown_state_is_logged_once_and_counts(ready: Watched) -> None:
    """A newer libvirt's state is named, not guessed away."""
    for uuid in (A, B):
        ready.state.observed(observed(uuid, state=9), EVENT)
    assert ready.state.usage.running_vms == 2
    (line,) = ready.logged("unknown domain state counts as active")
    assert line["state"] == 9


def test_each_read_is_one_debug_line(ready: Watched) -> None:
    """With the domain, why it was read, and what it cost before and after."""
    ready.state.observed(observed(A, vcpus=3), EVENT)
    (line,) = ready.logged("domain read")
    assert line == {
        "event": "domain read",
        "log_level": "debug",
        "uuid": A,
        "domain": "guest-a",
        "cause": "event",
        "detail": "lifecycle started",
        "before": "1 vCPU 1024 KiB",
        "after": "3 vCPU 1024 KiB",
    }


def test_a_resync_is_one_line_with_the_totals(ready: Watched) -> None:
    """What an operator looks for after a start."""
    (line,) = ready.logged("totals ready")
    assert line["log_level"] == "info"
    expected = {
        "generation": 1,
        "unread": 0,
        "vcpus_used": 1,
        "memory_mb_used": 1,
        "running_vms": 1,
    }
    assert expected.items() <= line.items()
