"""The two tables: their DDL and the rights on them. Text only; what is really there is
:mod:`asynchost.database.inspection`'s matter.

``compute_nodes`` stands here exactly as it was published: no key but ``id``, no default.
``asynchost_fence`` is the companion table that says which agent may write which row, so that
nobody else's table is altered. Both work on MariaDB from 10.11 on and on MySQL 9.7.
"""

from collections.abc import Iterable, Mapping, Sequence

TABLE = "compute_nodes"
FENCE = "asynchost_fence"
SERVICES = "services"
"""Nova's, where there is one: read, never written."""

COMPUTE_NODES_COLUMNS = {
    "created_at": "datetime default NULL",
    "updated_at": "datetime default NULL",
    "deleted_at": "datetime default NULL",
    "deleted": "tinyint(1) default NULL",
    "id": "int(11) NOT NULL auto_increment",
    "service_id": "int(11) NOT NULL",
    "vcpus": "int(11) NOT NULL",
    "memory_mb": "int(11) NOT NULL",
    "local_gb": "int(11) NOT NULL",
    "vcpus_used": "int(11) NOT NULL",
    "memory_mb_used": "int(11) NOT NULL",
    "local_gb_used": "int(11) NOT NULL",
    "hypervisor_type": "mediumtext NOT NULL",
    "hypervisor_version": "int(11) NOT NULL",
    "cpu_info": "mediumtext NOT NULL",
    "disk_available_least": "int(11) default NULL",
    "free_ram_mb": "int(11) default NULL",
    "free_disk_gb": "int(11) default NULL",
    "current_workload": "int(11) default NULL",
    "running_vms": "int(11) default NULL",
    "hypervisor_hostname": "varchar(255) default NULL",
}
"""The 21 columns as published, in their order."""

OWNED_COLUMNS = (
    *("vcpus", "memory_mb", "hypervisor_type", "hypervisor_version", "cpu_info"),
    *("vcpus_used", "memory_mb_used", "free_ram_mb", "running_vms", "current_workload"),
    *("local_gb", "local_gb_used", "free_disk_gb", "disk_available_least", "hypervisor_hostname"),
)
"""The columns whose values come from the host, in the order in which a row's values are made;
the writer compares and writes these."""

NOVA_COLUMNS = ("uuid", "host", "mapped", "stats", "supported_instances")
"""Columns of Nova's wider table that a row made by us is given a value in; later they are
Nova's, as all its others are from the beginning."""

FENCE_COLUMNS = {
    "node": "varchar(255) NOT NULL",
    "service": "varchar(255) NOT NULL",
    "cn_id": "bigint DEFAULT NULL",
    "term": "bigint NOT NULL",
    "seq": "bigint NOT NULL",
    "owner": "varchar(255) NOT NULL",
    "state": "varchar(16) NOT NULL",
    "stale_since": "datetime(6) DEFAULT NULL",
    "seen_at": "datetime(6) NOT NULL",
    "updated_at": "datetime(6) NOT NULL",
}
"""``node`` is the row's ``hypervisor_hostname``, ``service`` its ``service_id`` as text.

``cn_id`` is the row's ``id`` (NULL while a claim runs); ``term`` and ``owner`` say who may write
it, ``seq`` grows with each write, at ``updated_at``; ``seen_at`` is when ``state`` was last told:
fresh, stale (since ``stale_since``) or stopped. The later of the two times is the last sign of
life.
"""

Rights = Mapping[str, Sequence[str]]
"""The columns that each right is needed on."""

NODE_RIGHTS: Rights = {
    "SELECT": ("id", "service_id", "deleted", "updated_at", *OWNED_COLUMNS),
    "INSERT": ("created_at", "updated_at", "deleted", "service_id", *OWNED_COLUMNS),
    "UPDATE": ("updated_at", "deleted", *OWNED_COLUMNS),
}
FENCE_RIGHTS: Rights = {
    # MariaDB asks for the right to read and to update whatever INSERT … ON DUPLICATE KEY UPDATE
    # inserts or updates; so both of all columns.
    "SELECT": tuple(FENCE_COLUMNS),
    "INSERT": tuple(c for c in FENCE_COLUMNS if c not in ("cn_id", "stale_since")),
    "UPDATE": tuple(FENCE_COLUMNS),
}
"""What the statements in :mod:`asynchost.database.statements` ask for, and no more."""


def quoted(name: str) -> str:
    """An identifier in backticks."""
    return "`" + name.replace("`", "``") + "`"


def compute_nodes_ddl(*, if_not_exists: bool = False) -> str:
    """``CREATE TABLE`` of the original table."""
    lines = [f"  {quoted(name)} {definition}" for name, definition in COMPUTE_NODES_COLUMNS.items()]
    return _create(TABLE, [*lines, "  PRIMARY KEY  (`id`)"], "utf8", if_not_exists)


def fence_ddl(*, if_not_exists: bool = False) -> str:
    """``CREATE TABLE`` of the companion table."""
    lines = [f"  {quoted(name)} {definition}" for name, definition in FENCE_COLUMNS.items()]
    # A number for the primary key, which nothing here reads: an UPDATE of two tables gathers the
    # primary keys of the rows, and with the two names in it a write takes the server twice as long.
    lines.insert(0, "  `id` bigint NOT NULL auto_increment")
    keys = [
        "  PRIMARY KEY (`id`)",
        "  UNIQUE KEY `asynchost_fence_node` (`node`, `service`)",
        "  UNIQUE KEY `asynchost_fence_cn_id` (`cn_id`)",
    ]
    charset = "utf8mb4 COLLATE=utf8mb4_general_ci"
    return _create(FENCE, [*lines, *keys], charset, if_not_exists)


