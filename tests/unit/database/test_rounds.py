"""Whose turn it is: everybody once in each interval, evenly, whoever comes and goes."""

from hypothesis import given
from hypothesis import strategies as st

from asynchost.database.rounds import Rounds

INTERVAL = 60.0


def test_nobody_has_a_turn_before_the_time() -> None:
    """The first comes within the first gap, and none before it was begun."""
    rounds: Rounds[str] = Rounds(INTERVAL, 2)
    everybody = dict.fromkeys("abcde")
    assert rounds.take(0.0, everybody) == []
    rounds.begin(100.0, everybody, 0.5)
    assert rounds.next_at == 110.0
    assert rounds.take(109.0, everybody) == []
    assert rounds.take(110.0, everybody) == ["a", "b"]
    assert rounds.next_at == 130.0
    assert rounds.take(130.0, everybody) == ["c", "d"]
    assert rounds.take(150.0, everybody) == ["e"]
    assert rounds.take(170.0, everybody) == ["a", "b"]


@given(st.integers(0, 1000), st.integers(1, 200))
def test_all_have_their_turn_once_in_an_interval(size: int, most: int) -> None:
    """Never too many at a time."""
    rounds: Rounds[int] = Rounds(INTERVAL, most)
    everybody = dict.fromkeys(range(size))
    rounds.begin(0.0, everybody, 0.0)
    taken: list[int] = []
    while rounds.next_at < INTERVAL - 1e-6:
        some = rounds.take(rounds.next_at, everybody)
        assert len(some) <= most
        taken += some
    assert taken == list(range(size))


def test_who_leaves_is_passed_over_and_who_comes_is_in_the_next_round() -> None:
    """And a new beginning, as after a lost connection, goes on where the last one ended."""
    rounds: Rounds[str] = Rounds(INTERVAL, 2)
    everybody = dict.fromkeys("abcd")
    rounds.begin(0.0, everybody, 0.0)
    assert rounds.take(0.0, everybody) == ["a", "b"]
    del everybody["c"]
    everybody["e"] = None
    rounds.begin(1.0, everybody, 0.0)
    assert rounds.take(1.0, everybody) == ["d"]
    assert rounds.take(31.0, everybody) == ["a", "b"]
    assert rounds.take(61.0, everybody) == ["d", "e"]


def test_with_nobody_there_is_a_turn_of_nobody() -> None:
    """Once in an interval, until somebody comes."""
    rounds: Rounds[str] = Rounds(INTERVAL, 2)
    rounds.begin(0.0, {}, 0.0)
    assert rounds.take(0.0, {}) == []
    assert rounds.next_at == INTERVAL
