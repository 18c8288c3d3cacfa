"""libvirtd goes and comes back: stale and unwritten meanwhile, and right again by one change."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import libvirt
import pytest

from asynchost import (
    Cause,
    ComputeNodeWriter,
    HostMonitor,
    HypervisorUnavailableError,
    NotReadyError,
    WriterSettings,
)
from asynchost.backoff import Backoff
from asynchost.hypervisor.source import Source
from tests.integration.pipeline import (
    DEADLINE_SECONDS,
    EVENTS_ONLY,
    Pipeline,
    pipeline,
    totals_of,
)
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.locked import locking
from tests.support.mariadb import Database
from tests.support.recount import Totals, recount
from tests.support.waiting import eventually, eventually_equal

RENEWING = WriterSettings(quiet_seconds=0, maximum_delay_seconds=0, renewal_interval_seconds=0.05)
BEFORE = Totals(3, 32, 2, 0)


@pytest.fixture
def door(tmp_path: Path, private_libvirtd: Callable[..., PrivateLibvirtd]) -> "Door":
    """A daemon with two guests behind a door that is open."""
    daemon = private_libvirtd()
    with daemon.connection() as connection:
        guests.start(connection, guests.guest_xml("a", vcpus=1))
        guests.start(connection, guests.guest_xml("b", vcpus=2))
    return Door(daemon, tmp_path / "socket")


class Door:
    """The way to a daemon, to be shut while the daemon itself is worked on."""

    def __init__(self, daemon: PrivateLibvirtd, path: Path) -> None:
        self.daemon = daemon
        self.path = path
        self.uri = daemon.uri(socket_path=path)
        self.open()

    def open(self) -> None:
        """Let clients through."""
        self.path.symlink_to(self.daemon.socket_path)

    def shut(self) -> None:
        """Let no new client through."""
        self.path.unlink()


async def come_back(daemon: PrivateLibvirtd, expected: Totals = BEFORE) -> None:
    """Start the daemon, and wait until it has found its guests again."""
    await asyncio.to_thread(daemon.start)
    await eventually_equal(
        lambda: asyncio.to_thread(recount, daemon.uri()), expected, DEADLINE_SECONDS
    )


def change_guests(daemon: PrivateLibvirtd) -> None:
    """One guest ends, another one starts, while nobody listens."""
    with daemon.connection() as connection:
        # libvirt may still be taking the guest over, and then says that the end came twice.
        with contextlib.suppress(libvirt.libvirtError):
            connection.lookupByName("a").destroy()
        guests.start(connection, guests.guest_xml("c", vcpus=4))


async def no_more_fresh(host: Pipeline) -> None:
    """Wait until monitor and companion table say that the totals are stale."""
    await eventually(lambda: not host.monitor.status.fresh, DEADLINE_SECONDS)
    await eventually(lambda: host.database.fences()[0]["state"] == "stale", DEADLINE_SECONDS)


@pytest.mark.parametrize("end", ["kill", "terminate"])
async def test_changes_behind_a_restart_are_one_change(
    door: Door, database: Database, end: str
) -> None:
    """Stale with its age, nothing written, generation + 1, one change, and the row is right."""
    daemon = door.daemon
    async with pipeline(door.uri, database, writer_settings=RENEWING) as host:
        monitor = host.monitor
        await host.agrees(BEFORE)
        assert (monitor.status.generation, monitor.status.resyncs) == (1, 1)
        changes = monitor.changes()
        door.shut()
        await asyncio.to_thread(getattr(daemon, end))
        await no_more_fresh(host)
        row, fence = host.row(), database.fences()[0]
        usage = monitor.usage
        await come_back(daemon)
        await asyncio.to_thread(change_guests, daemon)
        await eventually_equal(
            lambda: asyncio.to_thread(recount, daemon.uri()), Totals(6, 32, 2, 0)
        )
        # The host has changed, the door is shut, and signs of life go on: now is "meanwhile".
        await eventually(lambda: database.fences()[0]["seen_at"] > fence["seen_at"])
        assert monitor.usage == usage
        assert host.row() == row
        assert database.fences()[0]["seq"] == fence["seq"]
        age = monitor.status.stale_seconds
        assert age is not None
        await eventually(lambda: (monitor.status.stale_seconds or 0) > age)
        door.open()
        await host.agrees(Totals(6, 32, 2, 0))
        status = monitor.status
        assert (status.generation, status.resyncs) == (2, 2)
        assert (status.fresh, status.stale_seconds) == (True, None)
        await eventually(lambda: database.fences()[0]["state"] == "fresh")
        await monitor.aclose()
        (change,) = [change async for change in changes]
    assert (change.cause, change.generation, change.uuid) == (Cause.RESYNC, 2, None)
    assert (totals_of(change.before), totals_of(change.after)) == (BEFORE, Totals(6, 32, 2, 0))


async def test_after_a_connect_the_backoff_begins_anew(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next loss is followed by an attempt as soon as the first one was."""
    drawn: list[tuple[Backoff, float]] = []
    ended: list[Backoff] = []
    next_delay, reset = Backoff.next_delay, Backoff.reset

    def draw(backoff: Backoff) -> float:
        drawn.append((backoff, next_delay(backoff)))
        return 0.05

    def end(backoff: Backoff) -> None:
        ended.append(backoff)
        reset(backoff)

    def delays() -> list[float]:
        return [delay for backoff, delay in drawn if backoff is ended[0]]  # the facts have one, too

    monkeypatch.setattr(Backoff, "next_delay", draw)
    monkeypatch.setattr(Backoff, "reset", end)
    monkeypatch.setattr("asynchost.hypervisor.source.random", lambda: 1.0)
    async with HostMonitor(door.uri, settings=EVENTS_ONLY) as monitor:
        for connects in (1, 2):
            await eventually(lambda: len(ended) >= connects, DEADLINE_SECONDS)  # noqa: B023
            drawn.clear()
            await asyncio.to_thread(door.daemon.kill)
            await eventually(lambda: len(delays()) >= 3, DEADLINE_SECONDS)
            assert delays()[:3] == [0.5, 1.0, 2.0]
            await come_back(door.daemon)
        await eventually(lambda: monitor.status.fresh, DEADLINE_SECONDS)


