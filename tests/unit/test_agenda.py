"""The agenda: no mark is lost, no read is doubled, and an event never waits for an audit."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asynchost.agenda import Agenda, Mark
from asynchost.model import Cause
from tests.support.strategies import UUIDS, causes, uuids

A, B, C = "a", "b", "c"
EVENT, LOOK, AUDIT, RESYNC = (
    Mark(cause) for cause in (Cause.EVENT, Cause.LOOK_AGAIN, Cause.AUDIT, Cause.RESYNC)
)
BACKGROUND = (Cause.AUDIT, Cause.RESYNC)


class AgendaModel(RuleBasedStateMachine):
    """An agenda beside plain lists that say what it owes to whom."""

    def __init__(self) -> None:
        super().__init__()
        self.agenda = Agenda()
        self.now = 0.0
        self.waiting: dict[str, list[str]] = {"urgent": [], "background": []}
        # Values: which line the domain was taken from, and where it was marked to go meanwhile.
        self.taken: dict[str, str] = {}
        self.reading: dict[str, str | None] = {}
        # Values: the time, and the number of the call that set it.
        self.looks: dict[str, tuple[float, int]] = {}
        self.calls = 0
        self.last_looks: dict[str, float] = {}

    def _expect(self, uuid: str, line: str) -> None:
        if uuid in self.reading:
            if self.reading[uuid] != "urgent":
                self.reading[uuid] = line
            return
        if line == "urgent":
            if uuid in self.waiting["background"]:
                self.waiting["background"].remove(uuid)
        elif uuid in self.waiting["urgent"]:
            return
        if uuid not in self.waiting[line]:
            self.waiting[line].append(uuid)

    def _expect_look(self, uuid: str, at: float) -> None:
        self.calls += 1
        self.looks[uuid] = min((at, self.calls), self.looks.get(uuid, (at, self.calls)))

    @rule(uuid=uuids, cause=causes)
    def mark(self, uuid: str, cause: Cause) -> None:
        """A domain may have changed."""
        self.agenda.mark(uuid, Mark(cause))
        self._expect(uuid, "background" if cause in BACKGROUND else "urgent")

    @rule(background=st.booleans(), most=st.integers(1, 3))
    def take(self, background: bool, most: int) -> None:
        """Reads begin: of the oldest marks of their kind."""
        line = "background" if background else "urgent"
        taken = self.agenda.take(background, most)
        assert [uuid for uuid, _ in taken] == self.waiting[line][:most]
        del self.waiting[line][:most]
        for uuid, mark in taken:
            assert uuid not in self.reading
            assert (mark.cause in BACKGROUND) == background
            self.reading[uuid] = None
            self.taken[uuid] = line

    @precondition(lambda self: self.reading)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        """A read ends, in any order."""
        uuid = data.draw(st.sampled_from(sorted(self.reading)))
        self.agenda.done(uuid)
        line = self.reading.pop(uuid)
        if line is not None:
            self._expect(uuid, line)

    @precondition(lambda self: self.reading)
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        """A read never began: the domain waits again, at the end of the more urgent line."""
        uuid = data.draw(st.sampled_from(sorted(self.reading)))
        line = self.taken[uuid]
        self.agenda.put_back(uuid, EVENT if line == "urgent" else AUDIT)
        meanwhile = self.reading.pop(uuid)
        self._expect(uuid, line)
        if meanwhile is not None:
            self._expect(uuid, meanwhile)

    @rule(uuid=uuids, delay=st.integers(0, 8))
    def look_again(self, uuid: str, delay: int) -> None:
        """A domain is to be read at a time; the earliest counts."""
        at = self.now + delay
        self.agenda.look_again(uuid, at)
        self._expect_look(uuid, at)
        self.last_looks[uuid] = max(at, self.last_looks.get(uuid, at))

    @rule(seconds=st.integers(0, 5))
    def pass_time(self, seconds: int) -> None:
        """Time goes on, and what is due is marked: the earliest first, of one time the oldest."""
        self.now += seconds
        self.agenda.wake(self.now)
        due = [uuid for uuid, (at, _) in self.looks.items() if at <= self.now]
        for uuid in sorted(due, key=self.looks.__getitem__):
            del self.looks[uuid]
            last = self.last_looks.pop(uuid)
            if last > self.now:
                self._expect_look(uuid, last)
                self.last_looks[uuid] = last
            self._expect(uuid, "urgent")

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        """It holds exactly what is owed: each domain once, and a read to follow one under way."""
        waiting = {*self.waiting["urgent"], *self.waiting["background"]}
        assert self.agenda.pending() == waiting | self.reading.keys()
        assert len(self.agenda) == len(waiting) + len(self.reading) <= len(UUIDS)
        assert self.agenda.in_flight == len(self.reading)
        for background, line in enumerate(("urgent", "background")):
            assert self.agenda.waiting(bool(background)) == len(self.waiting[line])
        assert self.agenda.next_look == min((at for at, _ in self.looks.values()), default=None)
        for uuid in UUIDS:
            owed = 1 + (self.reading[uuid] is not None) if uuid in self.reading else 0
            assert self.agenda.reads_due(uuid) == (owed or (uuid in waiting))

    def teardown(self) -> None:
        """At the end of reading, every mark was followed by a read that began after it."""
        self.pass_time(100)
        while self.reading or self.agenda.pending():
            for uuid in sorted(self.reading):
                self.agenda.done(uuid)
                line = self.reading.pop(uuid)
                if line is not None:
                    self._expect(uuid, line)
            while self.agenda.pending() - self.reading.keys():
                self.take(background=False, most=1)
                self.take(background=True, most=2)
        assert not any(self.waiting.values())


TestAgendaModel = AgendaModel.TestCase
TestAgendaModel.settings = settings(max_examples=40, stateful_step_count=30)


def test_a_domain_marked_twice_is_read_once() -> None:
    """Events are merged by being a set."""
    agenda = Agenda()
    agenda.mark(A, EVENT)
    agenda.mark(A, EVENT)
    assert agenda.take(background=False, most=1) == [(A, EVENT)]
    assert agenda.take(background=False, most=1) == []


def test_a_domain_marked_while_it_is_read_is_read_once_more() -> None:
    """The read under way may have come too early, so another one follows, and only one."""
    agenda = Agenda()
    agenda.mark(A, EVENT)
    agenda.take(background=False, most=1)
    agenda.mark(A, EVENT)
    agenda.mark(A, EVENT)
    assert agenda.take(background=False, most=1) == []
    assert agenda.reads_due(A) == 2
    agenda.done(A)
    assert agenda.take(background=False, most=1) == [(A, EVENT)]
    agenda.done(A)
    assert agenda.take(background=False, most=1) == []
    assert agenda.reads_due(A) == 0


def test_an_event_takes_its_domain_out_of_the_audits_line() -> None:
    """One read serves both, and it is the event's, which waits for no audit."""
    agenda = Agenda()
    agenda.mark(A, AUDIT)
    agenda.mark(B, AUDIT)
    agenda.mark(C, EVENT)
    agenda.mark(B, EVENT)
    assert agenda.take(background=False, most=3) == [(C, EVENT), (B, EVENT)]
    assert agenda.take(background=True, most=2) == [(A, AUDIT)]


