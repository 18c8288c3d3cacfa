"""What a column takes, by what the server says of it: a neutral value, what is written there.

Pure. Decided by names and types alone. A column is taken to fit wherever it might: a type that is
not known here is the server's matter.
"""

from collections.abc import Iterable
from typing import NamedTuple, Self

from asynchost.database.rows import SHORTEST_CPU_INFO
from asynchost.database.schema import COMPUTE_NODES_COLUMNS, TABLE, quoted

_BITS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}
_PUBLISHED_BITS = 32
_NUMBERS = frozenset((*_BITS, "decimal", "float", "double", "bit", "year"))
_BYTES = frozenset(("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"))
_TEXTS = _BYTES | {"char", "varchar", "tinytext", "text", "mediumtext", "longtext"}
_TIMES = frozenset(("date", "datetime", "timestamp", "time"))

_NO_TEXTS = frozenset(
    [
        *("uuid", "inet4", "inet6", "vector", "geometry", "point", "linestring", "polygon"),
        *("multipoint", "multilinestring", "multipolygon", "geometrycollection", "geomcollection"),
    ]
)
_NO_NUMBERS = _TIMES | _NO_TEXTS | _BYTES | {"year", "float", "json", "set", "enum"}
"""A FLOAT is shown with six digits, whatever it holds. Read back, the
bytes of a BIT, which are the number, and those of a BLOB, which are its digits, look alike."""

_COUNT, _MEMORY_MB, _DISK_GB = 10_000, 16_000_000, 8_000_000
_LARGEST = {
    **dict.fromkeys(("vcpus", "vcpus_used", "running_vms", "current_workload"), _COUNT),
    **dict.fromkeys(("memory_mb", "memory_mb_used", "free_ram_mb"), _MEMORY_MB),
    **dict.fromkeys(("local_gb", "local_gb_used", "free_disk_gb"), _DISK_GB),
    "disk_available_least": _DISK_GB,
    # Version 16 of a hypervisor.
    "hypervisor_version": 16_000_000,
}
"""What no host exceeds for years to come."""
_BELOW_ZERO = frozenset(("free_ram_mb", "disk_available_least"))
"""Where more is promised than there is."""
_UNKNOWN = frozenset(("free_disk_gb", "disk_available_least"))
"""NULL until it is known, and where it cannot be."""
_LENGTHS = {
    "cpu_info": (SHORTEST_CPU_INFO, 4096),
    "hypervisor_type": (len("CH"), len("Parallels")),
    "hypervisor_hostname": (1, 64),
}
"""What each host's takes at least, and what is enough for most: of characters."""

DESCRIBED = (
    *("table_name", "column_name", "data_type", "column_type", "is_nullable", "column_default"),
    *("extra", "privileges", "character_maximum_length", "collation_name", "column_key"),
)
"""The columns of ``information_schema.columns`` that :meth:`Column.described` wants."""


class Column(NamedTuple):
    """A column as the server describes it; its name and type in lower case."""

    table: str
    name: str
    data_type: str
    """Such as ``int``."""
    full_type: str
    """Such as ``int(10) unsigned``."""
    nullable: bool
    needs_value: bool
    """Whether an INSERT that leaves it out is refused; but see :func:`neutral` for ENUM."""
    is_made: bool
    """Whether the server makes its value."""
    is_computed: bool
    """Whether the server computes it of other columns, and takes no value."""
    counts: bool
    """Whether it is AUTO_INCREMENT."""
    rights: str
    """The account's, with commas."""
    length: int | None
    """The most characters, or bytes."""
    collation: str | None
    is_key: bool
    """Whether no two rows share a value, as far as an index of this column alone says."""

    @classmethod
    def described(cls, row: Iterable[object]) -> Self:
        """From a row of ``DESCRIBED``."""
        table, name, data_type, full_type, nullable, default, extra, rights, *others = row
        length, collation, key = others
        words = str(extra).lower().split()
        counts = "auto_increment" in words
        # MySQL says DEFAULT_GENERATED of a default that is an expression, such as a time.
        computed = not {"virtual", "stored", "persistent"}.isdisjoint(words)
        made = counts or computed or "default_generated" in words
        return cls(
            str(table),
            str(name).lower(),
            str(data_type).lower(),
            str(full_type),
            nullable == "YES",
            nullable == "NO" and default is None and not made,
            made,
            computed,
            counts,
            str(rights or ""),
            length if isinstance(length, int) else None,
            None if collation is None else str(collation),
            key in ("PRI", "UNI"),
        )

    @property
    def is_string(self) -> bool:
        """Whether it holds characters, and no bytes."""
        return self.is_text and self.collation is not None

    @property
    def is_text(self) -> bool:
        """Whether it takes an empty text, if no rule forbids that."""
        return self.data_type in _TEXTS


