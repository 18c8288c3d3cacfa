"""Whether the database can be worked with: what is there, what is missing, what is allowed.

Changes nothing, except :func:`apply_schema`, which creates tables that are missing and never
alters one that is there.
"""

import asyncio
import re
from collections.abc import Sequence
from typing import NamedTuple

from asynchost.database import schema, statements
from asynchost.database.classify import Kind, StatementError
from asynchost.database.columns import Column, mend, neutral
from asynchost.database.endpoints import first_that_serves
from asynchost.database.layout import Layout, describe, discover
from asynchost.database.refusal import creation, grants
from asynchost.database.session import Session
from asynchost.database.statements import FenceKey, literal
from asynchost.database.url import DatabaseUrl, Endpoint
from asynchost.errors import DatabaseRefusedError

_NO_DEFAULT = 1364
_NO_RIGHT_TO_CREATE = (1044, 1142)
_SOUND_SECONDS = 5.0
"""How long an inspection of a running writer's tables is trusted: finding the one bad row of a
thousand takes ten refused statements."""
_NO_VIEW_FOR_WRITES = (1288, 1393, 1394, 1471)
"""A view that is not updatable, joins tables, or takes no new rows."""


class TableState(NamedTuple):
    """What :func:`apply_schema` found or did."""

    table: str
    created: bool
    """False: it was there, and was left as it is."""


async def apply_schema(
    url: str, *, password: str | None = None, deadline_seconds: float = 30.0
) -> tuple[TableState, ...]:
    """Create whichever of the two tables is missing. Nothing that is there is altered.

    A server creates one table at a time: an error says which were created, and which are missing.

    :raises DatabaseRefusedError: the database says no, as for want of the right to create.
    :raises DatabaseUnavailableError: it cannot be reached, or did not answer in time.
    """
    states: list[TableState] = []
    async with await connect(url, password, deadline_seconds) as session:
        for table in (schema.TABLE, schema.FENCE):
            there = bool(await _columns(session, table))
            if not there:
                try:
                    await session.write(schema.ddl(table, if_not_exists=True))
                except (DatabaseRefusedError, StatementError) as error:
                    created = [state.table for state in states if state.created]
                    raise await _not_created(session, table, created, error) from error
            states.append(TableState(table, created=not there))
    return tuple(states)


async def _not_created(
    session: Session,
    table: str,
    created: Sequence[str],
    error: DatabaseRefusedError | StatementError,
) -> DatabaseRefusedError | StatementError:
    """Why a table is missing, and what was created before."""
    before = f"; created was {', '.join(created)}" if created else ""
    reason = f"{error.reason}; the table {table} is missing{before}"
    if isinstance(error, StatementError):
        # The server may have created the table after all.
        reason += "; run asynchost schema --apply again"
        return StatementError(str(session.url), error.code, reason, error.kind)
    remedy = error.remedy
    if error.code in _NO_RIGHT_TO_CREATE:
        where = schema.quoted(session.url.database)
        remedy = (
            f"GRANT CREATE ON {where}.* TO {await _account(session)}, then run asynchost schema"
            f" --apply again; or create it as another account: "
            + schema.one_line(schema.ddl(table))
        )
    return DatabaseRefusedError(str(session.url), error.code, reason, remedy)


async def connect(
    url: str, password: str | None, deadline_seconds: float, *, only_reads: bool = False
) -> Session:
    """A session with the first of the URL's servers that serves; a replica does where it is only
    read.

    :raises DatabaseRefusedError: the database says no.
    :raises DatabaseUnavailableError: it cannot be reached, or did not answer in time.
    """
    parsed = DatabaseUrl.parse(url, password=password)

    async def attempt(endpoint: Endpoint | None) -> Session:
        return await Session.connect(parsed, deadline_seconds, endpoint, only_reads=only_reads)

    return await first_that_serves(parsed, attempt)


