"""libvirt's test driver behind a real libvirtd: silent changes, and very many events.

What it changes without an event (memory, vCPUs) changes at once, and it starts hundreds of
guests a second: audits and storms are tested with it.
"""

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import libvirt
import pytest

from asynchost import Drift, HostMonitor, Usage
from asynchost.accounting import DOMAIN_0_UUID
from tests.integration.pipeline import (
    EVENTS_ONLY,
    NO_SECOND_LOOK,
    Pipeline,
    monitor_agrees,
    pipeline,
)
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mariadb import Database
from tests.support.recount import Totals
from tests.support.waiting import eventually, eventually_equal


def silent_guest(name: str) -> str:
    """A guest with room for more memory and more vCPUs."""
    return guests.guest_xml(
        name, vcpus=1, max_vcpus=8, memory_kib=4096, max_memory_kib=65536, kind="test"
    )


async def test_an_audit_returns_what_changed_in_silence(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, database: Database
) -> None:
    """Memory and vCPUs of several guests: each difference is one record, and then there is none."""
    first, second, third = (
        guests.start(test_connection, silent_guest(name)) for name in ("a", "b", "c")
    )
    async with pipeline(libvirtd.uri("test"), database) as host:
        await host.agrees(Totals(3, 12, 3, 0))
        first.setMemory(65536)
        second.setMemory(2048)
        second.setVcpus(8)
        found = {
            (drift.domain_name, drift.field): (drift.uuid, drift.before, drift.after)
            for drift in await host.monitor.audit()
        }
        assert found == {
            ("a", "memory_kib"): (first.UUIDString(), 4096, 65536),
            ("b", "memory_kib"): (second.UUIDString(), 4096, 2048),
            ("b", "vcpus"): (second.UUIDString(), 1, 8),
        }
        await host.agrees(Totals(10, 70, 3, 0))
        assert await host.monitor.audit() == []
        assert host.monitor.status.drift == 3
    del first, second, third


