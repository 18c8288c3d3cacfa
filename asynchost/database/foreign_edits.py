"""What others write into a row of ours: how often it is put right, and when it is told.

Pure. Two programs that both keep a row true by their own lights would undo each other's work
for ever; so one of them gives up, and says so. Memory: a few times, and the values that stand.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from asynchost.database.rows import Value, Values

REPAIRS_PER_HOUR = 3
"""A slip is mended at once, and so is the same slip again; a habit is somebody's program."""
_HOUR_SECONDS = 3600.0


class OnForeignEdit(StrEnum):
    """What to do when somebody else has changed a row that is ours."""

    REPAIR = "repair"
    """Put it right, at most three times an hour for each row; beyond that, only tell."""
    REPORT = "report"
    """Only tell. A column is then written again when its own value changes."""


class Edit(NamedTuple):
    """What was found changed at one reading back, and what becomes of it."""

    found: Values
    wanted: Values
    repaired: bool
    is_news: bool
    """False where the same was told before and still stands."""


class ForeignEdits:
    """The edits of one row."""

    __slots__ = ("_policy", "_repairs", "_told", "count", "is_removed")

    def __init__(self, policy: OnForeignEdit) -> None:
        self.count = 0
        """How many times the row was found changed by others, each standing change once."""
        self.is_removed = False
        """Whether others have deleted the row, and it is not made anew for now."""
        self._policy = policy
        self._repairs: tuple[float, ...] = ()
        self._told: Values = {}

    def noticed(
        self,
        found: Values,
        acknowledged: Mapping[str, Value],
        now: float,
        *,
        restored: bool = False,
    ) -> Edit:
        """The row was read back with ``found`` where ``acknowledged`` was; ``now`` in seconds.

        ``restored`` says that the row is older than it was: no edit but a backup, which is put
        right under either policy, since nobody else would.
        """
        self.is_removed = False
        is_new = found != self._told
        self.count += is_new
        repaired = (restored or self._policy is OnForeignEdit.REPAIR) and self._spend(now)
        self._told = {} if repaired else dict(found)
        wanted = {column: acknowledged[column] for column in found}
        return Edit(found, wanted, repaired, is_news=is_new or repaired)

    def removed(self, now: float) -> Edit:
        """The row was found deleted or soft-deleted.

        It is made anew under either policy, within the same bounds: a backup from before its time
        leaves the same sight, and a host without a row is worse than one row too many.
        """
        is_new = not self.is_removed
        self.count += is_new
        repaired = self._spend(now)
        self.is_removed = not repaired
        return Edit({}, {}, repaired, is_news=is_new)

    def none_left(self) -> None:
        """The row was read back as it should be."""
        self.is_removed = False
        self._told = {}

    def _spend(self, now: float) -> bool:
        """Take one of the hour's repairs, if there is one left."""
        recent = tuple(time for time in self._repairs if now - time < _HOUR_SECONDS)
        left = len(recent) < REPAIRS_PER_HOUR
        self._repairs = (*recent, now) if left else recent
        return left
