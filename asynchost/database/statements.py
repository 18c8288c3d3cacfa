"""The SQL text of everything that touches the two tables while running.

Pure: values in, text out. Column names are our own constants, strings go through the driver's
escaper, integers through ``%d``. No client clock: every time is the server's, in UTC.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from pymysql.converters import escape_string

from asynchost.database.rows import NUMERIC_COLUMNS, RowValues, Value, Values
from asynchost.database.schema import FENCE, OWNED_COLUMNS, SERVICES, TABLE, quoted

ROWS_PER_STATEMENT = 1000
"""Batching is worth twenty times; from 200 to 1000 a row costs the server a quarter less."""
_NOW = "UTC_TIMESTAMP(6)"
_STAMPS = "t.updated_at = UTC_TIMESTAMP(), f.updated_at = UTC_TIMESTAMP(6)"
LIVE = "(deleted = 0 OR deleted IS NULL)"
REFUSED, PARTIAL = "refused", "partial"
"""The states of a row of which nothing, or not everything, is written: the database refuses it."""
STOPPED = "stopped"
"""The state of a row whose owner has let go of it: it will not write it any more."""


class FenceKey(NamedTuple):
    """The companion table's key, as stored there."""

    node: str
    service: str


class RowWrite(NamedTuple):
    """One host's part of a flush: exactly one in one statement."""

    row_id: int
    term: int
    seq: int
    """Higher than that of any write of this host before, in doubt or not."""
    columns: tuple[str, ...]
    """Only those that differ."""
    values: RowValues
    """Theirs, as absolute values."""

    @property
    def named(self) -> Values:
        """The values by column."""
        return dict(zip(self.columns, self.values, strict=True))


class Sign(NamedTuple):
    """One host's sign of life."""

    row_id: int
    term: int
    state: str
    stale_microseconds: int | None


def short_name(name: str) -> str | None:
    """A host's name up to the first dot; None for an address, whose beginning is no name."""
    short = name.partition(".")[0]
    return None if short.isdecimal() else short


def literal(value: Value) -> str:
    """A value as SQL text. The session's mode lets backslashes escape."""
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return "%d" % value  # noqa: UP031 - refuses anything that is not a number
    return f"'{escape_string(value)}'"


def update(batch: Sequence[RowWrite], owner: str, *, mariadb: bool = False) -> str:
    """The guarded write of one batch; matches two rows for each host it lands for.

    The guard stands in the same statement: a write that was delayed, repeated, or sent by an
    agent that no longer owns the row finds another term, owner or a higher seq, and changes
    nothing. The fence row is locked before the row, as in a claim. One host has its own form,
    without the derived table: it is on the path that latency is measured on, and there MariaDB
    takes half the time with this order of the two tables.

    Of many hosts it takes MariaDB a tenth less in a form of its own; the other one is everybody's.
    """
    guard = f"t.deleted = 0 AND f.owner = {literal(owner)}"
    if len(batch) == 1:
        (write,) = batch
        assignments = ", ".join(f"t.{c} = {literal(v)}" for c, v in write.named.items())
        return (
            f"UPDATE {FENCE} f STRAIGHT_JOIN {TABLE} t ON t.id = f.cn_id"
            f" SET {assignments}, f.seq = {write.seq:d}, {_STAMPS}"
            f" WHERE f.cn_id = {write.row_id:d} AND {guard}"
            f" AND f.term = {write.term:d} AND f.seq <= {write.seq:d}"
        )
    columns = batch[0].columns
    names = ("id", "e", "s", *(f"c{n}" for n in range(len(columns))))
    assignments = ", ".join(f"t.{c} = v.c{n}" for n, c in enumerate(columns))
    return (
        f"UPDATE ({_table(names, batch, mariadb=mariadb)}) v"
        f" STRAIGHT_JOIN {FENCE} f ON f.cn_id = v.id STRAIGHT_JOIN {TABLE} t ON t.id = f.cn_id"
        f" SET {assignments}, f.seq = v.s, {_STAMPS}"
        f" WHERE {guard} AND f.term = v.e AND f.seq <= v.s"
    )


