"""Tables as somebody has left them: refused at the start with what mends them, or worked with."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from asynchost.database import ComputeNodeWriter, OnForeignEdit, WriterSettings
from asynchost.database.schema import grant_statements
from asynchost.errors import DatabaseRefusedError
from asynchost.testing import FakeHost
from tests.support.mariadb import MYSQL, Database
from tests.support.waiting import eventually, eventually_equal

SETTINGS = WriterSettings(
    quiet_seconds=0,
    maximum_delay_seconds=0,
    renewal_interval_seconds=0.3,
    read_back_interval_seconds=0.05,
    backoff_initial_seconds=0.02,
    backoff_maximum_seconds=0.1,
)
NAMES = ("n0", "n1", "n2")


async def refusal(url: str) -> DatabaseRefusedError:
    """How a writer is refused on entering, in one line."""
    with pytest.raises(DatabaseRefusedError) as caught:
        async with ComputeNodeWriter(url):
            pass
    assert "\n" not in str(caught.value)
    return caught.value


async def assert_works(database: Database, url: str | None = None) -> list[dict[str, object]]:
    """Three hosts with different numbers have a row each, read back often; returns the warnings."""
    hosts = [FakeHost(name) for name in NAMES]
    with capture_logs() as logs:
        async with ComputeNodeWriter(url or database.url, settings=SETTINGS) as writer:
            for number, host in enumerate(hosts):
                host.start(vcpus=number + 1)
                writer.attach(host)
            await writer.flush()
            for host in hosts:
                host.start(vcpus=10)
            await writer.flush()
            # Each row is read back at least twice.
            renewed = {row["seen_at"] for row in database.fences()}
            await eventually(lambda: not renewed & {row["seen_at"] for row in database.fences()})
            assert writer.status.foreign_edits == 0
    rows = database.rows()
    names = [row["hypervisor_hostname"] for row in rows]
    assert [name.decode() if isinstance(name, bytes) else name for name in names] == [*NAMES]
    assert [int(row["vcpus_used"]) for row in rows] == [11, 12, 13]
    return [dict(log) for log in logs if log["log_level"] != "info"]


async def assert_refused_and_mended(database: Database, reason: str) -> DatabaseRefusedError:
    """The remedy is one statement; carried out, it makes rows possible."""
    error = await refusal(database.url)
    assert reason in error.reason
    database.execute(error.remedy)
    assert await assert_works(database) == []
    return error


def without_keys(database: Database) -> None:
    """As a dump that lost them, or CREATE TABLE … SELECT, leaves it."""
    database.execute("CREATE TABLE x AS SELECT * FROM compute_nodes")
    database.execute("DROP TABLE compute_nodes")
    database.execute("RENAME TABLE x TO compute_nodes")


async def test_a_table_without_keys_is_refused(database: Database) -> None:
    """Its rows would all have the id 0, and each host would write all of them."""
    without_keys(database)
    await assert_refused_and_mended(database, "id of compute_nodes is no AUTO_INCREMENT")


async def test_a_table_of_rows_with_one_id_is_refused(database: Database) -> None:
    """Then the statement gives them new ones."""
    without_keys(database)
    for name in ("a", "b"):
        database.insert_node(hypervisor_hostname=name, id=0)
    error = await refusal(database.url)
    database.execute(error.remedy)
    assert [row["id"] for row in database.rows()] == [1, 2]
    async with ComputeNodeWriter(database.url):
        pass


async def test_a_lost_auto_increment_is_refused(database: Database) -> None:
    """With the key still there."""
    database.execute("ALTER TABLE compute_nodes MODIFY id INT NOT NULL")
    error = await assert_refused_and_mended(database, "id of compute_nodes is no AUTO_INCREMENT")
    assert "PRIMARY KEY" not in error.remedy


@pytest.mark.parametrize("how", ["STORED", "VIRTUAL"])
async def test_a_column_that_the_server_computes_is_refused(database: Database, how: str) -> None:
    """No value can be written into it."""
    database.execute(
        "ALTER TABLE compute_nodes DROP free_ram_mb, ADD free_ram_mb INT"
        f" GENERATED ALWAYS AS (memory_mb - memory_mb_used) {how}"
    )
    await assert_refused_and_mended(database, "the server computes the column free_ram_mb")


@pytest.mark.parametrize("least", [False, True], ids=["owner", "least rights"])
async def test_a_view_with_check_option_is_refused(database: Database, least: bool) -> None:
    """MariaDB 10.11 crashes of a write to many of its rows."""
    database.execute("RENAME TABLE compute_nodes TO cn_real")
    database.execute(
        "CREATE VIEW compute_nodes AS SELECT * FROM cn_real WHERE deleted = 0 WITH CHECK OPTION"
    )
    if least:
        account = "'little'@'localhost'"
        database.make_account(account, *grant_statements(database.name, account))
        error = await refusal(database.server.url(database.name, user="little"))
        assert "SHOW CREATE VIEW compute_nodes" in error.remedy
    else:
        error = await refusal(database.url)
        database.execute(error.remedy.partition(": ")[2])
        assert await assert_works(database) == []
    assert "WITH CHECK OPTION" in error.reason


async def test_a_plain_view_is_worked_with(database: Database) -> None:
    """Rows are made and written through it."""
    database.execute("RENAME TABLE compute_nodes TO cn_real")
    database.execute("CREATE VIEW compute_nodes AS SELECT * FROM cn_real WHERE deleted = 0")
    assert await assert_works(database) == []


async def test_a_view_that_is_not_updatable_is_refused(database: Database) -> None:
    """Each row of it stands for several."""
    database.execute("RENAME TABLE compute_nodes TO cn_real")
    database.execute("CREATE VIEW compute_nodes AS SELECT DISTINCT * FROM cn_real")
    error = await refusal(database.url)
    assert "compute_nodes is a view that cannot be written through" in error.reason
    assert "RENAME TABLE" in error.remedy


@pytest.mark.parametrize(
    "change",
    [
        "MODIFY cpu_info BLOB NOT NULL",
        "MODIFY cpu_info JSON NOT NULL",
        "MODIFY hypervisor_type VARBINARY(20) NOT NULL, MODIFY hypervisor_hostname VARBINARY(255)",
        "MODIFY hypervisor_type BINARY(20) NOT NULL",
        "MODIFY cpu_info MEDIUMTEXT CHARACTER SET utf16 NOT NULL",
        "MODIFY hypervisor_hostname VARCHAR(255) CHARACTER SET latin1",
        "MODIFY vcpus_used VARCHAR(20) NOT NULL, MODIFY memory_mb DECIMAL(12,2) NOT NULL",
        "MODIFY local_gb DOUBLE NOT NULL, MODIFY running_vms BIT(32)",
        "MODIFY deleted BIT(1)",
        "ENGINE=MyISAM",
    ],
)
async def test_values_are_compared_by_what_they_mean(database: Database, change: str) -> None:
    """A row that nobody else has touched is not taken for changed, whatever its columns' types."""
    database.execute(f"ALTER TABLE compute_nodes {change}")
    assert await assert_works(database) == []


