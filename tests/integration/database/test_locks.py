"""Rows that somebody else has locked for long: nobody else notices, and they are written after."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from asynchost.database import ComputeNodeWriter, WhenFenced, WriterSettings
from asynchost.testing import FakeHost
from tests.support.mariadb import Database
from tests.support.waiting import eventually

SETTINGS = WriterSettings(
    quiet_seconds=0,
    maximum_delay_seconds=0,
    backoff_initial_seconds=0.1,
    renewal_interval_seconds=1.0,
)
FEW_SECONDS = 20.0
"""Each of many locks would be waited for a second: so this ends a test in which they are."""


@asynccontextmanager
async def locked(database: Database, *statements: str) -> AsyncIterator[None]:
    """A rival's transaction that holds the locks of these statements, rolled back at the end."""
    rival = database.connect()
    try:
        with rival.cursor() as cursor:
            # Else it locks all that the server looks at, and the gaps between the rows.
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            cursor.execute("BEGIN")
            for statement in statements:
                cursor.execute(statement)
        yield
    finally:
        rival.rollback()
        rival.close()


async def used(database: Database, name: str) -> object:
    """What the row of the host ``name`` says; asked in a thread, the writer runs meanwhile."""
    row = await asyncio.to_thread(database.row, f"hypervisor_hostname = '{name}'")
    return row["vcpus_used"]


async def assert_each_change_is_written(
    database: Database, host: FakeHost, changes: int = 5
) -> None:
    """Of a host whose row nobody has locked."""

    async def is_written() -> bool:
        return await used(database, host.host) == host.usage.vcpus_used

    for _ in range(changes):
        host.start()
        await eventually(is_written, FEW_SECONDS)


async def assert_signs_move(database: Database, where: str = "TRUE", times: int = 3) -> None:
    """The signs of life of these guards, each so many times."""
    signs = f"SELECT node, seen_at FROM asynchost_fence WHERE {where}"
    for _ in range(times):
        before = await asyncio.to_thread(database.execute, signs)

        async def have_moved(before: Sequence[dict[str, object]] = before) -> bool:
            now = await asyncio.to_thread(database.execute, signs)
            return all(
                new["seen_at"] > old["seen_at"]  # type: ignore[operator]
                for new, old in zip(now, before, strict=True)
            )

        await eventually(have_moved, FEW_SECONDS)


@pytest.mark.parametrize("count", [1, 20, 200])
async def test_locked_rows_hold_up_no_other_row_and_no_sign_of_life(
    database: Database, count: int
) -> None:
    """They are skipped, and written by themselves when the locks are gone."""
    hosts = [FakeHost(f"n{number:03}") for number in range(count)]
    good, quiet = FakeHost("good"), FakeHost("quiet")
    async with ComputeNodeWriter(database.url, settings=SETTINGS) as writer:
        for host in (*hosts, good, quiet):
            writer.attach(host)
        await writer.flush()
        ids = [row["id"] for row in database.rows("hypervisor_hostname LIKE 'n%'")]
        lock = f"SELECT * FROM compute_nodes WHERE id IN ({', '.join(map(str, ids))}) FOR UPDATE"
        async with locked(database, lock):
            for number, host in enumerate(hosts):
                host.start(vcpus=1)
                if number % 2:
                    # Other columns: in another statement.
                    host.set_disk(None)
            await assert_each_change_is_written(database, good)
            await assert_signs_move(database)
            for host in hosts:
                host.start(vcpus=2)
            await assert_each_change_is_written(database, good)
            assert {row["vcpus_used"] for row in database.rows(f"id = {ids[0]}")} == {0}
        await eventually(
            lambda: [row["vcpus_used"] for row in database.rows(f"id = {ids[0]}")] == [3],
            FEW_SECONDS,
        )
        await writer.flush()
        assert {row["vcpus_used"] for row in database.rows("hypervisor_hostname LIKE 'n%'")} == {3}


