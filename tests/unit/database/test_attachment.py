"""One host's place in a writer: what is planned, and what an answer means."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from asynchost.backoff import Backoff
from asynchost.database.attachment import Attachment, Surroundings
from asynchost.database.foreign_edits import OnForeignEdit
from asynchost.database.identity import Claim, How
from asynchost.database.records import Record, Retry, Verdict
from asynchost.database.rows import RowEncoder, Values, in_order, named
from asynchost.database.settings import WhenFenced, WriterSettings
from asynchost.database.statements import FenceKey
from asynchost.database.vigil import Sight
from asynchost.debounce import Debouncer
from asynchost.errors import AsynchostError, FencedError
from asynchost.model import HostSnapshot
from asynchost.testing import FakeHost

KEY = FenceKey("node", "0")
NOW = datetime(2026, 5, 4, 3, 2, 1)  # noqa: DTZ001 - as the driver gives it, in UTC


class Bench:
    """An attachment with its surroundings: a clock that is set, and what it called."""

    def __init__(
        self,
        quiet_seconds: float = 1.0,
        *,
        on_foreign_edit: OnForeignEdit = OnForeignEdit.REPAIR,
        when_fenced: WhenFenced = WhenFenced.EXIT,
    ) -> None:
        self.now = 100.0
        self.host = FakeHost("node")
        self.touched = 0
        self.failures: list[AsynchostError] = []
        self.attachment = Attachment(
            self.host,
            None,
            Debouncer(quiet_seconds, 5.0),
            Surroundings(
                WriterSettings(on_foreign_edit=on_foreign_edit, when_fenced=when_fenced),
                clock=lambda: self.now,
                new_backoff=lambda: Backoff(lambda: 1.0, initial_seconds=2.0),
                touched=self._touch,
                failed=self.failures.append,
            ),
        )

    def _touch(self, _: Attachment) -> None:
        self.touched += 1

    @property
    def values(self) -> Values:
        return named(RowEncoder().encode(self.host.snapshot()))

    def own(self, term: int = 1, **differing: int) -> None:
        values = {**self.values, **differing}
        self.attachment.own(Claim(17, 0, KEY, term, How.ADOPTED, values))

    def record(self, **differing: object) -> Record:
        values = in_order(differing.pop("values", self.values))  # type: ignore[arg-type]
        record = Record(KEY, 17, 1, 0, "me", NOW, True, NOW, values)
        return record._replace(**differing)


def test_a_change_is_due_after_the_quiet_time() -> None:
    """And not due any more once it is taken."""
    bench = Bench()
    assert bench.attachment.due_at == float("inf")
    bench.host.start()
    assert (bench.attachment.due_at, bench.touched) == (101.0, 1)
    bench.attachment.take()
    assert bench.attachment.due_at == float("inf")


def test_a_claim_comes_before_a_write() -> None:
    """Without a row there is something to claim, with one something to write."""
    bench = Bench()
    wanted = bench.attachment.wanted()
    assert wanted is not None
    assert (wanted.name, wanted.values, bench.attachment.plan()) == ("node", bench.values, None)
    bench.own(vcpus_used=4)
    assert bench.attachment.wanted() is None
    write = bench.attachment.plan()
    assert write is not None
    assert (write.row_id, write.term, write.seq, write.named) == (17, 1, 1, {"vcpus_used": 0})


def test_each_attempt_has_its_own_number() -> None:
    """A retry is a new write with the newest values."""
    bench = Bench()
    bench.own()
    bench.host.start(vcpus=1)
    first = bench.attachment.plan()
    bench.host.start(vcpus=1)
    second = bench.attachment.plan()
    assert first is not None
    assert second is not None
    assert (first.seq, first.named["vcpus_used"]) == (1, 1)
    assert (second.seq, second.named["vcpus_used"]) == (2, 2)


def test_a_stale_host_is_neither_claimed_nor_written_nor_dirty() -> None:
    """Unknown is never written."""
    bench = Bench()
    bench.host.lose()
    assert (bench.attachment.wanted(), bench.attachment.dirty) == (None, False)
    bench.host.find()
    bench.own()
    bench.host.lose()
    bench.host.start()
    assert (bench.attachment.plan(), bench.attachment.dirty) == (None, False)
    bench.host.find()
    assert bench.attachment.dirty


def test_what_was_not_written_before_a_host_went_stale_is_unwritten() -> None:
    """It is not written later either, but not forgotten."""
    bench = Bench()
    bench.own()
    bench.host.lose()
    assert not bench.attachment.unwritten
    bench.host.find()
    bench.host.start()
    bench.host.lose()
    assert (bench.attachment.plan(), bench.attachment.dirty) == (None, False)
    assert bench.attachment.unwritten
    assert bench.attachment.sign().state == "stale"  # type: ignore[union-attr]
    bench.host.set_facts(None)
    assert not bench.attachment.unwritten, "nothing is known that a row could be made of"


@pytest.mark.parametrize(
    ("record", "verdict"),
    [
        ({}, Verdict.KEPT),
        ({"term": 2}, Verdict.KEPT),
        ({"term": 2, "owner": "rival"}, Verdict.FENCED),
        ({"owner": "rival"}, Verdict.FENCED),
        ({"term": 0}, Verdict.LOST),
        ({"term": 0, "owner": "rival"}, Verdict.LOST),
        ({"live": False}, Verdict.LOST),
        ({"row_id": None, "live": False}, Verdict.LOST),
        ({"row_id": 18}, Verdict.LOST),
        (None, Verdict.LOST),
    ],
)
def test_a_record_is_judged(record: dict[str, object] | None, verdict: Verdict) -> None:
    """Ours, gone, or another agent's: by term first, then owner, then the row."""
    bench = Bench()
    bench.own()
    read = None if record is None else bench.record(**record)
    assert bench.attachment.judge(read, "me") is verdict