def renew(signs: Sequence[Sign], owner: str) -> str:
    """Signs of life of many hosts; matches one row for each that is still owned."""
    rows = [tuple(map(literal, sign)) for sign in sorted(signs)]
    return (
        f"UPDATE ({_rows(('id', 'e', 'st', 'age'), '%s', rows)}) v"
        f" STRAIGHT_JOIN {FENCE} f ON f.cn_id = v.id"
        " SET f.seen_at = UTC_TIMESTAMP(6), f.state = v.st,"
        " f.stale_since = UTC_TIMESTAMP(6) - INTERVAL v.age MICROSECOND"
        f" WHERE f.term = v.e AND f.owner = {literal(owner)}"
    )


def lockable_rows(row_ids: Sequence[int]) -> str:
    """Of these rows the ids of those that an UPDATE would not wait for: neither the row nor its
    guard is locked by anybody else. A row that is gone is not among them either.

    The locks that it takes last as long as the statement.
    """
    return (
        f"SELECT f.cn_id FROM {FENCE} f STRAIGHT_JOIN {TABLE} t ON t.id = f.cn_id"
        f" WHERE {_ids('f.cn_id', row_ids)} FOR UPDATE SKIP LOCKED"
    )


def existing_rows(row_ids: Sequence[int]) -> str:
    """Of these rows the ids of those that are there with a guard, locked or not."""
    return (
        f"SELECT f.cn_id FROM {FENCE} f STRAIGHT_JOIN {TABLE} t ON t.id = f.cn_id"
        f" WHERE {_ids('f.cn_id', row_ids)}"
    )


def lockable_guards(row_ids: Sequence[int]) -> str:
    """The same as :func:`lockable_rows`, of the guard rows alone."""
    return f"SELECT cn_id FROM {FENCE} WHERE {_ids('cn_id', row_ids)} FOR UPDATE SKIP LOCKED"


def existing_guards(row_ids: Sequence[int]) -> str:
    """Of these rows the ids of those that have a guard, locked or not."""
    return f"SELECT cn_id FROM {FENCE} WHERE {_ids('cn_id', row_ids)}"


def lock_guards(keys: Collection[FenceKey]) -> str:
    """Locks those guard rows that nobody else has locked, and returns their keys as stored."""
    return f"SELECT node, service FROM {FENCE} WHERE {_among('', keys)} FOR UPDATE SKIP LOCKED"


def any_guard() -> str:
    """Locks one guard row that nobody else has locked, whichever, and returns its key."""
    return f"SELECT node, service FROM {FENCE} LIMIT 1 FOR UPDATE SKIP LOCKED"


def touch_guard(key: FenceKey) -> str:
    """Changes nothing, and matches one row."""
    return f"UPDATE {FENCE} SET seq = seq WHERE {_is(key)}"


def lock_rows(row_ids: Sequence[int]) -> str:
    """Locks those rows that nobody else has locked, and returns their ids."""
    return f"SELECT id FROM {TABLE} WHERE {_ids('id', row_ids)} FOR UPDATE SKIP LOCKED"


def lock_rivals(pointed: Mapping[FenceKey, int]) -> str:
    """Locks the guard rows that :func:`evict_fences` changes; fails at once where one is locked."""
    return (
        f"SELECT cn_id FROM {FENCE} WHERE {_ids('cn_id', pointed.values())}"
        f" AND NOT ({_among('', pointed)}) FOR UPDATE NOWAIT"
    )


def read_back(keys: Sequence[FenceKey]) -> str:
    """What the database holds for these hosts: fence columns, then ``t.id``, ``t.deleted``,
    ``t.updated_at`` and the owned columns. The row's part is NULL where the row is gone."""
    columns = ", ".join(f"t.{column}" for column in OWNED_COLUMNS)
    return (
        f"SELECT f.node, f.service, f.term, f.seq, f.owner, f.updated_at,"
        f" t.id, t.deleted, t.updated_at, {columns}"
        f" FROM {FENCE} f LEFT JOIN {TABLE} t ON t.id = f.cn_id WHERE {_among('f.', keys)}"
    )


def read_guards(keys: Sequence[FenceKey], silent_seconds: float) -> str:
    """What a standby looks at: who owns these rows, the last sign of life, and whether that is
    ``silent_seconds`` ago by the server's clock."""
    return (
        f"SELECT node, service, term, owner, state, GREATEST(seen_at, updated_at),"
        f" {_silent(silent_seconds)} FROM {FENCE} WHERE {_among('', keys)}"
    )


