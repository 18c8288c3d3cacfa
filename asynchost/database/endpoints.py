"""Several servers for one database: the first that serves, in the URL's order.

Always from the first one on: whoever lists servers lists the preferred one first, and so a
writer goes back to it at its next connection.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from typing import Protocol, TypeVar

from asynchost.database.url import DatabaseUrl, Endpoint
from asynchost.errors import DatabaseRefusedError, DatabaseUnavailableError

_PATIENCE_SECONDS = 1.0
"""How long a server may keep silent before the next one is tried beside it: one that does not
answer at all would cost its whole deadline at each new connection."""


class _Abortable(Protocol):
    def abort(self) -> None: ...


T = TypeVar("T", bound=_Abortable)
_Attempts = dict["asyncio.Task[T]", Endpoint | None]


async def first_that_serves(
    url: DatabaseUrl, attempt: Callable[[Endpoint | None], Awaitable[T]]
) -> T:
    """``attempt`` each endpoint, None for a unix socket, until one works out.

    An endpoint that fails is followed by the next one at once, one that is silent after one
    second; then the first that serves is taken, and what the others make is aborted.

    :raises DatabaseRefusedError: none did, and one refused: that needs a person.
    :raises DatabaseUnavailableError: none did; its reason tells of each.
    """
    endpoints: tuple[Endpoint | None, ...] = (None,) if url.unix_socket else url.endpoints
    if len(endpoints) == 1:
        return await attempt(endpoints[0])
    waiting = deque(endpoints)
    running: _Attempts[T] = {}
    failures: dict[Endpoint | None, DatabaseRefusedError | DatabaseUnavailableError] = {}
    try:
        while waiting or running:
            if waiting:
                endpoint = waiting.popleft()
                running[asyncio.create_task(_awaited(attempt(endpoint)))] = endpoint
            patience = _PATIENCE_SECONDS if waiting else None
            done, _ = await asyncio.wait(
                running, timeout=patience, return_when=asyncio.FIRST_COMPLETED
            )
            # In the order of the URL.
            for task in [task for task in running if task in done]:
                endpoint = running[task]
                try:
                    served = task.result()
                except (DatabaseRefusedError, DatabaseUnavailableError) as error:
                    failures[endpoint] = error
                    del running[task]
                else:
                    del running[task]
                    return served
    finally:
        await _abort(running)
    raise _in_one([(e, failures[e]) for e in endpoints], url)


async def _awaited(attempt: Awaitable[T]) -> T:
    return await attempt


async def _abort(tasks: Collection["asyncio.Task[T]"]) -> None:
    """End attempts that are not needed, and what they have made."""
    for task in tasks:
        task.cancel()
    for made in await asyncio.gather(*tasks, return_exceptions=True):
        if not isinstance(made, BaseException):
            made.abort()


def _in_one(
    failures: Collection[tuple[Endpoint | None, DatabaseRefusedError | DatabaseUnavailableError]],
    url: DatabaseUrl,
) -> DatabaseRefusedError | DatabaseUnavailableError:
    """One error for all of them: the first refusal, else what is wrong with each."""
    for endpoint, error in failures:
        if isinstance(error, DatabaseRefusedError):
            return _naming(endpoint, error, several=len(failures) > 1)
    reasons = "; ".join(f"{endpoint}: {error.reason}" for endpoint, error in failures)
    return DatabaseUnavailableError(str(url), [error.code for _, error in failures][-1], reasons)


def _naming(
    endpoint: Endpoint | None, error: DatabaseRefusedError, *, several: bool
) -> DatabaseRefusedError:
    if not several:
        return error
    reason = f"{endpoint}: {error.reason}"
    return DatabaseRefusedError(error.database, error.code, reason, error.remedy)
