"""The writer while a server runs out of connections or space, chooses it in a deadlock, or loses
its tables and rights: the row is true after."""

import asyncio
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path

import pymysql
import pytest
from structlog.testing import capture_logs

from asynchost.database import ComputeNodeWriter, WriterSettings, apply_schema
from asynchost.database.schema import grant_statements
from asynchost.testing import FakeHost
from tests.support.disk import fill, small_disk
from tests.support.mariadb import MYSQL, Database, PrivateServer, numbers
from tests.support.waiting import eventually

AT_ONCE = WriterSettings(
    quiet_seconds=0,
    maximum_delay_seconds=0,
    backoff_initial_seconds=0.02,
    backoff_maximum_seconds=0.1,
    refusal_retry_seconds=0.1,
)
DEADLINE_SECONDS = 30.0
ACCOUNT = "poor@localhost"


@pytest.fixture
def poor_url(private_database: Database) -> str:
    """The way in for an account with the rights that are printed, and no other."""
    private_database.execute(f"CREATE USER {ACCOUNT}")
    for statement in grant_statements("nova", ACCOUNT):
        private_database.execute(statement)
    return private_database.server.url("nova", user="poor")


def used(database: Database) -> list[int]:
    """What the live rows say, in the order of their names."""
    rows = sorted(database.rows("deleted = 0"), key=lambda row: str(row["hypervisor_hostname"]))
    return [row["vcpus_used"] for row in rows]


async def test_too_many_connections_are_an_outage(
    private_database: Database, poor_url: str
) -> None:
    """1040, for an account that has no connection kept for it."""
    host = FakeHost("n1")
    with ExitStack() as stack:
        admin = stack.enter_context(closing(private_database.connect())).cursor()
        async with ComputeNodeWriter(poor_url, settings=AT_ONCE) as writer:
            writer.attach(host)
            await writer.flush()
            with capture_logs() as logs, ExitStack() as crowd:
                admin.execute("SET GLOBAL max_connections = 10")

                def crowded() -> bool:
                    """Fill every place, the writer's own too, and see it turned away."""
                    sessions = "information_schema.processlist WHERE user = 'poor' AND db = 'nova'"
                    admin.execute(f"SELECT id AS id FROM {sessions}")
                    for session in admin.fetchall():
                        with suppress(pymysql.err.OperationalError):  # it has ended since
                            admin.execute(f"KILL {session['id']}")
                    door = str(private_database.server.socket)
                    with suppress(pymysql.err.OperationalError):
                        while True:
                            holder = pymysql.connect(unix_socket=door, user="poor")
                            crowd.enter_context(closing(holder))
                    host.start()
                    return "error 1040" in str(logs)

                await eventually(crowded, DEADLINE_SECONDS)
            await writer.flush()
        assert used(private_database) == [host.usage.vcpus_used]


async def test_the_victim_of_a_deadlock_writes_again(database: Database) -> None:
    """1213 costs the statement and not the connection."""
    hosts = [FakeHost(f"n{number}") for number in range(3)]
    database.execute("CREATE TABLE heavy (number BIGINT NOT NULL PRIMARY KEY)")
    async with ComputeNodeWriter(database.url, settings=AT_ONCE) as writer:
        attached = [writer.attach(host) for host in hosts]
        await writer.flush()
        session = await database.only_connection()
        first, last = (
            f"SELECT * FROM compute_nodes WHERE id = {attached[number].row_id} FOR UPDATE"
            for number in (0, -1)
        )
        with capture_logs() as logs, closing(database.connect()) as rival:

            async def deadlocked() -> bool:
                """The rival has the last row and asks for the first; the writer, the reverse."""
                with rival.cursor() as cursor:
                    cursor.execute("BEGIN")
                    # Who has written most is not the one that a deadlock costs.
                    cursor.execute(f"INSERT INTO heavy {numbers(1000)}")
                    cursor.execute(last)
                    for host in hosts:
                        host.start()
                    await eventually(lambda: waits(database), DEADLINE_SECONDS)
                    await asyncio.to_thread(cursor.execute, first)
                rival.rollback()
                await writer.flush()
                return "error 1213" in str(logs)

            # It misses where the wait for the lock ends first.
            await eventually(deadlocked, DEADLINE_SECONDS)
        assert used(database) == [host.usage.vcpus_used for host in hosts]
        assert database.connections() == [session]


def waits(database: Database) -> bool:
    """Whether somebody waits for a lock."""
    # Not information_schema.innodb_lock_waits: what is asked for often there does not change.
    (status,) = database.execute("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'")
    return status["Value"] != "0"


