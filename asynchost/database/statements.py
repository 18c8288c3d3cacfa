"""The SQL text of everything that touches the two tables while running.

Pure: values in, text out. Column names are our own constants, strings go through the driver's
escaper, integers through ``%d``. No client clock: every time is the server's, in UTC.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pymysql.converters import escape_string

from asynchost.database.rows import Value, Values
from asynchost.database.schema import FENCE, OWNED_COLUMNS, SERVICES, TABLE, quoted

ROWS_PER_STATEMENT = 200
"""Batching is worth twenty times, and a batch of a hundred takes nearly all of it."""
_STAMPS = "t.updated_at = UTC_TIMESTAMP(), f.updated_at = UTC_TIMESTAMP(6)"
LIVE = "(deleted = 0 OR deleted IS NULL)"


class FenceKey(NamedTuple):
    """The companion table's primary key, as stored there."""

    node: str
    service: str


class RowWrite(NamedTuple):
    """One host's part of a flush: exactly one in one statement."""

    row_id: int
    term: int
    seq: int
    """Higher than that of any write of this host before, in doubt or not."""
    values: Values
    """Only the columns that differ, as absolute values."""


class Sign(NamedTuple):
    """One host's sign of life."""

    row_id: int
    term: int
    state: str
    stale_microseconds: int | None


def literal(value: Value) -> str:
    """A value as SQL text. The session's mode lets backslashes escape."""
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return "%d" % value  # noqa: UP031 - refuses anything that is not a number
    return f"'{escape_string(value)}'"


def batches(writes: Iterable[RowWrite]) -> Iterator[list[RowWrite]]:
    """Writes grouped so that one statement writes the same columns in all its rows.

    Within each the rows are sorted by id: two agents that lock in different orders deadlock.
    """
    groups: defaultdict[tuple[str, ...], list[RowWrite]] = defaultdict(list)
    for write in writes:
        groups[tuple(write.values)].append(write)
    for group in groups.values():
        group.sort(key=lambda write: write.row_id)
        for start in range(0, len(group), ROWS_PER_STATEMENT):
            yield group[start : start + ROWS_PER_STATEMENT]


def update(batch: Sequence[RowWrite], owner: str) -> str:
    """The guarded write of one batch; matches two rows for each host it lands for.

    The guard stands in the same statement: a write that was delayed, repeated, or sent by an
    agent that no longer owns the row finds another term, owner or a higher seq, and changes
    nothing. The fence row is locked before the row, as in a claim. One host has its own form,
    without the derived table: it is on the path that latency is measured on, and there MariaDB
    takes half the time with this order of the two tables.
    """
    guard = f"t.deleted = 0 AND f.owner = {literal(owner)}"
    if len(batch) == 1:
        (write,) = batch
        assignments = ", ".join(f"t.{c} = {literal(v)}" for c, v in write.values.items())
        return (
            f"UPDATE {FENCE} f STRAIGHT_JOIN {TABLE} t ON t.id = f.cn_id"
            f" SET {assignments}, f.seq = {write.seq:d}, {_STAMPS}"
            f" WHERE f.cn_id = {write.row_id:d} AND {guard}"
            f" AND f.term = {write.term:d} AND f.seq <= {write.seq:d}"
        )
    columns = list(batch[0].values)
    names = ["id", "e", "s", *(f"c{n}" for n in range(len(columns)))]
    assignments = ", ".join(f"t.{c} = v.c{n}" for n, c in enumerate(columns))
    return (
        f"UPDATE ({_rows(names, (_constants(write) for write in batch))}) v"
        f" STRAIGHT_JOIN {FENCE} f ON f.cn_id = v.id STRAIGHT_JOIN {TABLE} t ON t.id = f.cn_id"
        f" SET {assignments}, f.seq = v.s, {_STAMPS}"
        f" WHERE {guard} AND f.term = v.e AND f.seq <= v.s"
    )


def renew(signs: Sequence[Sign], owner: str) -> str:
    """Signs of life of many hosts; matches one row for each that is still owned."""
    constants = (
        (f"{s.row_id:d}", f"{s.term:d}", literal(s.state), literal(s.stale_microseconds))
        for s in sorted(signs)
    )
    return (
        f"UPDATE ({_rows(('id', 'e', 'st', 'age'), constants)}) v"
        f" STRAIGHT_JOIN {FENCE} f ON f.cn_id = v.id"
        " SET f.seen_at = UTC_TIMESTAMP(6), f.state = v.st,"
        " f.stale_since = UTC_TIMESTAMP(6) - INTERVAL v.age MICROSECOND"
        f" WHERE f.term = v.e AND f.owner = {literal(owner)}"
    )