def test_a_higher_term_of_our_own_is_taken() -> None:
    """A claim whose answer was lost."""
    bench = Bench()
    bench.own()
    bench.attachment.judge(bench.record(term=5), "me")
    assert bench.attachment.term == 5


def test_what_was_read_back_is_what_is_known() -> None:
    """Not what was confirmed before."""
    bench = Bench()
    bench.own()
    bench.attachment.judge(bench.record(values={**bench.values, "vcpus": 3}), "me")
    write = bench.attachment.plan()
    assert write is not None
    assert write.named == {"vcpus": bench.values["vcpus"]}


def test_a_fenced_host_is_left_alone() -> None:
    """It says so once, and no change makes it due again."""
    bench = Bench()
    bench.own()
    bench.host.start()
    error = bench.attachment.fence(bench.record(term=2, owner="rival"))
    assert isinstance(error, FencedError)
    assert bench.failures == [error]
    bench.host.start()
    assert (bench.attachment.due_at, bench.attachment.dirty) == (float("inf"), False)
    assert bench.attachment.wanted() is None
    assert bench.attachment.sign() is None


def test_a_lost_row_is_claimed_above_every_term_that_was_held() -> None:
    """Also where the guard is gone."""
    bench = Bench()
    bench.own(term=7)
    bench.attachment.lose()
    wanted = bench.attachment.wanted()
    assert wanted is not None
    assert wanted.known_term == 7


def test_a_rejected_column_is_left_out_and_tried_again_by_itself() -> None:
    """With growing delays; the other columns are written meanwhile."""
    bench = Bench()
    bench.own()
    bench.host.start(vcpus=2)
    bench.attachment.reject({"vcpus_used": 2}, "too large", 1264, is_whole=False)
    assert (bench.attachment.left_out, bench.attachment.trouble) == ({"vcpus_used": 2}, "partial")
    bench.attachment.take()
    write = bench.attachment.plan()
    assert write is not None
    assert "vcpus_used" not in write.columns
    bench.attachment.acknowledge(write, bench.now)
    assert not bench.attachment.dirty
    for seconds in (1.0, 2.0, 4.0):
        bench.now = bench.attachment.due_at
        bench.attachment.take()
        write = bench.attachment.plan()
        assert write is not None
        assert write.named == {"vcpus_used": 2}
        bench.attachment.reject(write.named, "too large", 1264, is_whole=False)
        assert bench.attachment.due_at == bench.now + 2 * seconds
    bench.now = bench.attachment.due_at
    bench.attachment.take()
    write = bench.attachment.plan()
    assert write is not None
    bench.attachment.acknowledge(write, bench.now)
    assert (bench.attachment.left_out, bench.attachment.trouble) == ({}, None)


