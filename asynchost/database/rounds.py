"""Something that each of many things has its turn of, once in every interval, evenly spread.

Pure: time comes in as an argument. Memory: one reference to each that still waits in this round.
"""

import math
from collections import deque
from collections.abc import Collection
from typing import Generic, TypeVar

T = TypeVar("T")


class Rounds(Generic[T]):
    """Whose turn it is, at the times :attr:`next_at`.

    A round takes one interval, however many there are; who comes in the middle of one is in the
    next. No more than ``most`` at a time.
    """

    def __init__(self, interval_seconds: float, most: int) -> None:
        self._interval_seconds = interval_seconds
        self._most = most
        self._line: deque[T] = deque()
        self.next_at = math.inf

    def begin(self, now: float, of: Collection[T], phase: float) -> None:
        """Start, or go on: at a time within one gap; ``phase``, from 0 to 1, says where."""
        self.next_at = now + phase * self._gap_seconds(of)

    def take(self, now: float, of: Collection[T]) -> list[T]:
        """Those whose turn it is, all still among ``of``; none before ``next_at``."""
        if now < self.next_at:
            return []
        self.next_at = now + self._gap_seconds(of)
        if not self._line:
            self._line.extend(of)
        size = math.ceil(len(of) / self._slices(of))
        taken: list[T] = []
        while self._line and len(taken) < size:
            one = self._line.popleft()
            if one in of:
                taken.append(one)
        return taken

    def _slices(self, of: Collection[T]) -> int:
        return max(1, math.ceil(len(of) / self._most))

    def _gap_seconds(self, of: Collection[T]) -> float:
        return self._interval_seconds / self._slices(of)
