"""The debouncer: exact instants, never too late, never twice for one change."""

import math
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynchost.debounce import Debouncer
from asynchost.errors import InvalidSettingError

# Whole numbers, so that sums are exact and instants can be compared for equality.
delays = st.integers(0, 20)
moments = st.lists(st.integers(0, 30), min_size=1, max_size=30).map(accumulate).map(list)


def writes_of(quiet: int, maximum: int, touches: list[int]) -> list[tuple[float, list[int]]]:
    """The instants at which a writer that is never late writes, each with what it takes in."""
    debouncer = Debouncer(quiet, maximum)
    writes: list[tuple[float, list[int]]] = []
    pending: list[int] = []

    def write_until(now: float) -> None:
        deadline = debouncer.deadline
        if deadline is not None and deadline <= now:
            writes.append((deadline, pending.copy()))
            debouncer.take()
            pending.clear()

    for touch in touches:
        # What is due at the moment of a change is written before it.
        write_until(touch)
        debouncer.touch(touch)
        pending.append(touch)
    write_until(math.inf)
    assert debouncer.deadline is None
    return writes


@given(delays, delays, moments)
def test_each_change_is_written_once(quiet: int, maximum: int, touches: list[int]) -> None:
    """No change is left out, and none is taken in by two writes."""
    written = [touch for _, taken in writes_of(quiet, maximum, touches) for touch in taken]
    assert written == touches


@given(delays, delays, moments)
def test_a_write_never_exceeds_the_maximum_delay(
    quiet: int, maximum: int, touches: list[int]
) -> None:
    """Counted from the first change that it takes in."""
    for at, taken in writes_of(quiet, maximum, touches):
        assert taken[0] <= at <= taken[0] + maximum


@given(delays, delays, moments)
def test_a_write_waits_for_the_quiet_time_unless_the_maximum_forces_it(
    quiet: int, maximum: int, touches: list[int]
) -> None:
    """It comes exactly then: at the end of the quiet time or of the maximum delay."""
    for at, taken in writes_of(quiet, maximum, touches):
        assert at == min(taken[-1] + quiet, taken[0] + maximum)


@given(delays, moments, st.booleans())
def test_zero_means_at_once(other: int, touches: list[int], quiet_is_zero: bool) -> None:
    """Either of the two: the write is due at the very moment of the change."""
    debouncer = Debouncer(0, other) if quiet_is_zero else Debouncer(other, 0)
    for touch in touches:
        debouncer.touch(touch)
        assert debouncer.deadline == touch
        debouncer.take()
        assert debouncer.deadline is None


def test_nothing_is_due_before_a_change() -> None:
    """An idle host is not written."""
    debouncer = Debouncer(0.05, 0.5)
    assert debouncer.deadline is None
    debouncer.take()
    assert debouncer.deadline is None


def test_a_busy_host_is_written_at_the_maximum_delay() -> None:
    """Changes that never pause put the write off no further."""
    debouncer = Debouncer(quiet_seconds=2, maximum_delay_seconds=5)
    deadlines = []
    for now in range(10, 16):
        debouncer.touch(now)
        deadlines.append(debouncer.deadline)
    assert deadlines == [12, 13, 14, 15, 15, 15]


def test_a_change_during_the_write_opens_a_new_window() -> None:
    """It belongs to the next write, with delays of its own."""
    debouncer = Debouncer(quiet_seconds=2, maximum_delay_seconds=5)
    debouncer.touch(10)
    debouncer.take()
    debouncer.touch(12)
    assert debouncer.deadline == 14


@pytest.mark.parametrize("value", [-1, -0.001, math.inf, math.nan])
@pytest.mark.parametrize("name", ["quiet_seconds", "maximum_delay_seconds"])
def test_a_delay_out_of_range_is_refused_by_its_name(name: str, value: float) -> None:
    """There is no such time."""
    with pytest.raises(InvalidSettingError) as refused:
        Debouncer(**({"quiet_seconds": 1.0, "maximum_delay_seconds": 1.0} | {name: value}))
    assert refused.value.setting == name
