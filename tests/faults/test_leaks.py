"""Reconnects without end leave nothing behind: no thread, descriptor, libvirt object, memory.

A hundred reconnects find what leaks each time, a thousand what leaks by chance.
``ASYNCHOST_TEST_RECONNECTS`` sets another number for both.
"""

import asyncio
import gc
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import libvirt
import pytest

from asynchost import HostMonitor, MonitorSettings
from asynchost.backoff import Backoff
from asynchost.hypervisor import connection as connection_module
from asynchost.hypervisor import source
from asynchost.hypervisor.event_loop import EVENT_LOOP
from tests.faults.scenes import CALM, scene
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mariadb import Database
from tests.support.proxy import Proxy
from tests.support.recount import Totals, recount_over
from tests.support.waiting import DEADLINE_SECONDS, eventually
from tests.support.workload import Workload


def reconnects(by_default: int) -> int:
    """How many are compared with the first ten."""
    return int(os.environ.get("ASYNCHOST_TEST_RECONNECTS", by_default))


WARM_UP = 10
CONNECTIONS = 3
"""What a monitor holds at rest: one connection has the events, one lists, one reads disks."""
TRANSIENT_DOMAINS = 1000
STOPPED_SECONDS = 6.0
"""Long enough for thirty attempts to open a connection, each given up after a tenth of a second."""
MOST_HELD = 12
"""Each doubles the wait for the next; and there are those of the lost connection."""

SETTINGS = MonitorSettings(
    audit_interval_seconds=0, second_resync_seconds=0, instances_path="/proc"
)

_OLDER_THREADS: set[threading.Thread] = set()
"""Those of tests before this one: a call that a hung guest holds may outlive its test."""

RESIDENT_TOLERANCE_BYTES = 4 * 2**20
"""What the allocator may keep besides; a leak of one connection each would be ten times that."""
OBJECTS_TOLERANCE = 200
"""Of some hundred thousand: caches of the interpreter and of what tests it."""


@pytest.fixture(autouse=True)
def _quick_and_quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Reconnect at once; and keep no log record, of which each reconnect makes several."""
    quick = partial(Backoff, initial_seconds=0.001, maximum_seconds=0.01)
    monkeypatch.setattr(source, "Backoff", quick)
    logging.disable(logging.CRITICAL)
    _OLDER_THREADS.update(threading.enumerate())
    yield
    _OLDER_THREADS.clear()
    logging.disable(logging.NOTSET)


def counted() -> dict[str, int]:
    """What must stay the same, exactly."""
    gc.collect()
    alive = gc.get_objects()
    return {
        "threads": len(set(threading.enumerate()) - _OLDER_THREADS),
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "connections": sum(isinstance(one, libvirt.virConnect) for one in alive),
        "domains": sum(isinstance(one, libvirt.virDomain) for one in alive),
        "tasks": sum(isinstance(one, asyncio.Task) for one in alive),
        "handles": len(EVENT_LOOP._handles),
        "timers": len(EVENT_LOOP._timers),
    }


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def threads_of_ours() -> set[threading.Thread]:
    """The package's, but for those that tests before this one left in a hanging call."""
    mine = set(threading.enumerate()) - _OLDER_THREADS
    return {one for one in mine if one.name.startswith("asynchost-")}


async def settled(monitor: HostMonitor, proxy: Proxy) -> dict[str, int]:
    """The counts when nothing is under way any more."""
    # Threads that have nothing to do end after some seconds.
    await eventually(lambda: not threads_of_ours() and proxy.open_flows == CONNECTIONS)
    assert monitor.status.fresh
    return counted()


