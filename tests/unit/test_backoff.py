"""The backoff: a bound that doubles up to a maximum, and a draw below it."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynchost.backoff import Backoff


def test_the_bound_doubles_up_to_the_maximum() -> None:
    """With the largest draw, the delays are the bounds themselves."""
    backoff = Backoff(lambda: 1.0)
    assert [backoff.next_delay() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_a_success_starts_from_the_beginning() -> None:
    """A server that was there is asked again soon."""
    backoff = Backoff(lambda: 1.0, initial_seconds=2, maximum_seconds=5)
    assert [backoff.next_delay() for _ in range(3)] == [2, 4, 5]
    backoff.reset()
    assert backoff.next_delay() == 2


@pytest.mark.parametrize("draw", [0.0, 0.25, 0.999])
def test_the_delay_is_drawn_below_the_bound(draw: float) -> None:
    """Full jitter: the bound times the draw, down to nothing."""
    backoff = Backoff(lambda: draw, initial_seconds=4, maximum_seconds=8)
    assert [backoff.next_delay() for _ in range(3)] == [4 * draw, 8 * draw, 8 * draw]


@given(st.integers(), st.integers(1, 200))
def test_no_delay_leaves_its_range(seed: int, attempts: int) -> None:
    """However long a server stays away."""
    backoff = Backoff(random.Random(seed).random)
    delays = [backoff.next_delay() for _ in range(attempts)]
    assert all(0 <= delay < min(0.5 * 2**n, 30.0) for n, delay in enumerate(delays))