def live_rows(names: Sequence[str], *, host: bool = False) -> str:
    """The rows that may be these hosts': not soft-deleted, with one of the names; with Nova's
    column ``host`` where there is one.

    One statement for many names: the original table has no index on them, so that each look is
    a look at every row.
    """
    return (
        f"SELECT hypervisor_hostname, id, service_id, deleted{', host' if host else ''}"
        f" FROM {TABLE}"
        f" WHERE hypervisor_hostname IN ({', '.join(map(literal, names))}) AND {LIVE} ORDER BY id"
    )


def newest_row() -> str:
    """The highest id, of a row that is live or not; NULL where there is no row."""
    return f"SELECT MAX(id) FROM {TABLE}"


def newer_rows(row_id: int, most: int) -> str:
    """Live rows with a higher id than this, the oldest first."""
    return (
        f"SELECT id, hypervisor_hostname, service_id FROM {TABLE}"
        f" WHERE id > {row_id:d} AND deleted = 0 ORDER BY id LIMIT {most:d}"
    )


def false_rows(most: int) -> str:
    """The hosts whose agents say that their rows are not, or not wholly, as they should be."""
    return (
        f"SELECT node, state FROM {FENCE} WHERE state IN ('{REFUSED}', '{PARTIAL}')"
        f" ORDER BY node LIMIT {most:d}"
    )


def take_fences(known_terms: Mapping[FenceKey, int], owner: str) -> str:
    """The first statement of a claim: writes the fence rows, and so waits for any other claim.

    For each key comes the highest term that this agent ever knew of, 0 at first: after a
    deleted guard row or a restored backup the new term must not be one that was used before.
    """
    rows = ", ".join(
        f"({literal(key.node)}, {literal(key.service)}, {term + 1:d}, 0, {literal(owner)},"
        f" 'fresh', {_NOW}, {_NOW})"
        for key, term in known_terms.items()
    )
    return (
        f"INSERT INTO {FENCE} (node, service, term, seq, owner, state, seen_at, updated_at)"
        f" VALUES {rows} ON DUPLICATE KEY UPDATE term = GREATEST(term + 1, VALUES(term)),"
        f" {_taken(owner)}"
    )


def take_silent_fence(key: FenceKey, owner: str, known_term: int, silent_seconds: float) -> str:
    """The first statement of a standby's claim: matches nothing where the owner is alive.

    A row that is ours already is the same claim, tried before, whose answer was lost.
    """
    return (
        f"UPDATE {FENCE} SET term = GREATEST(term, {known_term:d}) + 1, {_taken(owner)}"
        f" WHERE {_is(key)} AND (state = '{STOPPED}' OR owner = {literal(owner)}"
        f" OR {_silent(silent_seconds)})"
    )


def read_fences(keys: Sequence[FenceKey]) -> str:
    """The claimed fence rows, their keys as they are stored."""
    return f"SELECT node, service, cn_id, term FROM {FENCE} WHERE {_among('', keys)}"


def adopt(row_ids: Sequence[int]) -> str:
    """Locks live rows and gives them ``deleted = 0``; matches none that is gone."""
    # updated_at first: assignments of one table's UPDATE see what stands to their left.
    return (
        f"UPDATE {TABLE} SET updated_at = IF(deleted IS NULL, UTC_TIMESTAMP(), updated_at),"
        f" deleted = 0 WHERE {_ids('id', row_ids)} AND {LIVE}"
    )


def read_rows(row_ids: Sequence[int]) -> str:
    """The ids and the owned columns of these rows."""
    return f"SELECT id, {', '.join(OWNED_COLUMNS)} FROM {TABLE} WHERE {_ids('id', row_ids)}"


def nova_services(
    names: Sequence[str], hosts: Sequence[str], ids: Sequence[int], alive_seconds: int
) -> str:
    """Nova's compute services that may be these hosts', or that have one of ``hosts`` or ``ids``:
    id, host, and whether it gave a sign of life within so many seconds, by the server's clock."""
    same = f"host IN ({', '.join(map(literal, [*names, *hosts]))})"
    shorts = [short for name in names if (short := short_name(name)) is not None]
    if shorts:
        listed = ", ".join(map(literal, shorts))
        same += f" OR SUBSTRING_INDEX(host, '.', 1) IN ({listed})"
    if ids:
        same += f" OR {_ids('id', ids)}"
    return (
        "SELECT id, COALESCE(host, ''),"
        f" COALESCE(updated_at >= UTC_TIMESTAMP() - INTERVAL {alive_seconds:d} SECOND, 0)"
        f" FROM {SERVICES} WHERE deleted = 0 AND `binary` = 'nova-compute' AND ({same})"
    )


