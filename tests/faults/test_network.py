"""The network between the monitor and libvirtd: cut, half-open, slow, in pieces.

Everything goes over libvirtd's TCP transport and a proxy; the tests change domains behind the
monitor's back, over the daemon's own socket.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

import libvirt
import pytest

from asynchost import Cause, Change, HostMonitor, MonitorSettings, Usage
from asynchost.backoff import Backoff
from asynchost.hypervisor import source
from tests.faults.scenes import FAULTS, scene
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mariadb import Database
from tests.support.proxy import Proxy
from tests.support.recount import Totals, recount_over
from tests.support.waiting import DEADLINE_SECONDS, eventually
from tests.support.workload import Workload

KEEPALIVE_INTERVAL_SECONDS, KEEPALIVE_COUNT = 1, 2
NOTICED_WITHIN_SECONDS = KEEPALIVE_INTERVAL_SECONDS * (KEEPALIVE_COUNT + 1)
LATENESS_SECONDS = 10.0
"""What a busy machine may add. By default, keepalive would take twenty."""

SETTINGS = MonitorSettings(
    audit_interval_seconds=0,
    second_resync_seconds=0,
    keepalive_interval_seconds=KEEPALIVE_INTERVAL_SECONDS,
    keepalive_count=KEEPALIVE_COUNT,
    instances_path="/proc",
)
"""No audit: what is right in the end was right by events and by the resync."""

CALM = replace(SETTINGS, keepalive_interval_seconds=60)
"""Nothing is noticed by keepalive, and nothing is too slow for it."""


@dataclass(frozen=True)
class Network:
    """A host, the proxy before it, and the test's own way to it."""

    daemon: PrivateLibvirtd
    proxy: Proxy
    connection: libvirt.virConnect

    @property
    def uri(self) -> str:
        return self.daemon.tcp_uri("test", port=self.proxy.port)

    def start_guest(self, name: str, vcpus: int = 1) -> libvirt.virDomain:
        return guests.start(self.connection, guests.guest_xml(name, vcpus=vcpus, kind="test"))

    async def agrees(self, monitor: HostMonitor) -> Totals:
        """Wait until the monitor is fresh and its totals are a recount's."""

        async def agree() -> Totals:
            truth = await asyncio.to_thread(recount_over, self.connection)
            usage = monitor.usage
            assert monitor.status.fresh, monitor.status
            assert truth == Totals(
                usage.vcpus_used, usage.memory_mb_used, usage.running_vms, usage.current_workload
            )
            return truth

        return await eventually(agree, describe="fresh, with the totals of a recount")


@pytest.fixture
def network(private_libvirtd: Callable[..., PrivateLibvirtd]) -> Iterator[Network]:
    """A test driver with one guest of two vCPUs, behind a proxy of the test's own."""
    daemon = private_libvirtd(listen_tcp=True)
    with daemon.connection("test") as connection, Proxy(daemon.tcp_port) as proxy:
        guests.remove_all(connection)
        network = Network(daemon, proxy, connection)
        network.start_guest("first", vcpus=2)
        yield network


@asynccontextmanager
async def watched(
    network: Network, settings: MonitorSettings = SETTINGS
) -> AsyncIterator[HostMonitor]:
    async with HostMonitor(network.uri, settings=settings) as monitor:
        await network.agrees(monitor)
        yield monitor


@asynccontextmanager
async def becomes_stale(
    monitor: HostMonitor, within_seconds: float = DEADLINE_SECONDS
) -> AsyncIterator[list[Usage]]:
    """Wait, after the block, until the monitor has said that it is stale; its totals then.

    It may be fresh again an instant later.
    """
    frozen: list[Usage] = []

    def look() -> None:
        if not monitor.status.fresh:
            frozen.append(monitor.usage)

    remove = monitor.add_listener(look)
    try:
        yield frozen
        await eventually(lambda: frozen, within_seconds, "stale")
    finally:
        remove()


