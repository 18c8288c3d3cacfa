"""libvirtd ends, dies, stands still, comes late, loses its socket: nothing is guessed meanwhile.

While it is away totals and row are frozen; afterwards they are true again, over a new connection.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from asynchost import (
    Cause,
    ComputeNodeWriter,
    HostMonitor,
    HypervisorUnavailableError,
    MonitorSettings,
    NotReadyError,
)
from tests.faults.scenes import (
    CALM,
    FAULTS,
    KEEPALIVE_SECONDS,
    LATENESS_SECONDS,
    RECOVERY_SECONDS,
    scene,
)
from tests.integration.pipeline import AT_ONCE, Pipeline, totals_of
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mariadb import Database
from tests.support.recount import Totals
from tests.support.waiting import eventually
from tests.support.workload import Workload

Make = Callable[..., PrivateLibvirtd]

RUNNING, PAUSED = libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_PAUSED

PATIENT = MonitorSettings(audit_interval_seconds=0, second_resync_seconds=0, instances_path="/proc")
"""For a host so large that a listing takes its time."""

MANY_DOMAINS = 16_500
"""libvirtd answers no listing of more than 16,384."""


@pytest.mark.parametrize("end", ["terminate", "kill"])
async def test_a_daemon_that_ends_and_starts(
    private_libvirtd: Make, database: Database, seed: int, end: str
) -> None:
    """Stale at once and frozen; guests that die meanwhile are found when it is back."""
    daemon = private_libvirtd()
    workload = Workload(daemon, seed)
    async with scene(daemon, database, workload) as here:
        await here.acted(6)
        await here.without_daemon(getattr(daemon, end))
        frozen = await here.stale()
        await here.stays_frozen(frozen)
        await asyncio.to_thread(daemon.start)
        await here.fresh(generation=2)
        await here.acted(6)


async def test_a_daemon_that_restarts_again_and_again_while_domains_change(
    private_libvirtd: Make, database: Database, seed: int
) -> None:
    """Three restarts, with guests acted on right up to each and right after it."""
    daemon = private_libvirtd()
    async with scene(daemon, database, Workload(daemon, seed)) as here:
        for generation in (2, 3, 4):
            await here.acted(3)
            await here.without_daemon(daemon.restart)
            await here.fresh(generation)


async def test_a_daemon_that_stands_still_longer_than_keepalive(
    private_libvirtd: Make, database: Database, seed: int
) -> None:
    """SIGSTOP: the connection dies in silence; noticed in the keepalive's time, made anew."""
    daemon = private_libvirtd()
    async with scene(daemon, database, Workload(daemon, seed)) as here:
        await here.acted(4)
        daemon.pause()
        try:
            frozen = await here.stale(KEEPALIVE_SECONDS + LATENESS_SECONDS)
            await here.stays_frozen(frozen)
        finally:
            daemon.resume()
        await here.fresh()
        # An attempt that was made while it stood still may have been cut short as well.
        assert here.monitor.status.generation >= 2
        await here.acted(4)


async def test_a_daemon_that_stands_still_for_a_moment_loses_nothing(
    private_libvirtd: Make, database: Database, seed: int
) -> None:
    """Shorter than the keepalive's time: the same connection, the totals fresh all the while."""
    daemon = private_libvirtd()
    settings = replace(FAULTS, listing_deadline_seconds=0.5, keepalive_interval_seconds=20)
    async with scene(daemon, database, Workload(daemon, seed), settings) as here:
        await here.acted(4)
        daemon.pause()
        try:
            with pytest.raises(HypervisorUnavailableError):
                await here.monitor.audit()
            assert here.monitor.status.fresh
        finally:
            daemon.resume()
        await here.acted(4)
        assert here.monitor.status.generation == 1


