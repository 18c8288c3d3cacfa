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
    """The times at which things are due; of several times of one thing the earliest counts.

    Things of one time are due in the order in which they were given it.
    """

    def __init__(self) -> None:
        self._live: dict[K, tuple[float, int, K]] = {}
        self._entries: list[tuple[float, int, K]] = []
        """A heap; the entries that are not in ``_live`` are void."""
        self._numbers = count()
        """Which order the things of one time, and keep them from being compared."""

    def __contains__(self, key: object) -> bool:
        return key in self._live

    def __len__(self) -> int:
        return len(self._live)

    def add(self, key: K, at: float) -> float:
        """It is due at ``at``, or when it is due already, if that is earlier; returns the time.

        Infinity is no time: it is as if nothing had been said.
        """
        known = self._live.get(key)
        if known is not None and known[0] <= at:
            return known[0]
        if at == _NEVER:
            return at
        entry = self._live[key] = (at, next(self._numbers), key)
        heapq.heappush(self._entries, entry)
        if len(self._entries) > 2 * len(self._live) + _VOID_ENTRIES_ENDURED:
            self._entries = list(self._live.values())
            heapq.heapify(self._entries)
        return at

    def discard(self, key: K) -> None:
        """It is not due any more."""
        self._live.pop(key, None)

    @property
    def next_at(self) -> float:
        """When the next thing is due; infinity when none is."""
        while self._entries:
            entry = self._entries[0]
            if self._live.get(entry[2]) is entry:
                return entry[0]
            heapq.heappop(self._entries)
        return _NEVER

    def take(self, now: float, most: int) -> list[K]:
        """The first ``most`` of the things that are due by ``now``, which they are then no more."""
        due: list[K] = []
        while len(due) < most and self._entries and self._entries[0][0] <= now:
            entry = heapq.heappop(self._entries)
            key = entry[2]
            if self._live.get(key) is entry:
                del self._live[key]
                due.append(key)
        return due