async def test_a_reconnect_that_finds_nothing_new_changes_and_writes_nothing(
    door: Door, database: Database
) -> None:
    """Only the generation tells that there was one."""
    async with pipeline(door.uri, database) as host:
        await host.agrees(BEFORE)
        changes, row = host.monitor.changes(), host.row()
        door.shut()
        await asyncio.to_thread(door.daemon.kill)
        await come_back(door.daemon)
        door.open()
        await eventually(lambda: host.monitor.status.resyncs == 2, DEADLINE_SECONDS)
        await host.agrees(BEFORE)
        after = host.row()
        # A machine's own memory may have become more or less meanwhile.
        assert after == row or after["memory_mb"] != row["memory_mb"]
        moved = {name for name in row if after[name] != row[name]}
        assert moved <= {"memory_mb", "free_ram_mb", "updated_at"}
        await host.monitor.aclose()
        assert [change async for change in changes] == []


async def test_events_arrive_after_a_reconnect(door: Door, database: Database) -> None:
    """Nothing is registered anew by libvirt; by the monitor it is, each time."""
    daemon = door.daemon
    async with pipeline(door.uri, database) as host:
        await host.agrees(BEFORE)
        for generation in (2, 3):
            door.shut()
            await asyncio.to_thread(daemon.kill)
            await come_back(daemon)
            door.open()
            await eventually(
                lambda: host.monitor.status.generation == generation,  # noqa: B023
                DEADLINE_SECONDS,
            )
            await host.agrees(BEFORE)
            with daemon.connection() as connection:
                guest = await asyncio.to_thread(guests.start, connection, guests.guest_xml("new"))
                await host.agrees(Totals(4, 48, 3, 0))
                await asyncio.to_thread(guest.destroy)
                await host.agrees(BEFORE)
                await asyncio.to_thread(guest.undefine)
                del guest


