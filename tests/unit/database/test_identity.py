"""Which row is a host's."""

import pytest

from asynchost.database.identity import (
    Candidate,
    NovaService,
    Wanted,
    can_share,
    choose,
    live,
    matched_by_name,
    services_of,
)
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


def test_only_names_that_no_database_takes_for_the_same_share_a_batch() -> None:
    """Case, trailing spaces and accents are the database's own rules."""
    assert can_share(["a", "b", "A", "c ", "é"]) == [True, True, False, False, False]


def test_what_was_found_for_a_batch_is_told_apart_by_name() -> None:
    """However the database spells it; a name that nobody wanted is a question for one alone."""
    batch = [Wanted("one", None, {}), Wanted("two", None, {})]
    assert matched_by_name(batch, [("TWO ", 2), ("one", 1), ("two", 3)]) == [[1], [2, 3]]
    with pytest.raises(KeyError):
        matched_by_name(batch, [("öne", 1)])
    assert matched_by_name(batch[:1], [("öne", 1)]) == [[1]]


def test_services_are_told_apart_by_the_name_up_to_the_first_dot() -> None:
    """An address has no such part."""
    services = [NovaService(n, host, True) for n, host in enumerate(["a.x", "B", "10.0.0.1"])]
    matched = services_of(["A.y", "b.z", "10.0.0.2", "10.0.0.1"], services)
    assert [[service.service_id for service in found] for found in matched] == [[0], [1], [], [2]]
    assert services_of(["alone"], services) == [services]
