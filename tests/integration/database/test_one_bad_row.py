"""One row that the server refuses, for whatever reason: the rows of the other hosts are written."""

import asyncio
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from asynchost.database import ComputeNodeWriter, WriterSettings
from asynchost.testing import FakeHost
from tests.support.mariadb import Database
from tests.support.waiting import eventually, eventually_equal

SETTINGS = WriterSettings(
    quiet_seconds=0,
    maximum_delay_seconds=0,
    backoff_initial_seconds=0.05,
    backoff_maximum_seconds=0.2,
    refusal_retry_seconds=3600.0,
)
"""A refusal that is taken for the whole writer's is not tried again within the test."""
UNLISTED = 31001
"""An error code that no server defines."""
HOSTS = 21
BAD = 7


def refuses(name: str, action: str, code: int = UNLISTED) -> str:
    """A trigger that refuses to do ``action``, INSERT or UPDATE, to the row of one host."""
    return (
        f"CREATE TRIGGER refuses BEFORE {action} ON compute_nodes FOR EACH ROW"
        f" BEGIN IF NEW.hypervisor_hostname = '{name}' THEN"
        f" SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = {code}, MESSAGE_TEXT = 'quota';"
        " END IF; END"
    )


def used(database: Database) -> dict[str, int]:
    """``vcpus_used`` by host."""
    return {row["hypervisor_hostname"]: row["vcpus_used"] for row in database.rows()}


def new_hosts() -> list[FakeHost]:
    """Hosts whose names sort as their numbers."""
    return [FakeHost(f"n{number:02}") for number in range(HOSTS)]


def good(hosts: Sequence[FakeHost]) -> dict[str, int]:
    """What the rows of all hosts but the bad one should say."""
    return {host.host: host.usage.vcpus_used for host in hosts if host is not hosts[BAD]}


async def test_an_unlisted_error_of_one_row_keeps_no_other_row_from_being_written(
    database: Database,
) -> None:
    """The server answered, so the connection stays; the bad row is written once it can be."""
    hosts = new_hosts()
    async with ComputeNodeWriter(database.url, settings=SETTINGS) as writer:
        for host in hosts:
            writer.attach(host)
        await writer.flush()
        session = await database.only_connection()
        database.execute(refuses(hosts[BAD].host, "UPDATE"))
        with capture_logs() as logs:
            for host in hosts:
                host.start(vcpus=3)
            await eventually_equal(
                lambda: {k: v for k, v in used(database).items() if k != hosts[BAD].host},
                good(hosts),
            )
            await eventually(lambda: logs)
            assert used(database)[hosts[BAD].host] == 0
            # The server may be quicker than its answer is read.
            await eventually(lambda: writer.status.dirty == 1)
            # The others go on being written beside the one that is tried again.
            for host in hosts:
                host.start(vcpus=1)
            await eventually_equal(
                lambda: {k: v for k, v in used(database).items() if k != hosts[BAD].host},
                good(hosts),
            )
        await asyncio.to_thread(database.execute, "DROP TRIGGER refuses")
        await writer.flush()
        assert used(database) == {host.host: 4 for host in hosts}
        assert database.connections() == [session]
    told = [log for log in logs if log["log_level"] == "warning"]
    assert told[0]["event"] == "writing again later"
    assert told[0]["hosts"] == [hosts[BAD].host]
    assert f"quota (error {UNLISTED})" in told[0]["reason"]


async def test_an_unlisted_error_of_one_claim_keeps_no_other_row_from_being_made(
    database: Database,
) -> None:
    """Hosts that share its transaction get their rows, and hosts with rows are written."""
    hosts = new_hosts()
    database.execute(refuses(hosts[BAD].host, "INSERT"))
    async with ComputeNodeWriter(database.url, settings=SETTINGS) as writer:
        session = await database.only_connection()
        for host in hosts:
            writer.attach(host)
        await eventually_equal(lambda: used(database), good(hosts))
        for host in hosts:
            host.start(vcpus=2)
        await eventually_equal(lambda: used(database), good(hosts))
        assert writer.status.owned == HOSTS - 1
        await asyncio.to_thread(database.execute, "DROP TRIGGER refuses")
        await writer.flush()
        assert used(database) == {host.host: 2 for host in hosts}
        assert database.connections() == [session]


@pytest.mark.parametrize("code", [1044, 1054, 1142, 1143, 1146, 1227, 1356, 1364, 1449])
async def test_a_refusal_that_one_row_causes_keeps_no_other_row_from_being_written(
    database: Database, code: int
) -> None:
    """A trigger fails with the code of a table, a column or a right that is missing: the daemon's
    own tables are in order, so the other hosts are written."""
    hosts = new_hosts()
    async with ComputeNodeWriter(database.url, settings=SETTINGS) as writer:
        for host in hosts:
            writer.attach(host)
        await writer.flush()
        session = await database.only_connection()
        database.execute(refuses(hosts[BAD].host, "UPDATE", code))
        for host in hosts:
            host.start(vcpus=3)
        await eventually_equal(
            lambda: {k: v for k, v in used(database).items() if k != hosts[BAD].host},
            good(hosts),
        )
        await asyncio.to_thread(database.execute, "DROP TRIGGER refuses")
        await eventually_equal(lambda: used(database), {host.host: 3 for host in hosts})
        assert database.connections() == [session]


async def test_a_trigger_without_its_table_keeps_no_other_row_from_being_made(
    database: Database,
) -> None:
    """The trigger of one new row asks for a table that is gone."""
    hosts = new_hosts()
    database.execute(
        "CREATE TRIGGER refuses BEFORE INSERT ON compute_nodes FOR EACH ROW"
        f" BEGIN IF NEW.hypervisor_hostname = '{hosts[BAD].host}' THEN"
        " INSERT INTO audit VALUES (1); END IF; END"
    )
    async with ComputeNodeWriter(database.url, settings=SETTINGS) as writer:
        with capture_logs() as logs:
            for host in hosts:
                writer.attach(host)
            await eventually_equal(lambda: used(database), good(hosts))
            await eventually(lambda: [log for log in logs if log["log_level"] == "warning"])
        await eventually_equal(lambda: writer.status.owned, HOSTS - 1)
        await asyncio.to_thread(database.execute, "CREATE TABLE audit (id int)")
        await eventually_equal(lambda: used(database), {host.host: 0 for host in hosts})
    (told,) = (log for log in logs if log["log_level"] == "warning")
    assert told["hosts"] == [hosts[BAD].host]
    assert "audit" in told["reason"]
    assert "(error 1146)" in told["reason"]


async def test_a_refusal_of_the_whole_table_is_no_rows_fault(database: Database) -> None:
    """The writer says what is missing, and blames no host."""
    hosts = new_hosts()
    async with ComputeNodeWriter(database.url, settings=SETTINGS) as writer:
        for host in hosts:
            writer.attach(host)
        await writer.flush()
        database.execute("ALTER TABLE compute_nodes RENAME COLUMN vcpus_used TO mine")
        with capture_logs() as logs:
            for host in hosts:
                host.start(vcpus=3)
            await eventually(lambda: logs)
    assert logs[0]["event"] == "database unavailable, trying again"
    assert "lacks the column vcpus_used" in logs[0]["reason"]