async def resync_change(changes: AsyncIterator[Change]) -> Change:
    async with asyncio.timeout(30):
        async for change in changes:
            if change.cause is Cause.RESYNC:
                return change
    raise AssertionError("the subscription ended")


@pytest.mark.parametrize("how", [Proxy.reset, Proxy.cut], ids=["reset", "closed"])
async def test_a_cut_connection_is_noticed_at_once_and_made_anew(
    network: Network, how: Callable[[Proxy], None]
) -> None:
    """Stale at once, fresh again over a new connection, and one change for what was missed."""
    async with watched(network, CALM) as monitor:
        changes = monitor.changes()
        generation = monitor.status.generation
        async with becomes_stale(monitor):
            # Nothing comes through while the guests change, so only the resync can tell of them.
            network.proxy.hold()
            how(network.proxy)
        assert monitor.usage.vcpus_used == 2, "frozen"
        assert monitor.status.stale_seconds is not None
        network.start_guest("second", vcpus=3)
        network.start_guest("third", vcpus=4)
        network.proxy.release()
        await network.agrees(monitor)
        assert monitor.status.generation > generation
        change = await resync_change(changes)
        assert (change.before.vcpus_used, change.after.vcpus_used) == (2, 9)
        assert (change.generation, change.detail) == (monitor.status.generation, "reconnected")


async def test_a_half_open_connection_is_noticed_within_the_keepalive_time(
    network: Network,
) -> None:
    """Neither side is told anything: only the unanswered keepalive tells."""
    async with watched(network) as monitor:
        async with becomes_stale(monitor, NOTICED_WITHIN_SECONDS + LATENESS_SECONDS) as frozen:
            network.proxy.silence()
            network.start_guest("second", vcpus=3)
        assert frozen[0].vcpus_used == 2
        await network.agrees(monitor)
        assert monitor.usage.vcpus_used == 5


async def test_a_half_open_connection_is_noticed_in_the_middle_of_reads(network: Network) -> None:
    """A read that is under way when the connection falls silent does not hide the loss."""
    async with watched(network) as monitor:
        network.proxy.hold()
        network.start_guest("second", vcpus=3)
        audit = asyncio.create_task(monitor.audit())
        await asyncio.sleep(0)
        async with becomes_stale(monitor, NOTICED_WITHIN_SECONDS + LATENESS_SECONDS):
            network.proxy.silence()
            network.proxy.release()
        outcome = (await asyncio.gather(audit, return_exceptions=True))[0]
        assert isinstance(outcome, Exception), outcome
        await network.agrees(monitor)


async def test_a_half_open_connection_is_noticed_during_the_resync(network: Network) -> None:
    """Also a connection that falls silent while it is being set up is given up and made anew."""
    settings = replace(SETTINGS, listing_deadline_seconds=2.0)
    monitor = HostMonitor(network.uri, settings=settings)
    network.proxy.hold()
    await monitor.start()
    try:
        await eventually(lambda: network.proxy.accepted >= 2)
        network.proxy.silence()
        network.proxy.release()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await monitor.ready()
        await network.agrees(monitor)
    finally:
        await monitor.aclose()


async def test_delayed_bytes_only_delay(network: Network) -> None:
    """A slow network: the same connection, the same totals, later."""
    async with watched(network, CALM) as monitor:
        generation = monitor.status.generation
        network.proxy.delay_seconds = 0.1
        for number in range(10):
            network.start_guest(f"slow-{number}")
        await network.agrees(monitor)
        assert (monitor.status.generation, monitor.usage.running_vms) == (generation, 11)


async def test_a_pause_shorter_than_keepalive_only_delays(network: Network) -> None:
    """All bytes held for a while and then let go at once: no reconnect, nothing lost."""
    async with watched(network, CALM) as monitor:
        generation = monitor.status.generation
        network.proxy.hold()
        for number in range(200):
            network.start_guest(f"held-{number}")
        assert monitor.usage.running_vms == 1
        network.proxy.release()
        await network.agrees(monitor)
        assert (monitor.status.generation, monitor.usage.running_vms) == (generation, 201)
        assert await monitor.audit() == []


