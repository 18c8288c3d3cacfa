"""What a program that embeds the monitor does to it, while guests change and rows are written.

``test_embedding.py`` sees that nothing is left behind and nothing hangs; here, that what is
written in the end is true: totals and row equal an independent recount.
"""

import asyncio
import gc
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from asynchost import ComputeNodeWriter, HostMonitor
from tests.faults.scenes import CALM, RECOVERY_SECONDS, scene
from tests.faults.test_embedding import SETTINGS, Begin, Leftovers, cancel_at, wait_until
from tests.integration.pipeline import AT_ONCE, pipeline, totals_in
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mariadb import Database
from tests.support.recount import Totals, recount_over
from tests.support.waiting import eventually
from tests.support.workload import Workload

BLOCKED_SECONDS = 5.0
FEW_GUESTS = 20


async def end_true(uri: str, database: Database) -> None:
    """A program that begins now finds the row, and makes it true."""
    async with pipeline(uri, database, SETTINGS) as host:
        await eventually(lambda: host.attachment.row_id is not None, RECOVERY_SECONDS)
        await host.agrees()
        assert await host.monitor.audit() == []
    assert len(database.rows()) == 1


def test_a_pipeline_cancelled_at_any_await_ends_in_a_true_row(
    private_libvirtd: Callable[..., PrivateLibvirtd], database: Database, seed: int
) -> None:
    """Each await of each task of monitor and writer in turn is the last that is waited for."""
    daemon = private_libvirtd()
    uri = daemon.uri("test")

    async def watch_and_write(uri: str, begin: Begin) -> None:
        begin()
        async with (
            HostMonitor(uri, name="node", settings=SETTINGS) as monitor,
            ComputeNodeWriter(database.url, settings=AT_ONCE) as writer,
        ):
            writer.attach(monitor)
            await monitor.audit()
            await writer.flush()

    with daemon.connection("test"):
        asyncio.run(end_true(uri, database))
        leftovers = Leftovers()
        with Workload(daemon, seed, kind="test", guest_count=FEW_GUESTS) as workload:
            for number in count(1):
                cancelled, noise = asyncio.run(
                    cancel_at(number, watch_and_write, uri, again=False, leave=False)
                )
                assert noise == [], f"cancelled at await {number}"
                if not cancelled:
                    break
            workload.stop()
            gc.collect()
            leftovers.check("after the walk")
            asyncio.run(end_true(uri, database))
        print(f"{number} awaits, {workload.actions} actions")
        assert number > 20, "the walk met hardly an await"
        assert workload.actions > number


async def test_a_loop_blocked_for_seconds_under_a_workload(
    private_libvirtd: Callable[..., PrivateLibvirtd], database: Database, seed: int
) -> None:
    """QEMU guests go on changing meanwhile; all of it is seen and written afterwards."""
    daemon = private_libvirtd()
    workload = Workload(daemon, seed)
    async with scene(daemon, database, workload, CALM) as here:
        actions = workload.actions
        time.sleep(BLOCKED_SECONDS)  # noqa: ASYNC251 - the fault under test
        wait_until(lambda: workload.actions > actions)  # blocks it for longer, if need be
        await here.acted(4)
        assert here.monitor.status.fresh
        assert here.monitor.status.generation == 1


# The first loop is closed in mid-air, with everything on it; the second one goes on until the
# test has seen enough.
_CLOSES_EARLY = """
import asyncio, sys
from asynchost import ComputeNodeWriter, HostMonitor
from tests.faults.test_embedding import SETTINGS
from tests.integration.pipeline import AT_ONCE, totals_of

uri, url = sys.argv[1:]

async def begin():
    monitor = HostMonitor(uri, name="node", settings=SETTINGS)
    await monitor.start()
    await monitor.ready()
    writer = ComputeNodeWriter(url, settings=AT_ONCE)
    await writer.__aenter__()
    writer.attach(monitor)
    await writer.flush()
    return monitor, writer

async def watch_and_write():
    async with (
        HostMonitor(uri, name="node", settings=SETTINGS) as monitor,
        ComputeNodeWriter(url, settings=AT_ONCE) as writer,
    ):
        attachment = writer.attach(monitor)
        await writer.flush()
        print("written", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await monitor.audit()  # some changes of the test driver have no event
        await writer.flush()
        print(*totals_of(monitor.usage), flush=True)

for _ in range(3):
    loop = asyncio.new_event_loop()
    left = loop.run_until_complete(begin())
    loop.close()
asyncio.run(watch_and_write())
"""


def test_a_loop_closed_early_under_a_workload_leaves_the_next_one_true(
    private_libvirtd: Callable[..., PrivateLibvirtd], database: Database, seed: int
) -> None:
    """Monitor, writer, connections and row vanish in mid-air, three times; then another loop."""
    # No loop of this process serves the test's own connection.
    daemon = private_libvirtd(drops_the_silent=False)
    uri = daemon.uri("test")
    with (
        daemon.connection("test") as connection,
        Workload(daemon, seed, kind="test", guest_count=FEW_GUESTS) as workload,
        subprocess.Popen(
            # What is pending when a loop is closed cannot clean up, and Python says so.
            [sys.executable, "-W", "ignore", "-c", _CLOSES_EARLY, uri, database.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        ) as program,
    ):
        assert program.stdin is not None
        assert program.stdout is not None
        try:
            assert program.stdout.readline() == "written\n"  # or nothing, where it ended
            seen = workload.actions
            asyncio.run(eventually(lambda: workload.actions > seen + 50))
            workload.stop()
            truth = recount_over(connection)
            program.stdin.write("\n")
            program.stdin.flush()
            assert Totals(*map(int, program.stdout.readline().split())) == truth
            assert totals_in(database.row()) == truth
            program.stdin.close()
            assert program.wait(30) == 0
        finally:
            program.kill()
