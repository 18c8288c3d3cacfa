"""What is known of a row, against a database that loses, delays and repeats."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from asynchost.database.acknowledged import Acknowledged
from asynchost.database.rows import RowValues, Value, Values, in_order, named
from asynchost.database.schema import OWNED_COLUMNS
from asynchost.database.statements import RowWrite

A, B = OWNED_COLUMNS[:2]


def row_of(a: Value = 0, b: Value = 0, c: Value = 0) -> RowValues:
    """A row whose first three columns differ from zero."""
    return (a, b, c, *[0] * (len(OWNED_COLUMNS) - 3))


def write(seq: int, **values: int) -> RowWrite:
    columns = tuple({"a": A, "b": B}[name] for name in values)
    return RowWrite(1, 1, seq, columns, tuple(values.values()))


def begun() -> Acknowledged:
    known = Acknowledged()
    known.begin(row_of())
    return known


def difference(known: Acknowledged, row: RowValues) -> Values:
    return dict(zip(*known.difference(row), strict=True))


def test_a_confirmed_write_is_known() -> None:
    """Then nothing of it differs."""
    known = begun()
    seq = known.next_seq()
    known.confirm(write(seq, a=1))
    assert difference(known, row_of(a=1)) == {}
    assert known.has_landed(write(seq, a=1))


def test_a_doubted_column_differs_from_every_value() -> None:
    """Also from the one that it had before."""
    known = begun()
    known.doubt(write(known.next_seq(), a=1))
    assert difference(known, row_of()) == {A: 0}


def test_a_doubted_write_that_is_read_back_is_not_repeated() -> None:
    """It has landed: nothing is written twice."""
    known = begun()
    known.doubt(write(known.next_seq(), a=1))
    known.read(1, row_of(a=1))
    assert difference(known, row_of(a=1)) == {}


def test_a_doubted_write_that_is_not_there_yet_is_overtaken() -> None:
    """It may come still, so its columns are written under a higher number, whatever they hold."""
    known = begun()
    known.doubt(write(known.next_seq(), a=1))
    known.read(0, row_of())
    assert difference(known, row_of()) == {A: 0}
    assert known.next_seq() == 2


def test_lost_writes_show() -> None:
    """A database behind what it confirmed has lost something."""
    known = begun()
    known.confirm(write(known.next_seq(), a=1))
    assert known.is_ahead_of(0)
    known.read(0, row_of())
    assert not known.is_ahead_of(0)
    assert difference(known, row_of(a=1)) == named(row_of(a=1))


def test_a_crash_that_takes_back_a_write_brings_back_the_doubt_it_had_settled() -> None:
    """What had been overtaken by the lost write could land again."""
    known = begun()
    known.doubt(write(known.next_seq(), a=1))
    known.read(0, row_of())
    known.confirm(write(known.next_seq(), a=0))
    known.read(0, row_of())
    assert difference(known, row_of())[A] == 0


def test_a_node_that_lags_is_not_believed() -> None:
    """It shows what was before acknowledged writes, and will have them a moment later: then a
    column that is as it was before them, and so seems to be right, is wrong."""
    known = begun()
    known.confirm(write(known.next_seq(), a=1))
    known.read(0, row_of())
    assert difference(known, row_of(b=1)) == named(row_of(b=1))
    last = RowWrite(1, 1, known.next_seq(), *known.difference(row_of(b=1)))
    assert last.seq == 2
    known.confirm(last)
    assert difference(known, row_of(b=1)) == {}


@dataclass
class FaultyRow:
    """A row behind the guard, what it was before, and the writes on their way to it."""

    values: RowValues = field(default_factory=row_of)
    seq: int = 0
    history: list[tuple[int, RowValues]] = field(default_factory=list)
    on_their_way: list[RowWrite] = field(default_factory=list)

    def take(self, incoming: RowWrite) -> bool:
        if self.seq > incoming.seq:
            return False
        self.history.append((self.seq, self.values))
        self.values = in_order({**named(self.values), **incoming.named})
        self.seq = incoming.seq
        return True

    def before(self, writes: int) -> tuple[int, RowValues]:
        """As a node that lags so many writes behind shows it."""
        past = [*self.history, (self.seq, self.values)]
        return past[max(0, len(past) - 1 - writes)]

    def crash(self, lost: int) -> None:
        for _ in range(min(lost, len(self.history))):
            self.seq, self.values = self.history.pop()


class Attempt(Enum):
    ANSWERED = "answered"
    ANSWER_LOST = "answer lost"
    LOST = "lost"
    DELAYED = "delayed"


def attempt(row: FaultyRow, known: Acknowledged, host: RowValues, how: Attempt) -> None:
    """One flush, and what follows it."""
    columns, values = known.difference(host)
    if not columns:
        return
    sent = RowWrite(1, 1, known.next_seq(), columns, values)
    if how in (Attempt.ANSWERED, Attempt.ANSWER_LOST):
        assert row.take(sent)
    if how is Attempt.DELAYED:
        row.on_their_way.append(sent)
    if how is Attempt.ANSWERED:
        known.confirm(sent)
    else:
        known.doubt(sent)
        known.read(row.seq, row.values)


host_states = st.builds(row_of, *[st.integers(0, 1)] * 3)
troubles = st.one_of(
    st.tuples(st.sampled_from(Attempt), host_states),
    st.tuples(st.just("late"), st.integers(0, 5)),
    st.tuples(st.just("crash"), st.integers(0, 3)),
    st.tuples(st.just("lag"), st.integers(0, 3)),
)


@settings(max_examples=500)
@given(st.lists(troubles, max_size=15), host_states)
def test_in_the_end_the_row_is_the_host_whatever_came_between(
    story: list[tuple[Any, Any]], host: RowValues
) -> None:
    """Writes are answered, lost, delayed and repeated in any order; crashes take some back, and
    nodes that lag show what was before them.

    After the last of the troubles, one write without any makes the row true, and no write that
    is still on its way can change it any more.
    """
    row, known = FaultyRow(), begun()
    for what, detail in story:
        if what == "late":
            # They stay on their way: a network may deliver one twice.
            for late in row.on_their_way[detail : detail + 1]:
                row.take(late)
        elif what == "crash":
            row.crash(detail)
            known.read(row.seq, row.values)
        elif what == "lag":
            known.read(*row.before(detail))
        else:
            attempt(row, known, detail, what)
    attempt(row, known, host, Attempt.ANSWERED)
    assert row.values == host
    for late in row.on_their_way:
        row.take(late)
    assert row.values == host
