"""Domains that libvirt holds locked: their reads hang, and every listing of the host with them.

Made by a ``qemu`` hook that waits until it is told to go on.
"""

import asyncio
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt
import pytest

from asynchost import DiskSource, HostMonitor, HypervisorUnavailableError, NotReadyError
from asynchost.hypervisor.domain_events import DomainEvent
from asynchost.hypervisor.reader import Reader
from tests.faults.scenes import CALM, RECOVERY_SECONDS, Scene, scene
from tests.integration.pipeline import monitor_agrees, totals_of
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.locked import Lock, locking
from tests.support.mariadb import Database
from tests.support.proxy import Proxy
from tests.support.waiting import eventually
from tests.support.workload import Workload

Make = Callable[..., PrivateLibvirtd]

SETTINGS = replace(CALM, listing_deadline_seconds=1.0)
"""No listing comes back while a domain is locked: each one waited for is time spent."""

CONNECTIONS = 3
"""What a monitor holds at rest: one has the events, one lists, one reads disks."""


class Held:
    """Guests that can be locked, and the calls that are held up by that."""

    def __init__(self, daemon: PrivateLibvirtd, count: int) -> None:
        self.names = [f"held{number}" for number in range(count)]
        # For each a thread and a connection: none of the calls shall wait for another.
        self._pool = ThreadPoolExecutor(count)
        self._connections = [daemon.open() for _ in self.names]
        self._calls: list[asyncio.Future[object]] = []
        self.domains = [
            guests.define(connection, guests.guest_xml(name, vcpus=2))
            for name, connection in zip(self.names, self._connections, strict=True)
        ]
        self.uuids = {domain.UUIDString() for domain in self.domains}
        # Nothing can be defined while somebody reads a locked domain.
        guests.define(self._connections[0], guests.guest_xml("beside", max_vcpus=4))

    def start(self) -> None:
        """Start them, paused; blocking."""
        for domain in self.domains:
            domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)

    async def end_up_locked(self, lock: Lock) -> None:
        """Destroy all of them (or start them, if they do not run), which hangs."""
        loop = asyncio.get_running_loop()
        for domain in self.domains:
            act = domain.destroy if domain.isActive() else domain.create
            self._calls.append(loop.run_in_executor(self._pool, act))
        await eventually(lambda: lock.waiting() == set(self.names), describe="the locks")

    async def go_on(self, lock: Lock) -> None:
        """Release them, and wait for the calls to end."""
        lock.release()
        await asyncio.gather(*self._calls)

    def close(self) -> None:
        self._pool.shutdown()
        self.domains.clear()
        for connection in self._connections:
            connection.close()


@contextmanager
def held_guests(daemon: PrivateLibvirtd, count: int) -> Iterator[Held]:
    held = Held(daemon, count)
    try:
        yield held
    finally:
        held.close()


async def counts_meanwhile(here: Scene) -> None:
    """Another guest's start and end are each counted while the lock lasts: whoever waited for
    that would wait for ever."""
    with here.daemon.connection() as connection, here.monitor.changes() as changes:
        guest = connection.lookupByName("beside")
        uuid = guest.UUIDString()

        async def counted() -> int:
            async with asyncio.timeout(RECOVERY_SECONDS):
                async for change in changes:
                    if change.uuid == uuid and change.delta.running_vms:
                        return change.delta.running_vms
            raise AssertionError("the subscription ended")

        await asyncio.to_thread(guest.createWithFlags, libvirt.VIR_DOMAIN_START_PAUSED)
        assert await counted() == 1
        await asyncio.to_thread(guest.destroy)
        assert await counted() == -1
        del guest


def spares(monitor: HostMonitor) -> int:
    """How many connections it reads through besides."""
    reader = monitor._source._reader
    assert reader is not None
    return len(reader._lanes._spares)


async def audits(monitor: HostMonitor) -> bool:
    """Whether an audit is complete: a listing may come too late on a busy machine."""
    try:
        await monitor.audit()
    except HypervisorUnavailableError:
        return False
    return True


