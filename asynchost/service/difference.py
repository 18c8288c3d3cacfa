"""A host three times, side by side: recounted now, as its daemon knows it, as the row says.

Pure: values in, lines and a verdict out.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from asynchost.database.rows import Value
from asynchost.database.schema import OWNED_COLUMNS
from asynchost.service.accounts import Account
from asynchost.service.explained import age, heading
from asynchost.service.terminal import escape, pad, shorten, width

_DISK_COLUMNS: Final = frozenset(
    {"local_gb", "local_gb_used", "free_disk_gb", "disk_available_least"}
)
_DISK_TOLERANCE: Final = 1
"""GiB: a file system moves between two looks, and a figure may stand just below the next."""
_CELL: Final = 14
_COLUMN: Final = 20

Columns = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The columns of one host's row, from each side that there is."""

    recount: Account | None
    """None where the host exists in its daemon's process only, and where it cannot be had."""
    daemon: Account | None
    """None where no daemon watches the host."""
    row_id: int | None = None
    row: Columns | None = None
    """None where there is no database to ask, or no row."""
    asked_database: bool = False
    host: str = ""
    """What it is called where neither side tells."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Why a side cannot be had, ``recount`` or ``row``. What cannot be had is not compared."""

    @property
    def account(self) -> Account | None:
        """Whom it is about; None where there is neither recount nor daemon."""
        return self.daemon or self.recount

    @property
    def sides(self) -> dict[str, Columns | None]:
        """What there is to compare, by name, in the order in which it is shown."""
        sides: dict[str, Columns | None] = {}
        if self.recount is not None:
            sides["recount"] = self.recount.row
        if self.daemon is not None:
            sides["daemon"] = self.daemon.row
        if self.asked_database and "row" not in self.problems:
            sides["row" if self.row_id is None else f"row {self.row_id}"] = self.row
        return sides

    def differing(self) -> frozenset[str]:
        """The columns on which the sides do not agree; all of them where a side is missing."""
        sides = list(self.sides.values())
        present = [side for side in sides if side is not None]
        if len(present) < len(sides):
            return frozenset(OWNED_COLUMNS)
        if not present:
            return frozenset()
        return frozenset(
            column
            for column in OWNED_COLUMNS
            if not _agree(column, [side[column] for side in present if column in side])
        )


def compared(comparison: Comparison, differing: frozenset[str]) -> Iterator[str]:
    """The comparison's lines."""
    sides, recount = comparison.sides, comparison.recount
    account = comparison.account
    yield escape(comparison.host) if account is None else heading(account)
    if sides:
        yield _line("", list(sides), "")
    for column in OWNED_COLUMNS if sides else ():
        cells = [_cell(side, column) for side in sides.values()]
        yield _line(column, cells, "differs" if column in differing else "")
    if recount is None and "recount" not in comparison.problems:
        yield "  no recount: the host exists inside the daemon's process only"
    if not comparison.asked_database:
        yield "  no row: give --database URL to compare it"
    yield from _left_out(comparison.daemon)
    for what, side in sides.items():
        if side is None:
            yield f"  {what}: {_absence(comparison, what)}"
    for what, problem in comparison.problems.items():
        yield f"  no {what}: {escape(problem)}"
    explanation = None if recount is None else recount.explanation
    for domain in [] if explanation is None else explanation["domains"]:
        if domain["unreadable"] is not None:
            name = shorten(domain["name"] or domain["uuid"], 40)
            yield f"  {name} cannot be read: {shorten(domain['unreadable'], 60)}"
    yield f"  {_verdict(len(sides), differing)}"


def _left_out(daemon: Account | None) -> Iterator[str]:
    if daemon is not None and daemon.left_out:
        columns = escape(", ".join(daemon.left_out))
        yield f"  the daemon cannot write {columns}: refused, or another program's edit"


def _agree(column: str, values: Sequence[Value]) -> bool:
    if column in _DISK_COLUMNS and all(isinstance(value, int) for value in values):
        numbers = [value for value in values if isinstance(value, int)]
        return max(numbers) - min(numbers) <= _DISK_TOLERANCE
    return len(set(values)) <= 1


def _absence(comparison: Comparison, what: str) -> str:
    daemon = comparison.daemon
    if what == "daemon" and daemon is not None:
        since = "" if daemon.stale_seconds is None else f", stale for {age(daemon.stale_seconds)}"
        return f"the daemon does not know all of the host yet{since}"
    if what == "recount":
        return "the host did not tell all that a row holds"
    return "the database has no live row of this name"


def _verdict(sides: int, differing: frozenset[str]) -> str:
    if sides < 2:
        return "nothing to compare with"
    match len(differing):
        case 0:
            return "no difference"
        case 1:
            return "1 column differs"
        case number:
            return f"{number} columns differ"


def _cell(side: Columns | None, column: str) -> str:
    if side is None:
        return "-"
    if column not in side:
        return "?"  # not known yet, which is no difference
    value = side[column]
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return f"{value:,}"
    if width(escape(value)) > _CELL:
        # Enough to see whether two are the same.
        return f"{shorten(value, _CELL - 7)}#{zlib.crc32(value.encode()) & 0xFFFFFF:06x}"
    return shorten(value, _CELL)


def _line(column: str, cells: Sequence[str], remark: str) -> str:
    joined = " ".join(pad(cell, _CELL, left=True) for cell in cells)
    return f"  {column:{_COLUMN}} {joined}  {remark}".rstrip()
