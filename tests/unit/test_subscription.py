"""A subscription: bounded, safe to cancel, and never a difference lost."""

import asyncio
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynchost.errors import InvalidSettingError
from asynchost.model import Cause, Change, ChangeKind, Drift, Usage
from asynchost.subscription import (
    DEFAULT_LIMIT,
    DriftSubscription,
    Ending,
    Streams,
    Subscription,
)
from tests.support.strategies import AT, chained_changes


def change(number: int) -> Change:
    """The step from ``number`` vCPUs to one more."""
    return Change(
        *("host", 1, Usage(number), Usage(number + 1), Cause.EVENT, f"{number}", f"{number}"),
        kind=ChangeKind.RESIZED,
        number=number + 1,
        at=AT + timedelta(seconds=number),
    )


def subscription(limit: int = DEFAULT_LIMIT) -> Subscription:
    """One that nobody keeps a list of."""
    return Subscription(lambda _: None, limit)


async def rest_of(changes: Subscription) -> list[Change]:
    """Everything up to the end, which must have come."""
    changes.end()
    return [one async for one in changes]


async def blocked(task: asyncio.Task[Change]) -> None:
    """Let a task run until it waits."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()


async def test_corrections_that_are_not_fetched_are_lost_from_the_oldest_on() -> None:
    """They do not add up to anything, so there is nothing to fold; they are counted."""
    drifts = DriftSubscription(lambda _: None, limit=2)
    pushed = [Drift("host", "u", "guest", "vcpus", n, n + 1, 1.0, "") for n in range(4)]
    for drift in pushed:
        drifts.push(drift)
    drifts.end()
    assert [drift async for drift in drifts] == pushed[2:]
    assert drifts.lost == 2


@given(chained_changes(), st.integers(1, 5), st.lists(st.booleans(), min_size=40, max_size=40))
def test_whatever_is_folded_the_changes_chain_and_add_up(
    pushed: list[Change], limit: int, reads: list[bool]
) -> None:
    """Each begins where the last one ended, the first and the last totals are the monitor's, the
    backlog never exceeds its limit, and every change is counted, as itself or as folded."""

    async def follow() -> None:
        changes = subscription(limit)
        backlog, delivered = 0, []
        for one, read in zip(pushed, reads, strict=False):
            changes.push(one)
            backlog = 1 if backlog >= limit else backlog + 1
            if read:
                delivered.append(await anext(changes))
                backlog -= 1
        remaining = await rest_of(changes)
        assert len(remaining) == backlog <= limit
        delivered += remaining
        for earlier, later in pairwise(delivered):
            assert earlier.after == later.before
        assert [one.before for one in delivered[:1]] == [one.before for one in pushed[:1]]
        assert [one.after for one in delivered[-1:]] == [one.after for one in pushed[-1:]]
        assert sum(one.folded for one in delivered) == len(pushed)
        assert len(delivered) + changes.folded == len(pushed)

    asyncio.run(follow())


async def test_changes_come_in_order_and_unchanged() -> None:
    """A subscriber that keeps up loses nothing, not a step and not a detail."""
    changes = subscription()
    pushed = [change(number) for number in range(5)]
    for one in pushed:
        changes.push(one)
    assert await rest_of(changes) == pushed
    assert changes.folded == 0


async def test_a_full_backlog_is_folded_into_one_change() -> None:
    """From the oldest before to the newest after, with the newest cause; no domain is named."""
    changes = subscription(limit=3)
    for number in range(4):
        changes.push(change(number))
    folded = Change(
        *("host", 1, Usage(0), Usage(4), Cause.EVENT, "3"),
        folded=4,
        kind=ChangeKind.FOLDED,
        number=4,
        at=AT + timedelta(seconds=3),
    )
    assert await rest_of(changes) == [folded]
    assert changes.folded == 3


async def test_a_folded_change_can_be_folded_again() -> None:
    """It stands for as many changes as both together."""
    changes = subscription(limit=1)
    for number in range(10):
        changes.push(change(number))
    (only,) = await rest_of(changes)
    assert (only.before, only.after, only.folded) == (Usage(0), Usage(10), 10)
    assert changes.folded == 9


async def test_the_default_limit_holds() -> None:
    """A subscriber that never reads keeps a bounded backlog."""
    changes = subscription()
    for number in range(2 * DEFAULT_LIMIT + 1):
        changes.push(change(number))
        assert changes.folded in (0, DEFAULT_LIMIT, 2 * DEFAULT_LIMIT)
    remaining = await rest_of(changes)
    assert sum(one.folded for one in remaining) == 2 * DEFAULT_LIMIT + 1
    assert len(remaining) <= DEFAULT_LIMIT


async def test_a_waiting_subscriber_is_woken() -> None:
    """It sleeps until there is something."""
    changes = subscription()
    waiting = asyncio.create_task(anext(changes))
    await blocked(waiting)
    changes.push(change(0))
    assert await waiting == change(0)


@pytest.mark.parametrize("already_there", [True, False])
async def test_a_cancelled_wait_loses_nothing(already_there: bool) -> None:
    """Also when the change had come already, and only the task had not yet run."""
    changes = subscription()
    waiting = asyncio.create_task(anext(changes))
    await blocked(waiting)
    if already_there:
        changes.push(change(0))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    if not already_there:
        changes.push(change(0))
    assert await anext(changes) == change(0)


async def test_a_wait_that_timed_out_can_be_repeated() -> None:
    """The usual way to wait for a while."""
    changes = subscription()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await anext(changes)
    changes.push(change(0))
    assert await anext(changes) == change(0)


async def test_a_second_iterating_task_is_refused() -> None:
    """Two tasks would take each other's changes; the first one goes on undisturbed."""
    changes = subscription()
    first = asyncio.create_task(anext(changes))
    await blocked(first)
    with pytest.raises(RuntimeError, match="make one for each"):
        await anext(changes)
    changes.push(change(0))
    assert await first == change(0)