@pytest.mark.parametrize("count", [1, 3, 5])
async def test_locked_domains_are_named_and_hold_up_nobody(
    private_libvirtd: Make, database: Database, seed: int, tmp_path: Path, count: int
) -> None:
    """Named, counted as before; the others' events, the freshness, the other hosts unharmed."""
    daemon = private_libvirtd(hooks=True)
    with (
        held_guests(daemon, count) as held,
        locking(daemon, held.names, "release") as lock,
        Proxy(daemon.socket_path, tmp_path / "s") as proxy,
        daemon.connection("test") as test_host,
    ):
        await asyncio.to_thread(held.start)
        uri = daemon.uri(socket_path=tmp_path / "s")
        workload = Workload(daemon, seed, guest_count=3, lasting=True)
        async with (
            scene(daemon, database, workload, SETTINGS, uri=uri) as here,
            HostMonitor(daemon.uri("test"), settings=CALM) as other,
        ):
            monitor = here.monitor
            await held.end_up_locked(lock)

            await eventually(lambda: monitor.snapshot().stuck == held.uuids)
            for uuid in held.uuids:
                assert "no answer" in monitor.status.unreadable[uuid]
            assert monitor.usage.running_vms >= count, "their last records stand"
            await eventually(lambda: spares(monitor), describe="more connections")

            await counts_meanwhile(here)
            await here.acted(3)
            complete = monitor.status.audits
            with pytest.raises(HypervisorUnavailableError):
                await monitor.audit()
            assert monitor.status.audits == complete
            assert monitor.status.fresh
            assert monitor.status.generation == 1
            assert held.uuids <= set(monitor.status.unreadable)

            await asyncio.to_thread(guests.remove_all, test_host)
            await asyncio.to_thread(guests.start, test_host, guests.guest_xml("t", kind="test"))
            await monitor_agrees(other, test_host)
            await eventually(lambda: audits(other), describe="an audit of the other host")
            assert other.status.unreadable == {}

            await held.go_on(lock)
            await eventually(lambda: monitor.status.unreadable == {}, RECOVERY_SECONDS)
            await eventually(
                lambda: proxy.open_flows <= CONNECTIONS, RECOVERY_SECONDS, "no more connections"
            )
            assert monitor.status.generation == 1


async def test_an_audit_goes_on_with_those_that_answer(private_libvirtd: Make) -> None:
    """No listing comes back, but who is counted is known: silent changes are found all the same."""
    daemon = private_libvirtd(hooks=True)
    with (
        held_guests(daemon, 1) as held,
        locking(daemon, held.names, "release") as lock,
        daemon.connection() as connection,
    ):
        await asyncio.to_thread(held.start)
        beside = connection.lookupByName("beside")
        await asyncio.to_thread(beside.createWithFlags, libvirt.VIR_DOMAIN_START_PAUSED)
        async with HostMonitor(daemon.uri(), settings=SETTINGS) as monitor:
            await held.end_up_locked(lock)
            await asyncio.to_thread(guests.add_vcpus, beside, 4)
            await eventually(lambda: monitor.usage.vcpus_used == 2 + 4, describe="the vCPUs")
            await eventually(lambda: monitor.snapshot().stuck == held.uuids)
            # One step, or more where an audit reads between two vCPUs that are plugged in; and
            # perhaps the held guest's own end, read in the moment before it was locked.
            steps = [each for each in monitor.status.recent_drift if each.uuid not in held.uuids]
            assert {each.field for each in steps} == {"vcpus"}
            assert [each.before for each in steps] == [1, *(each.after for each in steps[:-1])]
            assert steps[-1].after == 4
            assert lock.waiting() == set(held.names), "still locked"
            await held.go_on(lock)
            await monitor_agrees(monitor, connection)
        del beside