async def test_messages_in_single_bytes_are_put_together(network: Network) -> None:
    """However a message is torn, nothing waits for more of it on the loop."""
    network.proxy.piece_bytes = 1
    async with watched(network, CALM) as monitor:
        for number in range(5):
            network.start_guest(f"torn-{number}")
        await network.agrees(monitor)
        assert monitor.usage.running_vms == 6


async def test_a_connection_that_breaks_at_any_byte_of_its_beginning_is_made_anew(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reset after ever more bytes, until opening, registering, listing and reading get through.

    Meanwhile a guest comes and goes, so that what an earlier attempt has seen is wrong.
    """
    quick = partial(Backoff, initial_seconds=0.001, maximum_seconds=0.01)
    monkeypatch.setattr(source, "Backoff", quick)
    guest = network.start_guest("changing", vcpus=8)
    network.proxy.reset_after_bytes = 0
    monitor = HostMonitor(network.uri, settings=SETTINGS)

    def tried(times: int) -> bool:
        return monitor.status.ready or network.proxy.accepted > times

    await monitor.start()
    try:
        while not monitor.status.ready:
            accepted = network.proxy.accepted
            if guest.isActive():
                guest.destroy()
            else:
                guest.create()
            await eventually(lambda: tried(accepted))  # noqa: B023
            network.proxy.reset_after_bytes += 41
        assert network.proxy.accepted > 20
        assert network.proxy.reset_after_bytes > 500
        network.proxy.reset_after_bytes = None
        await network.agrees(monitor)
        assert await monitor.audit() == []
        assert monitor.status.missing_events == (), "a loss is no lack"
    finally:
        await monitor.aclose()


@pytest.mark.parametrize(
    "how", [Proxy.reset, Proxy.cut, Proxy.silence], ids=["reset", "closed", "half-open"]
)
async def test_a_connection_that_breaks_under_a_workload(
    private_libvirtd: Callable[..., PrivateLibvirtd],
    database: Database,
    seed: int,
    how: Callable[[Proxy], None],
) -> None:
    """QEMU guests change before, meanwhile and afterwards; totals and row are frozen, then true."""
    daemon = private_libvirtd(listen_tcp=True)
    with Proxy(daemon.tcp_port) as proxy:
        uri = daemon.tcp_uri(port=proxy.port)
        async with scene(daemon, database, Workload(daemon, seed), uri=uri) as here:
            await here.acted(4)
            proxy.hold()
            how(proxy)
            frozen = await here.stale()
            await here.acted(4)
            await here.stays_frozen(frozen)
            proxy.release()
            await here.fresh()
            assert here.monitor.status.generation >= 2
            await here.acted(4)


def slow(proxy: Proxy) -> None:
    """A hundred milliseconds there and back."""
    proxy.delay_seconds = 0.05


def torn(proxy: Proxy) -> None:
    """A few bytes at a time."""
    proxy.piece_bytes = 5


def jammed(proxy: Proxy) -> None:
    """Nothing comes through for a moment that is shorter than keepalive."""
    proxy.hold()


@pytest.mark.parametrize("how", [slow, torn, jammed])
async def test_bytes_that_come_late_under_a_workload(
    private_libvirtd: Callable[..., PrivateLibvirtd],
    database: Database,
    seed: int,
    how: Callable[[Proxy], None],
) -> None:
    """Everything takes longer, over the one connection, and ends true."""
    daemon = private_libvirtd(listen_tcp=True, drops_the_silent=False)
    settings = replace(FAULTS, call_deadline_seconds=5.0, keepalive_interval_seconds=60)
    with Proxy(daemon.tcp_port) as proxy:
        uri = daemon.tcp_uri(port=proxy.port)
        async with scene(daemon, database, Workload(daemon, seed), settings, uri=uri) as here:
            how(proxy)
            await here.acted(8)
            proxy.release()
            assert here.monitor.status.fresh
            await here.acted(2)
        assert here.monitor.status.generation == 1