def test_another_value_of_a_rejected_column_is_tried_shortly() -> None:
    """A flush waits for it; one that keeps changing is tried every two seconds at most."""
    bench = Bench()
    bench.own()
    bench.host.start(vcpus=2)
    for _ in range(9):
        bench.attachment.reject({"vcpus_used": 2}, "too large", 1264, is_whole=False)
    assert not bench.attachment.is_awaited
    bench.host.start(vcpus=1)
    assert bench.attachment.dirty
    bench.attachment.take()
    assert bench.attachment.is_awaited
    assert bench.attachment.due_at == 102.0
    bench.now = 102.0
    bench.attachment.take()
    write = bench.attachment.plan()
    assert write is not None
    assert write.named["vcpus_used"] == 3


def test_a_rejected_row_is_not_claimed_until_it_is_tried_again() -> None:
    """Nothing of it is written."""
    bench = Bench()
    assert bench.attachment.wanted() is not None
    bench.attachment.reject_all("too large", 1264)
    assert (bench.attachment.wanted(), bench.attachment.dirty) == (None, False)
    assert bench.attachment.trouble == "refused"
    bench.now = bench.attachment.due_at
    bench.attachment.take()
    assert bench.attachment.wanted() is not None
    bench.own()
    assert bench.attachment.trouble is None


def test_a_value_that_no_column_can_take_is_left_out_alone() -> None:
    """It reaches no statement."""
    bench = Bench()
    bench.own()
    facts = bench.host.snapshot().facts
    assert facts is not None
    bench.host.set_facts(replace(facts, vcpus=1.5, hypervisor_type="\ud800", memory_mb=7))  # type: ignore[arg-type]
    write = bench.attachment.plan()
    assert write is not None
    assert "memory_mb" in write.columns
    assert bench.attachment.left_out.keys() == {"vcpus", "hypervisor_type"}


def test_a_host_that_raises_is_left_out_for_a_while() -> None:
    """Its guard says so, and it is looked at again."""

    class Broken(FakeHost):
        broken = True

        def snapshot(self) -> HostSnapshot:
            if self.broken:
                raise ZeroDivisionError("broken")
            return super().snapshot()

    bench = Bench()
    bench.own()
    broken = bench.host = Broken("node")
    bench.attachment._source = broken
    assert bench.attachment.plan() is None
    assert (bench.attachment.trouble, bench.attachment.dirty) == ("refused", False)
    assert bench.attachment.sign() == (17, 1, "refused", None)
    assert bench.attachment.due_at == 102.0
    broken.broken = False
    broken.start()
    bench.attachment.take()
    assert bench.attachment.plan() is not None
    assert bench.attachment.trouble is None


def test_what_another_program_changed_is_named() -> None:
    """Not what a write in doubt put there, nor what the database has lost."""
    bench = Bench()
    bench.own()
    changed = {**bench.values, "vcpus": 3, "local_gb": 4}
    bench.attachment.judge(bench.record(), "me")
    assert bench.attachment.edit is None
    bench.attachment.judge(bench.record(values=changed), "me")
    edit = bench.attachment.edit
    assert edit is not None
    assert edit.found == {"vcpus": 3, "local_gb": 4}
    assert edit.wanted == {column: bench.values[column] for column in edit.found}
    assert (edit.repaired, edit.is_news, bench.attachment.foreign_edits) == (True, True, 1)
    repair = bench.attachment.plan()
    assert repair is not None
    assert repair.named == edit.wanted
    bench.attachment.acknowledge(repair, bench.now)
    bench.host.start(vcpus=2, memory_kib=0)
    write = bench.attachment.plan()
    assert write is not None
    bench.attachment.doubt(write)
    landed = bench.record(seq=2, values=bench.values)
    bench.attachment.judge(landed, "me")
    assert bench.attachment.edit is None
    bench.attachment.judge(bench.record(seq=1), "me")
    assert bench.attachment.edit is None