def test_an_audit_does_not_take_an_events_place() -> None:
    """The event's cause stays: what it corrects is not drift."""
    agenda = Agenda()
    agenda.mark(A, EVENT)
    agenda.mark(A, AUDIT)
    assert agenda.take(background=False, most=1) == [(A, EVENT)]
    agenda.mark(A, EVENT)
    agenda.mark(A, AUDIT)
    agenda.done(A)
    assert agenda.take(background=False, most=1) == [(A, EVENT)]


@pytest.mark.parametrize("mark", [EVENT, LOOK, RESYNC])
def test_a_mark_takes_an_audits_place_during_a_read(mark: Mark) -> None:
    """An audit's mark that waits gives way to any other."""
    agenda = Agenda()
    agenda.mark(A, EVENT)
    agenda.take(background=False, most=1)
    agenda.mark(A, AUDIT)
    agenda.mark(A, mark)
    agenda.done(A)
    assert agenda.take(background=mark is RESYNC, most=1) == [(A, mark)]


def test_each_line_says_whether_it_waits() -> None:
    """The caller hands each to a connection of its own."""
    agenda = Agenda()
    agenda.mark(A, AUDIT)
    assert (agenda.waiting(background=False), agenda.waiting(background=True)) == (0, 1)
    agenda.mark(A, EVENT)
    assert (agenda.waiting(background=False), agenda.waiting(background=True)) == (1, 0)
    agenda.take(background=False, most=1)
    assert (agenda.waiting(background=False), agenda.waiting(background=True)) == (0, 0)


def test_a_read_that_never_began_is_put_back() -> None:
    """One read serves its mark and the one that came meanwhile; the cause is the urgent one's."""
    agenda = Agenda()
    agenda.mark(A, AUDIT)
    agenda.take(background=True, most=1)
    agenda.mark(A, EVENT)
    agenda.put_back(A, AUDIT)
    assert agenda.in_flight == 0
    assert agenda.reads_due(A) == 1
    assert agenda.take(background=False, most=1) == [(A, EVENT)]
    agenda.put_back(A, EVENT)
    assert agenda.take(background=False, most=1) == [(A, EVENT)]


