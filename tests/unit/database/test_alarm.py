"""The alarm: sleeps until its time, or until somebody has something earlier."""

import asyncio

import pytest

from asynchost.database.alarm import Alarm


@pytest.mark.looptime
async def test_it_wakes_at_its_time() -> None:
    """Exactly then."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await Alarm().sleep(began + 1.5)
    assert loop.time() == pytest.approx(began + 1.5)


@pytest.mark.looptime
async def test_a_time_that_has_passed_is_no_sleep() -> None:
    """Also one long before the loop's beginning."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await Alarm().sleep(-1.0)
    assert loop.time() == began


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("before", "wakes"), [(None, True), (1.0, True), (10.0, False), (20.0, False)]
)
async def test_a_ring_wakes_who_would_sleep_past_it(before: float | None, wakes: bool) -> None:
    """An earlier time wakes, the same or a later one does not."""
    loop = asyncio.get_running_loop()
    alarm, began = Alarm(), loop.time()
    loop.call_later(0.5, lambda: alarm.ring() if before is None else alarm.ring(began + before))
    await alarm.sleep(began + 10)
    assert loop.time() == pytest.approx(began + (0.5 if wakes else 10))


@pytest.mark.looptime
async def test_without_a_time_only_a_ring_wakes() -> None:
    """Infinity sets no timer."""
    loop = asyncio.get_running_loop()
    alarm, began = Alarm(), loop.time()
    loop.call_later(3600, alarm.ring, began + 1e9)
    await alarm.sleep(float("inf"))
    assert loop.time() == pytest.approx(began + 3600)


async def test_a_ring_without_a_sleeper_is_nothing() -> None:
    """And two rings are one."""
    alarm = Alarm()
    alarm.ring()
    loop = asyncio.get_running_loop()
    loop.call_soon(alarm.ring)
    loop.call_soon(alarm.ring)
    await alarm.sleep(float("inf"))


async def test_a_cancelled_sleep_leaves_no_timer() -> None:
    """The alarm can be used again."""
    alarm = Alarm()
    sleeping = asyncio.create_task(alarm.sleep(asyncio.get_running_loop().time() + 60))
    await asyncio.sleep(0)
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping
    await alarm.sleep(0)