def test_what_is_only_told_is_written_when_it_changes_by_itself() -> None:
    """The other columns that somebody changed stay as that one wants them."""
    bench = Bench(on_foreign_edit=OnForeignEdit.REPORT)
    bench.own()
    changed = {**bench.values, "vcpus": 3, "vcpus_used": 77}
    for is_news in (True, False):
        bench.attachment.judge(bench.record(values=changed), "me")
        edit = bench.attachment.edit
        assert edit is not None
        assert (edit.repaired, edit.is_news) == (False, is_news)
        assert not bench.attachment.dirty
    bench.host.start(vcpus=2, memory_kib=0)
    write = bench.attachment.plan()
    assert write is not None
    assert write.named["vcpus_used"] == 2
    assert "vcpus" not in write.named


def test_a_fenced_host_that_stands_by_wants_nothing_until_the_owner_is_gone() -> None:
    """It is no failure; it is claimed again with a higher term than any it knew."""
    bench = Bench(when_fenced=WhenFenced.WAIT)
    bench.own(term=3)
    bench.attachment.fence(bench.record(term=4, owner="rival"))
    assert bench.failures == []
    assert (bench.attachment.standby, bench.attachment.watched) == (KEY, KEY)
    bench.host.start()
    assert (bench.attachment.wanted(), bench.attachment.dirty) == (None, False)
    sight = Sight(KEY, 6, "rival", "fresh", NOW, silent=True)
    assert not bench.attachment.look(sight, "me")
    bench.now += 180.0
    assert bench.attachment.look(sight, "me")
    wanted = bench.attachment.wanted()
    assert wanted is not None
    assert (wanted.known_term, wanted.silent_seconds) == (6, 180.0)
    bench.attachment.yield_row()
    assert (bench.attachment.wanted(), bench.attachment.dirty) == (None, False)
    bench.own(term=8)
    assert (bench.attachment.standby, bench.attachment.term) == (None, 8)


def test_an_outage_ends_what_a_standby_has_seen() -> None:
    """It looks anew, also where it was about to claim."""
    bench = Bench(when_fenced=WhenFenced.WAIT)
    bench.own()
    bench.attachment.fence(bench.record(term=2, owner="rival"))
    sight = Sight(KEY, 2, "rival", "stopped", NOW, silent=False)
    assert bench.attachment.look(sight, "me")
    assert bench.attachment.watched is None
    bench.attachment.look_away()
    assert (bench.attachment.wanted(), bench.attachment.watched) == (None, KEY)


def test_a_row_that_others_delete_is_made_anew_three_times_an_hour() -> None:
    """Then it is left so, nothing is dirty and nothing is wanted, until the hour is over."""
    bench = Bench()
    for _ in range(3):
        bench.own()
        assert bench.attachment.judge(bench.record(live=False), "me") is Verdict.LOST
        bench.attachment.lose()
        assert bench.attachment.wanted() is not None
    bench.own()
    for is_news in (True, False):
        assert bench.attachment.judge(bench.record(live=False), "me") is Verdict.REMOVED
        assert bench.attachment.edit is not None
        assert bench.attachment.edit.is_news is is_news
    bench.host.start()
    assert (bench.attachment.plan(), bench.attachment.dirty) == (None, False)
    assert bench.attachment.foreign_edits == 4
    bench.now += 3600.0
    assert bench.attachment.judge(bench.record(live=False), "me") is Verdict.LOST


