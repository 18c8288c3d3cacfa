"""Finding, adopting or creating hosts' rows: exactly one each, whoever else tries.

The lock is the companion table's row, *written* before anything else: an agent that claims the
same host waits there, also on another Galera node, where it fails at its commit. What follows
runs in READ COMMITTED, so it sees what the one before has committed. GET_LOCK, SELECT … FOR
UPDATE and INSERT … WHERE NOT EXISTS each let two agents make two rows.

Memory: what one batch of claims holds.
"""

import sys
from collections.abc import Mapping, Sequence

from asynchost.database import statements
from asynchost.database.classify import NO_PARENT_ROW, Kind, RowsLockedError, StatementError
from asynchost.database.finding import Found, find, matched_rows, moved
from asynchost.database.identity import (
    Candidate,
    Claim,
    How,
    StillOwnedError,
    Wanted,
    live,
)
from asynchost.database.inspection import prove_matches
from asynchost.database.layout import Layout
from asynchost.database.schema import OWNED_COLUMNS
from asynchost.database.session import Row, Session
from asynchost.database.statements import FenceKey
from asynchost.errors import RowConflictError, ServiceMissingError, ServiceTakenError


async def claim(
    session: Session,
    batch: Sequence[Wanted],
    owner: str,
    held: Mapping[int, str],
    layout: Layout = Layout(),  # noqa: B008 - immutable
) -> list[Claim]:
    """Make the rows of all hosts of ``batch`` ours, or of none; in the order of ``batch``.

    A row is created only if there is none. ``held`` says which rows other hosts of this process
    hold, and which hosts these are. Several share a batch only as
    :func:`~asynchost.database.identity.can_share` has it; a standby's claim comes alone.

    :raises AmbiguousRowError: several live rows could be a host's.
    :raises NovaOwnsRowError: a nova-compute that is alive keeps it.
    :raises RowConflictError: it is one of ``held``.
    :raises ServiceMissingError: a foreign key asks for a service that is not there.
    :raises ServiceTakenError: a unique key allows no row beside another service's.
    :raises StillOwnedError: a standby's claim, and the row's owner is alive.
    :raises RowsLockedError: somebody else has locked some of the rows or guards. These locks are
        not waited for, so that a claim waits for one lock at most: that of an agent which is
        making the same guard row at the same time.
    :raises StatementError: nothing is claimed, or (kind CONNECTION) it is not known.

    May be repeated after any failure. Cancelling it closes the session.
    """
    # A plain look first: the service is part of the lock's key.
    found = await find(session, batch, layout)
    await session.write("START TRANSACTION")
    try:
        claims = await _Attempt(session, batch, owner, layout).claim_locked(found, held)
        await session.write("COMMIT")
    except BaseException:
        await _roll_back(session)
        raise
    return claims


async def _roll_back(session: Session) -> None:
    """Leave no transaction open: later writes would stand in it and never be committed."""
    if session.closed:
        return
    try:
        await session.write("ROLLBACK")
    except BaseException:
        session.abort()
        raise


