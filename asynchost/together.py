"""Several coroutines that live, fail and end together."""

import asyncio
from collections.abc import Coroutine


async def together(*coroutines: Coroutine[None, None, None]) -> None:
    """Run them side by side until all have returned, or the first one raises.

    Raises what that one raised, by itself; the others are cancelled and have ended by then.
    Cancelling is safe, and always heeded. That is why it is no task group: up to Python 3.12 one
    whose task fails drops a cancellation that comes at the same moment, and what catches the
    error and tries again then goes on for ever.
    """
    loop = asyncio.get_running_loop()
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    except BaseException:
        if not loop.is_closed():  # else nothing runs any more that could be ended
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def first_end(*coroutines: Coroutine[None, None, None]) -> None:
    """Run them side by side until the first one returns or raises; raise what it raised.

    The others are cancelled and have ended by then. Cancelling is safe: it ends all of them.
    """
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
