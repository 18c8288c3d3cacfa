"""A password that may change: asked for before each connection.

May live here: asking, within a deadline. Must not: where a password comes from. Memory: at most one
thread, that of a call which does not return.
"""

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from asynchost.database.classify import Kind, StatementError

AskForPassword = Callable[[], str | Awaitable[str]]
"""What returns the password as it is now; plain or async."""
Password = str | AskForPassword | None


class Secret:
    """Asks for the password. A call that blocks holds up neither the loop nor the program's end."""

    def __init__(self, ask: AskForPassword) -> None:
        self._ask = ask
        self._asking: asyncio.Future[Any] | None = None

    @property
    def hint(self) -> str:
        """What the giver of the password adds to a refusal; empty: nothing."""
        return str(getattr(self._ask, "hint", ""))

    async def password(self, database: str, deadline_seconds: float) -> str:
        """The password as it is now.

        :raises StatementError: of kind CONNECTION: it cannot be had, or not within the deadline.
        """
        try:
            async with asyncio.timeout(deadline_seconds):
                found = await self._found()
        except TimeoutError:
            reason = f"no password within {deadline_seconds:g} s"
            raise StatementError(database, None, reason, Kind.CONNECTION) from None
        except Exception as error:  # noqa: BLE001 - anything of the program's own
            text = " ".join(str(error).split())
            reason = f"the password cannot be had: {text or type(error).__name__}"
            raise StatementError(database, None, reason, Kind.CONNECTION) from None
        if not isinstance(found, str):
            reason = f"the password cannot be had: {type(found).__name__} is no text"
            raise StatementError(database, None, reason, Kind.CONNECTION)
        return found

    async def _found(self) -> object:
        if inspect.iscoroutinefunction(self._ask):
            return await self._ask()
        if self._asking is None or self._asking.done():
            self._asking = _in_thread(self._ask)
        # The call goes on when the deadline passes; another one is not begun beside it.
        found = await asyncio.shield(self._asking)
        return await found if inspect.isawaitable(found) else found


def _in_thread(call: Callable[[], object]) -> "asyncio.Future[Any]":
    """Not by the loop's executor, whose threads are waited for at the end."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    # An error that nobody waits for any more is not told.
    future.add_done_callback(lambda done: done.cancelled() or done.exception())

    def settle(result: object, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def run() -> None:
        result: object = None
        failure: BaseException | None = None
        try:
            result = call()
        except Exception as error:  # noqa: BLE001 - told to the waiter
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed by now
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="asynchost password", daemon=True).start()
    return future
