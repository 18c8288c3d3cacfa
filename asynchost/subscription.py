"""A subscriber's own backlog: bounded, and never in anybody else's way.

Memory: at most ``limit`` items per subscription.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, Self, TypeVar

from asynchost.model import Change, Drift

T = TypeVar("T")

# About a minute of a busy host, and less than a megabyte.
DEFAULT_LIMIT: Final = 1000


class Stream(ABC, Generic[T]):
    """An asynchronous iterator over what is pushed, from its creation on.

    Iteration ends when the monitor closes, or after :meth:`close`. One task may iterate.
    Cancelling a wait is safe: nothing is lost.
    """

    def __init__(self, forget: Callable[[Any], None], limit: int = DEFAULT_LIMIT) -> None:
        self._forget = forget
        self._limit = limit
        self._backlog: deque[T] = deque()
        self._closed = False
        self._waiting: asyncio.Future[None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._backlog:
            if self._closed:
                raise StopAsyncIteration
            if self._waiting is not None:
                raise RuntimeError("another task iterates this subscription; make one for each")
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        return self._backlog.popleft()

    def push(self, item: T) -> None:
        """Take one more item; for the monitor."""
        if len(self._backlog) >= self._limit:
            item = self._make_room(item)
        self._backlog.append(item)
        self._wake()

    @abstractmethod
    def _make_room(self, item: T) -> T:
        """Take something out of a full backlog; returns what to put in, with ``item`` in it."""

    def end(self) -> None:
        """Nothing will come any more; the backlog can still be read. For the monitor."""
        self._closed = True
        self._wake()

    def close(self) -> None:
        """Stop receiving, and forget the backlog. Idempotent."""
        self._forget(self)
        self._backlog.clear()
        self.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class Subscription(Stream[Change]):
    """The changes of a host.

    A subscriber that falls ``limit`` changes behind loses the steps, not the sum: its backlog is
    folded into one change from the oldest ``before`` to the newest ``after``, and counted in
    :attr:`folded`.
    """

    def __init__(self, forget: Callable[[Any], None], limit: int = DEFAULT_LIMIT) -> None:
        super().__init__(forget, limit)
        self.folded = 0
        """How many changes were lost as steps, in all."""

    def _make_room(self, item: Change) -> Change:
        self.folded += len(self._backlog)
        folded = Change(
            host=item.host,
            generation=item.generation,
            before=self._backlog[0].before,
            after=item.after,
            cause=item.cause,
            detail=item.detail,
            folded=item.folded + sum(one.folded for one in self._backlog),
        )
        self._backlog.clear()
        return folded


class DriftSubscription(Stream[Drift]):
    """The corrections that audits of a host make.

    A subscriber that falls ``limit`` behind loses the oldest, counted in :attr:`lost`.
    """

    def __init__(self, forget: Callable[[Any], None], limit: int = DEFAULT_LIMIT) -> None:
        super().__init__(forget, limit)
        self.lost = 0
        """How many corrections were lost, in all."""

    def _make_room(self, item: Drift) -> Drift:
        self._backlog.popleft()
        self.lost += 1
        return item