def read_back(keys: Sequence[FenceKey]) -> str:
    """What the database holds for these hosts: fence columns, then ``t.id``, ``t.deleted`` and
    the owned columns. The row's part is NULL where the row is gone."""
    columns = ", ".join(f"t.{column}" for column in OWNED_COLUMNS)
    return (
        f"SELECT f.node, f.service, f.term, f.seq, f.owner, t.id, t.deleted, {columns}"
        f" FROM {FENCE} f LEFT JOIN {TABLE} t ON t.id = f.cn_id"
        f" WHERE (f.node, f.service) IN ({_listed(keys)})"
    )


def living_owners(keys: Sequence[FenceKey], silent_seconds: float) -> str:
    """Which of these guards have an owner that was not stopped and gave a sign of life within
    ``silent_seconds``, by the server's clock."""
    silent = f"INTERVAL {int(silent_seconds * 1_000_000):d} MICROSECOND"
    return (
        f"SELECT node, service FROM {FENCE} WHERE (node, service) IN ({_listed(keys)})"
        " AND cn_id IS NOT NULL AND state <> 'stopped'"
        f" AND GREATEST(seen_at, updated_at) >= UTC_TIMESTAMP(6) - {silent}"
    )


def live_rows(name: str) -> str:
    """The rows that may be a host's: not soft-deleted, with this name."""
    return (
        f"SELECT id, service_id, deleted FROM {TABLE}"
        f" WHERE hypervisor_hostname = {literal(name)} AND {LIVE} ORDER BY id"
    )


def take_fence(key: FenceKey, owner: str, known_term: int) -> str:
    """The first statement of a claim: writes the fence row, and so waits for any other claim.

    ``known_term`` is the highest term this agent ever held for the host, 0 at first: after a
    deleted guard row or a restored backup the new term must not be one that was used before.
    """
    now = "UTC_TIMESTAMP(6)"
    return (
        f"INSERT INTO {FENCE} (node, service, term, seq, owner, state, seen_at, updated_at)"
        f" VALUES ({literal(key.node)}, {literal(key.service)}, {known_term + 1:d}, 0,"
        f" {literal(owner)}, 'fresh', {now}, {now})"
        f" ON DUPLICATE KEY UPDATE term = GREATEST(term, {known_term:d}) + 1, seq = 0,"
        f" owner = {literal(owner)}, state = 'fresh', stale_since = NULL,"
        f" seen_at = {now}, updated_at = {now}"
    )


def read_fence(key: FenceKey) -> str:
    """The claimed fence row, its key as it is stored."""
    return f"SELECT node, service, cn_id, term FROM {FENCE} WHERE {_is(key)}"


def adopt(row_id: int) -> str:
    """Locks a live row and gives it ``deleted = 0``; matches nothing where it is gone."""
    # updated_at first: assignments of one table's UPDATE see what stands to their left.
    return (
        f"UPDATE {TABLE} SET updated_at = IF(deleted IS NULL, UTC_TIMESTAMP(), updated_at),"
        f" deleted = 0 WHERE id = {row_id:d} AND {LIVE}"
    )


def read_row(row_id: int) -> str:
    """The owned columns of one row."""
    return f"SELECT {', '.join(OWNED_COLUMNS)} FROM {TABLE} WHERE id = {row_id:d}"


def nova_services(name: str, alive_seconds: int) -> str:
    """Nova's compute services that may be this host's: id, host, and whether it gave a sign of
    life within so many seconds, by the server's clock."""
    short = name.partition(".")[0]
    same = f"host = {literal(name)}"
    if not short.isdecimal():  # the beginning of an address is no name
        same += f" OR SUBSTRING_INDEX(host, '.', 1) = {literal(short)}"
    return (
        "SELECT id, host,"
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


def evict_fence(key: FenceKey, row_id: int, owner: str) -> str:
    """Takes the row from a fence row of another key (its ``service_id`` was edited since).

    The term goes up as well, so that the agent which held it finds itself fenced.
    """
    return (
        f"UPDATE {FENCE} SET cn_id = NULL, term = term + 1, owner = {literal(owner)}"
        f" WHERE cn_id = {row_id:d} AND NOT ({_is(key)})"
    )


def point_fence(key: FenceKey, row_id: int) -> str:
    """Says which row the fence row guards: the claim's last statement."""
    return f"UPDATE {FENCE} SET cn_id = {row_id:d} WHERE {_is(key)}"


def _listed(keys: Iterable[FenceKey]) -> str:
    return ", ".join(f"({literal(key.node)}, {literal(key.service)})" for key in keys)


def _is(key: FenceKey) -> str:
    return f"node = {literal(key.node)} AND service = {literal(key.service)}"


def _constants(write: RowWrite) -> tuple[str, ...]:
    return (
        f"{write.row_id:d}",
        f"{write.term:d}",
        f"{write.seq:d}",
        *map(literal, write.values.values()),
    )


def _rows(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Constants as a derived table: ``SELECT 1 id, … UNION ALL SELECT 2, …``."""
    selects = iter(rows)
    first = ", ".join(f"{value} {name}" for name, value in zip(names, next(selects), strict=True))
    return " UNION ALL ".join([f"SELECT {first}", *(f"SELECT {', '.join(r)}" for r in selects)])
