"""What a table ``compute_nodes`` has beside the original columns, and what a new row needs there.

Nova has widened its table with every release, and others have added columns of their own. A row
that is there keeps whatever those hold. A row that is made gets what Nova's readers expect of
one, and a neutral value where the table demands some value and offers none.
"""

import uuid
from collections.abc import Iterable
from typing import NamedTuple

from asynchost.database.schema import COMPUTE_NODES_COLUMNS, NOVA_COLUMNS, SERVICES, TABLE
from asynchost.database.session import Session
from asynchost.database.statements import literal

_SERVICES_COLUMNS = frozenset({"id", "host", "binary", "deleted", "updated_at"})
_NUMBERS = frozenset(
    ("tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "float", "double", "bit")
)
_TEXTS = frozenset(
    [
        *("char", "varchar", "tinytext", "text", "mediumtext", "longtext"),
        *("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"),
    ]
)
_TIMES = frozenset(("date", "datetime", "timestamp", "time"))


class Column(NamedTuple):
    """A column that a new row may be given a value in, beside the original ones."""

    name: str
    data_type: str
    needs_value: bool
    """Whether an INSERT that leaves it out is refused."""


class Layout(NamedTuple):
    """What was found."""

    columns: tuple[Column, ...] = ()
    services: bool = False
    """Whether Nova's table ``services`` is there and may be read."""
    host: bool = False
    """Whether rows name their nova-compute's host, in a column that may be read."""

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
            value = known.get(column.name)
            if value is None and column.needs_value:
                value = _neutral(column.data_type)
            if value is not None:
                filled[column.name] = value
        return filled


async def discover(session: Session, *, only_reads: bool = False) -> Layout:
    """Look at the tables, as far as the account may see them.

    With ``only_reads`` another account would make a new row: it is taken to have the right to
    INSERT into whatever this one may see.
    """
    rows = await session.query(
        "SELECT table_name, column_name, data_type, is_nullable, column_default, extra, privileges"
        " FROM information_schema.columns WHERE table_schema = DATABASE()"
        f" AND table_name IN ({literal(TABLE)}, {literal(SERVICES)})"
    )
    readable = {
        (table, str(name).lower()) for table, name, *_, rights in rows if "select" in (rights or "")
    }
    return Layout(
        tuple(_further(rows, "" if only_reads else "insert")),
        services=readable >= {(SERVICES, column) for column in _SERVICES_COLUMNS},
        host=(TABLE, "host") in readable,
    )


def _further(rows: Iterable[tuple[str | None, ...]], right: str) -> Iterable[Column]:
    for table, name, data_type, nullable, default, extra, rights in rows:
        column = str(name).lower()
        if table != TABLE or column in COMPUTE_NODES_COLUMNS or right not in (rights or ""):
            continue
        is_made = bool(extra) and any(word in str(extra).lower() for word in ("auto", "generated"))
        needs_value = nullable == "NO" and default is None and not is_made
        if needs_value or (column in NOVA_COLUMNS and not is_made):
            yield Column(column, str(data_type).lower(), needs_value)


def _neutral(data_type: str) -> str | None:
    if data_type in _NUMBERS:
        return "0"
    if data_type in _TEXTS:
        return "''"
    if data_type in _TIMES:
        return "UTC_TIMESTAMP()"
    return "'{}'" if data_type == "json" else None  # the server says what it wants