@pytest.mark.parametrize(
    "change",
    ["memory_mb FLOAT NOT NULL", "vcpus_used YEAR NOT NULL", "cpu_info POINT NOT NULL"]
    + ["vcpus_used VARBINARY(20) NOT NULL", "disk_available_least BLOB", "vcpus BINARY(9) NOT NULL"]
    + ["cpu_info POLYGON NOT NULL", "hypervisor_type GEOMETRYCOLLECTION NOT NULL"]
    + ([] if MYSQL else ["hypervisor_type UUID NOT NULL"]),
)
async def test_a_type_that_no_comparison_serves_is_refused(database: Database, change: str) -> None:
    """With the statement that gives it the published one."""
    database.execute(f"ALTER TABLE compute_nodes MODIFY {change}")
    await assert_refused_and_mended(database, "the column " + change.split(maxsplit=1)[0])


@pytest.mark.parametrize("policy", OnForeignEdit)
async def test_a_zero_date_harms_nobody(database: Database, policy: OnForeignEdit) -> None:
    """Old Nova tables hold such; the driver gives it as a text."""
    settings = WriterSettings(
        quiet_seconds=0,
        maximum_delay_seconds=0,
        read_back_interval_seconds=0.05,
        on_foreign_edit=policy,
    )
    hosts = [FakeHost(name) for name in NAMES]
    async with ComputeNodeWriter(database.url, settings=settings) as writer:
        for host in hosts:
            writer.attach(host)
        await writer.flush()
        with database.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SET sql_mode = ''")
            cursor.execute("UPDATE compute_nodes SET updated_at = '0000-00-00 00:00:00'")
        for used in range(1, 4):
            hosts[0].start(vcpus=1)
            await writer.flush()
            assert database.row("hypervisor_hostname = 'n0'")["vcpus_used"] == used
        with database.connect() as connection, connection.cursor() as cursor:
            cursor.execute("UPDATE compute_nodes SET vcpus = 99 WHERE hypervisor_hostname = 'n1'")
        await eventually(lambda: writer.status.foreign_edits == 1)
        hosts[2].start(vcpus=2)
        await writer.flush()
        await eventually_equal(lambda: database.row("vcpus_used = 2")["hypervisor_hostname"], "n2")