async def test_a_guest_that_dies_while_libvirtd_is_away_is_found(
    door: Door, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be listed as running at first, and go without an event: the second listing tells."""
    second_resync, noticed = Source._second_resync, asyncio.Event()

    async def resync_once_noticed(source: Source) -> None:
        await noticed.wait()
        await second_resync(source)

    monkeypatch.setattr(Source, "_second_resync", resync_once_noticed)
    settings = replace(EVENTS_ONLY, second_resync_seconds=0.01)
    async with pipeline(door.uri, database, settings) as host:
        await host.agrees(BEFORE)
        process = door.daemon.guest_pid("b")
        await asyncio.to_thread(door.daemon.kill)
        os.kill(process, signal.SIGKILL)
        await come_back(door.daemon, Totals(1, 16, 1, 0))
        noticed.set()
        await host.agrees(Totals(1, 16, 1, 0))


async def test_libvirtd_may_start_after_the_monitor(
    door: Door, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Not up is no error: it waits, says so, writes no row, and goes on when it comes."""
    daemon = door.daemon
    await asyncio.to_thread(daemon.terminate)
    monitor = HostMonitor(door.uri, settings=EVENTS_ONLY)
    await monitor.start()
    try:
        await eventually(lambda: any("trying again" in text for text in caplog.messages))
        with pytest.raises(NotReadyError):
            _ = monitor.usage
        assert (monitor.status.generation, monitor.status.ready) == (0, False)
        await asyncio.to_thread(daemon.start)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await monitor.ready()
        assert totals_of(monitor.usage) == BEFORE
        assert monitor.status.generation == 1
    finally:
        await monitor.aclose()
    lines = [text for text in caplog.messages if "trying again" in text]
    # Once for each reason: the socket of a libvirtd that starts is there before anybody listens.
    assert all(one != two for one, two in pairwise(lines))


async def test_no_row_is_made_before_libvirtd_is_there(door: Door, database: Database) -> None:
    """The writer has the database; there is nothing to write until there is a number."""
    await asyncio.to_thread(door.daemon.terminate)
    waiting = asyncio.create_task(_until_ready(door, database))
    try:
        await eventually(database.connections, describe="the writer is connected")
        assert database.rows() == []
        await asyncio.to_thread(door.daemon.start)
        await asyncio.wait_for(waiting, DEADLINE_SECONDS)
    finally:
        waiting.cancel()
        await asyncio.wait([waiting])


async def _until_ready(door: Door, database: Database) -> None:
    monitor = HostMonitor(door.uri, name="node", settings=EVENTS_ONLY)
    async with ComputeNodeWriter(database.url, settings=RENEWING) as writer:
        attachment = writer.attach(monitor)
        async with monitor:
            host = Pipeline(door.uri, monitor, writer, attachment, database)
            await host.agrees(BEFORE)


async def test_a_resync_that_breaks_off_changes_nothing(
    private_libvirtd: Callable[..., PrivateLibvirtd],
    database: Database,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What was read before it broke off is not counted: totals move by whole listings only."""
    daemon = private_libvirtd(hooks=True)
    with daemon.connection() as connection:
        guests.start(connection, guests.guest_xml("a", vcpus=1, max_vcpus=4))
        guests.define(connection, guests.guest_xml("held"))
    door = Door(daemon, tmp_path / "socket")
    settings = replace(EVENTS_ONLY, call_deadline_seconds=1, listing_deadline_seconds=1.5)
    async with pipeline(door.uri, database, settings) as host:
        await host.agrees(Totals(1, 16, 1, 0))
        changes, before = host.monitor.changes(), host.monitor.status
        door.shut()
        await asyncio.to_thread(daemon.kill)
        await come_back(daemon, Totals(1, 16, 1, 0))
        await no_more_fresh(host)
        with daemon.connection() as connection, locking(daemon, ["held"]) as lock:
            guest, held = (connection.lookupByName(name) for name in ("a", "held"))
            await asyncio.to_thread(guests.add_vcpus, guest, 3)
            starting = asyncio.create_task(asyncio.to_thread(held.create))
            await eventually(lambda: lock.waiting() == {"held"}, describe="the lock")
            begun = len(caplog.messages)
            door.open()
            # The listing hangs; the guests that were counted before are read meanwhile.
            await eventually(
                lambda: any("listing blocked" in text for text in caplog.messages[begun:]),
                DEADLINE_SECONDS,
            )
            broken, begun = host.monitor.status, len(caplog.messages)
            door.shut()
            await asyncio.to_thread(daemon.kill)
            await asyncio.wait([starting])
            assert isinstance(starting.exception(), libvirt.libvirtError)
            del guest, held
        await eventually(
            lambda: any("trying again" in text for text in caplog.messages[begun:]),
            DEADLINE_SECONDS,
        )
        assert broken.generation > before.generation
        assert host.monitor.status.resyncs == before.resyncs
        assert totals_of(host.monitor.usage) == Totals(1, 16, 1, 0)
        await come_back(daemon, Totals(3, 16, 1, 0))
        door.open()
        await host.agrees(Totals(3, 16, 1, 0))
        await host.monitor.aclose()
        (change,) = [change async for change in changes]
    assert change.cause is Cause.RESYNC
    assert change.generation > broken.generation


async def test_another_host_goes_on_unharmed(
    door: Door,
    libvirtd: PrivateLibvirtd,
    test_connection: libvirt.virConnect,
    database: Database,
) -> None:
    """One libvirtd hangs, then dies; the other one's events and row do not wait for it."""
    # What hangs is not given up by itself, however long the rest takes.
    settings = replace(EVENTS_ONLY, listing_deadline_seconds=600, keepalive_interval_seconds=600)
    async with (
        HostMonitor(door.uri, name="hangs", settings=settings) as hanging,
        pipeline(libvirtd.uri("test"), database, name="works") as host,
    ):
        host.writer.attach(hanging)
        await eventually(lambda: len(database.rows()) == 2, DEADLINE_SECONDS)
        door.daemon.pause()
        audit = asyncio.create_task(hanging.audit())
        for number in range(1, 6):
            xml = guests.guest_xml(f"g{number}", kind="test")
            await asyncio.to_thread(guests.start, test_connection, xml)
            await host.agrees(Totals(number, 16 * number, number, 0))
        assert not audit.done()
        door.shut()
        await asyncio.to_thread(door.daemon.kill)
        await eventually(lambda: not hanging.status.fresh, DEADLINE_SECONDS)
        await asyncio.to_thread(guests.remove_all, test_connection)
        await host.agrees(Totals(0, 0, 0, 0))
        assert host.monitor.status.generation == 1
        await asyncio.wait([audit])
        assert isinstance(audit.exception(), HypervisorUnavailableError)


async def test_audits_that_lose_their_connection_fail_and_change_nothing(door: Door) -> None:
    """libvirtd hangs, then dies: whoever asked before, or asks meanwhile, is told."""
    async with HostMonitor(door.uri, settings=EVENTS_ONLY) as monitor:
        usage = monitor.usage
        door.shut()
        door.daemon.pause()
        audits = [asyncio.create_task(monitor.audit()) for _ in range(5)]
        await asyncio.sleep(0)
        killing = asyncio.create_task(asyncio.to_thread(door.daemon.kill))
        while monitor.status.fresh:
            audits.append(asyncio.create_task(monitor.audit()))
            await asyncio.sleep(0.001)
        await killing
        done, waiting = await asyncio.wait(audits, timeout=DEADLINE_SECONDS)
        assert not waiting
        assert {type(audit.exception()) for audit in done} == {HypervisorUnavailableError}
        assert monitor.usage == usage
        assert monitor.status.audits == 0
