"""Which sides of a host are put together, and how often; what each says is given here."""

from collections.abc import Mapping
from typing import Any

import pytest

from asynchost import DiskSource, MonitorSettings, Policy
from asynchost.accounting import Counted
from asynchost.database.checkup import NodeRow
from asynchost.database.schema import OWNED_COLUMNS
from asynchost.errors import (
    AmbiguousRowError,
    DatabaseUnavailableError,
    HypervisorUnavailableError,
)
from asynchost.service import comparing
from asynchost.service.accounts import Account, Told
from asynchost.service.comparing import Found, compare
from asynchost.service.config import HostConfig, load
from asynchost.service.credentials import DatabaseCredentials
from tests.unit.service.known import ROW, account

URI = "qemu:///system"
DATABASE = DatabaseCredentials("mysql://me@localhost/nova", None)


class World:
    """What daemons, libvirt and the database say; what was asked of the last two."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.daemons: list[Account] = []
        self.recount: Account | Exception = account(pid=None)
        self.rows: list[Mapping[str, Any] | Exception] = [ROW]
        self.watched: list[MonitorSettings] = []
        self.asked_for: list[Mapping[str, int | None]] = []
        monkeypatch.setattr(comparing, "from_daemons", self._from_daemons)
        monkeypatch.setattr(comparing, "look", self._look)
        monkeypatch.setattr(comparing, "read_rows", self._read_rows)
        monkeypatch.setattr(comparing, "_BETWEEN_LOOKS_SECONDS", 0)

    async def compare(self, host: HostConfig) -> Found:
        """The one host's comparison."""
        (found,) = await compare([(host, MonitorSettings())], DATABASE, {})
        return found

    async def _from_daemons(self, _: str, __: Mapping[str, str]) -> Told:
        return Told(self.daemons, [], [])

    async def _look(
        self, config: HostConfig, settings: MonitorSettings, *, with_disks: bool = False
    ) -> Account:
        assert with_disks, "the row holds what they may still take"
        self.watched.append(config.settings(settings))
        if isinstance(self.recount, Exception):
            raise self.recount
        return self.recount

    async def _read_rows(self, _: str, services: Mapping[str, int | None], **__: Any) -> Any:
        self.asked_for.append(services)
        # The last one stays.
        row = self.rows.pop(0) if len(self.rows) > 1 else self.rows[0]
        if isinstance(row, Exception):
            raise row
        return {name: NodeRow(7, dict(row)) for name in services}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """One in which all sides agree, and no daemon runs."""
    return World(monkeypatch)


async def test_sides_that_agree_are_looked_at_once(world: World) -> None:
    """There is nothing to wait for."""
    comparison, differing = await world.compare(HostConfig(URI))
    assert (list(comparison.sides), differing) == (["recount", "row 7"], frozenset())
    assert len(world.watched) == 1


async def test_only_what_differs_at_every_look_differs(world: World) -> None:
    """On a busy host a row is behind for a moment; three looks are the most."""
    world.rows = [{**ROW, "vcpus_used": 1, "running_vms": 1}, {**ROW, "running_vms": 1}, ROW]
    assert (await world.compare(HostConfig(URI)))[1] == frozenset()
    world.watched.clear()
    world.rows = [{**ROW, "vcpus_used": 1, "running_vms": 1}, {**ROW, "running_vms": 1}]
    assert (await world.compare(HostConfig(URI)))[1] == {"running_vms"}
    assert len(world.watched) == 3


