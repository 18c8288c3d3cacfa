"""A lane that shows each statement instead of carrying it out.

The session may only read: the server itself would refuse anything else. Rows are found as a claim
finds them, and not claimed, so an agent that writes them goes on undisturbed.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from asynchost.database import statements
from asynchost.database.attachment import Attachment
from asynchost.database.claims import Claimant, Setback, Wanting
from asynchost.database.finding import Found, find
from asynchost.database.identity import Claim, How, Wanted
from asynchost.database.lane import Lane
from asynchost.database.layout import Layout
from asynchost.database.schema import OWNED_COLUMNS
from asynchost.database.session import Session
from asynchost.database.statements import FenceKey, RowWrite
from asynchost.database.twins import Twins
from asynchost.errors import RowConflictError


class DryClaimant(Claimant):
    """Finds the rows that a claim would take, in the same batches and with the same refusals."""

    def __init__(
        self, session: Session, owner: str, layout: Layout, show: Callable[[str], None]
    ) -> None:
        super().__init__(session, owner, layout)
        self._show = show
        self._shown: dict[tuple[str, int], str] = {}
        """The hosts whose new rows were shown, by name and service: a real run would find them."""
        self._next_id = 0

    async def _attempts(self, wanted: Sequence[Wanted], held: Mapping[int, str]) -> list[Claim]:
        found = await find(self._session, wanted, self._layout)
        row_ids = [one.row.row_id for one in found if one.row is not None]
        rows: dict[int, tuple[object, ...]] = {}
        if row_ids:
            for row_id, *values in await self._session.query(statements.read_rows(row_ids)):
                rows[row_id] = tuple(values)
        for one in found:
            holder = self._holder(one, held)
            if holder is not None:
                raise RowConflictError(one.wanted.name, (holder, one.wanted.host))
        return [self._claim_of(one, rows) for one in found]

    def _holder(self, one: Found, held: Mapping[int, str]) -> str | None:
        if one.row is not None:
            return held.get(one.row.row_id)
        return self._shown.get((one.wanted.name.casefold(), one.service_id))

    def _claim_of(self, one: Found, rows: Mapping[int, tuple[object, ...]]) -> Claim:
        wanted = one.wanted
        if one.row is None:
            # An id that no row has, and that tells the hosts apart.
            self._next_id -= 1
            row_id, how, values = self._next_id, How.CREATED, dict(wanted.values)
            self._shown[wanted.name.casefold(), one.service_id] = wanted.host
            self._show(one.creation(self._layout))
        else:
            row_id, how = one.row.row_id, How.ADOPTED
            values = dict(zip(OWNED_COLUMNS, rows[row_id], strict=True))  # type: ignore[arg-type]
        key = FenceKey(wanted.name, str(one.service_id))
        return Claim(row_id, one.service_id, key, 0, how, values)

    def _tell(self, one: Wanting, claimed: Claim) -> None:
        """Nothing is claimed."""


class DryLane(Lane):
    """Takes what it shows for written. ``show`` is given each statement."""

    def __init__(
        self, session: Session, owner: str, layout: Layout, show: Callable[[str], None]
    ) -> None:
        super().__init__(session, owner, layout)
        self._show = show
        self._claimant = DryClaimant(session, owner, layout, show)

    async def reconcile(
        self,
        attachments: Iterable[Attachment],  # noqa: ARG002 - as a lane has it
    ) -> list[Attachment]:
        """What others write meanwhile is left out of account."""
        return []

    async def look_for_twins(self, twins: Twins, attachments: Iterable[Attachment]) -> None:
        """A dry run shows what would be written, and watches no rows."""

    async def renew(
        self,
        attachments: Iterable[Attachment],
        *,
        stopped: bool = False,  # noqa: ARG002 - as a lane has it
    ) -> list[Attachment]:
        """No sign of life is given: nobody owns anything."""
        for attachment in attachments:
            if (sign := attachment.sign()) is not None:
                attachment.told(sign)
        return []

    async def _flush(
        self,
        batch: Sequence[RowWrite],
        planned: Mapping[int, Attachment],
        *,
        unlocked: bool = False,  # noqa: ARG002 - as a lane has it
        until: float | None = None,  # noqa: ARG002 - as a lane has it
    ) -> list[Setback]:
        self._show(self._update(batch))
        now = asyncio.get_running_loop().time()
        for write in batch:
            planned[write.row_id].acknowledge(write, now)
        return []
