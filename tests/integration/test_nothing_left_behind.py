"""A monitor takes with it all that it opened, however and whenever it ends."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from asynchost import HostMonitor, HypervisorRefusedError
from tests.integration.pipeline import DEADLINE_SECONDS, EVENTS_ONLY, pipeline
from tests.integration.traces import nothing_complained, nothing_left_behind
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mariadb import Database

BUSY = replace(EVENTS_ONLY, audit_interval_seconds=0.01, second_resync_seconds=0.01)
"""Everything that a monitor does in the background happens soon."""


@pytest.fixture
def uri(libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect) -> str:
    """The shared test driver, with some guests."""
    for number in range(5):
        guests.start(test_connection, guests.guest_xml(f"g{number}", kind="test"))
    return libvirtd.uri("test")


async def use(uri: str) -> None:
    """What an embedding program does with a monitor, from begin to end."""
    async with HostMonitor(uri, settings=BUSY) as monitor:
        changes = monitor.changes()
        await monitor.audit()
        await monitor.get_host_stats(refresh=True)
        changes.close()


def steps() -> Iterator[int]:
    """Each of the first rounds of the loop, then ever larger numbers of them, without an end."""
    yield from range(40)
    number = 40.0
    while True:
        yield int(number)
        number *= 1.08


async def walk(name: str, work: Callable[[], Awaitable[None]], cancellations: int = 1) -> None:
    """Cancel ``work`` after ever more rounds of the loop, until one run gets to its end."""
    await work()
    async with nothing_complained():
        for count in steps():
            async with nothing_left_behind(f"{name}, cancelled after {count} rounds"):
                task = asyncio.ensure_future(work())
                for _ in range(count):
                    await asyncio.sleep(0)
                    if task.done():
                        break
                for _ in range(cancellations):
                    task.cancel()
                    await asyncio.sleep(0)
                done, _ = await asyncio.wait([task], timeout=DEADLINE_SECONDS)
                assert done, f"{name} goes on, cancelled after {count} rounds"
            if not task.cancelled():
                task.result()
                assert count > 40
                return


@pytest.mark.parametrize("cancellations", [1, 2], ids=["once", "again while it closes"])
async def test_a_monitor_cancelled_anywhere(uri: str, cancellations: int) -> None:
    """From before its first step to after its last one."""
    await walk("monitor", lambda: use(uri), cancellations)


async def test_a_monitor_of_a_driver_in_this_process_cancelled_anywhere() -> None:
    """The same without a socket: libvirt's test driver within the process."""
    await walk("in-process monitor", lambda: use("test:///default"))


async def test_closing_cancelled_anywhere(uri: str) -> None:
    """aclose() that is cancelled goes on by itself."""

    async def close() -> None:
        monitor = HostMonitor(uri, settings=BUSY)
        await monitor.start()
        try:
            await monitor.ready()
        finally:
            await monitor.aclose()

    await walk("aclose", close)


async def test_the_whole_pipeline_cancelled_anywhere(uri: str, database: Database) -> None:
    """Monitor and writer together."""

    async def run() -> None:
        async with pipeline(uri, database, BUSY) as host:
            await host.writer.flush()

    await walk("pipeline", run)


async def test_closing_at_the_moment_of_the_loss(uri: str) -> None:
    """Both at once, whichever comes first by a round of the loop: it closes, and stays closed."""
    await use(uri)
    async with nothing_left_behind():
        for rounds in range(10):
            monitor = HostMonitor(uri, settings=EVENTS_ONLY)
            await monitor.start()
            await monitor.ready()
            connection = monitor._source._listing
            assert connection is not None
            connection.declare_lost("the test said so")
            for _ in range(rounds):
                await asyncio.sleep(0)
            closing = asyncio.create_task(monitor.aclose())
            await asyncio.wait([closing], timeout=DEADLINE_SECONDS)
            if not closing.done():
                # Whatever swallowed the first one: it must not outlive the test.
                closing.cancel()
                assert monitor._task is not None
                monitor._task.cancel()
                await asyncio.wait([closing, monitor._task])
                pytest.fail(f"still open, closed {rounds} rounds after the loss")


async def test_many_monitors_one_after_another(uri: str) -> None:
    """Nothing adds up."""
    await use(uri)
    async with nothing_left_behind():
        for _ in range(50):
            await use(uri)


async def test_many_monitors_at_the_same_time(uri: str) -> None:
    """Twenty of one loop, half of them cancelled in the middle."""
    await use(uri)
    async with nothing_complained(), nothing_left_behind():
        tasks = [asyncio.create_task(use(uri)) for _ in range(20)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks[::2]:
            task.cancel()
        done, _ = await asyncio.wait(tasks, timeout=DEADLINE_SECONDS)
        assert len(done) == 20
        for task in tasks:
            if not task.cancelled():
                task.result()


async def test_monitors_that_never_got_ready(uri: str, tmp_path: Path) -> None:
    """Refused, timed out, closed at once, or never started."""
    await use(uri)
    missing = f"test+unix:///default?socket={tmp_path}/none"
    async with nothing_left_behind():
        HostMonitor(uri, settings=EVENTS_ONLY)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), HostMonitor(missing, settings=EVENTS_ONLY):
                raise AssertionError("entered")
        with pytest.raises(HypervisorRefusedError):
            async with HostMonitor(uri.replace("test+unix:///default", "qemu:///sytem")):
                raise AssertionError("entered")
        at_once = HostMonitor(uri, settings=EVENTS_ONLY)
        await at_once.start()
        await at_once.aclose()
        await HostMonitor(uri, settings=EVENTS_ONLY).aclose()


async def test_an_error_in_the_block_comes_out_and_closes(uri: str) -> None:
    """Whatever the embedding program raises is not swallowed and not wrapped."""
    await use(uri)
    async with nothing_left_behind():
        with pytest.raises(LookupError, match="mine"):
            async with HostMonitor(uri, settings=EVENTS_ONLY):
                raise LookupError("mine")


async def test_a_daemon_that_hangs_while_a_monitor_closes(
    private_libvirtd: Callable[..., PrivateLibvirtd],
) -> None:
    """SIGSTOP of libvirtd: closing does not wait for it, and the rest goes with it."""
    daemon = private_libvirtd()
    await use(daemon.uri("test"))
    # Nor would it be given up by itself.
    settings = replace(EVENTS_ONLY, listing_deadline_seconds=600, keepalive_interval_seconds=600)
    async with nothing_left_behind():
        monitor = HostMonitor(daemon.uri("test"), settings=settings)
        await monitor.start()
        await monitor.ready()
        daemon.pause()
        audit = asyncio.create_task(monitor.audit())
        await asyncio.sleep(0)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await monitor.aclose()
        audit.cancel()
        await asyncio.wait([audit])
        # Once it answers or dies, the calls that it held come back as well.
        await asyncio.to_thread(daemon.kill)
