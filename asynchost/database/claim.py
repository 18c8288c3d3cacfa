"""Finding, adopting or creating a host's row: exactly one, whoever else tries.

The lock is the companion table's row, *written* before anything else: an agent that claims the
same host waits there, also on another Galera node, where it fails at its commit. What follows
runs in READ COMMITTED, so it sees what the one before has committed. GET_LOCK, SELECT … FOR
UPDATE and INSERT … WHERE NOT EXISTS each let two agents make two rows.

Memory: what one claim holds.
"""

from collections.abc import Mapping

from asynchost.database import statements
from asynchost.database.classify import Kind, StatementError
from asynchost.database.identity import (
    Candidate,
    Claim,
    How,
    NovaService,
    Wanted,
    choose,
    choose_service,
)
from asynchost.database.layout import Layout
from asynchost.database.schema import OWNED_COLUMNS
from asynchost.database.session import Session
from asynchost.database.statements import FenceKey
from asynchost.errors import NovaOwnsRowError, RowConflictError

_NOVA_ALIVE_SECONDS = 120
"""A nova-compute reports every ten seconds, and Nova takes it for down after sixty."""


async def claim(
    session: Session,
    wanted: Wanted,
    owner: str,
    held: Mapping[int, str],
    layout: Layout = Layout(),  # noqa: B008 - immutable
) -> Claim:
    """Make the row ours; it is created only if there is none.

    ``held`` says which rows other hosts of this process hold, and which hosts these are.

    :raises AmbiguousRowError: several live rows could be it.
    :raises NovaOwnsRowError: a nova-compute that is alive keeps it.
    :raises RowConflictError: it is one of ``held``.
    :raises StatementError: nothing is claimed, or (kind CONNECTION) it is not known.

    May be repeated after any failure. Cancelling it closes the session.
    """
    attempt = _Attempt(session, wanted, owner, layout)
    # Plain looks first: the service is part of the lock's key.
    await attempt.look_for_nova()
    service_id = wanted.service_id
    if service_id is None:
        service_id = attempt.service_of(await attempt.find())
    await session.write("START TRANSACTION")
    try:
        claimed = await attempt.claim_locked(service_id, held)
    except BaseException:
        if not session.closed:
            await session.write("ROLLBACK")
        raise
    await session.write("COMMIT")
    return claimed


class _Attempt:
    """One claim of one host."""

    def __init__(self, session: Session, wanted: Wanted, owner: str, layout: Layout) -> None:
        self._session = session
        self._wanted = wanted
        self._owner = owner
        self._layout = layout
        self._nova: NovaService | None = None

    async def look_for_nova(self) -> None:
        """Find the host's service in Nova's table, if there is one."""
        if not self._layout.services:
            return
        name = self._wanted.name
        rows = await self._session.query(statements.nova_services(name, _NOVA_ALIVE_SECONDS))
        services = [NovaService(number, host, bool(alive)) for number, host, alive in rows]
        self._nova = nova = choose_service(name, services)
        if nova is not None and nova.alive and not self._wanted.beside_nova:
            raise NovaOwnsRowError(name, nova.host, nova.service_id)

    async def find(self) -> Candidate | None:
        """The host's live row as it is now."""
        rows = await self._session.query(statements.live_rows(self._wanted.name))
        candidates = [Candidate(*row) for row in rows]
        return choose(self._wanted.name, candidates, self._wanted.service_id)

    def service_of(self, found: Candidate | None) -> int:
        """The service that the lock's key names: the live row's; where there is none Nova's of
        that host, else 0."""
        if found is not None:
            return found.service_id or 0
        return 0 if self._nova is None else self._nova.service_id

    async def claim_locked(self, service_id: int, held: Mapping[int, str]) -> Claim:
        """The part that stands in one transaction."""
        session, wanted, owner = self._session, self._wanted, self._owner
        key = FenceKey(wanted.name, str(service_id))
        # This write must stay the first statement: it is the lock.
        await session.write(statements.take_fence(key, owner, wanted.known_term))
        ((node, service, guarded, term),) = await session.query(statements.read_fence(key))
        found = await self.find()
        if wanted.service_id is None and self.service_of(found) != service_id:
            raise self._moved(f"the live row of {wanted.name!r} changed while it was claimed")
        if found is None:
            values = dict(wanted.values)
            host = wanted.name if self._nova is None else self._nova.host
            filling = self._layout.filling(host)
            await session.write(statements.insert(values, service_id, filling))
            row_id, how = session.insert_id, How.CREATED
        else:
            row_id = found.row_id
            how = How.TAKEN_OVER if guarded == row_id else How.ADOPTED
            if row_id in held:
                raise RowConflictError(wanted.name, (held[row_id], wanted.host))
            if await session.write(statements.adopt(row_id)) != 1:
                raise self._moved(f"the row {row_id} vanished while it was claimed")
            (row,) = await session.query(statements.read_row(row_id))
            values = dict(zip(OWNED_COLUMNS, row, strict=True))
        if guarded != row_id:
            await session.write(statements.evict_fence(key, row_id, owner))
            await session.write(statements.point_fence(key, row_id))
        return Claim(row_id, service_id, FenceKey(node, service), int(term), how, values)

    def _moved(self, reason: str) -> StatementError:
        return StatementError(str(self._session.url), None, reason, Kind.RESOLVE)