async def test_the_end_lets_the_backlog_be_read() -> None:
    """What happened before the monitor closed is still told."""
    changes = subscription()
    changes.push(change(0))
    changes.end()
    assert [one async for one in changes] == [change(0)]
    with pytest.raises(StopAsyncIteration):
        await anext(changes)


async def test_what_ended_the_monitor_is_raised_after_the_backlog() -> None:
    """The same exception each time, and the one who holds it was told from the first time on."""
    changes, ending = subscription(), Ending(ValueError("died"))
    changes.push(change(0))
    changes.end(ending)
    assert await anext(changes) == change(0)
    assert not ending.told
    for _ in range(2):
        with pytest.raises(ValueError, match="died") as raised:
            await anext(changes)
        assert raised.value is ending.error
    assert ending.told
    changes.close()
    assert [one async for one in changes] == []


async def test_a_waiting_subscriber_is_told_what_ended_the_monitor() -> None:
    """At once."""
    changes = subscription()
    task = asyncio.create_task(anext(changes))
    await blocked(task)
    changes.end(Ending(ValueError("died")))
    with pytest.raises(ValueError, match="died"):
        await task


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, None])
def test_a_limit_that_is_none_is_refused(limit: object) -> None:
    """By its name."""
    with pytest.raises(InvalidSettingError, match="limit"):
        subscription(limit)  # type: ignore[arg-type]


def test_a_subscription_shows_whose_it_is_and_how_it_is() -> None:
    """The host's name is escaped."""
    changes = Subscription(lambda _: None, host="rack\x1b")
    assert repr(changes) == r"<Subscription of 'rack\x1b' open, 0 waiting>"
    changes.push(change(0))
    changes.end()
    assert repr(changes) == r"<Subscription of 'rack\x1b' ended, 1 waiting>"
    failed = Subscription(lambda _: None, host="h")
    failed.end(Ending(ValueError()))
    assert repr(failed) == "<Subscription of 'h' failed, 0 waiting>"


async def test_streams_push_into_all_that_are_open_and_end_those_that_come_later() -> None:
    """One that was closed, or dropped by its subscriber, gets nothing."""
    streams: Streams[Subscription] = Streams()
    first, second, third = (streams.add(Subscription(streams.forget)) for _ in range(3))
    second.close()
    del third
    streams.push(change(0))
    streams.end(None)
    assert [one async for one in first] == [change(0)]
    assert [one async for one in second] == []
    late = streams.add(Subscription(streams.forget))
    assert [one async for one in late] == []


@pytest.mark.parametrize("how", [Subscription.end, Subscription.close])
async def test_the_end_wakes_a_waiting_subscriber(how: object) -> None:
    """Nobody waits for a monitor that is gone."""
    changes = subscription()

    async def iterate() -> list[Change]:
        return [one async for one in changes]

    task = asyncio.create_task(iterate())
    await asyncio.sleep(0)
    how(changes)  # type: ignore[operator]
    assert await task == []


async def test_closing_forgets_the_backlog_and_the_subscription() -> None:
    """The monitor is told, as often as it is said, and what was not read is dropped."""
    forgotten: list[Subscription] = []
    changes = Subscription(forgotten.append)
    changes.push(change(0))
    changes.close()
    changes.close()
    assert forgotten == [changes, changes]
    assert [one async for one in changes] == []


async def test_a_with_block_closes() -> None:
    """The way to leave a loop early and leave nothing behind."""
    forgotten: list[Subscription] = []
    with Subscription(forgotten.append) as changes:
        changes.push(change(0))
        async for one in changes:
            assert one == change(0)
            break
    assert forgotten == [changes]
