"""What others write into a row of ours: how often it is put right, and when it is told.

Pure. Two programs that both keep a row true by their own lights would undo each other's work
for ever; so one of them gives up, and says so. Memory: a few times, and the values that stand.
"""

from collections import deque
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

    __slots__ = ("_policy", "_repairs", "_told", "count")

    def __init__(self, policy: OnForeignEdit) -> None:
        self.count = 0
        """How many times the row was found changed by others, each standing change once."""
        self._policy = policy
        self._repairs: deque[float] = deque(maxlen=REPAIRS_PER_HOUR)
        self._told: Values = {}

    def noticed(self, found: Values, acknowledged: Mapping[str, Value], now: float) -> Edit:
        """The row was read back with ``found`` where ``acknowledged`` was; ``now`` in seconds."""
        is_new = found != self._told
        self.count += is_new
        repaired = self._may_repair(now)
        if repaired:
            self._repairs.append(now)
        self._told = {} if repaired else dict(found)
        wanted = {column: acknowledged[column] for column in found}
        return Edit(found, wanted, repaired, is_news=is_new or repaired)

    def none_left(self) -> None:
        """The row was read back as it should be."""
        self._told = {}

    def _may_repair(self, now: float) -> bool:
        if self._policy is OnForeignEdit.REPORT:
            return False
        repairs = self._repairs
        return len(repairs) < REPAIRS_PER_HOUR or now - repairs[0] >= _HOUR_SECONDS
