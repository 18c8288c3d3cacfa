"""What a table ``compute_nodes`` has beside the original columns, and what a new row needs there.

Nova has widened its table with every release, and others have added columns of their own. A row
that is there keeps whatever those hold. A row that is made gets what Nova's readers expect of
one, and a neutral value where the table demands some value and offers none.
"""

import uuid
from collections.abc import Sequence
from typing import NamedTuple

from asynchost.database.columns import DESCRIBED, Column, Misfit, misfit, neutral
from asynchost.database.schema import COMPUTE_NODES_COLUMNS, NOVA_COLUMNS, SERVICES, TABLE
from asynchost.database.session import Row, Session
from asynchost.database.statements import literal

_SERVICES_COLUMNS = frozenset({"id", "host", "binary", "deleted", "updated_at"})
_JSON_COLLATION = "utf8mb4_bin"
"""MariaDB makes a longtext of this collation, with a CHECK, of what is declared as JSON."""


class Further(NamedTuple):
    """A column that a new row may be given a value in, beside the original ones."""

    name: str
    neutral: str | None
    """SQL for a value, where an INSERT that leaves the column out is refused."""


class Layout(NamedTuple):
    """What was found."""

    columns: tuple[Further, ...] = ()
    services: bool = False
    """Whether Nova's table ``services`` is there and may be read."""
    host: bool = False
    """Whether rows name their nova-compute's host, in a column that may be read."""
    misfits: tuple[Misfit, ...] = ()
    """What is wrong with the columns that are written."""
    counts_matches: bool = False
    """Whether the server was seen to count matched rows; without a guard row nothing tells."""

    def filling(self, host: str, supported_instances: str) -> dict[str, str]:
        """The further columns of a new row and their values, as SQL; ``host`` is Nova's name of
        the host that the service runs on, ``supported_instances`` is JSON."""
        known = {
            "uuid": literal(str(uuid.uuid4())),
            "host": literal(host),
            "mapped": "0",
            "stats": literal("{}"),
            "supported_instances": literal(supported_instances),
        }
        filled = {}
        for column in self.columns:
            value = known.get(column.name, column.neutral)
            if value is not None:
                filled[column.name] = value
        return filled


async def discover(
    session: Session, *, only_reads: bool = False, columns: Sequence[Column] | None = None
) -> Layout:
    """Look at the tables, as far as the account may see them; ``columns`` are what was described.

    With ``only_reads`` another account would make a new row: it is taken to have the right to
    INSERT into whatever this one may see.
    """
    if columns is None:
        columns = await describe(session, TABLE, SERVICES)
    ours = [column for column in columns if column.table == TABLE]
    readable = {
        (column.table, column.name)
        for column in columns
        if "select" in column.rights and (column.is_string or column.name != "host")
    }
    further = [
        column
        for column in ours
        if column.name not in COMPUTE_NODES_COLUMNS
        and (only_reads or "insert" in column.rights)
        and not column.is_made
    ]
    json = await _demand_json(session, further)
    filled = []
    for column in further:
        value = neutral(column, is_json=column in json) if column.needs_value else None
        if value is not None or column.name in NOVA_COLUMNS:
            filled.append(Further(column.name, value))
    return Layout(
        tuple(filled),
        services=readable >= {(SERVICES, column) for column in _SERVICES_COLUMNS},
        host=(TABLE, "host") in readable,
        misfits=tuple(found for column in ours if (found := misfit(column)) is not None),
    )


async def describe(session: Session, *tables: str) -> list[Column]:
    """The columns of these tables, as far as the account may see them."""
    rows = await session.query(
        f"SELECT {', '.join(DESCRIBED)} FROM information_schema.columns"
        f" WHERE table_schema = DATABASE() AND table_name IN ({', '.join(map(literal, tables))})"
    )
    return [Column.described(row) for row in rows]


async def _demand_json(session: Session, columns: Sequence[Column]) -> list[Column]:
    """Those of a MariaDB's text columns that take JSON only."""
    texts = [column for column in columns if column.is_text and column.needs_value]
    if not texts:
        return []
    has_view = await session.query(  # not before MariaDB 10.2.22 and MySQL 8.0.16
        "SELECT 1 FROM information_schema.tables"
        " WHERE table_schema = 'information_schema' AND table_name = 'CHECK_CONSTRAINTS'"
    )
    rows: list[Row] = []
    if has_view:
        # MySQL says of which table a CHECK is in another view, and names it once in a database.
        of_table = f" AND table_name = {literal(TABLE)}" if session.is_mariadb else ""
        rows = await session.query(
            "SELECT check_clause FROM information_schema.check_constraints"
            f" WHERE constraint_schema = DATABASE(){of_table}"
        )
    checks = " ".join(str(clause).lower() for (clause,) in rows)
    return [
        column
        for column in texts
        if f"json_valid(`{column.name}`)" in checks
        # An account with rights on columns only is shown no CHECK.
        or (column.data_type, column.collation) == ("longtext", _JSON_COLLATION)
    ]
