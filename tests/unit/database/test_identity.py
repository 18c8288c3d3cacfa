"""Which row is a host's."""

import pytest

from asynchost.database.identity import (
    Candidate,
    NovaService,
    NovaServices,
    Wanted,
    can_share,
    choose,
    live,
    matched_by_name,
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


def test_a_hosts_service_has_its_name_or_alone_shares_it_up_to_the_first_dot() -> None:
    """An address has no such part."""
    hosts = ["a.x", "B", "b.y", "10.0.0.1", "c.x", "c.y"]
    services = NovaServices(NovaService(n, host, True) for n, host in enumerate(hosts))
    names = ["A.y", "a", "b", "B.y", "b.z", "10.0.0.2", "10.0.0.1", "c", "d"]
    found = [services.of(name) for name in names]
    ids = [None if service is None else service.service_id for service in found]
    assert ids == [0, 0, 1, 2, None, None, 3, None, None]


@pytest.mark.parametrize(
    ("row", "given", "expected"),
    [
        (None, None, None),
        (Candidate(1, None, 0), None, None),
        (Candidate(1, 0, 0, "n1"), None, None),
        (Candidate(1, 0, 0, "Rack1"), None, 1),
        (Candidate(1, 1, 0), None, 1),
        (Candidate(1, 1, 0), 1, None),
        (Candidate(1, 1, 0, "rack1"), 1, 1),
        (Candidate(1, 2, 0, "rack2"), None, None),
        (Candidate(1, 2, 0, "rack1"), None, 1),
        (Candidate(1, 1, 0, "rack2"), None, None),
        (Candidate(1, 1, 0, "n1"), None, None),
        (Candidate(1, 1, 0, ""), None, 1),
        (Candidate(1, 9, 0, "rack"), None, None),
    ],
)
def test_the_row_itself_says_which_nova_compute_keeps_it(
    row: Candidate | None, given: int | None, expected: int | None
) -> None:
    """By its host, or where it has none its service, except one that the user gave; and only one
    that is alive."""
    zero, one = NovaService(0, "zero", True), NovaService(1, "rack1", True)
    services = NovaServices([zero, one, NovaService(2, "rack2", False)])
    keeper = services.keeper(Wanted("n1", given, {}), row)
    assert (None if keeper is None else keeper.service_id) == expected


def test_a_living_nova_compute_of_the_hosts_name_keeps_the_row_whatever_that_says() -> None:
    """Also one that is still to be made."""
    mine = NovaService(1, "n1", True)
    services = NovaServices([mine, NovaService(2, "rack2", False)])
    for row in (None, Candidate(1, 2, 0, "rack2")):
        assert services.keeper(Wanted("n1", 2, {}), row) is mine