async def test_xens_domain_0_is_read_again_at_every_event_of_its_host(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes room for a guest without an event of its own. Xen does not run here: this is the
    test driver under its name, with a domain that has Domain-0's UUID."""
    monkeypatch.setattr(libvirt.virConnect, "getType", lambda _: "Xen")
    sizes = {"memory_kib": 65536, "max_memory_kib": 65536}
    xml = guests.guest_xml("Domain-0", uuid=DOMAIN_0_UUID, vcpus=4, kind="test", **sizes)
    domain_0 = guests.start(test_connection, xml)
    guest = guests.start(test_connection, silent_guest("guest"))
    async with HostMonitor(libvirtd.uri("test"), settings=NO_SECOND_LOOK) as monitor:
        assert monitor.usage == Usage(1, 65536 + 4096, 1, 0)
        domain_0.setMemory(32768)
        guest.suspend()
        await eventually_equal(lambda: monitor.usage, Usage(1, 32768 + 4096, 1, 0))
    del domain_0, guest


async def test_a_connect_learns_by_one_call_why_domains_are_paused(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event or an audit asks each by itself, and finds the same."""
    asked: list[str] = []
    state = libvirt.virDomain.state

    def counted(domain: libvirt.virDomain) -> list[int]:
        asked.append(domain.name())
        return state(domain)

    monkeypatch.setattr(libvirt.virDomain, "state", counted)
    paused = [guests.start(test_connection, silent_guest(f"paused-{n}")) for n in range(3)]
    for domain in paused:
        domain.suspend()
    async with HostMonitor(libvirtd.uri("test"), settings=EVENTS_ONLY) as monitor:
        assert monitor.usage.running_vms == 3
        assert asked == []
        assert await monitor.audit() == []
        assert sorted(asked) == ["paused-0", "paused-1", "paused-2"]
    del paused, domain


async def test_the_periodic_audit_corrects_the_row_within_its_interval(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, database: Database
) -> None:
    """Each silent change is in the row one interval later at the latest, time and again."""
    guest = guests.start(test_connection, silent_guest("a"))
    settings = replace(EVENTS_ONLY, audit_interval_seconds=0.3)
    async with pipeline(libvirtd.uri("test"), database, settings) as host:
        await host.agrees(Totals(1, 4, 1, 0))
        for number in range(2, 6):
            guest.setVcpus(number)
            guest.setMemory(number * 8192)
            await host.agrees(Totals(number, number * 8, 1, 0))
        assert host.monitor.status.drift == 8


async def test_memory_is_floored_once_over_the_sum(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, database: Database
) -> None:
    """Three times 1.5 MiB are 4 MiB, not 3 and not 6."""
    async with pipeline(libvirtd.uri("test"), database) as host:
        for name in "abc":
            xml = guests.guest_xml(name, memory_kib=1536, kind="test")
            await asyncio.to_thread(guests.start, test_connection, xml)
        await host.agrees(Totals(3, 4, 3, 0))
        assert host.monitor.usage.memory_kib_used == 4608


async def test_a_guest_made_anew_with_its_uuid_counts_as_it_is_now(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, database: Database
) -> None:
    """Destroyed, undefined, defined with the same UUID and another size: one guest, the new one."""
    uuid = guests.new_uuid()
    async with pipeline(libvirtd.uri("test"), database) as host:
        for vcpus in (1, 4, 2):

            def remake(count: int = vcpus) -> None:
                guests.remove_all(test_connection)
                xml = guests.guest_xml(f"g{count}", uuid, vcpus=count, kind="test")
                guests.start(test_connection, xml)

            await asyncio.to_thread(remake)
            await host.agrees(Totals(vcpus, 16, 1, 0))


class Generator:
    """Starts, ends, saves, defines and undefines guests at random, as fast as libvirtd lets it.

    Runs in a thread of its own over a connection of its own; the same seed does the same things
    in the same order.
    """

    def __init__(self, uri: str, seed: int, *, guest_count: int) -> None:
        self.uri = uri
        self.seed = seed
        self.actions = 0
        self.stopping = threading.Event()
        self._random = random.Random(seed)
        self._uuids = [
            f"5eed{seed & 0xFFFF:04x}-0000-4000-8000-{number:012x}" for number in range(guest_count)
        ]
        self._failure: BaseException | None = None

    def run(self, limit: int | None = None) -> None:
        """Act until told to stop, or ``limit`` times."""
        connection = libvirt.open(self.uri)
        try:
            while not self.stopping.is_set() and self.actions != limit:
                self._act(connection, self._random.choice(self._uuids))
                self.actions += 1
        except BaseException as error:
            self._failure = error
        finally:
            connection.close()

    def _act(self, connection: libvirt.virConnect, uuid: str) -> None:
        pick = self._random
        try:
            domain = connection.lookupByUUIDString(uuid)
        except libvirt.libvirtError:
            xml = guests.guest_xml(
                f"{self.seed}-{uuid[-6:]}",
                uuid,
                vcpus=pick.randint(1, 8),
                memory_kib=pick.randint(1, 64) * 1000,
                kind="test",
            )
            if pick.random() < 0.5:
                connection.createXML(xml)
            else:
                connection.defineXML(xml)
            return
        if not domain.isActive():
            pick.choice((domain.create, domain.create, domain.undefine))()
        elif domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
            pick.choice((domain.resume, domain.destroy))()
        elif domain.isPersistent():
            pick.choice((domain.destroy, domain.suspend, domain.reboot, domain.undefine))()
        else:
            pick.choice((domain.destroy, domain.suspend))()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Act beside the block, until its end."""
        thread = threading.Thread(target=self.run, name="generator")
        thread.start()
        try:
            yield
        finally:
            self.stopping.set()
            thread.join()
        self.check()

    def check(self) -> None:
        """Raise what went wrong in the generator itself."""
        if self._failure is not None:
            raise AssertionError(f"the generator failed, seed {self.seed}") from self._failure


@pytest.fixture
def seed() -> int:
    """A fresh seed for each run; every failure's text holds it."""
    return random.SystemRandom().randrange(2**32)


async def test_hundreds_of_guests_started_and_destroyed(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, database: Database
) -> None:
    """500 guests come and go as fast as libvirtd makes them; the totals are right at both ends."""

    def start_all() -> None:
        for number in range(500):
            xml = guests.guest_xml(
                f"g{number}", vcpus=1 + number % 4, memory_kib=1000 + number, kind="test"
            )
            guests.start(test_connection, xml, persistent=number % 2 == 0)

    async with pipeline(libvirtd.uri("test"), database, NO_SECOND_LOOK) as host:
        await asyncio.to_thread(start_all)
        await host.agrees(Totals(1250, (500 * 1000 + 499 * 250) // 1024, 500, 0))
        assert host.monitor.status.events >= 500
        await asyncio.to_thread(guests.remove_all, test_connection)
        await host.agrees(Totals(0, 0, 0, 0))
        await no_drift(host)


async def test_a_random_workload_ends_in_right_totals(
    libvirtd: PrivateLibvirtd,
    test_connection: libvirt.virConnect,
    database: Database,
    seed: int,
) -> None:
    """Whatever happened in whatever order: right by events alone, and an audit agrees."""
    generators = [Generator(libvirtd.uri("test"), seed + n, guest_count=40) for n in range(2)]
    async with pipeline(libvirtd.uri("test"), database, NO_SECOND_LOOK) as host:
        await asyncio.gather(*(asyncio.to_thread(one.run, 800) for one in generators))
        for one in generators:
            one.check()
        await host.agrees(describe=f"totals after a random workload, seed {seed}")
        await no_drift(host, f"seed {seed}")


async def test_no_event_is_lost_during_a_resync(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, seed: int
) -> None:
    """Connecting in the middle of a storm, over and over: listing and events leave no gap."""
    for attempt in range(8):
        # So many guests that hardly one has a second event, which would make up for a lost one.
        generator = Generator(libvirtd.uri("test"), seed + attempt, guest_count=20_000)
        monitor = HostMonitor(libvirtd.uri("test"), settings=NO_SECOND_LOOK)
        try:
            with generator.running():
                await eventually(lambda: generator.actions > 20)  # noqa: B023
                await monitor.start()
                await monitor.ready()
                begun = generator.actions
                await eventually(lambda: generator.actions > begun + 20)  # noqa: B023
            describe = f"totals after a resync, seed {generator.seed}"
            await monitor_agrees(monitor, test_connection, describe)
            assert await monitor.audit() == [], describe
        finally:
            await monitor.aclose()
        await asyncio.to_thread(guests.remove_all, test_connection)


async def test_an_audit_in_the_middle_of_a_storm_does_no_harm(
    libvirtd: PrivateLibvirtd,
    test_connection: libvirt.virConnect,
    database: Database,
    seed: int,
) -> None:
    """What it reads may be old by then; the totals end right all the same."""
    generator = Generator(libvirtd.uri("test"), seed, guest_count=60)
    async with pipeline(libvirtd.uri("test"), database, NO_SECOND_LOOK) as host:
        with generator.running():
            for _ in range(10):
                begun = generator.actions
                await eventually(lambda: generator.actions > begun + 20)  # noqa: B023
                await host.monitor.audit()
        await host.agrees(describe=f"totals after audits in a storm, seed {seed}")
        await no_drift(host, f"seed {seed}")


async def no_drift(host: Pipeline, describe: str = "") -> None:
    """An audit that finds nothing: every record is right, not only their sum."""
    found: list[Drift] = await host.monitor.audit()
    assert found == [], describe


async def test_audits_beside_events_that_all_come_find_no_drift(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> None:
    """A listing knows of a start a moment before its event comes: nothing was lost."""
    ended = threading.Event()

    def churn() -> None:
        with libvirtd.connection("test") as connection:
            while not ended.is_set():
                guest = guests.start(
                    connection, guests.guest_xml("g", kind="test"), persistent=False
                )
                guest.destroy()

    thread = threading.Thread(target=churn)
    async with HostMonitor(libvirtd.uri("test"), settings=EVENTS_ONLY) as monitor:
        thread.start()
        try:
            for _ in range(250):
                assert await monitor.audit() == []
        finally:
            ended.set()
            await asyncio.to_thread(thread.join)
        assert monitor.status.events > 250
        assert monitor.status.drift == 0
