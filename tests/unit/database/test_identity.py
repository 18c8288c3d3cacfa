"""Which row is a host's."""

import pytest

from asynchost.database.identity import Candidate, choose, live
from asynchost.errors import AmbiguousRowError

LIVE_7 = Candidate(1, 7, 0)
LIVE_8 = Candidate(2, 8, 0)
NULL_7 = Candidate(3, 7, None)
NULL_8 = Candidate(4, 8, None)


@pytest.mark.parametrize(
    ("candidates", "service_id", "expected"),
    [
        ([], None, None),
        ([], 7, None),
        ([LIVE_7], None, LIVE_7),
        ([LIVE_7], 7, LIVE_7),
        ([LIVE_7], 8, None),
        ([LIVE_7, LIVE_8], 8, LIVE_8),
        ([NULL_7], None, NULL_7),
        ([NULL_7, LIVE_8], None, LIVE_8),
        ([NULL_7, LIVE_8], 7, None),
    ],
)
def test_the_row_is_chosen(
    candidates: list[Candidate], service_id: int | None, expected: Candidate | None
) -> None:
    """A given service must match; NULL counts as live only without a live row of the name."""
    assert choose("node", candidates, service_id) == expected


@pytest.mark.parametrize(
    ("candidates", "service_id"),
    [([LIVE_7, LIVE_8], None), ([NULL_7, NULL_8], None), ([LIVE_7, Candidate(9, 7, 0)], 7)],
)
def test_several_are_ambiguous(candidates: list[Candidate], service_id: int | None) -> None:
    """The error lists the ids."""
    with pytest.raises(AmbiguousRowError) as caught:
        choose("node", candidates, service_id)
    assert [row for row, _ in caught.value.rows] == [c.row_id for c in candidates]


def test_all_null_are_live_together() -> None:
    """None of them has another live row beside it."""
    assert live([NULL_7, NULL_8]) == [NULL_7, NULL_8]
