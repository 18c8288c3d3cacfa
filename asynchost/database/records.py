"""What the database holds for one host, and what that can mean. Data only."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import NamedTuple

from asynchost.database.rows import RowValues
from asynchost.database.statements import FenceKey


@dataclass(frozen=True, slots=True)
class OwnedRow:
    """The row that a claim made ours."""

    row_id: int
    node: str
    service: str
    term: int

    @property
    def key(self) -> FenceKey:
        """Of the guard row."""
        return FenceKey(self.node, self.service)


class Record(NamedTuple):
    """What the database holds for one host: its fence row and its row, read in one statement."""

    key: FenceKey
    row_id: int | None
    term: int
    seq: int
    owner: str
    guarded_at: datetime
    """When the last guarded write landed."""
    live: bool
    updated_at: datetime | None
    values: RowValues


class Retry(Enum):
    """How a host is written again after a write or a claim that did not work out."""

    AT_ONCE = "at once"
    """It was not tried: there was no time left for it."""
    TOGETHER = "together"
    """With the others, after a backoff; alone if that fails as well."""
    LOCKED = "locked"
    """Somebody else has locked its row: as soon as the lock is gone."""
    ALONE = "alone"
    """The server refused this one row: in a statement of its own, after a backoff."""


class Verdict(Enum):
    """What a record means for the one who reads it."""

    KEPT = "kept"
    """The row is ours; what the record holds is acknowledged."""
    LOST = "lost"
    """The row or its guard is gone or older than what we knew: claim again."""
    REMOVED = "removed"
    """Somebody deletes or soft-deletes the row again and again: leave it so for now."""
    FENCED = "fenced"
    """Another agent owns the row now."""
