"""The writes that come next: planned while the server works on the last ones.

Pure. Memory: one write for each host that is due and not yet written.
"""

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from operator import itemgetter

from asynchost.database.attachment import Attachment
from asynchost.database.claims import Setback
from asynchost.database.statements import ROWS_PER_STATEMENT, RowWrite


class Plan:
    """One write for each host, until the database has answered it.

    A host that is due again before is planned once more afterwards: what differs is not known
    sooner. One that was set back is left to whoever tries it again.
    """

    def __init__(self) -> None:
        self.hosts: dict[int, Attachment] = {}
        """Those whose write is planned or sent, by the row's id."""
        self.setbacks: list[Setback] = []
        self._groups: dict[tuple[str, ...], list[RowWrite]] = {}
        """By the columns that they write: one statement writes the same in all its rows."""
        self._alone: deque[RowWrite] = deque()
        """Each with a statement of its own."""
        self._again: dict[int, None] = {}
        self._size = 0

    def __len__(self) -> int:
        """How many writes are to be sent."""
        return self._size

    def add(self, attachments: Iterable[Attachment]) -> None:
        """Plan what differs of these hosts; those that own no row are passed over."""
        for attachment in attachments:
            row = attachment.row
            if row is None:
                continue
            row_id = row.row_id
            if row_id in self.hosts:
                self._again[row_id] = None
            elif (write := attachment.plan()) is not None:
                self.hosts[row_id] = attachment
                self._size += 1
                if attachment.suspect:
                    self._alone.append(write)
                else:
                    self._groups.setdefault(write.columns, []).append(write)

    def take(self) -> list[RowWrite]:
        """The writes of one statement, to be sent now; none when nothing is planned.

        In the order of their rows: two agents that lock in different orders deadlock. What may be
        held up by a lock comes last, and of what is too much for one statement, the rest comes
        after the other columns.
        """
        if not self._groups:
            batch = [self._alone.popleft()] if self._alone else []
        else:
            columns = next(iter(self._groups))
            writes = self._groups.pop(columns)
            batch, rest = writes[:ROWS_PER_STATEMENT], writes[ROWS_PER_STATEMENT:]
            if rest:
                self._groups[columns] = rest
            batch.sort(key=itemgetter(0))
        self._size -= len(batch)
        return batch

    def settle(self, batch: Sequence[RowWrite], setbacks: Collection[Setback]) -> None:
        """The database has answered, and the hosts of ``batch`` know what it said."""
        self.setbacks += setbacks
        set_back = {setback.attachment for setback in setbacks}
        again = []
        for write in batch:
            host = self.hosts[write.row_id]
            if host not in set_back:
                del self.hosts[write.row_id]
                if write.row_id in self._again:
                    del self._again[write.row_id]
                    again.append(host)
        self.add(again)
