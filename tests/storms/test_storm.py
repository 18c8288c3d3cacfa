"""Short storms, and the proof that they would find something."""

import pytest

from tests.storms import faults
from tests.storms.invariants import InvariantError
from tests.storms.naive import NaiveWriter, RelativeWriter
from tests.storms.run import Plan, storm
from tests.storms.scene import HURRIED

SEED = 20
"""Any will do; ``./dev storm`` tries others."""


async def test_what_must_hold_does_in_a_short_storm() -> None:
    """Ten seconds of everything: nothing older over anything newer, and every row right after."""
    report = await storm(Plan(10, hosts=100, rate=1000, seed=SEED, calm_seconds=0.5))
    assert report.faults.total() >= 10
    assert report.sampled > 0


@pytest.mark.parametrize(
    ("writer", "fault", "violation"),
    [
        pytest.param(NaiveWriter, "late packet", "an older value over a newer one", id="unguarded"),
        pytest.param(RelativeWriter, "lost answer", "a row of no one state", id="relative"),
    ],
)
async def test_a_naive_writer_is_caught(
    writer: type[NaiveWriter], fault: str, violation: str
) -> None:
    """A write that was held back in the network lands after a newer one; one whose answer was
    lost is added a second time."""
    only = {name: each for name, each in faults.NETWORK.items() if name == fault}
    plan = Plan(2, hosts=5, rate=100, seed=SEED, calm_seconds=0.1, server={}, network=only)
    with pytest.raises(InvariantError, match=violation) as caught:
        await storm(plan, lambda url: writer(url, settings=HURRIED))
    assert caught.value.violations[0].startswith(f"seed {SEED}")
