"""A server's defaults that change what statements do: the session sets its own.

What is right is seen by an independent client, whose session has the server's ordinary defaults.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

import pytest
import pytest_asyncio
from pymysql.cursors import DictCursor
from structlog.testing import capture_logs

from asynchost.database import ComputeNodeWriter, WriterSettings, apply_schema
from asynchost.database.schema import grant_statements
from asynchost.testing import FakeHost
from tests.support.mariadb import MYSQL, Database, PrivateServer
from tests.support.waiting import eventually, eventually_equal

SETTINGS = WriterSettings(
    quiet_seconds=0,
    maximum_delay_seconds=0,
    renewal_interval_seconds=0.3,
    read_back_interval_seconds=0.05,
    backoff_initial_seconds=0.02,
    backoff_maximum_seconds=0.1,
)
NAMES = ("n1", "n2", "nö3")


class Default(NamedTuple):
    """A variable, and the worst that a server's administrator can set it to."""

    variable: str
    value: str
    only: str = ""
    """The one of the two servers that knows it."""


WORST = [
    Default("autocommit", "0"),
    Default("completion_type", "1"),
    Default("completion_type", "2"),
    Default("lock_wait_timeout", "31536000"),
    Default("innodb_lock_wait_timeout", "3600"),
    Default("sql_mode", "'ANSI,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT'"),
    Default("time_zone", "'+11:00'"),
    Default("sql_safe_updates", "1"),
    Default("sql_select_limit", "1"),
    Default("max_join_size", "1"),
    Default("unique_checks", "0"),
    Default("foreign_key_checks", "0"),
    Default("sql_auto_is_null", "1"),
    Default("init_connect", "'SET autocommit = 0'"),
    Default("init_connect", "'START TRANSACTION READ ONLY'"),
    Default("init_connect", "'SET NAMES latin1'"),
    Default("init_connect", "'SET timestamp = 1'"),
    Default("init_connect", "'USE information_schema'"),
    Default("wait_timeout", "1"),
    Default("tx_isolation", "'SERIALIZABLE'", "mariadb"),
    Default("tx_read_only", "1", "mariadb"),
    Default("innodb_snapshot_isolation", "1", "mariadb"),
    Default("max_statement_time", "0.000001", "mariadb"),
    Default("check_constraint_checks", "0", "mariadb"),
    Default("system_versioning_asof", "'2001-01-01'", "mariadb"),
    Default("idle_transaction_timeout", "1", "mariadb"),
    Default("idle_write_transaction_timeout", "31536000", "mariadb"),
    Default("old_mode", "'NO_PROGRESS_INFO,ZERO_DATE_TIME_CAST'", "mariadb"),
    Default("optimizer_switch", "'derived_merge=off,semijoin=off,materialization=off'"),
    Default("transaction_isolation", "'SERIALIZABLE'", "mysql"),
    Default("transaction_read_only", "1", "mysql"),
    Default("max_execution_time", "1", "mysql"),
    Default("range_optimizer_max_mem_size", "1", "mysql"),
]
HERE = [one for one in WORST if one.only in ("", "mysql" if MYSQL else "mariadb")]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server() -> AsyncIterator[Database]:
    """A server of these tests' own, with an ordinary account, for which init_connect counts."""
    async with PrivateServer() as private:
        yield await furnish(Database(private, "mysql"))


async def furnish(admin: Database) -> Database:
    """The database, and the account ``plain`` with the printed rights."""
    database = Database(admin.server, "nova")
    with independent(admin) as cursor:
        cursor.execute("CREATE DATABASE nova CHARACTER SET utf8mb4")
        await apply_schema(database.url)
        cursor.execute("CREATE USER plain@localhost")
        for statement in grant_statements("nova", "plain@localhost"):
            cursor.execute(statement)
    database.url = admin.server.url("nova", user="plain")
    return database


@contextmanager
def independent(database: Database) -> Iterator[DictCursor]:
    """Another client, set up by itself: it sees what is committed, and nothing else."""
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SET NAMES utf8mb4")
        cursor.execute("SET autocommit = 1, completion_type = 0, sql_mode = ''")
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE")
        yield cursor


