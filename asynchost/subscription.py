"""A subscriber's own backlog of changes: bounded, and never in anybody else's way.

Memory: at most ``limit`` changes per subscription.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Self

from asynchost.model import Change

# About a minute of a busy host, and less than a megabyte.
DEFAULT_LIMIT: Final = 1000


class Subscription:
    """An asynchronous iterator over the changes of a host, from its creation on.

    A subscriber that falls ``limit`` changes behind loses the steps, not the sum: its backlog is
    folded into one change from the oldest ``before`` to the newest ``after``, and counted in
    :attr:`folded`. Iteration ends when the monitor closes, or after :meth:`close`.

    One task may iterate. Cancelling a wait is safe: nothing is lost.
    """

    def __init__(
        self, forget: Callable[["Subscription"], None], limit: int = DEFAULT_LIMIT
    ) -> None:
        self._forget = forget
        self._limit = limit
        self._backlog: deque[Change] = deque()
        self._closed = False
        self._waiting: asyncio.Future[None] | None = None
        self.folded = 0
        """How many changes were lost as steps, in all."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
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

    def push(self, change: Change) -> None:
        """Take one more change; for the monitor."""
        if len(self._backlog) >= self._limit:
            self.folded += len(self._backlog)
            change = Change(
                host=change.host,
                generation=change.generation,
                before=self._backlog[0].before,
                after=change.after,
                cause=change.cause,
                detail=change.detail,
                folded=change.folded + sum(one.folded for one in self._backlog),
            )
            self._backlog.clear()
        self._backlog.append(change)
        self._wake()

    def end(self) -> None:
        """No change will come any more; the backlog can still be read. For the monitor."""
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