async def test_locked_guards_hold_up_no_other_row_and_no_other_sign_of_life(
    database: Database,
) -> None:
    """Ten of two hundred; their own signs are given as soon as the locks are gone."""
    hosts = [FakeHost(f"n{number:03}") for number in range(200)]
    async with ComputeNodeWriter(database.url, settings=SETTINGS) as writer:
        for host in hosts:
            writer.attach(host)
        await writer.flush()
        ids = ", ".join(str(row["id"]) for row in database.rows()[::20])
        async with locked(
            database, f"SELECT * FROM asynchost_fence WHERE cn_id IN ({ids}) FOR UPDATE"
        ):
            await assert_signs_move(database, f"cn_id NOT IN ({ids})")
            await assert_each_change_is_written(database, hosts[1])
            await assert_signs_move(database, f"cn_id NOT IN ({ids})")
        await assert_signs_move(database, times=1)


async def test_a_standby_takes_nothing_from_an_owner_that_meets_locks(database: Database) -> None:
    """For ten of its intervals: three would be enough to take it for dead."""
    settings = replace(SETTINGS, when_fenced=WhenFenced.WAIT)
    hosts = [FakeHost(f"n{number:02}") for number in range(20)]
    good = FakeHost("good")
    async with ComputeNodeWriter(database.url, settings=settings) as standby:
        for host in hosts:
            standby.attach(FakeHost(host.host))
        standby.attach(FakeHost("good"))
        await standby.flush()
        async with ComputeNodeWriter(database.url, settings=settings) as owner:
            for host in (*hosts, good):
                owner.attach(host)
            await owner.flush()
            await eventually(lambda: standby.status.standing_by == 21, FEW_SECONDS)
            ids = ", ".join(
                str(row["id"]) for row in database.rows("hypervisor_hostname LIKE 'n%'")
            )
            async with locked(
                database, f"SELECT * FROM compute_nodes WHERE id IN ({ids}) FOR UPDATE"
            ):
                for host in hosts:
                    host.start()
                await assert_signs_move(database, times=10)
                assert (owner.status.owned, standby.status.owned) == (21, 0)


@pytest.mark.parametrize("table", ["compute_nodes", "asynchost_fence"])
async def test_a_claim_leaves_out_what_is_locked_and_claims_the_rest(
    database: Database, table: str
) -> None:
    """In one transaction that waits for none of the locks; the rest is claimed afterwards."""
    names = [f"n{number:02}" for number in range(40)]
    async with ComputeNodeWriter(database.url, settings=SETTINGS) as first:
        for name in names:
            first.attach(FakeHost(name))
        await first.flush()
    column = "id" if table == "compute_nodes" else "cn_id"
    ids = ", ".join(str(row["id"]) for row in database.rows()[::2])
    good = FakeHost("good")
    async with ComputeNodeWriter(database.url, settings=SETTINGS) as writer:
        writer.attach(good)
        await writer.flush()
        async with locked(database, f"SELECT * FROM {table} WHERE {column} IN ({ids}) FOR UPDATE"):
            for name in names:
                writer.attach(FakeHost(name))
            await eventually(lambda: writer.status.owned == 21, FEW_SECONDS)
            await assert_each_change_is_written(database, good)
            assert writer.status.owned == 21
        await eventually(lambda: writer.status.owned == 41, FEW_SECONDS)
        await writer.flush()


async def test_a_locked_table_is_waited_out_on_the_same_connection(database: Database) -> None:
    """No statement is abandoned, so no session piles up; the row is written when it goes."""
    host = FakeHost("n1")
    async with ComputeNodeWriter(database.url, settings=SETTINGS) as writer:
        writer.attach(host)
        await writer.flush()
        session = await database.only_connection()
        rival = database.connect()
        with rival.cursor() as cursor:
            cursor.execute("LOCK TABLES compute_nodes WRITE")
            host.start()
            for _ in range(3):
                seen = await asyncio.to_thread(_seen_at, database)
                await eventually(lambda seen=seen: _seen_at(database) > seen, FEW_SECONDS)
            cursor.execute("UNLOCK TABLES")
        rival.close()
        await eventually(lambda: database.row()["vcpus_used"] == 1, FEW_SECONDS)
        assert database.connections() == [session]


def _seen_at(database: Database) -> object:
    (guard,) = database.execute("SELECT seen_at FROM asynchost_fence")
    return guard["seen_at"]
