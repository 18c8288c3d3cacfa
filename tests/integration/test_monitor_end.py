"""Whatever ends a monitor is told to everybody who holds the monitor; observers end nothing."""

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import libvirt
import pytest
import structlog
from structlog.testing import LogCapture

from asynchost import ClosedError, HostMonitor, HypervisorRefusedError, MonitorSettings
from asynchost.testing import ScriptedLibvirt
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.waiting import eventually

SETTINGS = MonitorSettings(instances_path="/proc")


def guest(vcpus: int = 2) -> str:
    return guests.guest_xml(guests.new_uuid(), vcpus=vcpus, memory_kib=8192, kind="test")


async def started(uri: str) -> HostMonitor:
    """A monitor that is ready."""
    monitor = HostMonitor(uri, settings=SETTINGS)
    await monitor.start()
    await monitor.ready()
    return monitor


@pytest.fixture
def log() -> Iterator[LogCapture]:
    """The lines that monitors made from here on log."""
    capture = LogCapture()
    structlog.configure(processors=[capture])
    yield capture
    structlog.reset_defaults()


async def test_a_refusal_is_what_everything_raises(
    libvirtd: PrivateLibvirtd, log: LogCapture
) -> None:
    """Stream, wait and ready raise one error; status and log say why; closing is quiet."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    uri = libvirtd.uri("test").replace("test", "xen", 1)
    monitor = HostMonitor(uri, settings=SETTINGS)
    before = monitor.changes()
    drifts = monitor.drifts()
    await monitor.start()
    errors: list[BaseException] = []
    for ask in (
        monitor.wait,
        before.__anext__,
        drifts.__anext__,
        monitor.ready,
        lambda: monitor.ready(facts=True),
        lambda: monitor.changes().__anext__(),
        monitor.disks_read,
    ):
        with pytest.raises(HypervisorRefusedError) as raised:
            await ask()
        errors.append(raised.value)
    assert all(error is errors[0] for error in errors)
    assert monitor.status.reason == monitor.snapshot().reason == str(errors[0])
    (line,) = [one for one in log.entries if one["event"] == "monitor ended"]
    assert (line["reason"], line["log_level"]) == (str(errors[0]), "error")
    await monitor.aclose()
    with pytest.raises(HypervisorRefusedError):
        async with HostMonitor(uri, settings=SETTINGS):
            pytest.fail("it was entered")
    unwatched = HostMonitor(uri, settings=SETTINGS)
    await unwatched.start()
    await eventually(lambda: unwatched.status.reason == str(errors[0]))
    await unwatched.aclose()
    monitor = unwatched = HostMonitor(uri)  # nobody holds either of them any more
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


async def test_after_closing_a_stream_ends_plainly(libvirtd: PrivateLibvirtd) -> None:
    """So does wait; nothing else is left to be said."""
    monitor = await started(libvirtd.uri("test"))
    changes = monitor.changes()
    waiting = asyncio.create_task(monitor.wait())
    await monitor.aclose()
    assert [one async for one in changes] == []
    await waiting
    assert monitor.status.reason == "closed"
    assert "not fresh: 'closed'" in repr(monitor)


async def test_a_monitor_that_somebody_else_cancels_says_so(libvirtd: PrivateLibvirtd) -> None:
    """Its stream does not just end."""
    monitor = await started(libvirtd.uri("test"))
    changes = monitor.changes()
    (task,) = [one for one in asyncio.all_tasks() if one.get_name().startswith("asynchost ")]
    task.cancel()
    for ask in (changes.__anext__, monitor.wait):
        with pytest.raises(ClosedError, match="cancelled"):
            await ask()
    await monitor.aclose()


@pytest.mark.parametrize("told", [True, False])
async def test_a_fault_is_raised_by_the_block_unless_it_was_raised_before(
    log: LogCapture, told: bool
) -> None:
    """Nothing that is real ends a monitor in the middle, so this libvirt is a script."""
    libvirt = ScriptedLibvirt()
    expected: AbstractContextManager[Any] = (
        nullcontext() if told else pytest.raises(LookupError, match="nobody expected")
    )
    with expected:
        async with libvirt.monitor() as monitor:
            libvirt.fail(LookupError("nobody expected"))
            await eventually(lambda: not monitor.status.fresh)
            if told:
                with pytest.raises(LookupError):
                    await monitor.wait()
    assert monitor.status.reason == "LookupError: nobody expected"
    (line,) = [one for one in log.entries if one["event"] == "monitor ended"]
    assert isinstance(line["exc_info"], LookupError)


async def test_a_listener_that_raises_ends_nothing(
    private_libvirtd: Callable[..., PrivateLibvirtd],
) -> None:
    """Events, a restart of libvirtd and the end: the next listener is called every time."""
    libvirtd = private_libvirtd()
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    heard: list[bool] = []

    def broken() -> None:
        raise KeyError("my own bug")

    async with HostMonitor(libvirtd.uri("test"), settings=SETTINGS) as monitor:
        monitor.add_listener(broken)
        remove = monitor.add_listener(lambda: heard.append(monitor.status.fresh))
        changes = monitor.changes()
        connection = await asyncio.to_thread(libvirt.open, libvirtd.uri("test"))
        await asyncio.to_thread(connection.createXML, guest())
        assert (await anext(changes)).delta.running_vms == 1
        await eventually(lambda: bool(heard))
        await asyncio.to_thread(connection.close)
        await asyncio.to_thread(libvirtd.kill)
        await eventually(lambda: False in heard)
        await asyncio.to_thread(libvirtd.start)
        await eventually(lambda: monitor.status.fresh and monitor.status.generation == 2)
        assert heard[-1]
        remove()
        remove()
    assert {str(one["exception"]) for one in complaints} == {"'my own bug'"}
    assert all("broken" in one["message"] for one in complaints)


async def test_another_loop_is_told_so_at_once(libvirtd: PrivateLibvirtd) -> None:
    """Not a wait that lasts for ever, and no thread but the monitor's own touches its streams."""
    monitor = await started(libvirtd.uri("test"))
    changes = monitor.changes()

    async def misuse() -> list[str]:
        texts = []
        for ask in (
            changes.__anext__,
            monitor.audit,
            monitor.explain,
            monitor.wait,
            monitor.ready,
            monitor.disks_read,
            monitor.get_host_stats,
            monitor.aclose,
        ):
            with pytest.raises(RuntimeError) as raised:
                await ask()
            texts.append(str(raised.value))
        return texts

    texts = await asyncio.to_thread(asyncio.run, misuse())
    assert all("another event loop" in one and "threadsafe" in one for one in texts)
    assert monitor.status.fresh
    await monitor.aclose()
    # A monitor that is closed is nobody's any more.
    await asyncio.to_thread(asyncio.run, monitor.aclose())


def leftovers() -> tuple[list[str], list[str]]:
    """The library's threads and tasks that there are now."""
    threads = [one.name for one in threading.enumerate() if one.name.startswith("asynchost")]
    here = asyncio.current_task()
    tasks = [str(one.get_coro()) for one in asyncio.all_tasks() if one is not here]
    return threads, tasks


@pytest.mark.parametrize("times", [1, 2, 3, 10])
async def test_cancelling_again_and_again_leaves_nothing(
    libvirtd: PrivateLibvirtd, times: int
) -> None:
    """As a cancel scope of anyio does, at every wait: the block is left when all has ended."""
    entered = asyncio.Event()

    async def use() -> None:
        async with HostMonitor(libvirtd.uri("test"), settings=SETTINGS):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(use())
    await entered.wait()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert leftovers() == ([], [])


async def test_ready_with_facts_waits_for_them(libvirtd: PrivateLibvirtd) -> None:
    """So whoever decides by what the host has need not poll."""
    async with HostMonitor(libvirtd.uri("test"), settings=SETTINGS) as monitor:
        await monitor.ready(facts=True)
        assert monitor.facts is not None
        assert repr(monitor) == f"<HostMonitor {monitor.host!r} fresh, 1 domain>"
