"""Which hosts are due, when their times move."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from asynchost.database.pending import Pending

MOST = 1000


class Waiting:
    """As much of an attachment as is asked for."""

    def __init__(self, due_at: float) -> None:
        self.due_at = due_at


def pending(*hosts: Any) -> Pending:
    made = Pending()
    for host in hosts:
        made.add(host)
    return made


def test_a_host_is_handed_out_once_when_its_time_has_come() -> None:
    """Not before, and not again."""
    early, late = Waiting(1.0), Waiting(2.0)
    hosts = pending(late, early)
    assert hosts.next_at == 1.0
    assert hosts.take(0.5, MOST) == []
    assert hosts.take(1.0, MOST) == [early]
    assert (hosts.next_at, early in hosts, late in hosts) == (2.0, False, True)
    assert hosts.take(3.0, MOST) == [late]
    assert hosts.next_at == float("inf")


def test_a_host_that_is_put_off_waits_for_its_new_time() -> None:
    """Though nobody has said so."""
    host = Waiting(1.0)
    hosts = pending(host)
    host.due_at = 2.0
    assert hosts.take(1.5, MOST) == []
    assert hosts.next_at == 2.0
    assert hosts.take(2.0, MOST) == [host]


def test_an_earlier_time_counts_at_once() -> None:
    """The later one is void."""
    host = Waiting(5.0)
    hosts = pending(host)
    host.due_at = 1.0
    assert hosts.add(host) == 1.0  # type: ignore[arg-type]
    assert hosts.take(1.0, MOST) == [host]
    host.due_at = 9.0
    hosts.add(host)  # type: ignore[arg-type]
    assert hosts.take(5.0, MOST) == []


def test_of_many_the_ones_that_are_due_longest_come_first() -> None:
    """The others stay; and who was put off takes nobody's place."""
    hosts = [Waiting(float(number)) for number in range(6)]
    made = pending(*reversed(hosts))
    hosts[1].due_at = 9.0
    assert made.take(6.0, 3) == [hosts[0], hosts[2], hosts[3]]
    assert made.take(6.0, 3) == [hosts[4], hosts[5]]
    assert made.next_at == 9.0


def test_a_host_that_waits_for_nothing_is_not_kept() -> None:
    """Its time was taken back before it came."""
    host = Waiting(1.0)
    hosts = pending(host)
    host.due_at = float("inf")
    assert hosts.take(1.0, MOST) == []
    assert host not in hosts
    hosts.discard(host)  # type: ignore[arg-type]


def test_what_is_discarded_leaves_nothing_behind_for_long() -> None:
    """Though its time would come much later."""
    hosts = pending()
    for _ in range(10_000):
        host = Waiting(1e9)
        hosts.add(host)  # type: ignore[arg-type]
        hosts.discard(host)  # type: ignore[arg-type]
    assert len(hosts._times._line) + len(hosts._times._heap) < 100


moments = st.integers(0, 20).map(float)
steps = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 4), moments),
    st.tuples(st.just("put off"), st.integers(0, 4), moments),
    st.tuples(st.just("discard"), st.integers(0, 4), moments),
    st.tuples(st.just("take"), st.just(0), moments),
)


@given(st.lists(steps, max_size=40))
def test_it_is_as_looking_at_every_host_would_be(story: list[tuple[str, int, float]]) -> None:
    """Whatever is added, put off, discarded and taken in between."""
    hosts = [Waiting(0.0) for _ in range(5)]
    made = pending()
    waiting: set[Waiting] = set()
    for what, number, at in story:
        host: Any = hosts[number]
        if what == "add":
            host.due_at = at
            made.add(host)
            waiting.add(host)
        elif what == "put off":
            host.due_at += at
        elif what == "discard":
            made.discard(host)
            waiting.discard(host)
        else:
            expected = {one for one in waiting if one.due_at <= at}
            assert made.next_at <= min((one.due_at for one in waiting), default=made.next_at)
            due = made.take(at, MOST)
            assert (len(due), set(due)) == (len(expected), expected)
            waiting -= expected