async def check(session: Session, *, only_reads: bool = False) -> Layout:
    """Find out whether both tables, all their columns and all rights are there, and what more.

    ``only_reads`` asks for the rights to read ``compute_nodes``, and for nothing else.

    :raises DatabaseRefusedError: the first thing that is missing, with the DDL or GRANT for it; or
        columns that hold no host's values.
    """
    columns = await describe(session, schema.TABLE, schema.FENCE, schema.SERVICES)
    layout = await discover(session, only_reads=only_reads, columns=columns)
    if not only_reads:
        await _refuse_tables(session, columns)
    if hopeless := [misfit for misfit in layout.misfits if misfit.hopeless]:
        reason = "; ".join(misfit.reason for misfit in hopeless)
        raise DatabaseRefusedError(str(session.url), None, reason, mend(layout.misfits))
    probes = schema.readable() if only_reads else schema.probes(layout.filling("", "[]"))
    for table, probe in probes:
        try:
            await session.query(probe)
        except DatabaseRefusedError as error:
            raise await _explain(session, table, error) from error
        except StatementError as error:
            if error.code not in _NO_VIEW_FOR_WRITES:
                raise
            raise _unwritable_view(session, table, error.reason) from error
    if not only_reads:
        await _refuse_demands(session, columns, layout)
        await prove_matches(session)
    return layout._replace(counts_matches=session.counts_matches)


async def blame(session: Session, error: DatabaseRefusedError) -> StatementError:
    """The refusal of one statement, as the error of that statement alone.

    The tables are inspected again. A trigger of one row can fail with any code, also with that of
    a missing table or right; where the inspection passes, other rows can be written.

    :raises DatabaseRefusedError: the inspection does not pass: no row can be written.
    :raises StatementError: the inspection was not carried out.
    """
    loop = asyncio.get_running_loop()
    # Without a code it was no answer of the server: see prove_matches.
    if error.code is None:
        raise error
    if loop.time() >= session.sound_until:
        await check(session)
        session.sound_until = loop.time() + _SOUND_SECONDS
    return StatementError(str(session.url), error.code, error.reason, Kind.STATEMENT)


async def prove_matches(session: Session, key: FenceKey | None = None) -> None:
    """See that the server counts matched rows: that is what a write is judged by.

    By a change of a guard row to what it is already: that of ``key``, within a transaction of the
    caller's, else any. Nothing is proven where there is none.

    :raises DatabaseRefusedError: changed rows are counted.
    """
    if session.counts_matches:
        return
    if key is not None:
        matched = await session.write(statements.touch_guard(key))
    else:
        await session.write("START TRANSACTION")
        try:
            guards = await session.query(statements.any_guard())
            if not guards:
                return
            matched = await session.write(statements.touch_guard(FenceKey(*guards[0])))
        finally:
            if not session.closed:
                await session.write("ROLLBACK")
    if matched != 1:
        raise DatabaseRefusedError(
            str(session.url),
            None,
            "the server, or a proxy before it, counts changed rows instead of matched ones"
            " (CLIENT_FOUND_ROWS is dropped), so that no write can be seen to land",
            "let the proxy pass the client's flag on (ProxySQL: SET mysql-client_found_rows ="
            " 'true'; LOAD MYSQL VARIABLES TO RUNTIME), or connect to the server itself",
        )
    session.counts_matches = True


async def _refuse_tables(session: Session, columns: Sequence[Column]) -> None:
    """Refuse what the probes would not find: that would harm rows, or the server."""
    url = str(session.url)
    for column in columns:
        if (
            column.table != schema.SERVICES
            and column.is_computed
            and column.name in schema.used(column.table)
        ):
            kind = schema.definition(column.table, column.name)
            name = schema.quoted(column.name)
            raise DatabaseRefusedError(
                url,
                None,
                f"the server computes the column {column.name} of {column.table} by itself",
                f"ALTER TABLE {schema.quoted(column.table)} DROP COLUMN {name},"
                f" ADD COLUMN {name} {kind}",
            )
    # An account that may read no column of a view is not shown it; the probes say so.
    views = await session.query(
        "SELECT table_name, check_option, view_definition FROM information_schema.views"
        " WHERE table_schema = DATABASE()"
        f" AND table_name IN ({literal(schema.TABLE)}, {literal(schema.FENCE)})"
    )
    for table, check_option, definition in views:
        if str(check_option).upper() == "NONE":
            continue
        again = f"CREATE OR REPLACE VIEW {schema.quoted(str(table))} AS {definition}"
        raise DatabaseRefusedError(
            url,
            None,
            f"{table} is a view WITH CHECK OPTION, on which a write to many rows crashes MariaDB",
            "make it again without that option: "
            + (schema.one_line(again) if definition else f"SHOW CREATE VIEW {table} says how"),
        )
    ids = [c for c in columns if c.table == schema.TABLE and c.name == "id"]
    if not ids or views or (ids[0].counts and ids[0].is_key):
        return
    (number,) = ids
    if number.counts:
        # In an index with other columns: each new row gets a number of its own all the same.
        return
    twice = await session.query(
        f"SELECT id FROM {schema.TABLE} GROUP BY id HAVING COUNT(*) > 1 LIMIT 1"
    )
    kind = f"{number.full_type} NOT NULL AUTO_INCREMENT"
    change = f"MODIFY `id` {kind}"
    if twice:
        change = f"DROP COLUMN `id`, ADD COLUMN `id` {kind} PRIMARY KEY FIRST"
    elif not number.is_key:
        change = f"ADD PRIMARY KEY (`id`), {change}"
    raise DatabaseRefusedError(
        url,
        None,
        "the column id of compute_nodes is no AUTO_INCREMENT, so that rows cannot be told apart",
        f"ALTER TABLE {schema.quoted(schema.TABLE)} {change}",
    )


