"""A time for each of many things, the earliest first.

Pure: time comes in as an argument. Memory: at most two entries for each thing, and a few more.
"""

import heapq
from collections.abc import Hashable
from itertools import count
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_NEVER = float("inf")
_VOID_ENTRIES_ENDURED = 64


class Timetable(Generic[K]):
    """The times at which things are due; of several times of one thing the earliest counts."""

    def __init__(self) -> None:
        self._at: dict[K, float] = {}
        self._entries: list[tuple[float, int, K]] = []
        """A heap; the entries that are not in ``_at`` are void."""
        self._numbers = count()
        """Which keep things of one time from being compared."""

    def __contains__(self, key: object) -> bool:
        return key in self._at

    def __len__(self) -> int:
        return len(self._at)

    def add(self, key: K, at: float) -> float:
        """It is due at ``at``, or when it is due already, if that is earlier; returns the time.

        Infinity is no time: it is as if nothing had been said.
        """
        known = self._at.get(key, _NEVER)
        if known <= at:
            return known
        self._at[key] = at
        heapq.heappush(self._entries, (at, next(self._numbers), key))
        if len(self._entries) > 2 * len(self._at) + _VOID_ENTRIES_ENDURED:
            self._entries = [(when, next(self._numbers), one) for one, when in self._at.items()]
            heapq.heapify(self._entries)
        return at

    def discard(self, key: K) -> None:
        """It is not due any more."""
        self._at.pop(key, None)

    @property
    def next_at(self) -> float:
        """When the next thing is due; infinity when none is."""
        while self._entries:
            at, _, key = self._entries[0]
            if self._at.get(key) == at:
                return at
            heapq.heappop(self._entries)
        return _NEVER

    def pop(self, now: float) -> K | None:
        """The next thing that is due by ``now``, which it is then no more; None if none is."""
        if self.next_at > now:
            return None
        key = heapq.heappop(self._entries)[2]
        del self._at[key]
        return key