@pytest.mark.parametrize("count", [1, 5])
async def test_a_reconnect_with_a_locked_domain_stays_stale_and_names_it(
    private_libvirtd: Make, database: Database, seed: int, tmp_path: Path, count: int
) -> None:
    """No listing comes back; the old ledger tells whom to ask, and who does not answer."""
    daemon = private_libvirtd(hooks=True)
    with (
        held_guests(daemon, count) as held,
        locking(daemon, held.names, "release") as lock,
        Proxy(daemon.socket_path, tmp_path / "s") as proxy,
    ):
        await asyncio.to_thread(held.start)
        uri = daemon.uri(socket_path=tmp_path / "s")
        async with scene(
            daemon, database, Workload(daemon, seed, lasting=True), SETTINGS, uri=uri
        ) as here:
            # What happens is not told over the old connection.
            proxy.hold()
            await held.end_up_locked(lock)
            proxy.cut()
            proxy.release()
            frozen = await here.stale()
            await eventually(
                lambda: (
                    here.monitor.status.generation >= 2
                    and held.uuids <= set(here.monitor.status.unreadable)
                ),
                RECOVERY_SECONDS,
                "it is named",
            )
            await here.acted(2)
            await here.stays_frozen(frozen)
            await held.go_on(lock)
            await here.fresh()
            await eventually(lambda: here.monitor.status.unreadable == {})


async def test_a_first_connection_with_a_locked_domain_waits_for_it(
    private_libvirtd: Make, database: Database, seed: int
) -> None:
    """A start that hangs: who is connected goes on and fails its audit; who comes, waits."""
    daemon = private_libvirtd(hooks=True)
    with (
        held_guests(daemon, 1) as held,
        locking(daemon, held.names, "start") as lock,
    ):
        async with scene(daemon, database, Workload(daemon, seed, lasting=True), SETTINGS) as here:
            await held.end_up_locked(lock)
            late = HostMonitor(daemon.uri(), settings=SETTINGS)
            await late.start()
            try:
                with pytest.raises(HypervisorUnavailableError):
                    await here.monitor.audit()
                assert here.monitor.status.fresh
                await counts_meanwhile(here)
                await eventually(lambda: late.status.generation == 1, describe="it is connected")
                with pytest.raises(NotReadyError):
                    _ = late.usage
                await held.go_on(lock)
                async with asyncio.timeout(RECOVERY_SECONDS):
                    await late.ready()
                assert late.status.generation == 1
                assert totals_of(late.usage).running_vms >= 1
            finally:
                await late.aclose()


