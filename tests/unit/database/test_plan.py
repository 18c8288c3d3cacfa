"""The plan: each host in one statement at a time, and no change left out."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asynchost.database.claims import Setback
from asynchost.database.plan import Plan
from asynchost.database.records import OwnedRow
from asynchost.database.statements import ROWS_PER_STATEMENT, RowWrite

NUMBERS = range(1, 6)
numbers = st.sampled_from(NUMBERS)
COLUMNS = [("a",), ("a", "b")]


class Planned:
    """As much of an attachment as is asked for: two values, and what is known of the row's."""

    def __init__(self, number: int, *, suspect: bool = False) -> None:
        self.row: OwnedRow | None = OwnedRow(number, f"n{number}", "0", 1)
        self.suspect = suspect
        self.now = [0, 0]
        self.known = [0, 0]
        self.seq = 0
        self.plans = 0

    def change(self, columns: tuple[str, ...]) -> None:
        for place in range(len(columns)):
            self.now[place] += 1

    def plan(self) -> RowWrite | None:
        self.plans += 1
        differing = [place for place in (0, 1) if self.now[place] != self.known[place]]
        if not differing:
            return None
        self.seq += 1
        columns = tuple("ab"[place] for place in differing)
        assert self.row is not None
        return RowWrite(
            self.row.row_id, 1, self.seq, columns, tuple(self.now[p] for p in differing)
        )

    def acknowledge(self, write: RowWrite) -> None:
        for column, value in zip(write.columns, write.values, strict=True):
            assert isinstance(value, int)
            self.known["ab".index(column)] = value


def plan_of(*hosts: Any) -> Plan:
    plan = Plan()
    plan.add(hosts)
    return plan


def changed(number: int, columns: tuple[str, ...] = ("a",), *, suspect: bool = False) -> Any:
    host = Planned(number, suspect=suspect)
    host.change(columns)
    return host


def test_a_statement_writes_the_same_columns_in_the_order_of_the_rows() -> None:
    """Two agents that lock in different orders deadlock."""
    plan = plan_of(*(changed(number, COLUMNS[number % 2]) for number in (5, 2, 4, 1, 3)))
    assert len(plan) == 5
    batches = [plan.take(), plan.take()]
    assert plan.take() == []
    assert [[write.row_id for write in batch] for batch in batches] == [[1, 3, 5], [2, 4]]
    assert [{write.columns for write in batch} for batch in batches] == [{("a", "b")}, {("a",)}]


def test_a_statement_is_of_bounded_size() -> None:
    """What is too much for one comes in the next, and nothing is left out."""
    plan = plan_of(*map(changed, range(1, ROWS_PER_STATEMENT + 3)))
    sizes = []
    while batch := plan.take():
        sizes.append(len(batch))
    assert sizes == [ROWS_PER_STATEMENT, 2]


def test_a_host_that_was_set_back_has_a_statement_of_its_own_after_all_others() -> None:
    """A lock on its row holds up nobody else's."""
    plan = plan_of(changed(4, suspect=True), changed(1), changed(2, suspect=True), changed(3))
    assert [[w.row_id for w in plan.take()] for _ in range(4)] == [[1, 3], [4], [2], []]


def test_other_columns_do_not_wait_until_there_is_nothing_more_of_the_first() -> None:
    """While there always is."""
    plan = plan_of(*map(changed, range(1, ROWS_PER_STATEMENT + 2)))
    plan.add([changed(9_999, ("a", "b"))])
    assert len(plan.take()) == ROWS_PER_STATEMENT
    plan.add(map(changed, range(10_000, 10_000 + ROWS_PER_STATEMENT)))
    assert [write.row_id for write in plan.take()] == [9_999]


def test_a_host_without_a_row_or_a_difference_is_passed_over() -> None:
    """It is claimed first, or left alone."""
    unclaimed = changed(1)
    unclaimed.row = None
    assert len(plan_of(unclaimed, Planned(2))) == 0


def test_a_change_back_while_the_write_is_on_its_way_is_not_lost() -> None:
    """Before the answer nothing would differ, and after it everything does."""
    host = changed(1)
    plan = plan_of(host)
    batch = plan.take()
    host.now[0] = 0
    plan.add([host])
    assert (len(plan), host.plans) == (0, 1)
    host.acknowledge(batch[0])
    plan.settle(batch, [])
    (write,) = plan.take()
    assert (write.columns, write.values) == (("a",), (0,))


def test_a_host_that_was_set_back_is_left_out_from_then_on() -> None:
    """Whoever tries it again knows when."""
    host, other = changed(1), changed(2)
    plan = plan_of(host, other)
    batch = plan.take()
    plan.add([host, other])
    setback = Setback(host, None)
    plan.settle(batch, [setback])
    plan.add([host])
    assert plan.setbacks == [setback]
    assert [write.row_id for write in plan.take()] == [2]


class PlanModel(RuleBasedStateMachine):
    """Hosts change and come due at any time, statements are answered in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.plan = Plan()
        self.hosts: dict[int, Any] = {number: Planned(number) for number in NUMBERS}
        self.sent: list[list[RowWrite]] = []
        self.due: set[int] = set()

    @rule(number=numbers, columns=st.sampled_from(COLUMNS))
    def change(self, number: int, columns: tuple[str, ...]) -> None:
        """And it comes due later."""
        self.hosts[number].change(columns)
        self.due.add(number)

    @rule(number=numbers)
    def change_back(self, number: int) -> None:
        """To what the database is known to hold."""
        host = self.hosts[number]
        host.now = list(host.known)
        self.due.add(number)

    @precondition(lambda self: self.due)
    @rule()
    def add(self) -> None:
        """All that is due."""
        self.plan.add([self.hosts[number] for number in sorted(self.due)])
        self.due.clear()

    @rule()
    def take(self) -> None:
        """A statement is sent."""
        if batch := self.plan.take():
            self.sent.append(batch)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """One is answered."""
        batch = self.sent.pop(data.draw(st.integers(0, len(self.sent) - 1)))
        for write in batch:
            self.hosts[write.row_id].acknowledge(write)
        self.plan.settle(batch, [])

    @invariant()
    def each_host_is_in_one_statement(self) -> None:
        """Of those under way."""
        ids = [write.row_id for batch in self.sent for write in batch]
        assert len(ids) == len(set(ids))

    def teardown(self) -> None:
        """When all is answered, every row holds what its host is."""
        self.plan.add([self.hosts[number] for number in sorted(self.due)])
        while self.sent or len(self.plan):
            self.take()
            batch = self.sent.pop()
            for write in batch:
                self.hosts[write.row_id].acknowledge(write)
            self.plan.settle(batch, [])
        for host in self.hosts.values():
            assert host.known == host.now
        assert not self.plan.hosts


TestPlanModel = PlanModel.TestCase
TestPlanModel.settings = settings(max_examples=100, stateful_step_count=30)
