"""What is known of a row, against a database that loses, delays and repeats."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from asynchost.database.acknowledged import Acknowledged
from asynchost.database.rows import Values
from asynchost.database.statements import RowWrite

COLUMNS = ("a", "b", "c")


def write(seq: int, **values: int) -> RowWrite:
    return RowWrite(1, 1, seq, dict(values))


def begun(**values: int) -> Acknowledged:
    known = Acknowledged()
    known.begin(dict(values))
    return known


def test_a_confirmed_write_is_known() -> None:
    """Then nothing of it differs."""
    known = begun(a=0, b=0)
    seq = known.next_seq()
    known.confirm(write(seq, a=1))
    assert known.difference({"a": 1, "b": 0}) == {}
    assert known.has_landed(write(seq, a=1))


def test_a_doubted_column_differs_from_every_value() -> None:
    """Also from the one that it had before."""
    known = begun(a=0, b=0)
    known.doubt(write(known.next_seq(), a=1))
    assert known.difference({"a": 0, "b": 0}) == {"a": 0}


def test_a_doubted_write_that_is_read_back_is_not_repeated() -> None:
    """It has landed: nothing is written twice."""
    known = begun(a=0)
    known.doubt(write(known.next_seq(), a=1))
    known.read(1, {"a": 1})
    assert known.difference({"a": 1}) == {}


def test_a_doubted_write_that_is_not_there_yet_is_overtaken() -> None:
    """It may come still, so its columns are written under a higher number, whatever they hold."""
    known = begun(a=0, b=0)
    known.doubt(write(known.next_seq(), a=1))
    known.read(0, {"a": 0, "b": 0})
    assert known.difference({"a": 0, "b": 0}) == {"a": 0}
    assert known.next_seq() == 2


def test_lost_writes_show() -> None:
    """A database behind what it confirmed has lost something."""
    known = begun(a=0)
    known.confirm(write(known.next_seq(), a=1))
    assert known.is_ahead_of(0)
    known.read(0, {"a": 0})
    assert not known.is_ahead_of(0)
    assert known.difference({"a": 1}) == {"a": 1}


def test_a_crash_that_takes_back_a_write_brings_back_the_doubt_it_had_settled() -> None:
    """What had been overtaken by the lost write could land again."""
    known = begun(a=0, b=0)
    known.doubt(write(known.next_seq(), a=1))
    known.read(0, {"a": 0, "b": 0})
    known.confirm(write(known.next_seq(), a=0))
    known.read(0, {"a": 0, "b": 0})
    assert known.difference({"a": 0, "b": 0})["a"] == 0


def test_a_node_that_lags_is_not_believed() -> None:
    """It shows what was before acknowledged writes, and will have them a moment later: then a
    column that is as it was before them, and so seems to be right, is wrong."""
    known = begun(a=0, b=0)
    known.confirm(write(known.next_seq(), a=1))
    known.read(0, {"a": 0, "b": 0})
    assert known.difference({"a": 0, "b": 1}) == {"a": 0, "b": 1}
    last = write(known.next_seq(), a=0, b=1)
    assert last.seq == 2
    known.confirm(last)
    assert known.difference({"a": 0, "b": 1}) == {}


@dataclass
class FaultyRow:
    """A row behind the guard, what it was before, and the writes on their way to it."""

    values: Values = field(default_factory=lambda: dict.fromkeys(COLUMNS, 0))
    seq: int = 0
    history: list[tuple[int, Values]] = field(default_factory=list)
    on_their_way: list[RowWrite] = field(default_factory=list)

    def take(self, incoming: RowWrite) -> bool:
        if self.seq > incoming.seq:
            return False
        self.history.append((self.seq, dict(self.values)))
        self.values.update(incoming.values)
        self.seq = incoming.seq
        return True

    def before(self, writes: int) -> tuple[int, Values]:
        """As a node that lags so many writes behind shows it."""
        past = [*self.history, (self.seq, self.values)]
        seq, values = past[max(0, len(past) - 1 - writes)]
        return seq, dict(values)

    def crash(self, lost: int) -> None:
        for _ in range(min(lost, len(self.history))):
            self.seq, self.values = self.history.pop()


class Attempt(Enum):
    ANSWERED = "answered"
    ANSWER_LOST = "answer lost"
    LOST = "lost"
    DELAYED = "delayed"


def attempt(row: FaultyRow, known: Acknowledged, host: Values, how: Attempt) -> None:
    """One flush, and what follows it."""
    dirty = known.difference(host)
    if not dirty:
        return
    sent = RowWrite(1, 1, known.next_seq(), dirty)
    if how in (Attempt.ANSWERED, Attempt.ANSWER_LOST):
        assert row.take(sent)
    if how is Attempt.DELAYED:
        row.on_their_way.append(sent)
    if how is Attempt.ANSWERED:
        known.confirm(sent)
    else:
        known.doubt(sent)
        known.read(row.seq, dict(row.values))


host_states = st.fixed_dictionaries({column: st.integers(0, 1) for column in COLUMNS})
troubles = st.one_of(
    st.tuples(st.sampled_from(Attempt), host_states),
    st.tuples(st.just("late"), st.integers(0, 5)),
    st.tuples(st.just("crash"), st.integers(0, 3)),
    st.tuples(st.just("lag"), st.integers(0, 3)),
)


@settings(max_examples=500)
@given(st.lists(troubles, max_size=15), host_states)
def test_in_the_end_the_row_is_the_host_whatever_came_between(
    story: list[tuple[Any, Any]], host: Values
) -> None:
    """Writes are answered, lost, delayed and repeated in any order; crashes take some back, and
    nodes that lag show what was before them.

    After the last of the troubles, one write without any makes the row true, and no write that
    is still on its way can change it any more.
    """
    row, known = FaultyRow(), begun(**dict.fromkeys(COLUMNS, 0))
    for what, detail in story:
        if what == "late":
            # They stay on their way: a network may deliver one twice.
            for late in row.on_their_way[detail : detail + 1]:
                row.take(late)
        elif what == "crash":
            row.crash(detail)
            known.read(row.seq, dict(row.values))
        elif what == "lag":
            known.read(*row.before(detail))
        else:
            attempt(row, known, detail, what)
    attempt(row, known, host, Attempt.ANSWERED)
    assert row.values == host
    for late in row.on_their_way:
        row.take(late)
    assert row.values == host
