"""When a row that another agent took may be claimed again.

Pure: time comes in as an argument. Memory: one guard row, as it was seen last.
"""

from datetime import datetime
from typing import NamedTuple

from asynchost.database.statements import STOPPED, FenceKey

MISSED_RENEWALS = 3
"""After so many the owner counts as gone: one may be late, two may be lost in a failover."""


class Sight(NamedTuple):
    """A guard row as a standby sees it."""

    key: FenceKey
    term: int
    owner: str
    state: str
    last_sign: datetime
    silent: bool
    """Whether the last sign is :data:`MISSED_RENEWALS` renewals ago by the server's clock."""


class Vigil:
    """A standby's watch over one row.

    The server's clock alone is no proof: after a restored backup, a failover to a replica that
    lags, or an outage, the sign of a living owner looks old until its next renewal. So it must
    also have stood still before our eyes, without a gap, for as long.
    """

    __slots__ = ("_known_term", "_seen", "_since", "key")

    def __init__(self, key: FenceKey, known_term: int) -> None:
        self.key = key
        self._known_term = known_term
        self._seen: Sight | None = None
        self._since: float | None = None

    def interrupt(self) -> None:
        """Nothing could be seen for a while: what follows begins anew."""
        self._since = None

    def look(self, sight: Sight | None, owner: str, now: float, silent_seconds: float) -> bool:
        """Whether the row may be claimed; ``sight`` is None where there is no guard row.

        ``owner`` is our own name, ``silent_seconds`` :data:`MISSED_RENEWALS` renewals.
        """
        if sight is not None:
            # A lower term is that of a restored backup, which knows nothing of the last owner.
            released = sight.state == STOPPED and sight.term >= self._known_term
            claimed = sight.owner == owner and sight.term > self._known_term
            self._known_term = max(self._known_term, sight.term)
            if released or claimed:
                # A claim of ours is one whose answer was lost.
                return True
        if self._since is None or _evidence(sight) != _evidence(self._seen):
            self._seen, self._since = sight, now
            return False
        return (sight is None or sight.silent) and now - self._since >= silent_seconds


def _evidence(sight: Sight | None) -> tuple[object, ...] | None:
    return None if sight is None else (sight.term, sight.owner, sight.last_sign)
