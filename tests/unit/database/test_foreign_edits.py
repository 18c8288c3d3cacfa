"""Foreign edits: three repairs an hour, each standing change told once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynchost.database.foreign_edits import Edit, ForeignEdits, OnForeignEdit

OURS = {"vcpus_used": 4, "free_ram_mb": 100}


def noticed(edits: ForeignEdits, now: float, value: int = 77) -> Edit:
    """Somebody wrote this value."""
    return edits.noticed({"vcpus_used": value}, OURS, now)


def test_three_are_put_right_and_then_it_is_only_told() -> None:
    """Until an hour has passed since the first of the three."""
    edits = ForeignEdits(OnForeignEdit.REPAIR)
    assert [noticed(edits, now).repaired for now in (0.0, 60.0, 120.0)] == [True] * 3
    told = [noticed(edits, now) for now in (180.0, 240.0)]
    assert [(edit.repaired, edit.is_news) for edit in told] == [(False, True), (False, False)]
    assert noticed(edits, 3599.0).repaired is False
    assert [noticed(edits, now).repaired for now in (3600.0, 3601.0)] == [True, False]
    assert noticed(edits, 3660.0).repaired is True
    assert edits.count == 5


def test_another_value_is_news() -> None:
    """And so is the same one after it was gone."""
    edits = ForeignEdits(OnForeignEdit.REPORT)
    assert [noticed(edits, 0.0, value).is_news for value in (1, 1, 2)] == [True, False, True]
    edits.none_left()
    assert noticed(edits, 0.0, 2).is_news
    assert edits.count == 3


@pytest.mark.parametrize("now", [0.0, 7200.0])
def test_what_is_only_to_be_told_is_never_put_right(now: float) -> None:
    """However seldom it comes."""
    edit = noticed(ForeignEdits(OnForeignEdit.REPORT), now)
    assert edit == Edit({"vcpus_used": 77}, {"vcpus_used": 4}, repaired=False, is_news=True)


@pytest.mark.parametrize("policy", list(OnForeignEdit))
def test_a_deleted_row_is_made_anew_three_times_an_hour(policy: OnForeignEdit) -> None:
    """Under either policy; then it is told once and left, until there is another repair."""
    edits = ForeignEdits(policy)
    seen = [edits.removed(now) for now in (0.0, 60.0, 120.0, 180.0, 240.0)]
    assert [edit.repaired for edit in seen] == [True, True, True, False, False]
    assert [edit.is_news for edit in seen] == [True, True, True, True, False]
    assert (edits.is_removed, edits.count) == (True, 4)
    assert edits.removed(3600.0).repaired
    assert not edits.is_removed


def test_a_backup_is_put_right_where_edits_are_only_told() -> None:
    """Within the same bounds."""
    edits = ForeignEdits(OnForeignEdit.REPORT)
    found = {"vcpus_used": 77}
    repairs = [edits.noticed(found, OURS, now, restored=True).repaired for now in range(4)]
    assert repairs == [True, True, True, False]


@given(st.lists(st.floats(0, 900), max_size=60))
def test_no_hour_ever_holds_more_than_three_repairs(pauses: list[float]) -> None:
    """Whatever the times; and one is refused only where three are in the hour before."""
    edits, now = ForeignEdits(OnForeignEdit.REPAIR), 0.0
    granted: list[float] = []
    for pause in pauses:
        now += pause
        recent = [time for time in granted if now - time < 3600.0]
        assert noticed(edits, now).repaired is (len(recent) < 3)
        if len(recent) < 3:
            granted.append(now)
