"""The timetable: the earliest is due first, and nothing that was said to be due is forgotten."""

from hypothesis import given
from hypothesis import strategies as st

from asynchost.timetable import Timetable

KEYS = "abc"
steps = st.tuples(
    st.sampled_from(["add", "discard", "take"]),
    st.sampled_from(KEYS),
    st.integers(0, 5),
    st.integers(0, 4),
)


@given(st.lists(steps, max_size=300))
def test_it_hands_out_what_a_plain_list_would(taken: list[tuple[str, str, int, int]]) -> None:
    """Beside a list in which each thing stands once: its earliest time, and then the order."""
    timetable: Timetable[str] = Timetable()
    plain: list[tuple[int, int, str]] = []
    for number, (step, key, at, most) in enumerate(taken):
        known = [entry for entry in plain if entry[2] == key]
        if step == "add":
            assert timetable.add(key, at) == min([at, *(entry[0] for entry in known)])
            if not known or at < known[0][0]:
                plain = sorted([entry for entry in plain if entry[2] != key] + [(at, number, key)])
        elif step == "discard":
            timetable.discard(key)
            plain = [entry for entry in plain if entry[2] != key]
        else:
            due = [entry for entry in plain if entry[0] <= at][:most]
            assert timetable.take(at, most) == [entry[2] for entry in due]
            plain = plain[len(due) :]
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
    # Nothing but the number of entries shows it.
    assert len(timetable._line) + len(timetable._heap) < 100
    assert timetable.take(2_000.0, 9) == ["z", "y", "a"]


def test_infinity_is_no_time() -> None:
    """What is never due is not waited for."""
    timetable: Timetable[str] = Timetable()
    assert timetable.add("a", float("inf")) == float("inf")
    assert "a" not in timetable
    timetable.add("a", 1.0)
    assert timetable.add("a", float("inf")) == 1.0
