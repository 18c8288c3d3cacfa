"""When domains are asked whether a migration copies them. Real migrations are a group of tests."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import libvirt
import pytest

from asynchost.errors import CallTimeoutError, HypervisorUnavailableError
from asynchost.hypervisor.migration_watch import Jobs, MigrationWatch
from asynchost.hypervisor.side_connection import Hang, SideConnection
from asynchost.settings import MonitorSettings

SETTINGS = MonitorSettings(audit_interval_seconds=60)
OLD, NEW = 9_000_000, 12_008_000


class Scripted(SideConnection):
    """A host whose domains are copied, or hang, as a test says."""

    def __init__(self, version: int) -> None:
        super().__init__("qemu:///system", SETTINGS)
        self.version = version
        self.copied: set[str] = set()
        self.mute: set[str] = set()
        self.lost = False
        self.asked: list[str] = []
        self.held: list[Hang] = []

    @property
    def hanging(self) -> list[Hang]:
        """See the base."""
        return list(self.held)

    async def ask(
        self,
        subject: str,
        name: str,
        call: Callable[[libvirt.virConnect], Any],
        deadline_seconds: float,
        about: object = None,
    ) -> Any:
        """See the base."""
        del subject
        assert isinstance(call, Jobs)
        if self.lost:
            raise HypervisorUnavailableError("qemu:///system", "it is away")
        call.libvirt_version = self.version
        for uuid in call._uuids:
            call.asked = uuid
            self.asked.append(uuid)
            if uuid in self.mute:
                self.held.append(Hang(None, about))  # type: ignore[arg-type]
                raise CallTimeoutError("qemu:///system", name, deadline_seconds)
            call.copied[uuid] = uuid in self.copied


class Scene:
    """A watch, what it asks, and what it tells."""

    def __init__(self, counted: Iterable[str] = (), version: int = OLD) -> None:
        self.moved: list[str] = []
        self.counted = list(counted)
        self.host = Scripted(version)
        self.watch = MigrationWatch(
            "qemu:///system", SETTINGS, self.moved.append, lambda: self.counted, host="h"
        )
        self.watch._connection = self.host

    async def runs(self, seconds: float) -> list[str]:
        """Let the watch run for so long; the domains that it asked meanwhile."""
        self.host.asked.clear()
        task = asyncio.ensure_future(self.watch.run())
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return self.host.asked


@pytest.mark.looptime
async def test_each_counted_domain_is_asked_once() -> None:
    """A migration may have begun before the connection did."""
    scene = Scene("abc")
    scene.host.copied = {"b"}
    asked = await scene.runs(0.5)
    assert asked == ["a", "b", "c"]
    assert scene.moved == ["b"]
    assert [scene.watch.copies(uuid) for uuid in "abc"] == [False, True, False]


@pytest.mark.looptime
async def test_a_domain_that_is_copied_is_asked_every_second_until_it_is_not() -> None:
    """Nothing else tells of the end of a migration that was cancelled."""
    scene = Scene("a")
    scene.host.copied = {"a"}
    task = asyncio.ensure_future(scene.watch.run())
    await asyncio.sleep(3.5)
    assert scene.host.asked == ["a"] * 4
    scene.host.copied = set()
    await asyncio.sleep(1)
    assert scene.moved == ["a", "a"]
    assert not scene.watch.copies("a")
    await asyncio.sleep(600)
    assert scene.host.asked == ["a"] * 5
    scene.watch.begun("a")
    scene.host.copied = {"a"}
    await asyncio.sleep(0.1)
    assert scene.watch.copies("a")
    scene.watch.ended("a")
    scene.counted.clear()
    await asyncio.sleep(10)
    assert scene.host.asked[5:] == ["a"]
    task.cancel()


@pytest.mark.looptime
@pytest.mark.parametrize(("version", "rounds"), [(OLD, 1), (11_003_000, 1), (NEW, 3)])
async def test_where_no_event_may_come_each_domain_is_asked_in_each_audit_interval(
    version: int, rounds: int
) -> None:
    """libvirt 12.8 sends none at the start of a migration."""
    scene = Scene("ab", version)
    assert await scene.runs(150) == ["a", "b"] * rounds


@pytest.mark.looptime
async def test_without_audits_no_domain_is_asked_again() -> None:
    """Whoever wants no audit wants no other rounds either."""
    scene = Scene("ab", NEW)
    scene.watch._settings = replace(SETTINGS, audit_interval_seconds=0)
    assert await scene.runs(600) == ["a", "b"]


@pytest.mark.looptime
async def test_a_domain_that_hangs_is_left_out_and_the_others_are_asked() -> None:
    """It stays what it was; when two hang, nobody is asked until one has answered."""
    scene = Scene("abcde")
    scene.host.copied = set("ae")
    scene.host.mute = {"b"}
    assert await scene.runs(0.5) == list("abcde")
    assert scene.moved == ["a", "e"]
    scene.host.mute = {"b", "e"}
    assert (await scene.runs(5))[-1] == "e"
    assert scene.watch.copies("e")
    assert await scene.runs(5) == []
    scene.host.mute, scene.host.copied = {"b"}, {"a"}
    scene.host.held.pop()
    assert set(await scene.runs(5)) == set("acde")
    assert not scene.watch.copies("e")


@pytest.mark.looptime
async def test_a_host_that_is_away_is_no_end_of_a_migration() -> None:
    """What is known stays until the host is there again."""
    scene = Scene()
    scene.watch.begun("a")
    scene.host.lost = True
    await scene.runs(5)
    assert scene.watch.copies("a")
    scene.watch.forget()
    assert not scene.watch.copies("a")


@pytest.mark.looptime
async def test_domains_that_could_not_be_asked_are_asked_later() -> None:
    """At libvirtd's client limit there may be no connection for it at first."""
    scene = Scene("a")
    scene.host.lost, scene.host.copied = True, {"a"}
    task = asyncio.ensure_future(scene.watch.run())
    await asyncio.sleep(10)
    scene.host.lost = False
    await asyncio.sleep(30)
    assert scene.moved == ["a"]
    task.cancel()


def test_a_driver_that_tells_of_no_job_has_no_migration() -> None:
    """So has a domain that is gone; a given-up turn asks nobody."""
    connection = libvirt.openReadOnly("test:///default")
    try:
        (domain,) = connection.listAllDomains()
        uuid = domain.UUIDString()
        del domain
        jobs = Jobs([uuid, "00000000-0000-0000-0000-000000000001"])
        jobs(connection)
        assert list(jobs.copied.values()) == [False, False]
        assert jobs.libvirt_version == connection.getLibVersion()
        given_up = Jobs([uuid])
        given_up.given_up = True
        given_up(connection)
        assert given_up.copied == {}
    finally:
        connection.close()