def neutral(column: Column, *, is_json: bool = False) -> str | None:
    """SQL for a value that says nothing; None where none is known, and where the server has one of
    its own, as an ENUM's first. ``is_json``: a rule of the table's asks for JSON there."""
    if is_json or column.data_type == "json":
        return "'{}'"
    if column.data_type in _NUMBERS:
        return "0"
    if column.is_text or column.data_type == "set":
        return "''"
    return "UTC_TIMESTAMP()" if column.data_type in _TIMES else None


class Misfit(NamedTuple):
    """An owned column that does not hold all that may have to be written there."""

    reason: str
    change: str
    """What mends it, as a part of an ALTER TABLE."""
    hopeless: bool
    """Whether it holds no host's value, so that no row can be written. Else it may do for these
    hosts and not for others."""


def misfit(column: Column) -> Misfit | None:
    """What is wrong with a column of ``compute_nodes``, if anything."""
    short, hopeless = _shortage(column)
    faults = [short] if short else []
    signed = column.full_type
    if column.name in _BELOW_ZERO and "unsigned" in column.full_type.lower():
        faults.append("nothing below 0")
        signed = column.full_type.lower().replace(" unsigned", "").replace(" zerofill", "")
    if column.name in _UNKNOWN and not column.nullable:
        faults.append("no NULL")
    if not faults:
        return None
    # As it was published, if that is larger.
    is_small = bool(short) or _BITS.get(column.data_type, _PUBLISHED_BITS) < _PUBLISHED_BITS
    kind = COMPUTE_NODES_COLUMNS[column.name].split()[0] if is_small else signed
    demands = "DEFAULT NULL" if column.nullable or column.name in _UNKNOWN else "NOT NULL"
    reason = f"the column {column.name} ({column.full_type}) holds {' and '.join(faults)}"
    return Misfit(reason, f"MODIFY {quoted(column.name)} {kind} {demands}", hopeless)


def mend(misfits: Iterable[Misfit]) -> str:
    """The statement that mends all of these; for a person to run, never run here."""
    return f"ALTER TABLE {quoted(TABLE)} {', '.join(misfit.change for misfit in misfits)}"


def _shortage(column: Column) -> tuple[str, bool]:
    """In which respect it is too small, if in any, and whether it is so for every host."""
    bits = _BITS.get(column.data_type)
    if bits is not None and column.name in _LARGEST:
        most = 2 ** (bits if "unsigned" in column.full_type.lower() else bits - 1) - 1
        return (f"no more than {most}" if most < _LARGEST[column.name] else "", False)
    if column.name in _LARGEST and column.data_type in _NO_NUMBERS:
        return "no number that can be read back", True
    if column.name in _LENGTHS:
        least, enough = _LENGTHS[column.name]
        if column.data_type in _NUMBERS | _TIMES | _NO_TEXTS:
            return "no text", True
        if column.data_type == "json" and column.name != "cpu_info":
            return "no text but JSON", True
        if column.is_text and column.length is not None and column.length < enough:
            return f"no more than {column.length} characters", column.length < least
    return "", False
