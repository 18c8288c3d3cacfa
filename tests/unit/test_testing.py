"""The doubles behave as what they stand for."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from asynchost import (
    ChangeKind,
    DomainState,
    EventKind,
    EventReason,
    HypervisorRefusedError,
    HypervisorUnavailableError,
    MonitorSettings,
    Origin,
)
from asynchost.model import Usage
from asynchost.testing import FakeHost, ScriptedLibvirt


def test_a_fake_host_adds_up_its_domains() -> None:
    """Sums over what runs, told at each change."""
    host, told = FakeHost("h"), []
    remove = host.add_listener(lambda: told.append(host.usage.vcpus_used))
    number = host.start(vcpus=2, memory_kib=5)
    host.start(vcpus=1, memory_kib=1)
    assert host.snapshot().usage == Usage(3, 6, 2, 0)
    host.stop(number)
    remove()
    remove()
    host.start(vcpus=9)
    assert told == [2, 3, 1]
    with pytest.raises(KeyError):
        host.stop(number)


def test_a_fake_host_is_writable_while_it_is_fresh_and_complete() -> None:
    """Lost and incomplete hosts are not."""
    host = FakeHost("h", name="n")
    snapshot = host.snapshot()
    assert (host.host, snapshot.host, snapshot.name, snapshot.writable) == ("h", "h", "n", True)
    host.lose()
    assert (host.snapshot().writable, host.snapshot().stale_seconds) == (False, 0.0)
    host.find()
    assert (host.snapshot().writable, host.snapshot().generation) == (True, 2)
    host.set_facts(None)
    assert not host.snapshot().writable


def test_unknown_disk_does_not_keep_a_fake_host_from_its_row() -> None:
    """It was looked at, and nothing was found."""
    host = FakeHost()
    host.set_disk(None)
    assert host.snapshot().writable


# -- a scripted libvirt: everything above it is real -----------------------------------------------

QUIET = MonitorSettings(audit_interval_seconds=0)


@pytest.mark.looptime
async def test_a_scripted_host_is_followed_like_a_real_one() -> None:
    """Its domains, totals, changes and events; what ran before the monitor is in the table."""
    libvirt = ScriptedLibvirt("node-1")
    first = libvirt.start("first", vcpus=2, memory_kib=2048)
    async with libvirt.monitor(settings=QUIET) as monitor:
        with monitor.changes() as changes, monitor.domain_events() as events:
            assert (monitor.host, list(events.initial)) == ("node-1", [first])
            second = libvirt.start("second", vcpus=1, memory_kib=1024)
            change = await anext(changes)
            assert (change.kind, change.after) == (ChangeKind.STARTED, Usage(3, 3072, 2))
            started = await anext(events)
            assert (started.uuid, started.reason) == (second, EventReason.BOOTED)
            assert started.raw_kind == 2
            libvirt.stop(first, EventReason.MIGRATED)
            stopped = await anext(events)
            assert (stopped.kind, stopped.reason) == (EventKind.STOPPED, EventReason.MIGRATED)
            assert stopped.name == "first"
            assert list(monitor.domains) == [second]
            libvirt.suspend(second)
            assert (await anext(events)).kind is EventKind.SUSPENDED
            assert monitor.domains[second].state is DomainState.PAUSED
            libvirt.resume(second)
            assert (await anext(events)).kind is EventKind.RESUMED
            libvirt.change(second, vcpus=4, name="renamed")
            changed = await anext(events)
            assert (changed.kind, changed.origin) == (EventKind.CHANGED, Origin.EVENT)
            assert (changed.name, monitor.usage.vcpus_used) == ("renamed", 4)
        assert (await monitor.get_host_stats())["vcpus_used"] == 4
        assert [one.name for one in (await monitor.explain()).domains] == ["renamed"]
        with pytest.raises(ValueError, match="runs already"):
            libvirt.start("again", uuid=second)


@pytest.mark.looptime
async def test_an_event_that_is_lost_is_found_by_an_audit() -> None:
    """On fake time: a minute of it takes no time."""
    libvirt = ScriptedLibvirt()
    async with libvirt.monitor() as monitor:
        with monitor.domain_events() as events, monitor.drifts() as drifts:
            begun = asyncio.get_running_loop().time()
            uuid = libvirt.start("silent", event=False)
            event = await anext(events)
            assert (event.uuid, event.kind, event.origin) == (uuid, EventKind.CHANGED, Origin.AUDIT)
            assert asyncio.get_running_loop().time() - begun == pytest.approx(60, abs=0.1)
            drift = await anext(drifts)
            assert (drift.field, drift.age_seconds) == ("active", pytest.approx(60, abs=0.1))
            libvirt.stop(uuid, event=False)
            assert len(await monitor.audit()) == 1
            later = await anext(events)
            assert timedelta(0) <= later.at - event.at < timedelta(seconds=5)


@pytest.mark.looptime
async def test_events_may_come_twice_late_and_in_any_order() -> None:
    """Totals do not care; each event is told as it came."""
    libvirt = ScriptedLibvirt()
    async with libvirt.monitor(settings=QUIET) as monitor:
        with monitor.domain_events() as events:
            uuid = libvirt.start("g", event=False)
            libvirt.send(uuid, EventKind.STOPPED, EventReason.DESTROYED)
            libvirt.send(uuid, EventKind.STARTED, EventReason.BOOTED)
            libvirt.send(uuid, EventKind.STARTED, EventReason.BOOTED)
            told = [await anext(events) for _ in range(3)]
            assert [one.kind for one in told] == [
                *(EventKind.STOPPED, EventKind.STARTED, EventKind.STARTED)
            ]
            assert [one.before == one.after for one in told] == [False, True, True]
            assert monitor.usage.running_vms == 1


@pytest.mark.looptime
async def test_a_domain_that_hangs_is_named_and_others_go_on() -> None:
    """Its events are told as unknown at the deadline, and the truth when it is released."""
    libvirt = ScriptedLibvirt()
    hung, other = libvirt.start("hung"), libvirt.start("other")
    async with libvirt.monitor(settings=QUIET) as monitor:
        with monitor.domain_events() as events:
            libvirt.hang(hung)
            libvirt.stop(hung)
            libvirt.stop(other)
            assert (await anext(events)).uuid == other
            unknown = await anext(events)
            assert (unknown.uuid, unknown.known, unknown.after) == (hung, False, None)
            assert asyncio.get_running_loop().time() == pytest.approx(5, abs=0.1)
            assert list(monitor.status.unreadable) == [hung]
            assert monitor.status.held_threads == 1
            assert hung in monitor.domains
            libvirt.release(hung)
            late = await anext(events)
            assert (late.uuid, late.kind, late.after) == (hung, EventKind.CHANGED, None)
            assert monitor.status.unreadable == {}


@pytest.mark.looptime
async def test_a_connection_that_breaks_freezes_the_totals_and_comes_back() -> None:
    """With its reason; what happened meanwhile is told by the resync."""
    libvirt = ScriptedLibvirt()
    uuid = libvirt.start("g")
    async with libvirt.monitor(settings=QUIET) as monitor:
        with monitor.domain_events() as events:
            libvirt.disconnect("libvirtd was stopped")
            await monitor.wait_for(lambda one: not one.status.fresh)
            assert "libvirtd was stopped" in (monitor.status.reason or "")
            with pytest.raises(HypervisorUnavailableError):
                await monitor.audit()
            libvirt.stop(uuid)
            await asyncio.sleep(30)
            assert monitor.usage.running_vms == 1
            assert monitor.status.stale_seconds == pytest.approx(30, abs=0.1)
            libvirt.reconnect()
            event = await anext(events)
            assert (event.uuid, event.origin, event.generation) == (uuid, Origin.RESYNC, 2)
            assert monitor.usage.running_vms == 0


@pytest.mark.looptime
async def test_a_refusal_ends_a_monitor_that_never_was_connected() -> None:
    """One that was connected waits for better times."""
    libvirt = ScriptedLibvirt()
    async with libvirt.monitor(settings=QUIET) as connected:
        libvirt.refuse()
        with pytest.raises(HypervisorRefusedError, match="access denied"):
            async with libvirt.monitor():
                pytest.fail("it was entered")
        await connected.wait_for(lambda one: not one.status.fresh)
        libvirt.reconnect()
        await connected.wait_for(lambda one: one.status.fresh)


@pytest.mark.looptime
async def test_a_fault_ends_a_monitor_with_its_error() -> None:
    """As one that nobody expected would."""
    libvirt = ScriptedLibvirt()
    with pytest.raises(LookupError, match="odd"):  # noqa: PT012 - leaving the block raises
        async with libvirt.monitor() as monitor:
            libvirt.fail(LookupError("odd"))
            await monitor.wait_for(lambda one: not one.status.fresh)
    with pytest.raises(LookupError):
        await anext(monitor.changes())


@pytest.mark.looptime
async def test_a_host_may_be_away_at_first_and_change_its_facts() -> None:
    """As an orchestrator's start before libvirtd."""
    libvirt = ScriptedLibvirt()
    libvirt.disconnect("no socket")
    monitor = libvirt.monitor()
    await monitor.start()
    with pytest.raises(HypervisorUnavailableError, match="no socket"):
        await monitor.ready(patient=False)
    libvirt.reconnect()
    await monitor.ready(facts=True)
    assert monitor.facts is not None
    libvirt.set_facts(replace(monitor.facts, vcpus=99))
    await monitor.wait_for(lambda one: one.facts is not None and one.facts.vcpus == 99)
    libvirt.set_disk(None)
    await monitor.aclose()
