"""Claims of many hosts through one session: who can share a transaction, and what came of it.

Memory: one batch of hosts.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from asynchost.database.attachment import Attachment
from asynchost.database.claim import claim
from asynchost.database.classify import Kind, RowsLockedError, StatementError
from asynchost.database.identity import (
    Claim,
    How,
    StillOwnedError,
    Wanted,
    can_share,
)
from asynchost.database.inspection import blame
from asynchost.database.layout import Layout
from asynchost.database.records import Retry
from asynchost.database.session import Session
from asynchost.errors import AsynchostError, ConfigurationError, DatabaseRefusedError
from asynchost.log import get_logger

_CLAIMS_PER_TRANSACTION = 100
"""Each transaction looks at every row of a table without an index, so it pays to share it; and it
holds its locks, on the hosts of one batch, for a tenth of a second."""
_CLAIMING_SECONDS = 0.25
"""Bounds how long the rows that are owned already wait while others are claimed."""
_ATTEMPTS = 3
"""How often a claim is begun again at once when the row changed under it."""
_OF_ONE_HOST = (Kind.BAD_ROW, Kind.RESOLVE, Kind.STATEMENT)
LISTED = 10
"""How many hosts or rows are told of one by one."""
_LONGEST_LOGGED = 60
_LONG_COLUMNS = frozenset({"cpu_info"})


class Setback(NamedTuple):
    """A host whose write did not work out and must be tried again."""

    attachment: Attachment
    error: StatementError | None
    retry: Retry = Retry.TOGETHER


class Wanting(NamedTuple):
    """A host without a row, and what is to be claimed for it."""

    attachment: Attachment
    wanted: Wanted


class Claimant:
    """Claims rows; errors as :class:`~asynchost.database.lane.Lane` raises them."""

    def __init__(self, session: Session, owner: str, layout: Layout) -> None:
        self._session = session
        self._owner = owner
        self._layout = layout
        self._log = get_logger("asynchost.database")

    async def claim(
        self, attachments: Iterable[Attachment], held: Mapping[int, str]
    ) -> list[Setback]:
        """Claim the rows of hosts that have none. Returns those to be tried again: also the ones
        for which there was no time left.

        ``held`` says which rows other hosts of this process hold, and which hosts these are.
        """
        until = asyncio.get_running_loop().time() + _CLAIMING_SECONDS
        wanting = [Wanting(a, wanted) for a in attachments if (wanted := a.wanted()) is not None]
        if not wanting:
            return []
        setbacks: list[Setback] = []
        held = dict(held)
        await self._session.limit_silence(True)
        for number, batch in enumerate(_batches(wanting)):
            # The first one in any case: else a slow server would never be claimed at.
            late = number > 0 and asyncio.get_running_loop().time() >= until
            setbacks += _not_tried(batch) if late else await self._claim(batch, held, until)
        await self._session.limit_silence(False)
        return setbacks

    async def _claim(
        self, batch: Sequence[Wanting], held: dict[int, str], until: float
    ) -> list[Setback]:
        """One transaction; where one host spoils it, all others go on without that host."""
        try:
            claims = await self._attempt([wanted for _, wanted in batch], held)
        except RowsLockedError as error:
            locked = [one for place, one in enumerate(batch) if place in error.hosts]
            free = [one for place, one in enumerate(batch) if place not in error.hosts]
            setbacks = [Setback(attachment, error, Retry.LOCKED) for attachment, _ in locked]
            return setbacks + (await self._claim(free, held, until) if free else [])
        except (StatementError, ConfigurationError, StillOwnedError) as error:
            if isinstance(error, DatabaseRefusedError) or _kind(error) is Kind.CONNECTION:
                raise
            if isinstance(error, StatementError) and error.kind not in _OF_ONE_HOST:
                return [Setback(attachment, error) for attachment, _ in batch]
            if len(batch) == 1:
                return self.settle(batch[0].attachment, error)
        else:
            for one, claimed in zip(batch, claims, strict=True):
                one.attachment.own(claimed)
                held[claimed.row_id] = one.attachment.host
                self._tell(one, claimed)
            return []
        middle = len(batch) // 2
        setbacks = await self._claim(batch[:middle], held, until)
        late = asyncio.get_running_loop().time() >= until
        rest = batch[middle:]
        return setbacks + (_not_tried(rest) if late else await self._claim(rest, held, until))

    async def _attempt(self, wanted: Sequence[Wanted], held: Mapping[int, str]) -> list[Claim]:
        try:
            return await self._attempts(wanted, held)
        except DatabaseRefusedError as error:
            raise await blame(self._session, error) from error
        except (AsynchostError, StillOwnedError):
            raise
        except Exception as error:
            if self._session.closed:
                raise
            # What one host's rows cause must not end the writing of all: as a refused statement.
            reason = f"{type(error).__name__}: {error}"
            raise StatementError(str(self._session.url), None, reason, Kind.STATEMENT) from error

    async def _attempts(self, wanted: Sequence[Wanted], held: Mapping[int, str]) -> list[Claim]:
        for _ in range(_ATTEMPTS - 1 if len(wanted) == 1 else 0):
            try:
                return await claim(self._session, wanted, self._owner, held, self._layout)
            except StatementError as error:
                if error.kind is not Kind.RESOLVE:
                    raise
        return await claim(self._session, wanted, self._owner, held, self._layout)

    def settle(
        self, attachment: Attachment, error: StatementError | ConfigurationError | StillOwnedError
    ) -> list[Setback]:
        """What becomes of a host that could not be claimed for a reason of its own."""
        if isinstance(error, StillOwnedError):
            attachment.yield_row()
        elif isinstance(error, ConfigurationError):
            if attachment.fail(error):
                self._log.error("row refused", host=attachment.host, reason=error.message)
        elif error.kind is Kind.BAD_ROW:
            attachment.reject_all(error.reason, error.code)
        else:
            return [Setback(attachment, error, Retry.ALONE)]
        return []

    def _tell(self, one: Wanting, claimed: Claim) -> None:
        created = claimed.values if claimed.how is How.CREATED else {}
        self._log.info(
            "row claimed",
            how=str(claimed.how),
            host=one.attachment.host,
            row=claimed.row_id,
            service_id=claimed.service_id,
            term=claimed.term,
            **{"hypervisor_hostname": one.wanted.name, **shown(created)},
        )


def _not_tried(batch: Iterable[Wanting]) -> list[Setback]:
    return [Setback(attachment, None, Retry.AT_ONCE) for attachment, _ in batch]


def shown(values: Mapping[str, object]) -> Mapping[str, object]:
    """For the log: cpu_info is several KiB of JSON, so enough of it to tell what it is."""
    if values.keys().isdisjoint(_LONG_COLUMNS):
        return values
    return {
        column: value[:_LONGEST_LOGGED] + "…"
        if isinstance(value, str) and len(value) > _LONGEST_LOGGED
        else value
        for column, value in values.items()
    }


def _kind(error: Exception) -> Kind | None:
    return error.kind if isinstance(error, StatementError) else None


def _batches(wanting: Sequence[Wanting]) -> list[list[Wanting]]:
    """What can be claimed together, and one by one what cannot."""
    shares = can_share([wanted.name for _, wanted in wanting])
    together: list[Wanting] = []
    alone: list[Wanting] = []
    for one, share in zip(wanting, shares, strict=True):
        plain = share and not one.attachment.suspect and one.wanted.silent_seconds is None
        (together if plain else alone).append(one)
    step = _CLAIMS_PER_TRANSACTION
    parts = [together[start : start + step] for start in range(0, len(together), step)]
    return [*parts, *([one] for one in alone)]