async def test_a_trigger_whose_definer_is_gone_is_told_with_what_mends_it(
    database: Database,
) -> None:
    """Hosts wait until it is mended, and the line says how."""
    hosts = [FakeHost(name) for name in NAMES]
    async with ComputeNodeWriter(database.url, settings=SETTINGS) as writer:
        for host in hosts:
            writer.attach(host)
        await writer.flush()
        database.execute(
            "CREATE DEFINER = gone@localhost TRIGGER orphan BEFORE UPDATE ON compute_nodes"
            " FOR EACH ROW SET NEW.vcpus_used = NEW.vcpus_used"
        )
        with capture_logs() as logs:
            hosts[0].start(vcpus=3)
            await eventually(lambda: [log for log in logs if log["log_level"] == "warning"])
        (told,) = [log for log in logs if log["log_level"] == "warning"]
        assert told["event"] == "writing again later"
        assert "SHOW TRIGGERS LIKE 'compute_nodes'" in told["reason"]
        await asyncio.to_thread(database.execute, "DROP TRIGGER orphan")
        await writer.flush()
    assert database.row("hypervisor_hostname = 'n0'")["vcpus_used"] == 3


async def test_a_second_live_row_that_appears_is_told_once(database: Database) -> None:
    """The host's own row goes on being written; a row of another service is no twin of it."""
    host, other = FakeHost("n1"), FakeHost("n2")
    settings = WriterSettings(
        quiet_seconds=0, maximum_delay_seconds=0, read_back_interval_seconds=0.1
    )
    with capture_logs() as logs:
        async with ComputeNodeWriter(database.url, settings=settings) as writer:
            attachment = writer.attach(host)
            writer.attach(other, service_id=3)
            await writer.flush()
            twin = database.insert_node(hypervisor_hostname="N1", service_id=9)
            database.insert_node(hypervisor_hostname="n2", service_id=4)
            await eventually(lambda: told(logs))
            host.start(vcpus=2)
            await writer.flush()
            # The rows of the last look are looked at again.
            third = database.insert_node(hypervisor_hostname="n1", service_id=9)
            await eventually(lambda: len(told(logs)) > 1)
            row = database.row(f"id = {attachment.row_id}")
    assert row["vcpus_used"] == 2
    assert attachment.error is None
    lines = told(logs)
    assert [line["other"] for line in lines] == [twin, third]
    for line in lines:
        assert (line["host"], line["row"]) == ("n1", attachment.row_id)
        database.execute(line["mend"])
    async with ComputeNodeWriter(database.url, settings=settings) as writer:
        writer.attach(host)
        await writer.flush()


def told(logs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [log for log in logs if log["event"] == "second live row of a host's name"]
