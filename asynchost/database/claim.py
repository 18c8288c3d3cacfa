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
from asynchost.database.identity import Candidate, Claim, How, Wanted, choose
from asynchost.database.schema import OWNED_COLUMNS
from asynchost.database.session import Session
from asynchost.database.statements import FenceKey
from asynchost.errors import RowConflictError


async def claim(session: Session, wanted: Wanted, owner: str, held: Mapping[int, str]) -> Claim:
    """Make the row ours; it is created only if there is none.

    ``held`` says which rows other hosts of this process hold, and which hosts these are.

    :raises AmbiguousRowError: several live rows could be it.
    :raises RowConflictError: it is one of ``held``.
    :raises StatementError: nothing is claimed, or (kind CONNECTION) it is not known.

    May be repeated after any failure. Cancelling it closes the session.
    """
    # A plain look first: the service is part of the lock's key.
    service_id = wanted.service_id
    if service_id is None:
        service_id = _service_of(await _find(session, wanted))
    await session.write("START TRANSACTION")
    try:
        claimed = await _claim_locked(session, wanted, service_id, owner, held)
    except BaseException:
        if not session.closed:
            await session.write("ROLLBACK")
        raise
    await session.write("COMMIT")
    return claimed


async def _claim_locked(
    session: Session, wanted: Wanted, service_id: int, owner: str, held: Mapping[int, str]
) -> Claim:
    key = FenceKey(wanted.name, str(service_id))
    # This write must stay the first statement: it is the lock.
    await session.write(statements.take_fence(key, owner, wanted.known_term))
    ((node, service, guarded, term),) = await session.query(statements.read_fence(key))
    found = await _find(session, wanted)
    if wanted.service_id is None and _service_of(found) != service_id:
        raise _moved(session, f"the live row of {wanted.name!r} changed while it was claimed")
    if found is None:
        values = dict(wanted.values)
        await session.write(statements.insert(values, service_id))
        row_id, how = session.insert_id, How.CREATED
    else:
        row_id = found.row_id
        how = How.TAKEN_OVER if guarded == row_id else How.ADOPTED
        if row_id in held:
            raise RowConflictError(wanted.name, (held[row_id], wanted.host))
        if await session.write(statements.adopt(row_id)) != 1:
            raise _moved(session, f"the row {row_id} vanished while it was claimed")
        (row,) = await session.query(statements.read_row(row_id))
        values = dict(zip(OWNED_COLUMNS, row, strict=True))
    if guarded != row_id:
        await session.write(statements.evict_fence(key, row_id, owner))
        await session.write(statements.point_fence(key, row_id))
    return Claim(row_id, service_id, FenceKey(node, service), int(term), how, values)


async def _find(session: Session, wanted: Wanted) -> Candidate | None:
    rows = await session.query(statements.live_rows(wanted.name))
    return choose(wanted.name, [Candidate(*row) for row in rows], wanted.service_id)


def _service_of(found: Candidate | None) -> int:
    """The service that the lock's key names: the live row's, 0 where there is none."""
    return 0 if found is None else found.service_id or 0


def _moved(session: Session, reason: str) -> StatementError:
    return StatementError(str(session.url), None, reason, Kind.RESOLVE)