async def reconnect(monitor: HostMonitor, break_it: Callable[[], None]) -> None:
    """Break the connection, and wait until the totals are kept again."""
    generation = monitor.status.generation
    again = asyncio.Event()
    remove = monitor.add_listener(again.set)
    try:
        break_it()
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not (monitor.status.fresh and monitor.status.generation > generation):
                again.clear()
                await again.wait()
    finally:
        remove()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("how", "times"),
    [(Proxy.cut, reconnects(1000)), (Proxy.reset, reconnects(100))],
    ids=["closed", "reset"],
)
async def test_reconnects_leave_nothing_behind(
    libvirtd: PrivateLibvirtd,
    test_connection: libvirt.virConnect,
    tmp_path: Path,
    how: Callable[[Proxy], None],
    times: int,
    record_property: Callable[[str, object], None],
) -> None:
    """After many reconnects, this process holds what it held after ten."""
    for number in range(5):
        guests.start(test_connection, guests.guest_xml(f"there-{number}", kind="test"))
    path = tmp_path / "proxy"
    with Proxy(libvirtd.socket_path, path) as proxy:
        uri = libvirtd.uri("test", socket_path=path)
        async with HostMonitor(uri, settings=SETTINGS) as monitor:
            for _ in range(WARM_UP):
                await reconnect(monitor, lambda: how(proxy))
            before = await settled(monitor, proxy)
            objects, resident = len(gc.get_objects()), resident_bytes()
            for _ in range(times):
                await reconnect(monitor, lambda: how(proxy))
            after = await settled(monitor, proxy)
            # What the tests before this one still had to close may be less by now.
            assert {what: n for what, n in after.items() if n > before[what]} == {}
            more_objects = len(gc.get_objects()) - objects
            more_bytes = resident_bytes() - resident
            record_property("objects", more_objects)
            record_property("resident_bytes", more_bytes)
            print(f"after {times} reconnects: {more_objects} objects, {more_bytes} bytes more")
            assert more_objects < OBJECTS_TOLERANCE
            assert more_bytes < RESIDENT_TOLERANCE_BYTES
            assert monitor.status.generation >= WARM_UP + times
            assert monitor.usage.running_vms == 5
        del monitor
    gc.collect()


