"""Whether the database can be worked with: what is there, what is missing, what is allowed.

Changes nothing, except :func:`apply_schema`, which creates tables that are missing and never
alters one that is there.
"""

import re
from typing import NamedTuple

from asynchost.database import schema
from asynchost.database.columns import mend, neutral
from asynchost.database.endpoints import first_that_serves
from asynchost.database.layout import Layout, describe, discover
from asynchost.database.refusal import creation, grants
from asynchost.database.session import Session
from asynchost.database.statements import literal
from asynchost.database.url import DatabaseUrl, Endpoint
from asynchost.errors import DatabaseRefusedError


class TableState(NamedTuple):
    """What :func:`apply_schema` found or did."""

    table: str
    created: bool
    """False: it was there, and was left as it is."""


async def apply_schema(
    url: str, *, password: str | None = None, deadline_seconds: float = 30.0
) -> tuple[TableState, ...]:
    """Create whichever of the two tables is missing. Nothing that is there is altered.

    :raises DatabaseRefusedError: the database says no, as for want of the right to create.
    :raises DatabaseUnavailableError: it cannot be reached, or did not answer in time.
    """
    states = []
    async with await connect(url, password, deadline_seconds) as session:
        for table in (schema.TABLE, schema.FENCE):
            there = bool(await _columns(session, table))
            if not there:
                await session.write(schema.ddl(table, if_not_exists=True))
            states.append(TableState(table, created=not there))
    return tuple(states)


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
    layout = await discover(session, only_reads=only_reads)
    probes = schema.readable() if only_reads else schema.probes(layout.filling("", "[]"))
    for table, probe in probes:
        try:
            await session.query(probe)
        except DatabaseRefusedError as error:
            raise await _explain(session, table, error) from error
    if hopeless := [misfit for misfit in layout.misfits if misfit.hopeless]:
        reason = "; ".join(misfit.reason for misfit in hopeless)
        raise DatabaseRefusedError(str(session.url), None, reason, mend(layout.misfits))
    return layout


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
    demand = f"the table {table} demands a value in the column {name}, and"
    if found is not None and ("insert" in found.rights or neutral(found) is None):
        reason = f"{demand} none is known for the type {found.full_type}"
        remedy = schema.default_null(table, name, found.full_type)
    elif table == schema.TABLE:
        reason = f"{demand} the account lacks the right to INSERT one"
        remedy = schema.grant_insert(session.url.database, name, await _account(session))
    else:
        return error
    return DatabaseRefusedError(str(session.url), error.code, reason, remedy)


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
