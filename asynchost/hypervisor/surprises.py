"""Errors that nobody expected, in work that no total needs.

Such an error ends neither the host's monitor nor anything beside it: it is logged once with its
traceback, and the work is begun again after a pause that grows.

Memory: one text for each kind of work.
"""

import asyncio
from collections.abc import Callable, Coroutine
from random import random
from typing import Any

from asynchost.backoff import Backoff

# Work that went on for so long before it failed begins again at once, as if for the first time.
_WENT_WELL_SECONDS = 60.0


class Surprises:
    """Logs unexpected errors, each once, and repeats work that is ended by one."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._last: dict[str, str] = {}

    def tell(self, work: str, error: BaseException) -> str:
        """Log the error with its traceback, unless it was the last one of this work too.

        Returns the error in a few words.
        """
        words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        if self._last.get(work) != words:
            self._last[work] = words
            self._log.error("unexpected error, tried again", work=work, exc_info=error)
        return words

    async def endure(self, work: str, run: Callable[[], Coroutine[None, None, None]]) -> None:
        """Run until it returns; begin again with growing pauses when it raises.

        Cancelling is safe, and ends it.
        """
        loop = asyncio.get_running_loop()
        backoff = Backoff(random)
        while True:
            begun = loop.time()
            try:
                await run()
            except Exception as error:  # noqa: BLE001 - no total needs it, and every total would end
                self.tell(work, error)
            else:
                return
            if loop.time() - begun >= _WENT_WELL_SECONDS:
                backoff.reset()
            await asyncio.sleep(backoff.next_delay())
