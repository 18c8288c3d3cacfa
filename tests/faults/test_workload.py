"""The random workload itself, without a fault: what the tests with one build on."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults.scenes import CALM, FAULTS, scene
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mariadb import Database
from tests.support.workload import Workload


async def test_a_random_workload_of_qemu_guests_ends_in_true_totals(
    private_libvirtd: Callable[..., PrivateLibvirtd], database: Database, seed: int
) -> None:
    """Real guests, real balloons, killed processes; vCPUs that change in silence."""
    daemon = private_libvirtd()
    async with scene(daemon, database, Workload(daemon, seed), CALM) as here:
        await here.acted(25)
        assert here.monitor.status.generation == 1


async def test_a_random_workload_of_the_test_driver_ends_in_true_totals(
    private_libvirtd: Callable[..., PrivateLibvirtd], database: Database, seed: int
) -> None:
    """Hundreds of actions a second, among them memory changes without an event."""
    daemon = private_libvirtd()
    workload = Workload(daemon, seed, kind="test", guest_count=30)
    with daemon.connection("test"):  # while one is open, the host is not forgotten
        async with scene(daemon, database, workload, uri=daemon.uri("test")) as here:
            await here.acted(400)
            assert here.recorder.seen


async def test_without_an_audit_silent_changes_stay_unseen(
    private_libvirtd: Callable[..., PrivateLibvirtd], database: Database, seed: int
) -> None:
    """The workload makes some: only the audits that the test asks for can find them."""
    daemon = private_libvirtd()
    workload = Workload(daemon, seed, kind="test", guest_count=60)
    settings = replace(FAULTS, audit_interval_seconds=0, second_resync_seconds=0)
    with daemon.connection("test"):
        async with scene(daemon, database, workload, settings, uri=daemon.uri("test")) as here:
            while "memory_kib" not in here.monitor.status.drift_by_field:
                await here.acted(100)
                # An event that comes after one, or a second look, may have seen it as well.
                await here.monitor.audit()
            await asyncio.to_thread(workload.stop)
            await here.monitor.audit()  # those since


def test_a_failure_names_the_seed_and_the_last_actions(
    private_libvirtd: Callable[..., PrivateLibvirtd], seed: int
) -> None:
    """An error in a block of a workload says how to make it again."""
    workload = Workload(private_libvirtd(), seed, kind="test")
    error = AssertionError("the test itself")

    def fail() -> None:
        with workload:
            workload.pause()
            raise error

    with pytest.raises(AssertionError):
        fail()
    (note,) = error.__notes__
    assert f"seed {seed}" in note