async def test_a_recount_counts_as_the_daemon_does(world: World) -> None:
    """But for what was asked for, be it the default; so for the service id."""
    settings = MonitorSettings(
        policy=Policy(count=Counted.DEFINED, reserved_vcpus=2), instances_path="/srv"
    )
    world.daemons = [account(settings=settings, service_id=3)]
    for options in (
        {},
        {"service-id": ["9"]},
        {"reserved-vcpus": ["0"]},
        {"count": ["active"], "disk": ["none"]},
        {"instances-path": ["/tmp"]},
    ):
        await world.compare(*load({"connect": [URI], **options}).run.hosts)
    assert [
        (one.policy.count, one.policy.reserved_vcpus, one.disk, one.instances_path)
        for one in world.watched
    ] == [
        (Counted.DEFINED, 2, None, "/srv"),
        (Counted.DEFINED, 2, None, "/srv"),
        (Counted.DEFINED, 0, None, "/srv"),
        (Counted.ACTIVE, 2, DiskSource.NONE, "/srv"),
        (Counted.DEFINED, 2, None, "/tmp"),
    ]
    assert world.asked_for == [{"node1": service} for service in (3, 9, 3, 3, 3)]


async def test_the_daemon_meant_is_the_one_of_that_name(world: World) -> None:
    """A host can be watched under two; of two daemons of one name, the one that has a row."""
    standby, writer = account(row_id=None, pid=1), account(pid=2)
    named = account(host="rack1", name="rack1", pid=3)
    world.daemons = [standby, named, writer]
    assert (await world.compare(HostConfig(URI)))[0].daemon is writer
    assert (await world.compare(HostConfig(URI, name="rack1")))[0].daemon is named
    world.daemons = [named]
    assert (await world.compare(HostConfig(URI)))[0].daemon is named
    assert (await world.compare(HostConfig(URI, name="rack2")))[0].daemon is None


async def test_a_name_that_the_host_took_later_is_not_followed(world: World) -> None:
    """The row has the name that the daemon began with."""
    world.daemons = [account(name="node1")]
    world.recount = account(name="renamed", row={**ROW, "hypervisor_hostname": "renamed"})
    assert (await world.compare(HostConfig(URI)))[1] == {"hypervisor_hostname"}
    assert world.asked_for[0] == {"node1": None}


@pytest.mark.parametrize(
    "error", [AmbiguousRowError("node1", [(1, 1)]), DatabaseUnavailableError("db", None, "away")]
)
async def test_a_row_that_cannot_be_had_is_told(world: World, error: Exception) -> None:
    """And not taken for one that is missing, in which all would differ."""
    world.rows = [error]
    comparison, differing = await world.compare(HostConfig(URI))
    assert (differing, list(comparison.problems)) == (frozenset(), ["row"])


async def test_a_host_that_is_away_has_its_other_sides(world: World) -> None:
    """The reason is told, and the daemon's numbers are compared with the row."""
    world.daemons, world.recount = [account()], HypervisorUnavailableError(URI, "no socket")
    world.rows = [{**ROW, "vcpus": 1}]
    comparison, differing = await world.compare(HostConfig(URI))
    assert (comparison.problems, differing) == ({"recount": f"{URI}: no socket"}, {"vcpus"})
    world.daemons = []
    comparison, differing = await world.compare(HostConfig(URI))
    assert (comparison.host, differing, comparison.sides) == (URI, frozenset(), {})
    assert list(comparison.problems) == ["recount", "row"]
    named = (await world.compare(HostConfig(URI, name="node1")))[0]
    assert (list(named.sides), list(named.problems)) == (["row 7"], ["recount"])


async def test_what_another_users_daemon_names_is_not_opened(world: World) -> None:
    """A URI can run a command: as this user, if it were opened."""
    uri = "qemu+ext:///system?command=/tmp/x"
    world.daemons = [account(host=uri, uri=uri, user=0xFFFE)]
    comparison, differing = await world.compare(HostConfig(uri))
    assert (world.watched, differing) == ([], frozenset())
    assert "asynchost diff" in comparison.problems["recount"]


async def test_a_host_in_its_daemons_process_is_not_recounted(world: World) -> None:
    """Whoever opens its URI sees another one."""
    uri = "test:///default"
    world.daemons = [account(host=uri, uri=uri)]
    comparison, differing = await world.compare(HostConfig(uri))
    assert (world.watched, differing, comparison.problems) == ([], frozenset(), {})
    assert set(comparison.sides) == {"daemon", "row 7"}
    assert set(OWNED_COLUMNS) == set(ROW)
