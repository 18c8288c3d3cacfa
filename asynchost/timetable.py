"""A time for each of many things, the earliest first.

Pure: time comes in as an argument. Memory: at most two entries for each thing, and a few more.
"""

import heapq
from collections import deque
from collections.abc import Hashable
from itertools import count
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_NEVER = float("inf")
_VOID_ENTRIES_ENDURED = 64


class Timetable(Generic[K]):
    """The times at which things are due; of several times of one thing the earliest counts.

    Things of one time are due in the order in which they were given it.

    Most times are said in their order, as a constant time ahead; so those are kept in a line, and
    only the others in a heap, which with thousands of entries costs several times as much.
    """

    def __init__(self) -> None:
        self._live: dict[K, tuple[float, int, K]] = {}
        self._line: deque[tuple[float, int, K]] = deque()
        self._heap: list[tuple[float, int, K]] = []
        """In both, the entries that are not in ``_live`` are void."""
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
        if not self._line or self._line[-1][0] <= at:
            self._line.append(entry)
        else:
            heapq.heappush(self._heap, entry)
        if len(self._line) + len(self._heap) > 2 * len(self._live) + _VOID_ENTRIES_ENDURED:
            self._line = deque(sorted(self._live.values()))
            self._heap.clear()
        return at

    def discard(self, key: K) -> None:
        """It is not due any more."""
        self._live.pop(key, None)

    @property
    def next_at(self) -> float:
        """When the next thing is due; infinity when none is."""
        first = self._first()
        return _NEVER if first is None else first[0]

    def take(self, now: float, most: int) -> list[K]:
        """The first ``most`` of the things that are due by ``now``, which they are then no more."""
        due: list[K] = []
        while len(due) < most and (entry := self._first()) is not None and entry[0] <= now:
            # Its entry is void from now on.
            del self._live[entry[2]]
            due.append(entry[2])
        return due

    def _first(self) -> tuple[float, int, K] | None:
        """The entry of the next thing that is due; void ones before it are dropped."""
        line, heap, live = self._line, self._heap, self._live
        while line and live.get(line[0][2]) is not line[0]:
            line.popleft()
        while heap and live.get(heap[0][2]) is not heap[0]:
            heapq.heappop(heap)
        if heap and (not line or heap[0] < line[0]):
            return heap[0]
        return line[0] if line else None