def test_a_deleted_row_that_somebody_brings_back_is_written_again() -> None:
    """Or whose guard is lost: whatever comes next begins anew."""
    for record in ({}, None):
        bench = Bench()
        bench.own()
        for _ in range(3):
            bench.attachment.judge(bench.record(live=False), "me")
        assert bench.attachment.judge(bench.record(live=False), "me") is Verdict.REMOVED
        bench.host.start()
        bench.attachment.judge(None if record is None else bench.record(**record), "me")
        assert bench.attachment.dirty


def test_a_row_that_went_back_in_time_is_put_right_though_edits_are_only_told() -> None:
    """A restored backup is no edit, and nobody else would mend it."""
    older = NOW - timedelta(seconds=1)
    for known, found in (
        ({}, {"updated_at": older}),
        ({"updated_at": None}, {"updated_at": older, "guarded_at": NOW, "seq": 1}),
    ):
        bench = Bench(on_foreign_edit=OnForeignEdit.REPORT)
        bench.own()
        bench.attachment.judge(bench.record(**known), "me")
        changed = {**bench.values, "vcpus": 3}
        bench.attachment.judge(bench.record(values=changed, **found), "me")
        assert bench.attachment.edit is not None
        assert bench.attachment.edit.repaired
        assert bench.attachment.dirty


def test_setbacks_are_spaced_out_until_one_succeeds() -> None:
    """Each later than the one before; from the second one on alone in its statement, since the
    first may have been another row's doing; a success ends both."""
    bench = Bench()
    bench.own()
    bench.attachment.postpone()
    assert (bench.attachment.due_at, bench.attachment.suspect) == (102.0, False)
    bench.attachment.postpone(at_least_seconds=10.0)
    assert (bench.attachment.due_at, bench.attachment.suspect) == (114.0, True)
    assert bench.attachment.retrying
    bench.attachment.take()
    bench.host.start()
    write = bench.attachment.plan()
    assert write is not None
    bench.attachment.acknowledge(write, bench.now)
    assert (bench.attachment.suspect, bench.attachment.retrying) == (False, False)
    bench.attachment.postpone()
    assert bench.attachment.due_at == 102.0


def test_what_is_locked_is_looked_at_once_a_second_with_all_others() -> None:
    """At the same moments; it stays in statements with others."""
    bench = Bench()
    bench.own()
    bench.now = 100.35
    for due_at in (100.4, 101.0, 101.0):
        bench.attachment.postpone(Retry.LOCKED)
        assert bench.attachment.due_at == pytest.approx(due_at)
        assert not bench.attachment.suspect


def test_what_was_refused_stays_alone_for_a_minute() -> None:
    """Also when a write has succeeded since: its values may go on changing between the two."""
    bench = Bench()
    bench.own()
    bench.attachment.postpone(Retry.ALONE)
    bench.host.start()
    write = bench.attachment.plan()
    assert write is not None
    bench.attachment.acknowledge(write, bench.now)
    assert bench.attachment.suspect
    bench.now += 60.0
    assert not bench.attachment.suspect


def test_the_same_trouble_is_news_once_a_minute() -> None:
    """Another one is at once."""
    bench = Bench()
    assert [bench.attachment.is_news(code) for code in (1205, 1205, 1213)] == [True, False, True]
    bench.now += 60.0
    assert bench.attachment.is_news(1213)


def test_a_sign_of_life_tells_fresh_and_stale() -> None:
    """With the age, from which the server's clock makes the time."""
    bench = Bench()
    assert bench.attachment.sign() is None
    bench.own()
    sign = bench.attachment.sign()
    assert sign == (17, 1, "fresh", None)
    assert not bench.attachment.state_moved
    bench.host.lose()
    assert bench.attachment.plan() is None
    assert bench.attachment.state_moved
    stale = bench.attachment.sign()
    assert stale == (17, 1, "stale", 0)
    bench.attachment.told(stale)
    assert not bench.attachment.state_moved


def test_a_closed_attachment_listens_no_more() -> None:
    """The source has forgotten it."""
    bench = Bench()
    bench.attachment.close()
    bench.host.start()
    assert bench.touched == 0
