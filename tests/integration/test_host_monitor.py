"""What an embedding program is promised of HostMonitor, on a real host."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import FrozenInstanceError
from itertools import pairwise
from pathlib import Path

import libvirt
import pytest
import structlog

import asynchost
from asynchost import (
    AsynchostError,
    Cause,
    Change,
    ClosedError,
    ComputeNodeWriter,
    HostMonitor,
    HypervisorRefusedError,
    HypervisorUnavailableError,
    NotReadyError,
    RowConflictError,
)
from tests.integration.pipeline import (
    AT_ONCE,
    DEADLINE_SECONDS,
    EVENTS_ONLY,
    NO_SECOND_LOOK,
    monitor_agrees,
    totals_in,
    totals_of,
)
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mariadb import Database
from tests.support.recount import Totals, recount_over
from tests.support.waiting import eventually

STATS = {
    "vcpus": int,
    "vcpus_used": int,
    "cpu_info": dict,
    "disk_total": int,
    "disk_used": int,
    "disk_available": int,
    "host_memory_total": int,
    "host_memory_free": int,
    "hypervisor_type": str,
    "hypervisor_version": int,
}


def grown(name: str = "g", vcpus: int = 2) -> str:
    """A guest of the test driver with 8 MiB, and room for more of everything."""
    return guests.guest_xml(
        name, vcpus=vcpus, max_vcpus=8, memory_kib=8192, max_memory_kib=65536, kind="test"
    )


@pytest.fixture
async def monitor(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> AsyncIterator[HostMonitor]:
    """A monitor of the shared daemon's test driver, which has no guest."""
    async with HostMonitor(libvirtd.uri("test"), settings=NO_SECOND_LOOK) as monitor:
        yield monitor