_ENDS = """
import asyncio, sys
from asynchost import HostMonitor
from tests.faults.test_locked_domains import SETTINGS
from tests.support.waiting import eventually

async def main():
    monitor = HostMonitor(sys.argv[1], settings=SETTINGS)
    await monitor.start()
    await monitor.ready()
    print("ready", flush=True)
    await eventually(lambda: monitor.snapshot().stuck)
    if sys.argv[2] == "well":
        await monitor.aclose()
    print("stuck", flush=True)

if sys.argv[2] == "abruptly":
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
else:
    asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["well", "by cancelling", "abruptly"])
async def test_a_process_ends_though_a_read_hangs(private_libvirtd: Make, how: str) -> None:
    """Whether it leaves the monitor, has it cancelled, or closes its loop and goes."""
    daemon = private_libvirtd(hooks=True)
    with held_guests(daemon, 1) as held, locking(daemon, held.names, "release") as lock:
        await asyncio.to_thread(held.start)
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "ignore", "-c", _ENDS, daemon.uri(), how),
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert program.stdout is not None
        try:
            async with asyncio.timeout(2 * RECOVERY_SECONDS):
                assert await program.stdout.readline() == b"ready\n"
                await held.end_up_locked(lock)
                assert await program.stdout.readline() == b"stuck\n"
            async with asyncio.timeout(RECOVERY_SECONDS):
                assert await program.wait() == 0
            assert lock.waiting() == set(held.names), "still locked"
        finally:
            if program.returncode is None:
                program.kill()
                await program.wait()
            await held.go_on(lock)


async def test_what_more_locked_domains_than_connections_hold_up_is_named(
    private_libvirtd: Make,
) -> None:
    """The locked one that is not even asked, and a healthy one that changes; until one answers."""
    daemon = private_libvirtd(hooks=True)
    with (
        held_guests(daemon, 8) as held,
        locking(daemon, held.names, "release") as lock,
        daemon.connection() as connection,
    ):
        await asyncio.to_thread(held.start)
        beside = connection.lookupByName("beside")
        uuid = beside.UUIDString()
        async with HostMonitor(daemon.uri(), settings=SETTINGS) as monitor:
            await held.end_up_locked(lock)
            await eventually(lambda: set(monitor.status.unreadable) == held.uuids)
            assert monitor.status.held_threads >= 7
            before = monitor.usage
            await asyncio.to_thread(beside.createWithFlags, libvirt.VIR_DOMAIN_START_PAUSED)
            await eventually(lambda: uuid in monitor.status.unreadable)
            assert monitor.usage == before
            assert lock.waiting() == set(held.names), "still locked"
            await held.go_on(lock)
            await monitor_agrees(monitor, connection)
            await eventually(lambda: monitor.status.unreadable == {}, RECOVERY_SECONDS)
            await eventually(lambda: monitor.status.held_threads == 0, RECOVERY_SECONDS)
        del beside


async def test_a_locked_domain_of_which_no_event_came_is_named_as_well(
    private_libvirtd: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reads of seven others hold all connections, and no listing comes back: audits tell."""
    daemon = private_libvirtd(hooks=True)
    with held_guests(daemon, 8) as held, locking(daemon, held.names, "release") as lock:
        await asyncio.to_thread(held.start)
        silent = held.domains[-1].UUIDString()
        hear = Reader.event

        def hear_of_others(reader: Reader, event: DomainEvent, *more: Any) -> None:
            if event.uuid != silent:
                hear(reader, event, *more)

        monkeypatch.setattr(Reader, "event", hear_of_others)
        async with HostMonitor(daemon.uri(), settings=SETTINGS) as monitor:
            await held.end_up_locked(lock)
            await eventually(lambda: set(monitor.status.unreadable) == held.uuids)
            assert lock.waiting() == set(held.names), "still locked"
            await held.go_on(lock)
            await eventually(lambda: monitor.status.unreadable == {}, RECOVERY_SECONDS)
            await eventually(lambda: monitor.usage.running_vms == 0, RECOVERY_SECONDS)


async def test_a_thread_that_outlives_its_monitor_is_counted(private_libvirtd: Make) -> None:
    """As long as its read hangs; closing does not wait for it."""
    daemon = private_libvirtd(hooks=True)
    # Whose threads would be held as well.
    settings = replace(
        SETTINGS, disk=DiskSource.NONE, audit_interval_seconds=0, second_resync_seconds=0
    )
    with (
        held_guests(daemon, 1) as held,
        locking(daemon, held.names, "release") as lock,
        daemon.connection() as connection,
    ):
        # A daemon's first answer to this takes up to two seconds, as it asks QEMU. The monitor
        # would stop waiting after one, and the thread of that call would be held as well.
        await asyncio.to_thread(connection.getCapabilities)
        await asyncio.to_thread(held.start)
        async with HostMonitor(daemon.uri(), settings=settings) as monitor:
            await held.end_up_locked(lock)
            await eventually(lambda: monitor.snapshot().stuck == held.uuids)
            # After the connect each guest is asked once whether it migrates, over a connection
            # of its own: that call hangs as well if it meets the lock.
            assert monitor.status.held_threads in (1, 2)
        assert lock.waiting() == set(held.names), "still locked"
        assert monitor.status.held_threads in (1, 2)
        await held.go_on(lock)
        await eventually(lambda: monitor.status.held_threads == 0, RECOVERY_SECONDS)
