"""What the database rejected of one host's row, and when that is tried again.

Pure: time comes in as an argument. Memory: the rejected columns with their values.
"""

from collections.abc import Mapping

from asynchost.database.rows import Value, Values

_FIRST_RETRY_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 45.0
"""A table that somebody has mended is written within a minute, without a change of the host's."""
_CHANGED_RETRY_SECONDS = 2.0
"""How soon after the last attempt another value is tried: one that changes all the time must not
make a statement fail each time."""


class Rejected:
    """The columns that are left out of a host's writes. Of a row that cannot be made: all.

    They are tried again after delays that double, and sooner once one of the values has changed.
    """

    __slots__ = (
        "_delay_seconds",
        "_tried_at",
        "columns",
        "is_changed",
        "is_tried",
        "is_whole",
        "reason",
        "retry_at",
    )

    def __init__(self) -> None:
        self.columns: Values = {}
        """With the values that were rejected."""
        self.reason = ""
        self.is_whole = False
        """Whether nothing of the row could be written, the columns that were not rejected too."""
        self.is_tried = False
        """Whether the write that is prepared now has all columns."""
        self.is_changed = False
        """Whether a value has changed since, so that another attempt is due shortly."""
        self.retry_at = 0.0
        self._tried_at = 0.0
        self._delay_seconds = _FIRST_RETRY_SECONDS

    def reject(
        self, columns: Mapping[str, Value], reason: str, now: float, *, is_whole: bool
    ) -> bool:
        """The database rejected these columns, and no others; whether that is news."""
        is_news = columns.keys() != self.columns.keys() or is_whole != self.is_whole
        self.columns = dict(columns)
        self.reason, self.is_whole = reason, is_whole
        self.is_tried = self.is_changed = False
        self._tried_at = now
        self.retry_at = now + self._delay_seconds
        self._delay_seconds = min(2 * self._delay_seconds, _LONGEST_RETRY_SECONDS)
        return is_news

    def take(self, values: Mapping[str, Value] | None, now: float) -> None:
        """A write is prepared, for a row that should hold ``values``; None: they are not known."""
        if values is not None and any(values[c] != v for c, v in self.columns.items()):
            self.is_changed = True
            self.retry_at = min(self.retry_at, self._tried_at + _CHANGED_RETRY_SECONDS)
        self.is_tried = now >= self.retry_at
        if self.is_tried:
            # Also where nothing comes of it, as for a host that is stale now.
            self.is_changed = False
            self._tried_at = now
            self.retry_at = now + self._delay_seconds
