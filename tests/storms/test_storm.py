"""Short storms, and the proof that they would find something."""

import random

import pytest

from asynchost.database import ComputeNodeWriter
from tests.storms import faults
from tests.storms.invariants import TABLES, InvariantError
from tests.storms.load import Load, StormHost
from tests.storms.naive import NaiveWriter, RelativeWriter
from tests.storms.run import Plan, storm
from tests.storms.scene import HURRIED, ImpossibleError, one_server

SEED = 20
"""Any will do; ``./dev storm`` tries others."""


async def test_what_must_hold_does_in_a_short_storm() -> None:
    """Ten seconds of everything: nothing older over anything newer, and every row right after."""
    plan = Plan(10, hosts=100, rate=1000, seed=SEED, calm_seconds=0.5, least_faults=10)
    report = await storm(plan)
    assert report.faults.total() >= 10
    assert report.sampled > 0


async def test_every_fault_can_be_made_and_mends_itself() -> None:
    """A short storm does not get round to all of them; a long one must not end at one."""
    rng = random.Random(SEED)
    async with one_server(Load([StormHost("n0")], 0, rng), rng) as scene:
        for statement in TABLES:
            await scene.execute(statement)
        scene.ended = lambda: True
        for name, fault in {**faults.SERVER, **faults.NETWORK}.items():
            try:
                await fault(scene)
            except ImpossibleError:
                continue
            # It hangs here where something stays broken.
            async with ComputeNodeWriter(scene.url, settings=HURRIED) as writer:
                writer.attach(StormHost(name))
                await writer.flush()


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
    plan = Plan(*(2, 5, 100, SEED), calm_seconds=0.1, least_faults=3, server={}, network=only)
    with pytest.raises(InvariantError, match=violation) as caught:
        await storm(plan, lambda url: writer(url, settings=HURRIED))
    assert caught.value.violations[0].startswith(f"seed {SEED}")