def test_done_with_a_domain_that_is_not_read_is_harmless() -> None:
    """A read that comes back after all was forgotten."""
    agenda = Agenda()
    agenda.done(A)
    assert len(agenda) == 0


def test_of_several_looks_the_earliest_counts_and_then_the_latest() -> None:
    """A later event does not put off the look of an earlier one, and gets its own as well."""
    agenda = Agenda()
    agenda.look_again(A, 5.0)
    agenda.look_again(A, 3.0)
    agenda.look_again(A, 7.0)
    assert agenda.next_look == 3.0
    agenda.wake(2.999)
    assert agenda.take(background=False, most=1) == []
    agenda.wake(3.0)
    assert agenda.take(background=False, most=1) == [(A, LOOK)]
    agenda.done(A)
    assert agenda.next_look == 7.0
    agenda.wake(7.0)
    assert agenda.take(background=False, most=1) == [(A, LOOK)]
    assert agenda.next_look is None


def test_looks_that_were_all_due_are_one() -> None:
    """What is read after the latest of them is read once."""
    agenda = Agenda()
    agenda.look_again(A, 3.0)
    agenda.look_again(A, 7.0)
    agenda.wake(7.0)
    assert agenda.take(background=False, most=1) == [(A, LOOK)]
    assert agenda.next_look is None


def test_looks_are_woken_in_the_order_of_their_times() -> None:
    """The one that waits longest is read first; of one time, the one that was asked for first."""
    agenda = Agenda()
    for uuid, at in ((A, 3.0), (C, 1.0), (B, 1.0)):
        agenda.look_again(uuid, at)
    agenda.wake(10.0)
    assert agenda.take(background=False, most=3) == [(C, LOOK), (B, LOOK), (A, LOOK)]


def test_a_look_at_a_domain_that_waits_anyway_keeps_its_mark() -> None:
    """The read to come is late enough; why it was asked for stays the event."""
    agenda = Agenda()
    agenda.mark(A, EVENT)
    agenda.look_again(A, 1.0)
    agenda.wake(1.0)
    assert agenda.take(background=False, most=1) == [(A, EVENT)]
    assert agenda.take(background=False, most=1) == []


def test_a_look_during_a_read_asks_for_another_read() -> None:
    """The one under way began before the time that was asked for."""
    agenda = Agenda()
    agenda.mark(A, EVENT)
    agenda.take(background=False, most=1)
    agenda.look_again(A, 1.0)
    agenda.wake(1.0)
    agenda.done(A)
    assert agenda.take(background=False, most=1) == [(A, LOOK)]


def test_an_event_keeps_a_domains_place_while_the_background_is_first() -> None:
    """One read serves both marks; it is the event's, which knows less of the domain."""
    agenda = Agenda()
    agenda.background_first = True
    agenda.mark("dirty", EVENT)
    for uuid in ("a", "b", "dirty"):
        agenda.mark(uuid, Mark(Cause.RESYNC))
    agenda.mark("a", EVENT)
    agenda.mark("a", Mark(Cause.RESYNC))
    agenda.mark("new", EVENT)
    assert agenda.take(background=True, most=9) == [
        ("a", EVENT),
        ("b", Mark(Cause.RESYNC)),
        ("dirty", EVENT),
    ]
    agenda.mark("a", EVENT)
    agenda.done("a")
    assert agenda.take(background=False, most=9) == [("new", EVENT), ("a", EVENT)]


@pytest.mark.parametrize("background_first", [False, True])
def test_a_mark_keeps_the_number_of_the_newest_event(background_first: bool) -> None:
    """Whatever marks the domain afterwards, waiting or in flight: the read answers that event."""
    agenda = Agenda()
    agenda.background_first = background_first
    for mark in (Mark(Cause.RESYNC), Mark(Cause.EVENT, "e", 7), Mark(Cause.LOOK_AGAIN)):
        agenda.mark(A, mark)
    agenda.background_first = False
    agenda.mark(A, Mark(Cause.LOOK_AGAIN))
    agenda.mark(A, Mark(Cause.AUDIT))
    ((_, mark),) = agenda.take(background=False, most=1)
    assert mark.number == 7
    for mark in (Mark(Cause.EVENT, "e", 8), Mark(Cause.LOOK_AGAIN), Mark(Cause.AUDIT)):
        agenda.mark(A, mark)
    agenda.put_back(A, Mark(Cause.EVENT, "e", 7))
    ((_, mark),) = agenda.take(background=False, most=1)
    assert mark.number == 8