class _Attempt:
    """One claim of one batch."""

    def __init__(
        self, session: Session, batch: Sequence[Wanted], owner: str, layout: Layout
    ) -> None:
        self._session = session
        self._batch = batch
        self._owner = owner
        self._layout = layout

    async def claim_locked(self, seen: Sequence[Found], held: Mapping[int, str]) -> list[Claim]:
        """The part that stands in one transaction."""
        services = [one.service_id for one in seen]
        keys = [FenceKey(one.wanted.name, str(one.service_id)) for one in seen]
        await self._lock_what_is_there(keys, seen)
        # This must stay the first write: it is the lock that orders claims of new hosts.
        await self._lock(keys)
        await prove_matches(self._session, keys[0])
        guards = await self._guards(keys)
        found = await find(self._session, self._batch, self._layout)
        if [one.service_id for one in found] != services:
            raise moved(self._session, "a live row changed while it was claimed")
        claims: list[Claim] = []
        for one, (node, service, guarded, term) in zip(found, guards, strict=True):
            wanted, row = one.wanted, one.row
            if guarded in held:
                # The guards may take two names for one that are two names among the rows.
                raise RowConflictError(wanted.name, (held[guarded], wanted.host))
            # Objects that are there already, where they are the same: keys are kept for long.
            key = FenceKey(wanted.name if node == wanted.name else node, sys.intern(service))
            if row is None:
                values = dict(wanted.values)
                row_id, how = await self._create(one), How.CREATED
            else:
                values, row_id = {}, row.row_id
                how = How.TAKEN_OVER if guarded == row_id else How.ADOPTED
                if row_id in held:
                    raise RowConflictError(wanted.name, (held[row_id], wanted.host))
            claims.append(Claim(row_id, one.service_id, key, int(term), how, values))
        await self._adopt([claimed for claimed in claims if claimed.how is not How.CREATED])
        await self._point([claimed for claimed in claims if claimed.how is not How.TAKEN_OVER])
        return claims

    async def _lock_what_is_there(self, keys: Sequence[FenceKey], seen: Sequence[Found]) -> None:
        """Lock the guards and rows that exist, without waiting for anybody.

        :raises RowsLockedError: somebody else has locked some of them.
        """
        guards = await self._session.query(statements.read_fences(keys))
        rows = {place: one.row.row_id for place, one in enumerate(seen) if one.row is not None}
        locked: set[int] = set()
        if guards:
            mine = set(await self._session.query(statements.lock_guards(keys)))
            matched = matched_rows(self._session, self._batch, guards)
            locked.update(
                place
                for place, theirs in enumerate(matched)
                if any((node, service) not in mine for node, service, *_ in theirs)
            )
        if rows:
            lock = statements.lock_rows(sorted(rows.values()))
            ours = {row_id for (row_id,) in await self._session.query(lock)}
            locked.update(place for place, row_id in rows.items() if row_id not in ours)
        if locked:
            raise RowsLockedError(str(self._session.url), locked)

    async def _lock(self, keys: Sequence[FenceKey]) -> None:
        known_terms = {
            key: wanted.known_term for key, wanted in zip(keys, self._batch, strict=True)
        }
        silent_seconds = self._batch[0].silent_seconds
        if silent_seconds is not None:
            (key,) = keys
            take = statements.take_silent_fence(key, self._owner, known_terms[key], silent_seconds)
            if await self._session.write(take):
                return
            if await self._session.query(statements.read_fences(keys)):
                raise StillOwnedError(self._batch[0].name)
            # Nobody has a guard row, so nobody is in the way.
        # In one order, whoever claims: two agents that lock in different orders deadlock.
        ordered = dict(sorted(known_terms.items()))
        await self._session.write(statements.take_fences(ordered, self._owner))

    async def _guards(self, keys: Sequence[FenceKey]) -> list[Row]:
        fences = await self._session.query(statements.read_fences(keys))
        matched = matched_rows(self._session, self._batch, fences)
        if any(len(guards) != 1 for guards in matched):
            raise moved(self._session, "two hosts of one batch share a guard row")
        return [guard for (guard,) in matched]

    async def _create(self, found: Found) -> int:
        wanted = found.wanted
        try:
            await self._session.write(found.creation(self._layout))
        except StatementError as error:
            # Nova's tables had this key for some years.
            if error.code in NO_PARENT_ROW:
                raise ServiceMissingError(wanted.name, found.service_id) from error
            # Nova's later tables have a key of the names; without a given service the row that
            # is there would have been found.
            if error.kind is Kind.RESOLVE and wanted.service_id is not None:
                rows = await self._session.query(statements.live_rows([wanted.name]))
                if others := live([Candidate(*row) for _, *row in rows]):
                    listed = [(other.row_id, other.service_id) for other in others]
                    raise ServiceTakenError(wanted.name, listed) from error
            raise
        return self._session.insert_id

    async def _adopt(self, claims: Sequence[Claim]) -> None:
        """Lock the rows that are there already, and read what they hold."""
        if not claims:
            return
        row_ids = sorted(claimed.row_id for claimed in claims)
        if await self._session.write(statements.adopt(row_ids)) != len(claims):
            reason = f"one of the rows {row_ids} vanished while it was claimed"
            raise moved(self._session, reason)
        rows = await self._session.query(statements.read_rows(row_ids))
        values = {row_id: columns for row_id, *columns in rows}
        for claimed in claims:
            claimed.values.update(zip(OWNED_COLUMNS, values[claimed.row_id], strict=True))

    async def _point(self, claims: Sequence[Claim]) -> None:
        """Let the guards name their rows, and no other guard name them."""
        if claims:
            pointed = {claimed.key: claimed.row_id for claimed in claims}
            # An UPDATE would wait for the lock of each; this does not wait at all.
            await self._session.query(statements.lock_rivals(pointed))
            await self._session.write(statements.evict_fences(pointed, self._owner))
            await self._session.write(statements.point_fences(pointed))
