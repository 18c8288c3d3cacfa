"""The timetable: the earliest is due first, and nothing that was said to be due is forgotten."""

from hypothesis import given
from hypothesis import strategies as st

from asynchost.timetable import Timetable

KEYS = "abc"
steps = st.tuples(
    st.sampled_from(["add", "discard", "pop"]), st.sampled_from(KEYS), st.integers(0, 5)
)


@given(st.lists(steps, max_size=300))
def test_it_hands_out_what_a_plain_list_would(taken: list[tuple[str, str, int]]) -> None:
    """Beside a list in which each thing stands once: its earliest time, and then the order."""
    timetable: Timetable[str] = Timetable()
    plain: list[tuple[int, int, str]] = []
    for number, (step, key, at) in enumerate(taken):
        known = [entry for entry in plain if entry[2] == key]
        if step == "add":
            assert timetable.add(key, at) == min([at, *(entry[0] for entry in known)])
            if not known or at < known[0][0]:
                plain = sorted([entry for entry in plain if entry[2] != key] + [(at, number, key)])
        elif step == "discard":
            timetable.discard(key)
            plain = [entry for entry in plain if entry[2] != key]
        else:
            expected = plain.pop(0)[2] if plain and plain[0][0] <= at else None
            assert timetable.pop(at) == expected
        assert len(timetable) == len(plain)
        assert timetable.next_at == (plain[0][0] if plain else float("inf"))
        assert {one for one in KEYS if one in timetable} == {entry[2] for entry in plain}


def test_void_entries_are_cleared_away_and_the_order_stays() -> None:
    """A time that an earlier one replaced takes no room for long."""
    timetable: Timetable[str] = Timetable()
    timetable.add("z", 1.0)
    timetable.add("a", 5_000.0)
    timetable.add("y", 1.0)
    for step in range(4_000):
        timetable.add("a", 5_000.0 - step)
    # Nothing but the number of its entries shows it.
    assert len(timetable._entries) < 100
    assert [timetable.pop(2_000.0) for _ in range(4)] == ["z", "y", "a", None]


def test_infinity_is_no_time() -> None:
    """What is never due is not waited for."""
    timetable: Timetable[str] = Timetable()
    assert timetable.add("a", float("inf")) == float("inf")
    assert "a" not in timetable
    timetable.add("a", 1.0)
    assert timetable.add("a", float("inf")) == 1.0