def ddl(table: str, *, if_not_exists: bool = False) -> str:
    """``CREATE TABLE`` of one of the two tables."""
    make = compute_nodes_ddl if table == TABLE else fence_ddl
    return make(if_not_exists=if_not_exists)


def one_line(statement: str) -> str:
    """A statement without its line breaks, for an error's text."""
    return " ".join(statement.split())


def add_column(table: str, column: str) -> str:
    """``ALTER TABLE`` that adds a missing column; for a person to run, never run here."""
    columns = COMPUTE_NODES_COLUMNS if table == TABLE else FENCE_COLUMNS
    return f"ALTER TABLE {quoted(table)} ADD COLUMN {quoted(column)} {columns[column]}"


def definition(table: str, column: str) -> str:
    """A column's type and default, as its table has it here."""
    return (COMPUTE_NODES_COLUMNS if table == TABLE else FENCE_COLUMNS)[column]


def default_null(table: str, column: str, full_type: str) -> str:
    """``ALTER TABLE`` that lets rows do without a column; for a person to run, never run here."""
    return f"ALTER TABLE {quoted(table)} MODIFY {quoted(column)} {full_type} DEFAULT NULL"


def grant_statements(database: str, account: str = "'asynchost'@'%'") -> tuple[str, ...]:
    """The rights that the writer needs, column by column, and no other. No DELETE anywhere.

    Of them nothing can be left out, if the agent may stand by as well.

    ``account`` is written as given: ``'user'@'host'``, with its quotes.
    """
    where = quoted(database)
    return tuple(
        f"GRANT {_listed(rights)} ON {where}.{quoted(table)} TO {account}"
        for table, rights in ((TABLE, NODE_RIGHTS), (FENCE, FENCE_RIGHTS))
    )


def nova_grant_statements(database: str, account: str) -> tuple[str, ...]:
    """The further rights beside a Nova: to make rows complete, and to see its services and which
    of them keeps a row."""
    where = quoted(database)
    seen = ("id", "host", "binary", "deleted", "updated_at")
    filled, read = (", ".join(map(quoted, columns)) for columns in (NOVA_COLUMNS, seen))
    return (
        f"GRANT SELECT (`host`), INSERT ({filled}) ON {where}.{quoted(TABLE)} TO {account}",
        f"GRANT SELECT ({read}) ON {where}.{quoted(SERVICES)} TO {account}",
    )


def grant_insert(database: str, column: str, account: str) -> str:
    """The further right to fill somebody's own column in a new row."""
    return f"GRANT INSERT ({quoted(column)}) ON {quoted(database)}.{quoted(TABLE)} TO {account}"


def probes(further: Iterable[str] = ()) -> tuple[tuple[str, str], ...]:
    """Statements that need each right and change nothing, with the table they ask for.

    ``further`` are the columns beside the original ones that a new row is given a value in.
    """
    nodes = {**NODE_RIGHTS, "INSERT": (*NODE_RIGHTS["INSERT"], *further)}
    return (*_probes(TABLE, nodes), *_probes(FENCE, FENCE_RIGHTS))


def readable() -> tuple[tuple[str, str], ...]:
    """Of the probes, those that need no more than to read ``compute_nodes``."""
    return probes()[:1]


def used(table: str) -> tuple[str, ...]:
    """The columns of one of the two tables that are read or written, in the table's order."""
    rights = NODE_RIGHTS if table == TABLE else FENCE_RIGHTS
    columns = COMPUTE_NODES_COLUMNS if table == TABLE else FENCE_COLUMNS
    return tuple(c for c in columns if any(c in needed for needed in rights.values()))


def _listed(rights: Rights) -> str:
    return ", ".join(
        f"{right} ({', '.join(map(quoted, columns))})" for right, columns in rights.items()
    )


def _probes(table: str, rights: Rights) -> list[tuple[str, str]]:
    read, inserted, updated = rights["SELECT"], rights["INSERT"], rights["UPDATE"]
    # The right is asked for when the statement is prepared; WHERE FALSE keeps it from acting.
    nothing = f"SELECT {', '.join('0' for _ in inserted)} FROM DUAL WHERE FALSE"
    assignments = ", ".join(f"{quoted(column)} = 0" for column in updated)
    statements = (
        f"SELECT {', '.join(map(quoted, read))} FROM {quoted(table)} WHERE FALSE",
        f"INSERT INTO {quoted(table)} ({', '.join(map(quoted, inserted))}) {nothing}",
        f"UPDATE {quoted(table)} SET {assignments} WHERE FALSE",
    )
    return [(table, statement) for statement in statements]


def _create(table: str, lines: list[str], charset: str, if_not_exists: bool) -> str:
    clause = "IF NOT EXISTS " if if_not_exists else ""
    body = ",\n".join(lines)
    # The guard's keys are longer than the row format COMPACT, still the default of some, takes.
    options = f"ENGINE=InnoDB{' ROW_FORMAT=DYNAMIC' if table == FENCE else ''}"
    return f"CREATE TABLE {clause}{quoted(table)} (\n{body}\n) {options} DEFAULT CHARSET={charset}"
