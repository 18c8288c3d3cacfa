"""A lane that shows each statement instead of carrying it out.

The session may only read: the server itself would refuse anything else. Rows are found as a claim
finds them, and not claimed, so an agent that writes them goes on undisturbed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from asynchost.database import statements
from asynchost.database.attachment import Attachment
from asynchost.database.claims import Setback
from asynchost.database.classify import Kind, StatementError
from asynchost.database.finding import find
from asynchost.database.identity import Claim, How
from asynchost.database.lane import Lane
from asynchost.database.layout import Layout
from asynchost.database.schema import OWNED_COLUMNS
from asynchost.database.session import Session
from asynchost.database.statements import FenceKey, RowWrite
from asynchost.errors import AmbiguousRowError, NovaOwnsRowError

_OF_ONE_HOST = (Kind.BAD_ROW, Kind.STATEMENT)


class DryLane(Lane):
    """Takes what it shows for written. ``show`` is given each statement."""

    def __init__(
        self, session: Session, owner: str, layout: Layout, show: Callable[[str], None]
    ) -> None:
        super().__init__(session, owner, layout)
        self._show = show
        self._next_id = 0

    async def reconcile(
        self,
        attachments: Iterable[Attachment],  # noqa: ARG002 - as a lane has it
    ) -> list[Attachment]:
        """What others write meanwhile is left out of account."""
        return []

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

    async def claim(
        self,
        attachments: Iterable[Attachment],
        held: Mapping[int, str],  # noqa: ARG002 - as a lane has it
    ) -> list[Setback]:
        """Find the rows of hosts that have none, or show how they would be made."""
        setbacks: list[Setback] = []
        for attachment in attachments:
            wanted = attachment.wanted()
            if wanted is None:
                continue
            try:
                (found,) = await find(self._session, [wanted], self._layout)
            except (StatementError, AmbiguousRowError, NovaOwnsRowError) as error:
                if isinstance(error, StatementError) and error.kind not in _OF_ONE_HOST:
                    raise
                setbacks += self._claimant.settle(attachment, error)
                continue
            if found.row is None:
                # An id that no row has, and that tells the hosts apart.
                self._next_id -= 1
                row_id, how, values = self._next_id, How.CREATED, dict(wanted.values)
                self._show(found.creation(self._layout))
            else:
                row_id, how = found.row.row_id, How.ADOPTED
                ((_, *row),) = await self._session.query(statements.read_rows([row_id]))
                values = dict(zip(OWNED_COLUMNS, row, strict=True))
            key = FenceKey(wanted.name, str(found.service_id))
            attachment.own(Claim(row_id, found.service_id, key, 0, how, values))
        return setbacks

    async def _flush(
        self,
        batch: Sequence[RowWrite],
        planned: Mapping[int, Attachment],
        *,
        unlocked: bool = False,  # noqa: ARG002 - as a lane has it
        until: float | None = None,  # noqa: ARG002 - as a lane has it
    ) -> list[Setback]:
        self._show(self._update(batch))
        for write in batch:
            planned[write.row_id].acknowledge(write)
        return []