async def test_a_daemon_that_says_nothing_does_not_gather_threads(
    private_libvirtd: Callable[..., PrivateLibvirtd], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes connections and never answers: no attempt is begun that would hang like the last."""
    monkeypatch.setattr(connection_module, "_CLOSE_DEADLINE_SECONDS", 0.05)
    daemon = private_libvirtd()
    settings = replace(SETTINGS, listing_deadline_seconds=0.1, keepalive_interval_seconds=1)
    with daemon.connection("test") as connection:
        async with HostMonitor(daemon.uri("test"), settings=settings) as monitor:
            daemon.pause()
            try:
                await eventually(lambda: not monitor.status.fresh)
                stale_for = lambda: monitor.status.stale_seconds or 0.0  # noqa: E731
                await eventually(lambda: stale_for() > STOPPED_SECONDS)
                assert len(threads_of_ours()) < MOST_HELD
            finally:
                daemon.resume()
            await eventually(lambda: monitor.status.fresh)
            await asyncio.to_thread(guests.start, connection, guests.guest_xml("g", kind="test"))
            await eventually(lambda: monitor.usage.running_vms == 2)
    await eventually(lambda: not threads_of_ours())


def come_and_go(connection: libvirt.virConnect) -> None:
    """A thousand transient domains, one after another."""
    for number in range(TRANSIENT_DOMAINS):
        xml = guests.guest_xml(f"transient-{number}", vcpus=1 + number % 4, kind="test")
        connection.createXML(xml).destroy()


async def test_a_thousand_transient_domains_leave_nothing_behind(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> None:
    """Each is created and destroyed; then nothing is known of any of them, nothing planned."""
    async with HostMonitor(libvirtd.uri("test"), settings=SETTINGS) as monitor:
        await asyncio.to_thread(come_and_go, test_connection)
        reader = monitor._source._reader
        assert reader is not None
        await eventually(lambda: monitor.status.events >= 2 * TRANSIENT_DOMAINS)
        # A start is looked at once more a second later: also of what is long gone.
        await eventually(lambda: len(reader._agenda) == 0 and reader._agenda.next_look is None)
        usage = monitor.usage
        assert (usage.vcpus_used, usage.memory_kib_used, usage.running_vms) == (0, 0, 0)
        assert list(monitor._state.known_uuids()) == []
        assert monitor.status.unreadable == {}
        assert reader._domains == {}
        assert reader._to_look_at == {}
        assert not reader.stuck
        assert not reader._migrating
        assert not reader._failures
        assert not monitor._source._starting
        assert not monitor._source._unread
        # The disks of one of them may just be looked for.
        await eventually(lambda: counted()["domains"] == 0, describe="no virDomain is left")
        assert await monitor.audit() == []


@pytest.mark.parametrize(("kind", "many"), [("test", 50), ("qemu", 5)])
async def test_a_domain_that_vanishes_before_its_read_counts_nothing(
    libvirtd: PrivateLibvirtd, request: pytest.FixtureRequest, kind: guests.Kind, many: int
) -> None:
    """The event comes, the read finds nobody: that is gone, not an error."""
    connection: libvirt.virConnect = request.getfixturevalue(f"{kind}_connection")
    async with HostMonitor(libvirtd.uri(kind), settings=SETTINGS) as monitor:
        for number in range(many):
            # On the loop, so that the read begins only when the domain is no more.
            guest = connection.createXML(guests.guest_xml(f"short-{number}", vcpus=2, kind=kind))
            guest.destroy()
            del guest
            await asyncio.sleep(0)
        await eventually(lambda: monitor.status.events >= 2 * many)
        await eventually(lambda: monitor.usage.running_vms == 0)
        assert monitor.status.unreadable == {}
        assert await monitor.audit() == []


@pytest.mark.parametrize(("kind", "last"), [("test", 29), ("qemu", 5)])
async def test_a_uuid_reused_while_its_event_waits_counts_as_the_new_domain(
    libvirtd: PrivateLibvirtd, request: pytest.FixtureRequest, kind: guests.Kind, last: int
) -> None:
    """Transient, persistent, renamed, larger: what bears the UUID when it is read is counted."""
    connection: libvirt.virConnect = request.getfixturevalue(f"{kind}_connection")
    uuid = guests.new_uuid()
    async with HostMonitor(libvirtd.uri(kind), settings=SETTINGS) as monitor:
        for number in range(1, last + 1):
            size = 16 + number
            xml = guests.guest_xml(
                f"heir-{number}", uuid, vcpus=number, memory_kib=size * 1024, kind=kind
            )
            # On the loop: all these events wait while the UUID passes on.
            guest = guests.start(connection, xml, persistent=number % 2 == 0)
            expected = await asyncio.to_thread(recount_over, connection)
            assert expected == Totals(number, size, 1, 0)
            if number % 3 == 0:  # otherwise the next one comes before this one's read
                await eventually(lambda: monitor.usage.vcpus_used == number)  # noqa: B023
            if number < last:
                guest.destroy()
                if number % 2 == 0:
                    guest.undefine()
            del guest
        await eventually(lambda: monitor.usage.vcpus_used == last)
        usage = monitor.usage
        assert (usage.memory_mb_used, usage.running_vms) == (16 + last, 1)
        assert monitor.status.unreadable == {}
        assert await monitor.audit() == []


def pass_a_uuid_on(connection: libvirt.virConnect) -> None:
    """Ever another domain under one UUID, most of them gone before they can be read."""
    uuid = guests.new_uuid()
    for number in range(1, 200):
        xml = guests.guest_xml(
            f"heir-{number}", uuid, vcpus=number % 7 + 1, memory_kib=number * 1024, kind="test"
        )
        guest = guests.start(connection, xml, persistent=number % 2 == 0)
        if number < 199:
            guest.destroy()
            if number % 2 == 0:
                guest.undefine()


@pytest.mark.parametrize("fault", [come_and_go, pass_a_uuid_on])
async def test_domains_that_are_gone_before_their_read_under_a_workload(
    private_libvirtd: Callable[..., PrivateLibvirtd],
    database: Database,
    seed: int,
    fault: Callable[[libvirt.virConnect], None],
) -> None:
    """Beside other domains that change: nothing is left of them, and the row is true."""
    daemon = private_libvirtd()
    workload = Workload(daemon, seed, kind="test", guest_count=20)
    uri = daemon.uri("test")
    with daemon.connection("test") as connection:
        async with scene(daemon, database, workload, CALM, uri=uri) as here:
            # In turn: on the loop, so that no read can begin meanwhile, and beside it.
            fault(connection)
            await asyncio.to_thread(fault_again, fault, connection)
            await eventually(lambda: here.monitor.status.unreadable == {})
            await here.acted(20)
        assert here.monitor.status.generation == 1


def fault_again(
    fault: Callable[[libvirt.virConnect], None], connection: libvirt.virConnect
) -> None:
    """The same once more, where the first time left something."""
    with suppress(libvirt.libvirtError):
        connection.lookupByName("heir-199").destroy()
    fault(connection)