async def test_three_lines_give_the_totals(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> None:
    """As the README has it, with every default."""
    guests.start(test_connection, grown())
    async with asynchost.HostMonitor(libvirtd.uri("test")) as monitor:
        usage = monitor.usage
    assert usage == asynchost.Usage(
        vcpus_used=2, memory_kib_used=8192, running_vms=1, current_workload=0
    )
    assert usage.memory_mb_used == 8


async def test_get_host_stats_has_the_classic_keys(
    monitor: HostMonitor, test_connection: libvirt.virConnect
) -> None:
    """Each key, each type; disk in GiB, memory in MiB; a fresh copy every time."""
    await asyncio.to_thread(guests.start, test_connection, grown())
    await monitor_agrees(monitor, test_connection)
    stats = await monitor.get_host_stats()
    assert {key: type(value) for key, value in stats.items()} == STATS
    _, memory_mb, vcpus, *_ = test_connection.getInfo()
    assert (stats["vcpus"], stats["vcpus_used"]) == (vcpus, 2)
    assert (stats["host_memory_total"], stats["host_memory_free"]) == (memory_mb, memory_mb - 8)
    assert stats["hypervisor_type"] == test_connection.getType()
    assert stats["hypervisor_version"] == test_connection.getVersion()
    assert stats["disk_available"] == stats["disk_total"] - stats["disk_used"]
    stats["cpu_info"]["topology"]["cells"] = "mine"
    stats["cpu_info"]["features"].append("mine")
    assert "mine" not in str(await monitor.get_host_stats())


async def test_get_host_stats_can_audit_first(
    monitor: HostMonitor, test_connection: libvirt.virConnect
) -> None:
    """refresh=True sees what came without an event; without it, nothing is asked."""
    guest = await asyncio.to_thread(guests.start, test_connection, grown())
    await monitor_agrees(monitor, test_connection)
    assert await monitor.audit() == []
    guest.setVcpus(8)
    assert (await monitor.get_host_stats())["vcpus_used"] == 2
    assert monitor.status.audits == 1
    assert (await monitor.get_host_stats(refresh=True))["vcpus_used"] == 8
    assert monitor.status.audits == 2


async def test_before_the_first_resync_there_is_no_number(tmp_path: Path) -> None:
    """Unknown is never zero: it raises, and no row can be made."""
    monitor = HostMonitor(f"test+unix:///default?socket={tmp_path}/none", settings=EVENTS_ONLY)

    async def nothing_yet() -> None:
        with pytest.raises(NotReadyError):
            _ = monitor.usage
        for refresh in (False, True):
            with pytest.raises(NotReadyError):
                await monitor.get_host_stats(refresh)
        assert monitor.facts is None
        assert monitor.disk is None
        assert (monitor.snapshot().usage, monitor.snapshot().writable) == (None, False)
        status = monitor.status
        assert (status.ready, status.fresh, status.stale_seconds) == (False, False, None)
        assert status.generation == 0

    await nothing_yet()
    with pytest.raises(RuntimeError, match="was not started"):
        await monitor.ready()
    await monitor.start()
    try:
        await nothing_yet()
        with pytest.raises(HypervisorUnavailableError):
            await monitor.audit()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await monitor.ready()
        await nothing_yet()
    finally:
        await monitor.aclose()
    with pytest.raises(ClosedError):
        await monitor.ready()
    with pytest.raises(AsynchostError):
        await monitor.get_host_stats()


async def test_stale_totals_are_frozen_with_their_age(
    private_libvirtd: Callable[..., PrivateLibvirtd],
) -> None:
    """libvirtd gone: the last values stay, marked; an audit cannot be had."""
    daemon = private_libvirtd()
    with daemon.connection() as connection:
        guests.start(connection, guests.guest_xml("g", vcpus=3))
    async with HostMonitor(daemon.uri(), settings=EVENTS_ONLY) as monitor:
        fresh = await monitor.get_host_stats()
        assert "stale_seconds" not in fresh
        assert monitor.status.stale_seconds is None
        await asyncio.to_thread(daemon.kill)
        await eventually(lambda: not monitor.status.fresh)
        for refresh in (False, True):
            stale = await monitor.get_host_stats(refresh)
            age = stale.pop("stale_seconds")
            assert stale == fresh
            await eventually(lambda: (monitor.status.stale_seconds or 0) > age)  # noqa: B023
        assert totals_of(monitor.usage) == Totals(3, 16, 1, 0)
        assert monitor.status.ready
        assert not monitor.snapshot().writable
        with pytest.raises(HypervisorUnavailableError):
            await monitor.audit()


async def test_facts_are_what_libvirt_says_and_cannot_be_changed(
    monitor: HostMonitor, test_connection: libvirt.virConnect
) -> None:
    """They come some time after the totals, and are frozen."""
    facts = await eventually(lambda: monitor.facts)
    assert facts.hostname == test_connection.getHostname()
    assert facts.hypervisor_type == "TEST"
    assert facts.hypervisor_version == test_connection.getVersion()
    assert (facts.memory_mb, facts.vcpus) == tuple(test_connection.getInfo()[1:3])
    with pytest.raises(FrozenInstanceError):
        facts.vcpus = 0


async def collect(monitor: HostMonitor) -> list[Change]:
    """Take every change until the monitor closes."""
    return [change async for change in monitor.changes()]


async def test_changes_chain_from_the_first_to_the_last(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> None:
    """Each begins where the one before ended, names its domain, and the last is the present."""
    guests.start(test_connection, grown("first"))
    async with HostMonitor(libvirtd.uri("test"), settings=NO_SECOND_LOOK) as monitor:
        before = monitor.usage
        task = asyncio.create_task(collect(monitor))
        await asyncio.sleep(0)
        for number in range(5):
            guest = await asyncio.to_thread(guests.start, test_connection, grown(f"g{number}"))
            await asyncio.to_thread(guest.destroy)
        last = await asyncio.to_thread(test_connection.createXML, grown("last", 5))
        # First the event: an audit goes another way, and may overtake it.
        await monitor_agrees(monitor, test_connection)
        assert await monitor.audit() == []
        last.setVcpus(7)
        await monitor.audit()
        after = monitor.usage
    # Closing the monitor ends the iteration, and what came before is still delivered.
    async with asyncio.timeout(DEADLINE_SECONDS):
        received = await task
    assert received[0].before == before
    assert received[-1].after == after
    assert all(one.after == two.before for one, two in pairwise(received))
    assert all(one.before != one.after and one.folded == 1 for one in received)
    assert {one.host for one in received} == {libvirtd.uri("test")}
    assert {one.generation for one in received} == {1}
    assert {one.cause for one in received[:-1]} == {Cause.EVENT}
    assert (received[-1].cause, received[-1].domain_name) == (Cause.AUDIT, "last")
    assert received[-1].delta.vcpus_used == 2
    # What is read once more of another one may come between.
    started, _ = [one for one in received if one.uuid == last.UUIDString()]
    assert started.detail == "lifecycle started"
    del guest, last


async def test_each_subscription_is_its_own(
    monitor: HostMonitor, test_connection: libvirt.virConnect
) -> None:
    """One that is closed or slow takes nothing from another; a late one begins where it begins."""
    early, closed, slow = monitor.changes(), monitor.changes(), monitor.changes()
    closed.close()
    first = await asyncio.to_thread(guests.start, test_connection, grown("first"))
    await monitor_agrees(monitor, test_connection)
    late = monitor.changes()
    await asyncio.to_thread(guests.start, test_connection, grown("second"))
    await monitor_agrees(monitor, test_connection)
    await monitor.aclose()
    names = [[change.domain_name async for change in each] for each in (early, closed, slow, late)]
    assert names == [["first", "second"], [], ["first", "second"], ["second"]]
    assert [change async for change in monitor.changes()] == []
    del first


async def test_a_backlog_that_overflows_is_folded_without_a_gap(
    monitor: HostMonitor, test_connection: libvirt.virConnect
) -> None:
    """A subscriber that sleeps through 1,200 changes gets fewer, and the same sum."""

    def churn() -> None:
        defined = [guests.define(test_connection, grown(f"g{number}")) for number in range(20)]
        # A guest's events that come while it is read are one read, so not each is a change.
        while count < 1200:
            for guest in defined:
                guest.create()
            for guest in defined:
                guest.destroy()
        defined[0].create()

    before = monitor.usage
    changes, counter = monitor.changes(), monitor.changes()
    count = 0

    async def count_all() -> None:
        nonlocal count
        async for _ in counter:
            count += 1

    counting = asyncio.create_task(count_all())
    await asyncio.to_thread(churn)
    await monitor_agrees(monitor, test_connection)
    after = monitor.usage
    await monitor.aclose()
    await counting
    received = [change async for change in changes]
    assert (received[0].before, received[-1].after) == (before, after)
    assert all(one.after == two.before for one, two in pairwise(received))
    assert len(received) <= 1000
    assert changes.folded > 0
    assert sum(change.folded for change in received) == count


async def test_audits_that_overlap_are_all_answered(
    monitor: HostMonitor, test_connection: libvirt.virConnect
) -> None:
    """Ten at once, some of them cancelled: the rest return, and the totals are right."""
    guest = await asyncio.to_thread(guests.start, test_connection, grown())
    await monitor_agrees(monitor, test_connection)
    assert await monitor.audit() == []
    guest.setVcpus(6)
    audits = [asyncio.create_task(monitor.audit()) for _ in range(10)]
    await asyncio.sleep(0)
    for task in audits[::3]:
        task.cancel()
    await asyncio.wait(audits, timeout=DEADLINE_SECONDS)
    assert all(task.done() for task in audits)
    assert any(not task.cancelled() and task.result() for task in audits)
    assert monitor.usage.vcpus_used == 6


async def test_a_domain_name_can_hold_anything(
    monitor: HostMonitor, test_connection: libvirt.virConnect, caplog: pytest.LogCaptureFixture
) -> None:
    """It is text from outside: handed on as it is, and one line of the log whatever it holds."""
    caplog.set_level(logging.DEBUG, "asynchost.monitor")
    name = "'\"; DROP TABLE compute_nodes; -- %s {0} \u202e\u2028\u0085\U0001f4a3"
    with monitor.changes() as changes:
        guest = await asyncio.to_thread(guests.start, test_connection, grown(name))
        assert (await anext(changes)).domain_name == name
    assert await monitor.audit() == []
    guest.setVcpus(5)
    (drift,) = await monitor.audit()
    assert drift.domain_name == name
    assert all(len(text.splitlines()) == 1 for text in caplog.messages)


async def test_listeners_hear_of_changes_until_removed(
    monitor: HostMonitor, test_connection: libvirt.virConnect
) -> None:
    """What the writer lives by: a nudge, and the newest snapshot when asked."""
    seen: list[int] = []
    remove = monitor.add_listener(lambda: seen.append(monitor.snapshot().usage.running_vms))
    await asyncio.to_thread(guests.start, test_connection, grown())
    await eventually(lambda: seen and seen[-1] == 1)
    remove()
    remove()
    seen.clear()
    await asyncio.to_thread(guests.start, test_connection, grown("other"))
    await monitor_agrees(monitor, test_connection)
    assert seen == []


async def test_two_hosts_of_one_loop_in_one_writer(
    libvirtd: PrivateLibvirtd,
    test_connection: libvirt.virConnect,
    qemu_connection: libvirt.virConnect,
    database: Database,
) -> None:
    """Two drivers of one machine, named apart: two rows, each with its own numbers."""
    async with (
        HostMonitor(libvirtd.uri("test"), name="fake", settings=EVENTS_ONLY) as fake,
        HostMonitor(libvirtd.uri("qemu"), name="real", settings=EVENTS_ONLY) as real,
        ComputeNodeWriter(database.url, settings=AT_ONCE) as writer,
    ):
        writer.attach(fake)
        writer.attach(real)
        await asyncio.to_thread(guests.start, test_connection, grown("g", 7))
        await asyncio.to_thread(guests.start, qemu_connection, guests.guest_xml("g", vcpus=2))

        def right() -> bool:
            rows = {row["hypervisor_hostname"]: totals_in(row) for row in database.rows()}
            return rows == {"fake": Totals(7, 8, 1, 0), "real": Totals(2, 16, 1, 0)}

        await eventually(right, DEADLINE_SECONDS)
        assert recount_over(test_connection) == totals_of(fake.usage)
        assert recount_over(qemu_connection) == totals_of(real.usage)
        types = {row["hypervisor_hostname"]: row["hypervisor_type"] for row in database.rows()}
        assert types == {"fake": "TEST", "real": "QEMU"}


async def test_two_unnamed_drivers_of_one_machine_are_a_conflict(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, database: Database
) -> None:
    """Both report the machine's name: the writer says so, and one row is written."""
    async with (
        HostMonitor(libvirtd.uri("test"), settings=EVENTS_ONLY) as test,
        HostMonitor(libvirtd.uri("qemu"), settings=EVENTS_ONLY) as qemu,
        ComputeNodeWriter(database.url, settings=AT_ONCE) as writer,
    ):

        async def attach_both() -> None:
            writer.attach(test)
            writer.attach(qemu)
            await writer.wait()

        # Whether both names are known already when the second one is attached is a matter of luck.
        with pytest.raises(RowConflictError, match="its own name") as caught:
            await asyncio.wait_for(attach_both(), DEADLINE_SECONDS)
        assert set(caught.value.hosts) == {libvirtd.uri("test"), libvirtd.uri("qemu")}
        await eventually(lambda: len(database.rows()) == 1)


async def test_a_monitor_is_started_once_and_closed_as_often_as_wanted(
    monitor: HostMonitor,
) -> None:
    """A second start is a mistake; a second close is nothing; wait() ends with the close."""
    with pytest.raises(RuntimeError, match="started once"):
        await monitor.start()
    waiting = asyncio.create_task(monitor.wait())
    await asyncio.sleep(0)
    await monitor.aclose()
    await monitor.aclose()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await waiting


@pytest.mark.parametrize(
    "uri", ["qemuu:///system", "/run/libvirt", "", "qemu+carrier-pigeon:///system", "esx://host/"]
)
async def test_an_unknown_uri_is_refused_at_once(uri: str) -> None:
    """One line that names it and the way out; nothing is opened."""
    with pytest.raises(HypervisorRefusedError) as caught:
        async with HostMonitor(uri):
            raise AssertionError("entered")
    assert repr(uri) in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_uri_that_libvirt_refuses_ends_the_monitor(
    libvirtd: PrivateLibvirtd,
) -> None:
    """A misspelt path: from entering as well as from waiting, without a retry."""
    uri = libvirtd.uri("qemu").replace("/system", "/sytem")
    async with asyncio.timeout(DEADLINE_SECONDS):
        with pytest.raises(HypervisorRefusedError) as caught:
            async with HostMonitor(uri):
                raise AssertionError("entered")
        assert repr(uri) in str(caught.value)
        monitor = HostMonitor(uri)
        await monitor.start()
        with pytest.raises(HypervisorRefusedError):
            await monitor.wait()
        with pytest.raises(HypervisorRefusedError):
            await monitor.ready()
        with pytest.raises(NotReadyError):
            _ = monitor.usage
        await monitor.aclose()


async def test_nothing_global_is_touched(monitor: HostMonitor) -> None:
    """No signal handler, no logging set up, no task of anybody else's cancelled."""
    before = (
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
        list(logging.getLogger().handlers),
        logging.getLogger("asynchost").handlers,
        structlog.is_configured(),
    )
    bystander = asyncio.create_task(asyncio.Event().wait())
    async with HostMonitor("test:///default", settings=EVENTS_ONLY):
        during = (
            [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
            list(logging.getLogger().handlers),
            logging.getLogger("asynchost").handlers,
            structlog.is_configured(),
        )
    assert during == before
    assert not bystander.done()
    bystander.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await bystander
