"""Short storms, and the proof that they would find something."""

import pytest

from tests.storms import faults
from tests.storms.invariants import InvariantError
from tests.storms.naive import NaiveWriter
from tests.storms.run import Plan, storm
from tests.storms.scene import HURRIED

SEED = 20
"""Any will do; ``./dev storm`` tries others."""


async def test_what_must_hold_does_in_a_short_storm() -> None:
    """Ten seconds of everything: nothing older over anything newer, and every row right after."""
    report = await storm(Plan(10, hosts=100, rate=1000, seed=SEED, calm_seconds=0.5))
    assert report.faults.total() >= 10
    assert report.sampled > 0


async def test_an_unguarded_writer_is_caught() -> None:
    """A write that was held back in the network lands after a newer one."""
    only = {name: fault for name, fault in faults.NETWORK.items() if name == "late packet"}
    plan = Plan(2, hosts=5, rate=100, seed=SEED, calm_seconds=0.1, server={}, network=only)
    with pytest.raises(InvariantError, match="an older value over a newer one") as caught:
        await storm(plan, lambda url: NaiveWriter(url, settings=HURRIED))
    assert caught.value.violations[0].startswith(f"seed {SEED}")
