"""The SQL text: exact where it matters, closed to whatever a value holds."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynchost.database import statements
from asynchost.database.rows import Value
from asynchost.database.statements import FenceKey, RowWrite, Sign


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "NULL"),
        (0, "0"),
        (-5, "-5"),
        (True, "1"),
        ("", "''"),
        ("a'b", r"'a\'b'"),
        ("back\\slash", r"'back\\slash'"),
        ("line\nend", r"'line\nend'"),
        ("nul\0", r"'nul\0'"),
    ],
)
def test_a_value_as_text(value: Value, text: str) -> None:
    """Integers by %d, strings by the driver's escaper."""
    assert statements.literal(value) == text


@given(st.text())
def test_no_string_ends_its_quotes(value: str) -> None:
    """Within the quotes, every quote and every backslash is escaped."""
    body = statements.literal(value)[1:-1]
    assert re.fullmatch(r"(?:[^'\\]|\\.)*", body, re.DOTALL)


def test_one_host_is_one_update_without_a_derived_table() -> None:
    """Guard and values in the same statement, the guard's row first."""
    write = RowWrite(17, 3, 42, ("vcpus_used", "free_disk_gb"), (6, None))
    assert statements.update([write], "me") == (
        "UPDATE asynchost_fence f STRAIGHT_JOIN compute_nodes t ON t.id = f.cn_id"
        " SET t.vcpus_used = 6, t.free_disk_gb = NULL, f.seq = 42,"
        " t.updated_at = UTC_TIMESTAMP(), f.updated_at = UTC_TIMESTAMP(6)"
        " WHERE f.cn_id = 17 AND t.deleted = 0 AND f.owner = 'me' AND f.term = 3 AND f.seq <= 42"
    )


def test_several_hosts_are_one_update_with_constants() -> None:
    """One line of constants for each host."""
    columns = ("vcpus_used",)
    batch = [RowWrite(1, 3, 42, columns, (6,)), RowWrite(2, 4, 43, columns, (7,))]
    assert statements.update(batch, "me") == (
        "UPDATE (SELECT 1 id, 3 e, 42 s, 6 c0 UNION ALL SELECT 2, 4, 43, 7) v"
        " STRAIGHT_JOIN asynchost_fence f ON f.cn_id = v.id"
        " STRAIGHT_JOIN compute_nodes t ON t.id = f.cn_id"
        " SET t.vcpus_used = v.c0, f.seq = v.s,"
        " t.updated_at = UTC_TIMESTAMP(), f.updated_at = UTC_TIMESTAMP(6)"
        " WHERE t.deleted = 0 AND f.owner = 'me' AND f.term = v.e AND f.seq <= v.s"
    )


def test_mariadb_takes_the_constants_as_a_list() -> None:
    """The rest of the statement is the same."""
    batch = [RowWrite(row, 3, 42, ("vcpus_used",), (row,)) for row in (1, 2, 3)]
    everywhere = statements.update(batch, "me")
    selects = " UNION ALL SELECT 2, 3, 42, 2 UNION ALL SELECT 3, 3, 42, 3"
    listed = " UNION ALL VALUES (2, 3, 42, 2), (3, 3, 42, 3)"
    assert selects in everywhere
    assert statements.update(batch, "me", mariadb=True) == everywhere.replace(selects, listed)


def test_what_may_be_no_number_is_escaped() -> None:
    """In a batch as well: text, and the figures that may be NULL."""
    columns = ("free_disk_gb", "hypervisor_type")
    batch = [RowWrite(1, 3, 42, columns, (None, "it's")), RowWrite(2, 4, 43, columns, (7, "%d"))]
    constants = r"SELECT 1 id, 3 e, 42 s, NULL c0, 'it\'s' c1 UNION ALL SELECT 2, 4, 43, 7, '%d')"
    assert constants in statements.update(batch, "me")


def test_what_must_be_a_number_is_nothing_else() -> None:
    """Whatever comes to stand there, it never reaches the statement as text."""
    batch = [RowWrite(row, 1, 1, ("vcpus_used",), ("1 OR 1",)) for row in (1, 2)]
    with pytest.raises(TypeError):
        statements.update(batch, "me")


def test_signs_of_life_are_one_statement_sorted_by_id() -> None:
    """The age is subtracted from the server's clock: no client clock anywhere."""
    text = statements.renew([Sign(2, 1, "stale", 1_500_000), Sign(1, 4, "fresh", None)], "me")
    assert "SELECT 1 id, 4 e, 'fresh' st, NULL age UNION ALL SELECT 2, 1, 'stale', 1500000" in text
    assert "UTC_TIMESTAMP(6) - INTERVAL v.age MICROSECOND" in text


def test_a_claim_passes_the_terms_that_were_held() -> None:
    """Created anew or raised, the term is above the known one."""
    text = statements.take_fences({FenceKey("n'1", "0"): 7}, "me")
    assert r"VALUES ('n\'1', '0', 8, 0," in text
    assert "term = GREATEST(term + 1, VALUES(term)), seq = 0" in text
