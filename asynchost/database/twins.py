"""Second live rows of hosts' names, which appear while the hosts are written.

Only rows with a higher id than those of the look before are looked at: the original table has no
index on the name. Memory: the ids of the twins that were told.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from asynchost.database.attachment import Attachment
from asynchost.database.identity import folded
from asynchost.database.schema import TABLE
from asynchost.log import get_logger

MOST = 1000
"""So many new rows are looked at in one look."""


class NewRow(NamedTuple):
    """A live row that was made since the last look."""

    row_id: int
    name: str
    service_id: int | None


class Twins:
    """Tells each twin of a row once."""

    def __init__(self) -> None:
        self.after: int | None = None
        """Rows with a higher id are looked at next; None: no look was taken yet."""
        self._newest = 0
        self._told: set[int] = set()
        self._log = get_logger("asynchost.database")

    def look(self, newest: int, rows: Sequence[NewRow], attachments: Iterable[Attachment]) -> None:
        """``rows`` are new; ``newest`` is the highest id of the table."""
        if self.after is None:
            # What is older was seen by the claims.
            self.after = self._newest = newest
            return
        # The rows of the last look are looked at twice: a transaction that was open then may have
        # made one with a lower id. A restored backup makes ids again.
        self.after = min(self._newest, newest)
        self._newest = rows[-1].row_id if len(rows) == MOST else newest
        if not rows:
            return
        owned: dict[str, list[Attachment]] = {}
        ours = set()
        for attachment in attachments:
            if attachment.row is not None:
                owned.setdefault(folded(attachment.row.node), []).append(attachment)
                ours.add(attachment.row.row_id)
        for row in rows:
            if row.row_id in ours or row.row_id in self._told:
                continue
            for attachment in owned.get(folded(row.name), ()):
                if attachment.service_id in (None, row.service_id):
                    self._tell(row, attachment)

    def _tell(self, row: NewRow, attachment: Attachment) -> None:
        self._told.add(row.row_id)
        self._log.warning(
            "second live row of a host's name",
            host=attachment.host,
            row=attachment.row_id,
            other=row.row_id,
            service_id=row.service_id,
            mend=f"UPDATE {TABLE} SET deleted = 1 WHERE id = {row.row_id:d}",
        )
