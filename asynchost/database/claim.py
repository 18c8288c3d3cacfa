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
from asynchost.database.classify import NO_PARENT_ROW, Kind, StatementError
from asynchost.database.identity import (
    Candidate,
    Claim,
    How,
    NovaService,
    StillOwnedError,
    Wanted,
    choose,
    choose_service,
    live,
    matched_by_name,
    services_of,
)
from asynchost.database.layout import Layout
from asynchost.database.schema import OWNED_COLUMNS
from asynchost.database.session import Row, Session
from asynchost.database.statements import FenceKey
from asynchost.errors import (
    NovaOwnsRowError,
    RowConflictError,
    ServiceMissingError,
    ServiceTakenError,
)

_NOVA_ALIVE_SECONDS = 120
"""A nova-compute reports every ten seconds, and Nova takes it for down after sixty."""


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
    :raises StatementError: nothing is claimed, or (kind CONNECTION) it is not known.

    May be repeated after any failure. Cancelling it closes the session.
    """
    attempt = _Attempt(session, batch, owner, layout)
    # Plain looks first: the service is part of the lock's key.
    await attempt.look_for_nova()
    services = attempt.services_of(await attempt.find())
    await session.write("START TRANSACTION")
    try:
        claims = await attempt.claim_locked(services, held)
    except BaseException:
        if not session.closed:
            await session.write("ROLLBACK")
        raise
    await session.write("COMMIT")
    return claims


class _Attempt:
    """One claim of one batch."""

    def __init__(
        self, session: Session, batch: Sequence[Wanted], owner: str, layout: Layout
    ) -> None:
        self._session = session
        self._batch = batch
        self._owner = owner
        self._layout = layout
        self._novas: Sequence[NovaService | None] = [None] * len(batch)

    async def look_for_nova(self) -> None:
        """Find the hosts' services in Nova's table, if there is one."""
        if not self._layout.services:
            return
        names = [wanted.name for wanted in self._batch]
        rows = await self._session.query(statements.nova_services(names, _NOVA_ALIVE_SECONDS))
        services = [NovaService(number, host, bool(alive)) for number, host, alive in rows]
        self._novas = [
            choose_service(name, matched)
            for name, matched in zip(names, services_of(names, services), strict=True)
        ]
        for wanted, nova in zip(self._batch, self._novas, strict=True):
            if nova is not None and nova.alive and not wanted.beside_nova:
                raise NovaOwnsRowError(wanted.name, nova.host, nova.service_id)

    async def find(self) -> list[Candidate | None]:
        """The hosts' live rows as they are now; None where there is none."""
        names = [wanted.name for wanted in self._batch]
        rows = await self._session.query(statements.live_rows(names))
        return [
            choose(wanted.name, [Candidate(*row) for _, *row in matched], wanted.service_id)
            for wanted, matched in zip(self._batch, self._matched(rows), strict=True)
        ]

    def services_of(self, found: Sequence[Candidate | None]) -> list[int]:
        """The services that the locks' keys name: the given one, else the live row's; where there
        is none Nova's of that host, else 0."""
        services = []
        for wanted, row, nova in zip(self._batch, found, self._novas, strict=True):
            of_row = 0 if row is None else row.service_id or 0
            of_nova = 0 if nova is None else nova.service_id
            known = of_nova if row is None else of_row
            services.append(known if wanted.service_id is None else wanted.service_id)
        return services

    async def claim_locked(self, services: Sequence[int], held: Mapping[int, str]) -> list[Claim]:
        """The part that stands in one transaction."""
        keys = [
            FenceKey(wanted.name, str(service))
            for wanted, service in zip(self._batch, services, strict=True)
        ]
        # This write must stay the first statement: it is the lock.
        await self._lock(keys)
        guards = await self._guards(keys)
        found = await self.find()
        if self.services_of(found) != services:
            raise self._moved("a live row changed while it was claimed")
        claims: list[Claim] = []
        for number, wanted in enumerate(self._batch):
            node, service, guarded, term = guards[number]
            # Objects that are there already, where they are the same: keys are kept for long.
            key = FenceKey(wanted.name if node == wanted.name else node, sys.intern(service))
            row = found[number]
            if row is None:
                values = dict(wanted.values)
                row_id, how = await self._create(number, services[number]), How.CREATED
            else:
                values, row_id = {}, row.row_id
                how = How.TAKEN_OVER if guarded == row_id else How.ADOPTED
                if row_id in held:
                    raise RowConflictError(wanted.name, (held[row_id], wanted.host))
            claims.append(Claim(row_id, services[number], key, int(term), how, values))
        await self._adopt([claimed for claimed in claims if claimed.how is not How.CREATED])
        await self._point([claimed for claimed in claims if claimed.how is not How.TAKEN_OVER])
        return claims

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
        matched = self._matched(await self._session.query(statements.read_fences(keys)))
        if any(len(guards) != 1 for guards in matched):
            raise self._moved("two hosts of one batch share a guard row")
        return [guard for (guard,) in matched]

    async def _create(self, number: int, service_id: int) -> int:
        wanted, nova = self._batch[number], self._novas[number]
        host = wanted.name if nova is None else nova.host
        filling = self._layout.filling(host, wanted.supported_instances)
        try:
            await self._session.write(statements.insert(wanted.values, service_id, filling))
        except StatementError as error:
            # Nova's tables had this key for some years.
            if error.code in NO_PARENT_ROW:
                raise ServiceMissingError(wanted.name, service_id) from error
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
            raise self._moved(f"one of the rows {row_ids} vanished while it was claimed")
        rows = await self._session.query(statements.read_rows(row_ids))
        values = {row_id: columns for row_id, *columns in rows}
        for claimed in claims:
            claimed.values.update(zip(OWNED_COLUMNS, values[claimed.row_id], strict=True))

    async def _point(self, claims: Sequence[Claim]) -> None:
        """Let the guards name their rows, and no other guard name them."""
        if claims:
            pointed = {claimed.key: claimed.row_id for claimed in claims}
            await self._session.write(statements.evict_fences(pointed, self._owner))
            await self._session.write(statements.point_fences(pointed))

    def _matched(self, rows: Sequence[Row]) -> list[list[Row]]:
        """The rows of each host, by the name that they begin with."""
        try:
            return matched_by_name(self._batch, [(str(row[0]), row) for row in rows])
        except KeyError as error:
            raise self._moved(f"the database takes {error} for another host's name") from error

    def _moved(self, reason: str) -> StatementError:
        return StatementError(str(self._session.url), None, reason, Kind.RESOLVE)
