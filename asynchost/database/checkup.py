"""Looking without touching: a host's row as it stands, and whether a writer could work here."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from asynchost.database import statements
from asynchost.database.identity import Candidate, choose
from asynchost.database.inspection import check, connect
from asynchost.database.layout import Layout
from asynchost.database.rows import Values
from asynchost.database.schema import OWNED_COLUMNS
from asynchost.database.session import Session
from asynchost.errors import DatabaseUnavailableError

_DEADLINE_SECONDS = 10.0
_LISTED = 10


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A host's live row."""

    row_id: int
    values: Values
    """The columns that come from the host."""


async def read_rows(
    url: str, services: Mapping[str, int | None], *, password: str | None = None
) -> dict[str, NodeRow | None]:
    """The live row of each of these hosts, by ``hypervisor_hostname``; None for one without.

    ``services`` are their names, each with the ``service_id`` that its row must have, if any. A
    replica is asked where no server takes writes.

    :raises AmbiguousRowError: several rows could be a host's; a ``service_id`` tells them apart.
    :raises DatabaseRefusedError: the database says no.
    :raises DatabaseUnavailableError: it cannot be reached, or did not answer in time.
    """
    found: dict[str, NodeRow | None] = {}
    async with await _connect_to_read(url, password) as session:
        for name, service_id in services.items():
            rows = await session.query(statements.live_rows([name]))
            chosen = choose(name, [Candidate(*row) for _, *row in rows], service_id)
            found[name] = None
            if chosen is not None:
                for row_id, *values in await session.query(statements.read_rows([chosen.row_id])):
                    found[name] = NodeRow(row_id, dict(zip(OWNED_COLUMNS, values, strict=True)))
    return found


async def _connect_to_read(url: str, password: str | None) -> Session:
    """With the server that a writer would take; where none takes writes, with one that is read."""
    try:
        return await connect(url, password, _DEADLINE_SECONDS)
    except DatabaseUnavailableError:
        return await connect(url, password, _DEADLINE_SECONDS, only_reads=True)


@dataclass(frozen=True, slots=True)
class Server:
    """The database server that a writer would write to."""

    version: str
    account: str
    """As the server knows it."""
    tls: bool
    behind: timedelta
    """How far its clock is behind this machine's."""


async def reach(url: str, *, password: str | None = None) -> Server:
    """Connect as a writer would, and ask who answers. Raises as :func:`read_rows` does."""
    async with await connect(url, password, _DEADLINE_SECONDS) as session:
        before = datetime.now(UTC)
        ((version, account, now),) = await session.query(
            "SELECT VERSION(), CURRENT_USER(), UTC_TIMESTAMP(6)"
        )
        middle = before + (datetime.now(UTC) - before) / 2
        return Server(
            version=str(version),
            account=str(account),
            tls=session.encrypted,
            behind=middle - now.replace(tzinfo=UTC),
        )


async def inspect(url: str, *, password: str | None = None) -> Layout:
    """Whether tables, columns and rights are all there.

    :raises DatabaseRefusedError: the first thing that is missing, with the statement for it.
    """
    async with await connect(url, password, _DEADLINE_SECONDS) as session:
        return await check(session)


async def known_false(url: str, *, password: str | None = None) -> dict[str, str]:
    """The hosts whose rows their agents know to be false, with the guards' states: ``refused`` or
    ``partial``. Ten at most. Raises as :func:`read_rows` does.
    """
    async with await connect(url, password, _DEADLINE_SECONDS) as session:
        return {
            str(node): str(state)
            for node, state in await session.query(statements.false_rows(_LISTED))
        }
