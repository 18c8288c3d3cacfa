"""What a host is can change while it runs: the next audit notices, and so does the row."""

import asyncio
from collections.abc import Callable

import pytest

from tests.integration.pipeline import DEADLINE_SECONDS, pipeline
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mariadb import Database
from tests.support.waiting import eventually_equal


async def test_cpus_that_come_and_go_are_noticed_at_the_audit(
    private_libvirtd: Callable[..., PrivateLibvirtd],
    database: Database,
) -> None:
    """A host's own CPUs send no event; the totals over its domains are no part of it."""
    daemon = await asyncio.to_thread(private_libvirtd)
    if not daemon.privileged:
        pytest.skip("only root may show a daemon other CPUs than the machine's")
    await asyncio.to_thread(daemon.see_cpus, "0")
    async with pipeline(daemon.uri("qemu"), database) as host:
        await host.agrees()
        await eventually_equal(lambda: host.row()["vcpus"], 1, DEADLINE_SECONDS)
        changes = host.monitor.changes()
        for online, vcpus in (("0-1", 2), ("0", 1)):
            await asyncio.to_thread(daemon.see_cpus, online)
            assert await host.monitor.audit() == []
            assert host.monitor.facts is not None
            assert host.monitor.facts.vcpus == vcpus
            await eventually_equal(lambda: host.row()["vcpus"], vcpus, DEADLINE_SECONDS)
            # What the rest of the facts say was read anew with them.
            assert host.monitor.facts.cpu_info["arch"] == "x86_64"
    assert [change async for change in changes] == []
