"""What a reader of the database can tell: "nothing changed" from "nobody watches"."""

import asyncio
import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from asynchost.database import ComputeNodeWriter, WriterSettings, worker
from asynchost.testing import FakeHost
from tests.support.mariadb import Database
from tests.support.waiting import eventually

PAGE = Path(__file__).parents[3] / "docs" / "database.md"
SETTINGS = WriterSettings(quiet_seconds=0, maximum_delay_seconds=0, renewal_interval_seconds=0.05)


def documented_join() -> str:
    (statement,) = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(statement)


def told(database: Database) -> dict[str, dict[str, Any]]:
    """The documented statement's answer, by host."""
    rows = database.execute(documented_join())
    return {row["hypervisor_hostname"]: row for row in rows}


async def test_the_documented_join_tells_idle_from_unwatched(database: Database) -> None:
    """Word for word as it stands in the page: fresh, stale, stopped, silent, never watched."""
    database.insert_node(hypervisor_hostname="nobody's")
    database.insert_node(hypervisor_hostname="gone", deleted=1)
    hosts = {name: FakeHost(name) for name in ("idle", "stale")}
    async with ComputeNodeWriter(database.url, settings=SETTINGS) as writer:
        for host in hosts.values():
            writer.attach(host)
        hosts["idle"].start(vcpus=2, memory_kib=2048)
        await writer.flush()
        hosts["stale"].lose()
        # Long ago by the row's own time; the sign of life is what is young.
        database.execute("UPDATE compute_nodes SET updated_at = '2001-02-03'")
        database.execute("UPDATE asynchost_fence SET seen_at = '2001-02-03', updated_at = seen_at")
        # The first one may have been on its way before the host was lost.
        await eventually(lambda: told(database)["stale"]["state"] == "stale", 30)
        await eventually(
            lambda: all((told(database)[name]["silent_seconds"] or 0) < 180 for name in hosts), 30
        )
        seen = told(database)
        assert set(seen) == {"idle", "stale", "nobody's"}
        assert (seen["idle"]["state"], seen["idle"]["stale_since"]) == ("fresh", None)
        assert (seen["idle"]["vcpus_used"], seen["idle"]["memory_mb_used"]) == (2, 2)
        assert seen["stale"]["state"] == "stale"
        assert seen["stale"]["stale_since"] is not None
        assert (seen["nobody's"]["state"], seen["nobody's"]["silent_seconds"]) == (None, None)
    assert {told(database)[name]["state"] for name in hosts} == {"stopped"}
    database.execute(
        "UPDATE asynchost_fence SET state = 'fresh', seen_at = UTC_TIMESTAMP(6) - INTERVAL 200"
        " SECOND, updated_at = seen_at"
    )
    assert told(database)["idle"]["silent_seconds"] in range(200, 300)


async def test_the_sign_of_life_of_many_hosts_is_renewed_in_turns(database: Database) -> None:
    """More than one statement takes: each host has its turn once an interval, idle or not."""
    settings = replace(SETTINGS, renewal_interval_seconds=0.3)
    async with ComputeNodeWriter(database.url, settings=settings) as writer:
        for number in range(450):
            writer.attach(FakeHost(f"n{number:03}"))
        await writer.flush()
        for _ in range(2):
            before = {fence["node"]: fence["seen_at"] for fence in database.fences()}
            await eventually(
                lambda before=before: all(
                    fence["seen_at"] > before[fence["node"]] for fence in database.fences()
                ),
                30,
            )
        # Not in one moment.
        assert len({fence["seen_at"] for fence in database.fences()}) >= 3


async def test_a_lock_on_one_guard_lets_no_other_host_look_dead(database: Database) -> None:
    """Its own sign of life waits; the others are given, through the same session."""
    settings = replace(SETTINGS, renewal_interval_seconds=0.5)
    async with ComputeNodeWriter(database.url, settings=settings) as writer:
        for number in range(9):
            writer.attach(FakeHost(f"n{number}"))
        await writer.flush()
        session = await database.only_connection()
        with closing(database.connect()) as rival, rival.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT * FROM asynchost_fence WHERE node = 'n4' FOR UPDATE")
            with capture_logs() as logs:
                for _ in range(2):
                    await eventually(lambda: logs, 30)
                    before = {fence["node"]: fence["seen_at"] for fence in database.fences()}
                    logs.clear()
                    await eventually(
                        lambda before=before: (
                            {
                                fence["node"]
                                for fence in database.fences()
                                if fence["seen_at"] == before[fence["node"]]
                            }
                            == {"n4"}
                        ),
                        30,
                    )
            assert {(log["event"], log["host"]) for log in logs} <= {
                ("sign of life not taken", "n4")
            }
            rival.rollback()
        before = {fence["node"]: fence["seen_at"] for fence in database.fences()}
        await eventually(lambda: database.fences()[4]["seen_at"] > before["n4"], 30)
        assert database.connections() == [session]


@pytest.mark.parametrize(
    ("interval", "phase", "least", "most"), [(20.0, 0.01, 0.0, 15.0), (2.0, 0.9, 1.7, 30.0)]
)
async def test_the_first_sign_of_life_comes_at_a_moment_of_its_own(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    interval: float,
    phase: float,
    least: float,
    most: float,
) -> None:
    """Agents that connect together, as after an outage, do not tick together: each draws its
    phase, anew for each connection."""
    monkeypatch.setattr(worker.random, "random", lambda: phase)
    settings = replace(SETTINGS, renewal_interval_seconds=interval, connection_age_seconds=0)
    async with ComputeNodeWriter(database.url, settings=settings) as writer:
        began = asyncio.get_running_loop().time()
        writer.attach(FakeHost("n1"))
        await writer.flush()
        claimed = database.fences()[0]["seen_at"]
        await eventually(lambda: database.fences()[0]["seen_at"] > claimed, 40)
        took = asyncio.get_running_loop().time() - began
    assert least <= took < most
