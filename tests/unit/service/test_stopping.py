"""A stop ends what waits and leaves the closing undisturbed. The signals have real processes."""

import asyncio

import pytest

from asynchost.service.stopping import Stop


async def test_a_stop_ends_a_waiting_block_and_the_code_after_it_goes_on() -> None:
    """The block is cancelled from inside; nobody outside sees a cancellation."""
    stop = Stop()
    ended = []
    asyncio.get_running_loop().call_soon(stop.request)
    async with stop.interrupts():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("inside")
    await asyncio.sleep(0)
    assert ended == ["inside"]
    assert stop.requested


async def test_a_block_entered_after_the_stop_ends_at_its_first_wait() -> None:
    """A stop during one step of the start does not wait for the next one."""
    stop = Stop()
    stop.request()
    reached = []
    async with stop.interrupts():
        reached.append("begin")
        await asyncio.Event().wait()
        reached.append("never")
    assert reached == ["begin"]


async def test_a_block_that_ends_by_itself_is_left_alone() -> None:
    """A later stop has nothing to end, and asking twice changes nothing."""
    stop = Stop()
    async with stop.interrupts():
        pass
    stop.request()
    stop.request()
    assert stop.requested


async def test_a_timeout_inside_the_block_is_not_taken_for_a_stop() -> None:
    """Somebody else's TimeoutError passes, with a stop or without."""
    stop = Stop()
    with pytest.raises(TimeoutError, match="mine"):
        async with stop.interrupts():
            raise TimeoutError("mine")


async def test_an_error_during_the_stop_is_not_lost() -> None:
    """What fails while it is being stopped still says so."""
    stop = Stop()

    async def work() -> None:
        async with stop.interrupts():
            asyncio.get_running_loop().call_soon(stop.request)
            try:
                await asyncio.Event().wait()
            finally:
                raise ValueError("on the way out")

    with pytest.raises(ValueError, match="on the way out"):
        await work()


async def test_a_cancellation_from_outside_still_cancels() -> None:
    """The block belongs to whoever started the task."""
    stop = Stop()

    async def work() -> None:
        async with stop.interrupts():
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_one_stop_ends_every_block() -> None:
    """Blocks of several tasks, and of blocks inside one another the outermost."""
    stop = Stop()
    ended = []

    async def work(name: str) -> None:
        async with stop.interrupts():
            async with stop.interrupts():
                await asyncio.Event().wait()
            ended.append(f"{name} went on inside")
        ended.append(name)

    async with asyncio.TaskGroup() as group:
        group.create_task(work("a"))
        group.create_task(work("b"))
        await asyncio.sleep(0)
        stop.request()
    assert sorted(ended) == ["a", "b"]