async def _refuse_demands(session: Session, columns: Sequence[Column], layout: Layout) -> None:
    """Refuse a column that demands a value and gets none: MySQL says so with the first row only."""
    filled = {schema.TABLE: {*layout.filling("", "[]")}, schema.FENCE: set[str]()}
    for column in columns:
        if column.table not in filled or not column.needs_value or column.data_type == "enum":
            continue
        if column.name not in {*schema.used(column.table), "id", *filled[column.table]}:
            raise await _demanded(session, column.table, column.name, column, None)


def _unwritable_view(session: Session, table: str, reason: str) -> DatabaseRefusedError:
    return DatabaseRefusedError(
        str(session.url),
        None,
        f"{table} is a view that cannot be written through: {reason}",
        "make it a view of one table, with all its columns and without DISTINCT, GROUP BY and"
        f" UNION, or RENAME TABLE … TO {table}",
    )


async def _explain(
    session: Session, table: str, error: DatabaseRefusedError
) -> DatabaseRefusedError:
    url = str(session.url)
    match error.code:
        case 1146:
            remedy = f"create it: {creation(table)}; then {await _grants(session)}"
            return DatabaseRefusedError(url, 1146, f"the table {table} is missing", remedy)
        case 1054:
            there = await _columns(session, table)
            missing = [column for column in schema.used(table) if column not in there]
            if not missing:
                return error
            plural = "s" if len(missing) > 1 else ""
            named = f"the table {table} lacks the column{plural} {', '.join(missing)}"
            alter = "; ".join(schema.add_column(table, column) for column in missing)
            return DatabaseRefusedError(url, 1054, named, alter)
        case 1142 | 1143:
            remedy = await _grants(session)
            # Also the answer where there is no such table, if the account has no right to any.
            if not await _columns(session, table):
                remedy = f"create the table if it is missing: {creation(table)}; then {remedy}"
            return DatabaseRefusedError(url, error.code, error.reason, remedy)
        case 1364:
            return await _explain_demand(session, table, error)
        case _:
            return error


async def _explain_demand(
    session: Session, table: str, error: DatabaseRefusedError
) -> DatabaseRefusedError:
    """Of a column that demands a value and is given none: whose fault that is."""
    # In other languages as well, and not up to the apostrophe of "doesn't".
    named = re.search(r"'(.+?)'(?!\w)", error.reason)
    if named is None:
        return error
    name = named[1]
    found = {column.name: column for column in await describe(session, table)}.get(name.lower())
    return await _demanded(session, table, name, found, error)


async def _demanded(
    session: Session,
    table: str,
    name: str,
    found: Column | None,
    error: DatabaseRefusedError | None,
) -> DatabaseRefusedError:
    demand = f"the table {table} demands a value in the column {name}, and"
    if found is not None and ("insert" in found.rights or neutral(found) is None):
        reason = f"{demand} none is known for the type {found.full_type}"
        remedy = schema.default_null(table, name, found.full_type)
    elif table == schema.TABLE or error is None:
        reason = f"{demand} the account lacks the right to INSERT one"
        remedy = schema.grant_insert(session.url.database, name, await _account(session))
    else:
        return error
    return DatabaseRefusedError(str(session.url), _NO_DEFAULT, reason, remedy)


async def _grants(session: Session) -> str:
    return grants(session.url, await _account(session))


async def _account(session: Session) -> str:
    """The account as the server knows it, for a GRANT."""
    ((account,),) = await session.query("SELECT CURRENT_USER()")
    user, _, host = str(account).rpartition("@")
    return f"{literal(user)}@{literal(host)}"


async def _columns(session: Session, table: str) -> frozenset[str]:
    """The columns of a table, as far as the account may see them; empty when there is none."""
    return frozenset(column.name for column in await describe(session, table))
