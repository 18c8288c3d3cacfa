"""A task's sleep until a time, cut short by whoever has something earlier for it."""

import asyncio


class Alarm:
    """One task sleeps, anyone on its loop may wake it. Nothing is queued.

    Waking a task that is awake does nothing: it works out its next time before it sleeps again,
    without an await in between. A plain future and one timer, because this is on the path from
    a change to its row: no second task, no cancellation as ``asyncio.timeout`` uses.
    """

    __slots__ = ("_until", "_waiter")

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None
        self._until = float("inf")

    def ring(self, before: float = float("-inf")) -> None:
        """Wake the sleeper, if it would sleep past ``before``, the loop's time; always without."""
        if before < self._until:
            self._wake()

    async def sleep(self, until: float) -> None:
        """Sleep until the loop's time ``until`` (infinity: until rung). Cancelling is safe."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        self._until = until
        timer = None if until == float("inf") else loop.call_at(until, self._wake)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
