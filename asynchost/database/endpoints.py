"""Several servers for one database: the first that serves, in the URL's order.

Always from the first one on: whoever lists servers lists the preferred one first, and so a
writer goes back to it at its next connection.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from asynchost.database.url import DatabaseUrl, Endpoint
from asynchost.errors import DatabaseRefusedError, DatabaseUnavailableError

T = TypeVar("T")


async def first_that_serves(
    url: DatabaseUrl, attempt: Callable[[Endpoint | None], Awaitable[T]]
) -> T:
    """``attempt`` each endpoint, None for a unix socket, until one works out.

    :raises DatabaseRefusedError: none did, and one refused: that needs a person.
    :raises DatabaseUnavailableError: none did; its reason tells of each.
    """
    endpoints: tuple[Endpoint | None, ...] = (None,) if url.unix_socket else url.endpoints
    refused: DatabaseRefusedError | None = None
    unavailable: list[tuple[Endpoint | None, DatabaseUnavailableError]] = []
    for endpoint in endpoints:
        try:
            return await attempt(endpoint)
        except DatabaseRefusedError as error:
            refused = refused or _naming(endpoint, error, several=len(endpoints) > 1)
        except DatabaseUnavailableError as error:
            unavailable.append((endpoint, error))
    if refused is not None:
        raise refused
    if len(unavailable) == 1:
        raise unavailable[0][1]
    reasons = "; ".join(f"{endpoint}: {error.reason}" for endpoint, error in unavailable)
    raise DatabaseUnavailableError(str(url), unavailable[-1][1].code, reasons)


def _naming(
    endpoint: Endpoint | None, error: DatabaseRefusedError, *, several: bool
) -> DatabaseRefusedError:
    if not several:
        return error
    reason = f"{endpoint}: {error.reason}"
    return DatabaseRefusedError(error.database, error.code, reason, error.remedy)
