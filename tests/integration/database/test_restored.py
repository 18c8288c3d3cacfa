"""A database that is older than what it acknowledged: got out of without a person."""

import asyncio
from contextlib import closing
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from asynchost.database import (
    ComputeNodeWriter,
    OnForeignEdit,
    WriterSettings,
    apply_schema,
)
from asynchost.database.rows import RowEncoder, named
from asynchost.testing import FakeHost
from tests.support.mariadb import Database, PrivateServer
from tests.support.waiting import eventually

SETTINGS = WriterSettings(
    quiet_seconds=0,
    maximum_delay_seconds=0,
    backoff_initial_seconds=0.02,
    backoff_maximum_seconds=0.1,
    renewal_interval_seconds=0.1,
)
TABLES = ("compute_nodes", "asynchost_fence")


def is_true(database: Database, host: FakeHost) -> bool:
    """Whether there is one live row, which holds what the host is, and one guard that names it."""
    (row,) = database.rows("deleted = 0") or [{}]
    fences = [fence for fence in database.fences() if fence["cn_id"] == row.get("id")]
    values = named(RowEncoder().encode(host.snapshot()))
    return len(fences) == 1 and {column: row[column] for column in values} == values


def back_up(database: Database) -> None:
    for table in TABLES:
        database.execute(f"CREATE TABLE saved_{table} AS SELECT * FROM {table}")


def restore(database: Database, tables: tuple[str, ...]) -> None:
    """All at once, as a database that was away meanwhile shows it."""
    connection = database.connect()
    try:
        with connection.cursor() as cursor:
            cursor.execute("BEGIN")
            for table in tables:
                cursor.execute(f"DELETE FROM {table}")
                cursor.execute(f"INSERT INTO {table} SELECT * FROM saved_{table}")
            cursor.execute("COMMIT")
    finally:
        connection.close()


@pytest.mark.parametrize("policy", list(OnForeignEdit))
@pytest.mark.parametrize("owner", ["same", "another"])
@pytest.mark.parametrize(
    "tables", [TABLES[:1], TABLES[1:], TABLES], ids=["rows only", "guards only", "both"]
)
async def test_a_restored_backup_is_made_true_again(
    database: Database, tables: tuple[str, ...], owner: str, policy: OnForeignEdit
) -> None:
    """On an idle host, by the read-back; from the same owner's time or from one before."""
    settings = replace(SETTINGS, on_foreign_edit=policy)
    host = FakeHost("n1")
    async with ComputeNodeWriter(database.url, settings=settings) as writer:
        attachment = writer.attach(host)
        host.start(vcpus=2)
        await writer.flush()
        database.execute(
            "UPDATE compute_nodes, asynchost_fence SET compute_nodes.updated_at = '2001-02-03',"
            " asynchost_fence.updated_at = '2001-02-03'"
        )
        if owner == "another":
            database.execute("UPDATE asynchost_fence SET owner = 'before', term = 0")
        back_up(database)
        if owner == "another":
            await eventually(lambda: attachment.term == 2, 30)
        host.start(vcpus=3)
        await writer.flush()
        for number in range(2):
            restore(database, tables)
            await eventually(lambda: is_true(database, host), 30, f"restored {number} times")
        host.start(vcpus=1)
        await writer.flush()
        assert is_true(database, host)
        assert attachment.error is None


async def test_a_backup_from_before_the_rows_time_is_no_end(database: Database) -> None:
    """Both tables empty again: the row is made anew, once."""
    host = FakeHost("n1")
    back_up(database)
    async with ComputeNodeWriter(database.url, settings=SETTINGS) as writer:
        writer.attach(host)
        host.start(vcpus=2)
        await writer.flush()
        for tables in (TABLES, TABLES[:1]):
            restore(database, tables)
            await eventually(lambda: database.rows() and is_true(database, host), 30)
        assert len(database.rows()) == 1


async def test_a_failover_to_a_replica_that_lags_loses_nothing() -> None:
    """Rows and guards there are older than what was acknowledged; an older owner's, even."""
    host = FakeHost("n1")
    async with PrivateServer() as first, PrivateServer() as second:
        servers = []
        for server in (first, second):
            Database(server, "mysql").execute("CREATE DATABASE nova")
            servers.append(Database(server, "nova"))
            await apply_schema(servers[-1].url)
        door = first.folder / "door"
        door.symlink_to(first.socket)
        url = servers[0].url.replace(str(first.socket), str(door))
        async with ComputeNodeWriter(url, settings=SETTINGS) as before:
            before.attach(host)
            await before.flush()
            # What has been replicated by now.
            await asyncio.to_thread(replicate, *servers)
        async with ComputeNodeWriter(url, settings=SETTINGS) as writer:
            attachment = writer.attach(host)
            host.start(vcpus=4)
            await writer.flush()
            assert attachment.term == 2
            with capture_logs() as logs:
                door.unlink()
                door.symlink_to(second.socket)
                await first.kill()
                await eventually(lambda: is_true(servers[1], host), 30)
            assert "row or guard gone, claiming again" in [log["event"] for log in logs]
            assert attachment.term == 3, "above every term that was ever held"
            host.start(vcpus=1)
            await writer.flush()
        assert is_true(servers[1], host)


async def test_a_node_that_lags_and_catches_up_makes_no_row_of_two_states(
    private_database: Database,
) -> None:
    """It shows a state from before acknowledged writes, and has them a moment later: columns that
    are as they were before, and so seem right, are written all the same."""
    database, host = private_database, FakeHost("n1")
    door = database.server.folder / "door"
    door.symlink_to(database.server.socket)
    url = database.url.replace(str(database.server.socket), str(door))
    # The next reading back would put it right.
    settings = replace(SETTINGS, renewal_interval_seconds=86_400)
    async with ComputeNodeWriter(url, settings=settings) as writer:
        writer.attach(host)
        await writer.flush()
        back_up(database)
        number = host.start(vcpus=2)
        await writer.flush()
        ((late,), (guard,)) = database.rows(), database.fences()
        door.unlink()
        database.execute(f"KILL {await database.only_connection()}")
        restore(database, TABLES)
        host.set_disk(None)
        with closing(database.connect()) as node, node.cursor() as applier:
            applier.execute("BEGIN")
            applier.execute("SELECT * FROM asynchost_fence FOR UPDATE")
            with capture_logs() as logs:
                door.symlink_to(database.server.socket)
                # It has seen the older state, and wants to write.
                await eventually(lambda: "writing again later" in str(logs), 30)
            host.stop(number)
            applier.execute(
                "UPDATE compute_nodes SET vcpus_used = %s, memory_mb_used = %s, free_ram_mb = %s,"
                " running_vms = %s",
                [late[c] for c in ("vcpus_used", "memory_mb_used", "free_ram_mb", "running_vms")],
            )
            applier.execute("UPDATE asynchost_fence SET seq = %s", [guard["seq"]])
            applier.execute("COMMIT")
        await writer.flush()
        assert "the database lost acknowledged writes" in str(logs)
        assert is_true(database, host)


def replicate(source: Database, target: Database) -> None:
    connection = target.connect()
    try:
        with connection.cursor() as cursor:
            for table in TABLES:
                for row in source.execute(f"SELECT * FROM {table}"):
                    cursor.execute(
                        f"INSERT INTO {table} ({', '.join(row)})"
                        f" VALUES ({', '.join(['%s'] * len(row))})",
                        list(row.values()),
                    )
    finally:
        connection.close()