@pytest.mark.parametrize("tables", [["compute_nodes"], ["compute_nodes", "asynchost_fence"]])
async def test_tables_that_were_dropped_and_restored_are_made_true(
    private_database: Database, tables: list[str]
) -> None:
    """From a backup that is older than the last writes, and than one of the rows."""
    hosts = [FakeHost(f"n{number}") for number in range(2)]
    async with ComputeNodeWriter(private_database.url, settings=AT_ONCE) as writer:
        writer.attach(hosts[0])
        await writer.flush()
        for table in tables:
            private_database.execute(f"CREATE TABLE backup_{table} LIKE {table}")
            private_database.execute(f"INSERT INTO backup_{table} SELECT * FROM {table}")
        writer.attach(hosts[1])
        hosts[0].start(vcpus=4)
        await writer.flush()
        with capture_logs() as logs:
            for table in tables:
                private_database.execute(f"DROP TABLE {table}")
            hosts[1].start(vcpus=3)
            await eventually(lambda: "is missing" in str(logs), DEADLINE_SECONDS)
            for table in tables:
                private_database.execute(f"RENAME TABLE backup_{table} TO {table}")
            await writer.flush()
    assert used(private_database) == [4, 3]


async def test_a_right_that_was_revoked_and_granted_again(
    private_database: Database, poor_url: str
) -> None:
    """It says what is missing, stays up, and goes on when a person has mended it."""
    host = FakeHost("n1")
    async with ComputeNodeWriter(poor_url, settings=AT_ONCE) as writer:
        writer.attach(host)
        await writer.flush()
        with capture_logs() as logs:
            private_database.execute(f"REVOKE UPDATE ON asynchost_fence FROM {ACCOUNT}")
            host.start(vcpus=2)
            await eventually(lambda: "GRANT" in str(logs), DEADLINE_SECONDS)
            assert used(private_database) == [0]
            for statement in grant_statements("nova", ACCOUNT):
                private_database.execute(statement)
            await writer.flush()
        assert used(private_database) == [2]


@pytest.mark.parametrize(
    ("code", "event", "same_session", "least_seconds"),
    [
        pytest.param(1047, "database unavailable, trying again", False, 0, id="connection"),
        pytest.param(31337, "writing again later", True, 0, id="unknown"),
        pytest.param(1020, "writing again later", True, 0, id="same connection"),
        pytest.param(1114, "writing again later", True, 2, id="resources"),
        pytest.param(1264, "row left out until its values change", True, 0, id="bad row"),
        pytest.param(1142, "writing again later", True, 0, id="configuration"),
    ],
)
async def test_each_class_of_errors_has_its_consequence(
    database: Database, code: int, event: str, same_session: bool, least_seconds: float
) -> None:
    """The session is kept or not, what is full is asked again slowly; the row is true after."""
    host = FakeHost("n1")
    async with ComputeNodeWriter(database.url, settings=AT_ONCE) as writer:
        attachment = writer.attach(host)
        await writer.flush()
        session = await database.only_connection()
        database.execute(
            "CREATE TRIGGER trouble BEFORE UPDATE ON compute_nodes FOR EACH ROW"
            f" SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = {code}, MESSAGE_TEXT = 'trouble'"
        )
        with capture_logs() as logs:
            host.start(vcpus=1)
            await eventually(
                lambda: [log for log in logs if log["event"] == event], DEADLINE_SECONDS
            )
        left = attachment.due_at - asyncio.get_running_loop().time()
        assert least_seconds <= max(left, 0)
        await asyncio.to_thread(database.execute, "DROP TRIGGER trouble")
        host.start(vcpus=1)
        await asyncio.wait_for(writer.flush(), DEADLINE_SECONDS)
        assert used(database) == [2]
        assert (database.connections() == [session]) is same_session


@pytest.mark.skipif(MYSQL, reason="MySQL ends itself on a full disk; the storms start it again")
async def test_a_full_disk_is_waited_out(tmp_path: Path) -> None:
    """The row is written when there is space again, and the writer has said why not before."""
    with ExitStack() as stack:
        try:
            stack.enter_context(small_disk(tmp_path, 96))
        except OSError as error:
            pytest.skip(str(error))
        async with PrivateServer() as server:
            Database(server, "mysql").execute("CREATE DATABASE nova")
            await assert_endures(Database(server, "nova"), tmp_path / "ballast")


async def assert_endures(database: Database, ballast: Path) -> None:
    """A row that grows does not fit until the ballast is thrown out."""
    await apply_schema(database.url)
    host = FakeHost("n1")
    facts = host.snapshot().facts
    assert facts is not None
    async with ComputeNodeWriter(database.url, settings=AT_ONCE) as writer:
        attachment = writer.attach(host)
        await writer.flush()
        fill(ballast)
        features = [f"feature-{number}" for number in range(100_000)]
        with capture_logs() as logs:
            host.set_facts(replace(facts, cpu_info={**facts.cpu_info, "features": features}))
            await eventually(lambda: logs, DEADLINE_SECONDS)
        assert logs[0]["log_level"] == "warning", logs[0]
        assert attachment.error is None
        await asyncio.to_thread(ballast.unlink)
        host.start(vcpus=2)
        await writer.flush()
        row = database.row()
        assert row["vcpus_used"] == 2
        assert "feature-99999" in row["cpu_info"]
