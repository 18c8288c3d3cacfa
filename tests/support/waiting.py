"""Waiting for a condition with a deadline: the tests' only way to wait.

May live here: polling of any predicate. Must not: knowledge of what is waited for.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")

POLL_SECONDS = 0.01

DEADLINE_SECONDS = 60.0
"""For what takes milliseconds on a machine that has nothing else to do: it ends a test that would
hang, and says nothing of how long anything may take."""


@overload
async def eventually(
    probe: Callable[[], Awaitable[T]],
    deadline_seconds: float = ...,
    describe: str = ...,
) -> T: ...


@overload
async def eventually(
    probe: Callable[[], T],
    deadline_seconds: float = ...,
    describe: str = ...,
) -> T: ...


async def eventually(
    probe: Callable[[], object],
    deadline_seconds: float = DEADLINE_SECONDS,
    describe: str = "",
) -> object:
    """Call ``probe`` until its value is true, and return that value.

    ``probe`` is a function or a coroutine function; one that blocks belongs in
    ``asyncio.to_thread`` on the caller's side. An AssertionError of the probe means "not yet",
    so a probe may hold plain asserts; any other error ends the wait at once.

    Raises AssertionError with ``describe`` and the last value, or from the probe's own last
    AssertionError, when ``deadline_seconds`` have passed. Cancelling it is safe.
    """
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + deadline_seconds
    while True:
        failure: AssertionError | None = None
        value: object = None
        try:
            outcome = probe()
            value = await outcome if inspect.isawaitable(outcome) else outcome
        except AssertionError as error:
            failure = error
        if failure is None and value:
            return value
        if loop.time() >= give_up_at:
            what = describe or getattr(probe, "__name__", "the condition")
            seen = f"last failure: {failure}" if failure is not None else f"last value: {value!r}"
            raise AssertionError(f"not within {deadline_seconds:g} s: {what}; {seen}") from failure
        await asyncio.sleep(POLL_SECONDS)


async def eventually_equal(
    probe: Callable[[], object],
    expected: object,
    deadline_seconds: float = DEADLINE_SECONDS,
    describe: str = "",
) -> None:
    """Wait until ``probe`` returns ``expected``; the failure shows both."""

    async def equal() -> bool:
        outcome = probe()
        value = await outcome if inspect.isawaitable(outcome) else outcome
        if value != expected:
            raise AssertionError(f"{value!r} is not {expected!r}")
        return True

    await eventually(equal, deadline_seconds, describe or f"equal to {expected!r}")