@contextmanager
def globally(cursor: DictCursor, default: Default) -> Iterator[None]:
    """The server's default, for sessions that begin meanwhile."""
    cursor.execute(f"SELECT @@GLOBAL.{default.variable} AS was")
    (row,) = cursor.fetchall()
    cursor.execute(f"SET GLOBAL {default.variable} = {default.value}")
    try:
        yield
    finally:
        was = row["was"]
        restored = "DEFAULT" if was == "DEFAULT" else cursor.mogrify("%s", (was,))
        cursor.execute(f"SET GLOBAL {default.variable} = {restored}")


async def assert_right(database: Database, cursor: DictCursor) -> None:
    """One writer makes rows, changes them, finds what others change, and takes leave."""

    def seen(column: str = "vcpus_used", table: str = "compute_nodes") -> list[object]:
        """What everybody else sees."""
        cursor.execute(f"SELECT {column} AS seen FROM {table} ORDER BY id")
        return [row["seen"] for row in cursor.fetchall()]

    cursor.execute("DELETE FROM compute_nodes")
    cursor.execute("DELETE FROM asynchost_fence")
    hosts = [FakeHost(name) for name in NAMES]
    with capture_logs() as logs:
        async with ComputeNodeWriter(database.url, settings=SETTINGS) as writer:
            for host in hosts:
                writer.attach(host)
            await writer.flush()
            assert sorted(map(str, seen("hypervisor_hostname"))) == sorted(NAMES)
            for used in (3, 4):
                for host in hosts:
                    host.start(vcpus=used)
                await writer.flush()
            assert seen() == [7, 7, 7]
            cursor.execute("UPDATE compute_nodes SET vcpus_used = 99 ORDER BY id LIMIT 1")
            await eventually_equal(seen, [7, 7, 7])
            assert seen("term", "asynchost_fence") == [1, 1, 1]
            signs = seen("seen_at > UTC_TIMESTAMP() - INTERVAL 1 HOUR", "asynchost_fence")
            assert signs == [1, 1, 1]
    assert seen() == [7, 7, 7]
    assert seen("state", "asynchost_fence") == ["stopped"] * 3
    told = [log for log in logs if log["log_level"] != "info"]
    assert [log["event"] for log in told] == ["row changed by another program"]


@pytest.mark.parametrize("default", HERE, ids=lambda one: f"{one.variable}={one.value}")
async def test_no_default_of_the_server_changes_what_is_written(
    server: Database, default: Default
) -> None:
    """Each variable at its worst: rows are committed, read back and put right, with no warning."""
    with independent(server) as cursor, globally(cursor, default):
        await assert_right(server, cursor)


async def test_no_option_of_the_server_changes_what_is_written() -> None:
    """The same from the server's configuration, which a status flag may hide from the driver."""
    options = [
        "--autocommit=OFF",
        "--completion-type=CHAIN",
        "--character-set-server=latin1",
        "--transaction-isolation=SERIALIZABLE",
        "--transaction-read-only=ON",
        "--sql-mode=ANSI_QUOTES,NO_BACKSLASH_ESCAPES",
    ]
    if not MYSQL:
        # MySQL 9 has no such option, and makes its data folder for the other one's opposite.
        options += ["--character-set-client-handshake=OFF", "--lower-case-table-names=1"]
    async with PrivateServer(arguments=options) as private:
        database = await furnish(Database(private, "mysql"))
        with independent(database) as cursor:
            await assert_right(database, cursor)


async def test_a_locked_table_piles_up_no_sessions(private_database: Database) -> None:
    """A statement that was given up ends by itself, also on a server that does not notice it."""
    database = private_database
    settings = WriterSettings(
        quiet_seconds=0,
        maximum_delay_seconds=0,
        statement_deadline_seconds=0.4,
        backoff_initial_seconds=0.02,
        backoff_maximum_seconds=0.1,
    )
    host = FakeHost("n1")
    most, begun = 0, set[int]()
    async with ComputeNodeWriter(database.url, settings=settings) as writer:
        writer.attach(host)
        await writer.flush()
        with closing(database.connect()) as locker, locker.cursor() as cursor:
            cursor.execute("LOCK TABLES compute_nodes WRITE")
            host.start(vcpus=3)

            async def watched() -> bool:
                """Ten connections were begun one after another."""
                nonlocal most
                now = await asyncio.to_thread(database.connections)
                most = max(most, len(now))
                begun.update(now)
                return len(begun) >= 10

            await eventually(watched)
            cursor.execute("UNLOCK TABLES")
        await writer.flush()
    assert database.row()["vcpus_used"] == 3
    # Each that was given up waits for another second at most.
    assert most <= 5