def insert(values: Mapping[str, Value], service_id: int, further: Mapping[str, str]) -> str:
    """A new row, complete: the table has no default to lean on. ``further`` are the columns that
    this table has beside the original ones, with SQL for their values."""
    names = ", ".join([*values, *map(quoted, further)])
    return (
        f"INSERT INTO {TABLE} (created_at, updated_at, deleted, service_id, {names})"
        f" VALUES (UTC_TIMESTAMP(), UTC_TIMESTAMP(), 0, {service_id:d},"
        f" {', '.join([*map(literal, values.values()), *further.values()])})"
    )


def evict_fences(pointed: Mapping[FenceKey, int], owner: str) -> str:
    """Takes rows from fence rows of other keys (their ``service_id`` was edited since).

    The term goes up as well, so that the agent which held it finds itself fenced.
    """
    return (
        f"UPDATE {FENCE} SET cn_id = NULL, term = term + 1, owner = {literal(owner)}"
        f" WHERE {_ids('cn_id', pointed.values())} AND NOT ({_among('', pointed)})"
    )


def point_fences(pointed: Mapping[FenceKey, int]) -> str:
    """Says which row each fence row guards: the claim's last statement. No two of one node."""
    cases = " ".join(f"WHEN {literal(key.node)} THEN {row_id:d}" for key, row_id in pointed.items())
    return f"UPDATE {FENCE} SET cn_id = CASE node {cases} END WHERE {_among('', pointed)}"


def _is(key: FenceKey, prefix: str = "") -> str:
    node, service = literal(key.node), literal(key.service)
    return f"{prefix}node = {node} AND {prefix}service = {service}"


def _among(prefix: str, keys: Collection[FenceKey]) -> str:
    """The guard rows of these keys, as a condition.

    Of a single pair in an IN, MariaDB would read, and an UPDATE wait for, the whole table.
    """
    if len(keys) == 1:
        (key,) = keys
        return _is(key, prefix)
    listed = ", ".join(f"({literal(key.node)}, {literal(key.service)})" for key in keys)
    return f"({prefix}node, {prefix}service) IN ({listed})"


def _ids(column: str, row_ids: Iterable[int]) -> str:
    return f"{column} IN ({', '.join(f'{row_id:d}' for row_id in row_ids)})"


def _silent(seconds: float) -> str:
    ago = f"{_NOW} - INTERVAL {round(seconds * 1_000_000):d} MICROSECOND"
    return f"GREATEST(seen_at, updated_at) < {ago}"


def _taken(owner: str) -> str:
    return (
        f"seq = 0, owner = {literal(owner)}, state = 'fresh', stale_since = NULL,"
        f" seen_at = {_NOW}, updated_at = {_NOW}"
    )


def _table(names: Sequence[str], batch: Sequence[RowWrite], *, mariadb: bool) -> str:
    """The constants of a batch: key, guard and values."""
    if NUMERIC_COLUMNS.issuperset(batch[0].columns):
        # %d refuses anything that is not a number, and is the faster way by far.
        numbers = [(w.row_id, w.term, w.seq, *w.values) for w in batch]
        return _rows(names, "%d", numbers, mariadb=mariadb)
    texts = [tuple(map(literal, (w.row_id, w.term, w.seq, *w.values))) for w in batch]
    return _rows(names, "%s", texts, mariadb=mariadb)


def _rows(
    names: Sequence[str], form: str, rows: Sequence[tuple[Value, ...]], *, mariadb: bool = False
) -> str:
    """Constants as a derived table: ``SELECT 1 id, … UNION ALL SELECT 2, …``.

    MariaDB from 10.3 on also takes ``SELECT 1 id, … UNION ALL VALUES (2, …), …``.
    """
    first = ("SELECT " + ", ".join([f"{form} {name}" for name in names])) % rows[0]
    further = ", ".join([form] * len(names))
    if mariadb and len(rows) > 1:
        further = f"({further})"
        return f"{first} UNION ALL VALUES " + ", ".join([further % row for row in rows[1:]])
    further = f" UNION ALL SELECT {further}"
    return first + "".join([further % row for row in rows[1:]])
