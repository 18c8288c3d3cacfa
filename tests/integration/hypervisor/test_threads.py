"""What a monitor does where the system has no thread, no watch and no memory for a while."""

import asyncio
import threading
from dataclasses import replace
from errno import ENOSPC
from pathlib import Path
from typing import Any

import libvirt
import pytest

from asynchost import HostMonitor
from asynchost.hypervisor import call_thread, domain_events, source
from asynchost.hypervisor.call_thread import CallThread
from tests.integration.pipeline import EVENTS_ONLY, monitor_agrees
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.waiting import eventually

SETTINGS = replace(EVENTS_ONLY, call_deadline_seconds=0.5)


class Faults:
    """A thread's start that fails, as often as wanted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on = False
        self.refused = 0
        start = threading.Thread.start

        def starts(thread: threading.Thread) -> None:
            if self.on and thread.name.startswith("asynchost"):
                self.refused += 1
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", starts)
        # No thread is kept for the next call.
        monkeypatch.setattr(call_thread, "_IDLE_SECONDS", 0.01)


def idle() -> bool:
    """Whether the monitor has no thread at the moment."""
    return not any(one.name == "asynchost-libvirt" for one in threading.enumerate())


async def test_totals_are_stale_while_no_thread_can_be_started_to_read_with(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event that cannot be followed is an outage, which is retried, and says what is lacking."""
    faults = Faults(monkeypatch)
    async with HostMonitor(libvirtd.uri("test"), settings=SETTINGS) as monitor:
        await eventually(idle)
        faults.on = True
        xml = guests.guest_xml("g", vcpus=3, kind="test")
        await asyncio.to_thread(guests.start, test_connection, xml)
        await eventually(lambda: not monitor.status.fresh)
        assert "can't start new thread" in str(monitor.status.reason)
        refused = faults.refused
        await eventually(lambda: faults.refused > refused + 2, describe="tried again")
        assert not monitor.status.fresh
        faults.on = False
        await eventually(lambda: monitor.status.fresh)
        await monitor_agrees(monitor, test_connection)
        assert monitor.usage.vcpus_used == 3


async def test_a_monitor_starts_once_threads_can_be_started(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt is an outage like any other, and closing needs no thread either."""
    faults = Faults(monkeypatch)
    faults.on = True
    async with asyncio.timeout(60):
        monitor = HostMonitor(libvirtd.uri("test"), settings=SETTINGS)
        await monitor.start()
        await eventually(lambda: faults.refused >= 2)
        faults.on = False
        await monitor.ready()
        await eventually(idle)
        faults.on = True
        closing = asyncio.create_task(monitor.aclose())
        await eventually(lambda: faults.refused >= 3)
        faults.on = False
        await closing


async def test_reads_that_no_thread_begins_with_are_an_outage(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the reason: here each new thread ends before it has taken anything."""
    faults = Faults(monkeypatch)
    settings = replace(SETTINGS, listing_deadline_seconds=1.0)
    async with HostMonitor(libvirtd.uri("test"), settings=settings) as monitor:
        await eventually(idle)
        with monkeypatch.context() as patched:
            patched.setattr(CallThread, "_work", lambda _: None)
            xml = guests.guest_xml("g", vcpus=3, kind="test")
            await asyncio.to_thread(guests.start, test_connection, xml)
            await eventually(lambda: not monitor.status.fresh)
        await eventually(lambda: monitor.status.fresh)
        await monitor_agrees(monitor, test_connection)
    assert not faults.refused


async def test_an_event_that_surprises_costs_no_other_event_its_read(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes to the loop's exception handler; what came with it, and after it, is counted."""
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    meaning = domain_events._meaning

    def surprises(event: int, detail: int) -> Any:
        if not faults:
            raise ValueError("odd")
        return meaning(event, detail)

    async with HostMonitor(libvirtd.uri("test"), settings=SETTINGS) as monitor:
        monkeypatch.setattr(domain_events, "_meaning", surprises)

        def start() -> None:
            for number in range(40):
                guests.start(test_connection, guests.guest_xml(f"g{number}", kind="test"))

        await asyncio.to_thread(start)
        await eventually(lambda: monitor.usage.running_vms >= 39)
        assert [str(fault["exception"]) for fault in faults] == ["odd"]
        await monitor.audit()
        await monitor_agrees(monitor, test_connection)


@pytest.mark.parametrize("failures", [1, 5])
async def test_a_loop_that_cannot_watch_a_socket_for_a_moment_watches_it_soon(
    libvirtd: PrivateLibvirtd,
    test_connection: libvirt.virConnect,
    monkeypatch: pytest.MonkeyPatch,
    failures: int,
) -> None:
    """Events come as before, however long it was out of watches."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)
    add_reader, left = loop.add_reader, failures

    def adds(*arguments: Any) -> None:
        nonlocal left
        if left:
            left -= 1
            raise OSError(ENOSPC, "No space left on device")
        add_reader(*arguments)

    async with HostMonitor(libvirtd.uri("test"), settings=SETTINGS) as monitor:
        monkeypatch.setattr(loop, "add_reader", adds)
        await monitor.audit()  # takes the socket from the loop and gives it back
        for name in ("a", "b"):
            xml = guests.guest_xml(name, kind="test")
            await asyncio.to_thread(guests.start, test_connection, xml)
            await monitor_agrees(monitor, test_connection)
        assert not left


async def test_a_listing_that_hangs_gathers_no_calls_behind_it(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many audits come meanwhile, each is given up without a call of its own."""
    settings = replace(SETTINGS, listing_deadline_seconds=1.0)
    released, hanging = threading.Event(), threading.Event()

    def hang(_: object) -> None:
        hanging.set()
        released.wait(60)

    async with HostMonitor(libvirtd.uri("test"), settings=settings) as monitor:
        lanes = monitor._source._reader._lanes  # type: ignore[union-attr]
        await eventually(lambda: lanes.listing is not lanes.events)
        connection = lanes.listing.connection
        with pytest.raises(source.CallTimeoutError):
            await connection.ask("hangs", hang, 0.05)
        assert hanging.is_set()
        audits = await asyncio.gather(*(monitor.audit() for _ in range(20)), return_exceptions=True)
        assert {type(each) for each in audits} == {source.CallTimeoutError}
        assert len(connection.thread.in_flight) <= 2
        released.set()
        await eventually(lambda: not connection.thread.in_flight)


async def test_an_attempt_to_connect_that_fails_starts_one_thread(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No other connection is made before it is needed."""
    started: list[str] = []
    start = threading.Thread.start

    def starts(thread: threading.Thread) -> None:
        started.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", starts)
    monkeypatch.setattr(source.Backoff, "next_delay", lambda _: 3600.0)
    monitor = HostMonitor(f"qemu:///system?socket={tmp_path / 'nobody'}", settings=SETTINGS)
    await monitor.start()
    with pytest.raises(source.HypervisorUnavailableError):
        await monitor.ready(patient=False)
    await monitor.aclose()
    assert started.count("asynchost-libvirt") == 1
