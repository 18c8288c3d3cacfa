"""Three sides of a row: what agrees, what differs, and what is told of a missing side."""

from dataclasses import replace

import pytest

from asynchost.database.schema import OWNED_COLUMNS
from asynchost.service.difference import Comparison, compared
from asynchost.service.terminal import width
from tests.unit.service.known import ROW, account, domain

RECOUNT = account(domain("web"), pid=None)
DAEMON = account(domain("web"))


def comparison(**row: object) -> Comparison:
    """All three sides, with a row that differs in these columns."""
    return Comparison(RECOUNT, DAEMON, 7, {**ROW, **row}, asked_database=True)  # type: ignore[dict-item]


def test_equal_sides_do_not_differ() -> None:
    """Side by side, and the verdict last."""
    equal = comparison()
    lines = list(compared(equal, equal.differing()))
    assert equal.differing() == frozenset()
    assert lines[1].split() == ["recount", "daemon", "row", "7"]
    assert lines[-1] == "  no difference"
    assert not [line for line in lines if line.endswith("differs")]


def test_a_column_that_differs_is_marked() -> None:
    """And counted."""
    found = comparison(vcpus_used=99, cpu_info="{}")
    assert found.differing() == {"vcpus_used", "cpu_info"}
    lines = list(compared(found, found.differing()))
    (line,) = [line for line in lines if line.startswith("  vcpus_used")]
    assert line.split() == ["vcpus_used", "3", "3", "99", "differs"]
    assert lines[-1] == "  2 columns differ"


def test_columns_that_the_daemon_cannot_write_are_named() -> None:
    """So that a person knows that waiting does not help."""
    stuck = replace(comparison(vcpus_used=1), daemon=replace(DAEMON, left_out=["vcpus_used"]))
    lines = list(compared(stuck, stuck.differing()))
    assert [line for line in lines if "the daemon cannot write vcpus_used" in line]


def test_long_values_that_differ_look_different() -> None:
    """They are cut, but never so that two look alike."""
    text = ROW["cpu_info"]
    found = comparison(cpu_info=str(text).replace("avx", "avy"))
    (line,) = [line for line in compared(found, found.differing()) if "cpu_info" in line]
    recount, daemon, row = (cell for cell in line.split()[1:] if "#" in cell)
    assert recount == daemon != row


@pytest.mark.parametrize(("column", "drift"), [("local_gb_used", 1), ("free_disk_gb", -1)])
def test_a_file_system_may_move_between_two_looks(column: str, drift: int) -> None:
    """By less than anybody would call a difference; by more it is one."""
    value = ROW[column]
    assert isinstance(value, int)
    assert comparison(**{column: value + drift}).differing() == frozenset()
    assert comparison(**{column: value + 2 * drift}).differing() == {column}
    assert comparison(**{column: None}).differing() == {column}


def test_what_a_side_does_not_know_yet_is_no_difference() -> None:
    """The disks of many domains take their time; until then that column is an open question."""
    known = {**ROW, "disk_available_least": 7}
    unknown = {name: value for name, value in ROW.items() if name != "disk_available_least"}
    found = Comparison(replace(RECOUNT, row=unknown), replace(DAEMON, row=known), 7, known, True)
    assert found.differing() == frozenset()
    (line,) = [one for one in compared(found, found.differing()) if "disk_available_least" in one]
    assert line.split()[1:] == ["?", "7", "7"]


def test_a_missing_row_differs_in_everything() -> None:
    """And it is said that it is missing."""
    missing = Comparison(RECOUNT, DAEMON, asked_database=True)
    assert missing.differing() == set(OWNED_COLUMNS)
    assert "  row: the database has no live row of this name" in list(
        compared(missing, missing.differing())
    )


def test_a_daemon_that_does_not_know_all_yet_says_since_when() -> None:
    """Its side is missing, which is a difference."""
    daemon = replace(DAEMON, row=None, stale_seconds=7.0)
    found = Comparison(RECOUNT, daemon, 7, ROW, asked_database=True)
    assert found.differing()
    assert "  daemon: the daemon does not know all of the host yet, stale for 7s" in list(
        compared(found, found.differing())
    )


def test_without_a_database_the_other_two_are_compared() -> None:
    """And the way to compare the third is told."""
    found = Comparison(RECOUNT, replace(DAEMON, row={**ROW, "running_vms": 9}))
    assert found.differing() == {"running_vms"}
    assert "  no row: give --database URL to compare it" in list(compared(found, found.differing()))


def test_one_side_alone_is_compared_with_nothing() -> None:
    """It is not said that there is no difference."""
    alone = Comparison(RECOUNT, None)
    assert alone.differing() == frozenset()
    assert list(compared(alone, alone.differing()))[-1] == "  nothing to compare with"


def test_a_host_inside_the_daemons_process_has_no_recount() -> None:
    """It is said why."""
    inside = Comparison(None, DAEMON, 7, ROW, asked_database=True)
    assert inside.differing() == frozenset()
    assert "  no recount: the host exists inside the daemon's process only" in list(
        compared(inside, inside.differing())
    )


def test_what_the_recount_could_not_read_is_named() -> None:
    """Else a difference would have no explanation."""
    stuck = account(domain("st\x1buck", unreadable="no answer"), pid=None)
    found = Comparison(stuck, DAEMON)
    lines = list(compared(found, found.differing()))
    assert "  st\\x1buck cannot be read: no answer" in lines


def test_what_cannot_be_had_is_told_and_not_compared() -> None:
    """The sides that there are are compared all the same."""
    problems = {"recount": "libvirtd\x1b is away"}
    found = Comparison(None, DAEMON, 7, {**ROW, "vcpus": 1}, asked_database=True, problems=problems)
    assert found.differing() == {"vcpus"}
    lines = list(compared(found, found.differing()))
    assert lines[1].split() == ["daemon", "row", "7"]
    assert "  no recount: libvirtd\\x1b is away" in lines
    unread = Comparison(RECOUNT, None, asked_database=True, problems={"row": "it is away"})
    assert unread.differing() == frozenset()
    assert list(compared(unread, unread.differing()))[-2:] == [
        "  no row: it is away",
        "  nothing to compare with",
    ]


def test_a_host_that_nobody_reaches_is_called_what_it_was_asked_for_as() -> None:
    """There is nothing else to call it."""
    nothing = Comparison(None, None, host="rack\x1b", problems={"recount": "no answer"})
    assert list(compared(nothing, nothing.differing())) == [
        "rack\\x1b",
        "  no row: give --database URL to compare it",
        "  no recount: no answer",
        "  nothing to compare with",
    ]


@pytest.mark.parametrize("letter", ["n", "\u6f22"])
def test_it_fits_a_terminal(letter: str) -> None:
    """Eighty columns with all three sides and a difference."""
    found = comparison(hypervisor_hostname=letter * 200, memory_mb=2**31 - 1)
    for line in list(compared(found, found.differing()))[1:]:
        assert width(line) <= 80
        assert line.isprintable()