async def test_a_socket_that_is_removed_and_comes_back(
    private_libvirtd: Make, database: Database, seed: int, tmp_path: Path
) -> None:
    """Everything that changed behind it is one change, and its cause is the resync."""
    daemon = private_libvirtd()
    socket = tmp_path / "s"
    socket.symlink_to(daemon.socket_path)
    workload = Workload(daemon, seed)
    uri = daemon.uri(socket_path=socket)
    async with scene(daemon, database, workload, uri=uri) as here:
        # Before the daemon ends, so that no attempt finds the new one.
        socket.unlink()
        await here.without_daemon(daemon.restart)
        frozen = await here.stale()
        await here.acted(8)
        await asyncio.to_thread(workload.pause)
        await here.stays_frozen(frozen)
        socket.symlink_to(daemon.socket_path)
        await here.fresh(generation=2)
        truth = await here.host.agrees()
        await here.recorder.caught_up_with(here.monitor.usage)
        # Later ones are of guests that are still giving memory back, each by its own read.
        published = [change for change in here.recorder.seen if change.generation > 1]
        assert all(change.uuid and not change.delta.running_vms for change in published[1:])
        if (truth.vcpus_used, truth.running_vms) != (
            frozen.usage.vcpus_used,
            frozen.usage.running_vms,
        ):
            assert (published[0].cause, published[0].uuid) == (Cause.RESYNC, None)
            assert published[0].before == frozen.usage
        workload.resume()
        await here.acted(3)


async def test_started_before_libvirtd(
    private_libvirtd: Make, database: Database, seed: int
) -> None:
    """No totals, no row, no error: it waits, and is right when libvirtd has come."""
    daemon = private_libvirtd()
    await asyncio.to_thread(daemon.terminate)
    workload = Workload(daemon, seed)
    monitor = HostMonitor(daemon.uri(), name="node", settings=CALM)

    async def audit_finds_nothing() -> bool:
        return await monitor.audit() == []

    await monitor.start()
    try:
        async with ComputeNodeWriter(database.url, settings=AT_ONCE) as writer:
            host = Pipeline(daemon.uri(), monitor, writer, writer.attach(monitor), database)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await monitor.ready()
            with pytest.raises(NotReadyError):
                _ = monitor.usage
            assert monitor.status.generation == 0
            assert database.rows() == []
            with workload:
                await asyncio.to_thread(daemon.start)
                async with asyncio.timeout(RECOVERY_SECONDS):
                    await monitor.ready()
                assert monitor.status.generation == 1
                await eventually(lambda: workload.actions >= 8, 2 * RECOVERY_SECONDS)
            await eventually(lambda: host.attachment.row_id is not None, RECOVERY_SECONDS)
            await host.agrees(deadline_seconds=RECOVERY_SECONDS)
            # A guest that was just started may still be giving memory back.
            await eventually(audit_finds_nothing, describe="an audit that finds nothing")
    finally:
        await monitor.aclose()


def write_many_domains(file: Path) -> None:
    """A host for the test driver: every third domain is paused, the others run."""
    domains = (
        f"<domain type='test' xmlns:t='http://libvirt.org/schemas/domain/test/1.0'>"
        f"<name>g{number}</name><uuid>5eed0000-0000-4000-8000-{number:012x}</uuid>"
        "<memory>1024</memory><vcpu>1</vcpu><os><type>hvm</type></os>"
        f"<t:runstate>{PAUSED if number % 3 == 0 else RUNNING}</t:runstate></domain>"
        for number in range(MANY_DOMAINS)
    )
    file.write_text(f"<node>{''.join(domains)}</node>")


@pytest.mark.skipif(
    "ASYNCHOST_TEST_MANY_DOMAINS" not in os.environ,
    reason="takes ten seconds, and many times that beside others: set ASYNCHOST_TEST_MANY_DOMAINS",
)
async def test_more_domains_than_libvirtd_lists_at_once(
    libvirtd: PrivateLibvirtd, tmp_path: Path
) -> None:
    """libvirtd refuses the whole list, so it is asked for parts of it, and nothing is missed."""
    file = tmp_path / "many.xml"
    write_many_domains(file)
    # Each connection to a host described by a file has that host for itself.
    uri = f"test+unix://{file}?socket={libvirtd.socket_path}"
    async with asyncio.timeout(60), HostMonitor(uri, settings=PATIENT) as monitor:
        assert totals_of(monitor.usage) == Totals(MANY_DOMAINS, MANY_DOMAINS, MANY_DOMAINS, 0)
