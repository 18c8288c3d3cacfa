"""What is there, missing or forbidden, on a real server: each said in one line with its remedy."""

import re
import traceback
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from asynchost.database import (
    ComputeNodeWriter,
    WriterSettings,
    apply_schema,
    schema,
)
from asynchost.database.inspection import check
from asynchost.database.session import Session
from asynchost.database.url import DatabaseUrl
from asynchost.errors import DatabaseRefusedError
from asynchost.testing import FakeHost
from tests.support.mariadb import MYSQL, Database, PrivateServer

PUBLISHED = Path(__file__).parent / "compute_nodes_original.sql"
SETTINGS = WriterSettings(quiet_seconds=0, maximum_delay_seconds=0)


async def refusal(database: Database, url: str | None = None) -> DatabaseRefusedError:
    """How a writer is refused on entering; checks what holds for every refusal."""
    with pytest.raises(DatabaseRefusedError) as caught:
        async with ComputeNodeWriter(url or database.url):
            pass
    assert "\n" not in str(caught.value)
    return caught.value


def make_account(database: Database, name: str, *grants: str, password: str = "") -> str:
    """An account with these rights; returns its URL, without the password."""
    database.make_account(f"'{name}'@'localhost'", *grants, password=password)
    return database.server.url(database.name, user=name)


async def mended(database: Database, error: DatabaseRefusedError, url: str) -> None:
    """Carry the remedy out: a row is made."""
    database.execute(error.remedy)
    async with ComputeNodeWriter(url, settings=SETTINGS) as writer:
        writer.attach(FakeHost("n1"))
        await writer.flush()
    assert database.row()["vcpus"] == 16


async def test_apply_creates_what_is_missing_and_alters_nothing(empty_database: Database) -> None:
    """The first time both tables are created, the second time none, and none is altered."""
    states = await apply_schema(empty_database.url)
    assert states == (("compute_nodes", True), ("asynchost_fence", True))
    empty_database.execute("ALTER TABLE compute_nodes ADD COLUMN mine int, DROP COLUMN running_vms")
    before = empty_database.execute("SHOW CREATE TABLE compute_nodes")
    assert await apply_schema(empty_database.url) == (
        ("compute_nodes", False),
        ("asynchost_fence", False),
    )
    assert empty_database.execute("SHOW CREATE TABLE compute_nodes") == before


async def test_the_table_is_the_published_one(empty_database: Database) -> None:
    """The server makes the same table of our DDL and of the published one."""

    def made_by(ddl: str) -> str:
        empty_database.execute(ddl)
        (shown,) = empty_database.execute("SHOW CREATE TABLE compute_nodes")
        empty_database.execute("DROP TABLE compute_nodes")
        return re.sub(r" AUTO_INCREMENT=\d+", "", shown["Create Table"])

    assert made_by(schema.compute_nodes_ddl()) == made_by(PUBLISHED.read_text())


async def test_a_missing_table_is_named_with_its_ddl(empty_database: Database) -> None:
    """Without compute_nodes: the table, the command and the DDL."""
    error = await refusal(empty_database)
    assert error.code == 1146
    assert error.reason == "the table compute_nodes is missing"
    assert "asynchost schema --apply" in error.remedy
    assert "CREATE TABLE `compute_nodes` ( `created_at` datetime" in error.remedy
    assert "; then GRANT SELECT" in error.remedy


async def test_a_missing_companion_table_is_named_with_its_ddl(database: Database) -> None:
    """Without the companion table nothing is written."""
    database.execute("DROP TABLE asynchost_fence")
    error = await refusal(database)
    assert error.reason == "the table asynchost_fence is missing"
    assert "CREATE TABLE `asynchost_fence`" in error.remedy


@pytest.mark.parametrize("table", [schema.TABLE, schema.FENCE])
async def test_a_missing_column_is_named_with_its_ddl(database: Database, table: str) -> None:
    """The column's name, and the ALTER TABLE that adds it."""
    column = "running_vms" if table == schema.TABLE else "state"
    database.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    error = await refusal(database)
    assert error.reason == f"the table {table} lacks the column {column}"
    database.execute(error.remedy)
    async with ComputeNodeWriter(database.url):
        pass


@pytest.mark.parametrize(
    "revoked",
    [
        "REVOKE UPDATE (vcpus_used) ON {0}.compute_nodes FROM {1}",
        "REVOKE INSERT (cpu_info) ON {0}.compute_nodes FROM {1}",
        "REVOKE SELECT (id) ON {0}.compute_nodes FROM {1}",
        "REVOKE UPDATE ON {0}.asynchost_fence FROM {1}",
        "REVOKE INSERT ON {0}.asynchost_fence FROM {1}",
        "REVOKE SELECT ON {0}.asynchost_fence FROM {1}",
    ],
)
async def test_a_missing_right_is_named_with_the_grants(database: Database, revoked: str) -> None:
    """The GRANTs name the account as the server knows it, and carrying them out mends it."""
    account = "'poor'@'localhost'"
    url = make_account(database, "poor", *schema.grant_statements(database.name, account))
    database.execute(revoked.format(database.name, account))
    error = await refusal(database, url)
    assert error.code in (1142, 1143)
    for grant in error.remedy.split("; "):
        database.execute(grant)
    async with ComputeNodeWriter(url):
        pass


@pytest.mark.parametrize("kind", ["point"] if MYSQL else ["inet6", "uuid", "point"])
async def test_a_column_of_which_no_value_is_known_is_named(database: Database, kind: str) -> None:
    """With its type, and with the ALTER TABLE after which rows do without it."""
    database.execute(f"ALTER TABLE compute_nodes ADD `my ``own` {kind} NOT NULL")
    error = await refusal(database)
    assert error.code == 1364
    assert error.reason == (
        "the table compute_nodes demands a value in the column my `own, and none is known for the"
        f" type {kind}"
    )
    await mended(database, error, database.url)


# MySQL shows an account no column that it has no right to, and tells with the first row only.
@pytest.mark.parametrize("also", ["SELECT"] if MYSQL else ["SELECT", "REFERENCES"])
async def test_a_column_that_may_not_be_filled_is_named(database: Database, also: str) -> None:
    """With the GRANT for the account, also where it is not shown the column."""
    account = "'unfilling'@'localhost'"
    grants = schema.grant_statements(database.name, account)
    url = make_account(database, "unfilling", *grants)
    database.execute("ALTER TABLE compute_nodes ADD mine int NOT NULL")
    if also == "SELECT":
        database.execute(f"GRANT SELECT (mine) ON {database.name}.compute_nodes TO {account}")
    error = await refusal(database, url)
    assert error.reason == (
        "the table compute_nodes demands a value in the column mine, and the account lacks the"
        " right to INSERT one"
    )
    assert error.remedy == (
        f"GRANT INSERT (`mine`) ON `{database.name}`.`compute_nodes` TO {account}"
    )
    await mended(database, error, url)


async def test_a_companion_table_with_a_column_of_its_own_is_told_of(database: Database) -> None:
    """Nothing is put into that, whatever its type."""
    database.execute("ALTER TABLE asynchost_fence ADD mine point NOT NULL")
    error = await refusal(database)
    assert error.remedy == "ALTER TABLE `asynchost_fence` MODIFY `mine` point DEFAULT NULL"
    await mended(database, error, database.url)


async def test_columns_that_hold_no_hosts_values_are_refused(database: Database) -> None:
    """And what is too small for some hosts only is mended in the same go."""
    database.execute(
        "ALTER TABLE compute_nodes MODIFY cpu_info varchar(20) NOT NULL,"
        " MODIFY memory_mb smallint NOT NULL"
    )
    error = await refusal(database)
    assert error.reason == "the column cpu_info (varchar(20)) holds no more than 20 characters"
    assert error.remedy.count("MODIFY") == 2
    with pytest.raises(DatabaseRefusedError, match="MODIFY `cpu_info`"):
        async with ComputeNodeWriter(database.url, dry_run=print):
            pass
    with capture_logs() as logs:
        await mended(database, error, database.url)
    assert [log["event"] for log in logs if log["log_level"] != "info"] == []


async def test_columns_that_may_be_too_small_are_told_of(database: Database) -> None:
    """At the start, with the ALTER TABLE; hosts whose values they hold are written."""
    database.execute(
        "ALTER TABLE compute_nodes MODIFY memory_mb smallint NOT NULL,"
        " MODIFY free_ram_mb int unsigned DEFAULT NULL"
    )
    small, large = FakeHost("small"), FakeHost("large")
    facts = small.snapshot().facts
    assert facts is not None
    small.set_facts(replace(facts, memory_mb=16_384))
    with capture_logs() as logs:
        async with ComputeNodeWriter(database.url, settings=SETTINGS) as writer:
            for host in (small, large):
                writer.attach(host)
            await writer.flush()
    assert database.row()["hypervisor_hostname"] == "small"
    (told, left_out) = [log for log in logs if log["log_level"] != "info"]
    assert told["event"] == "columns do not hold every host's values"
    assert told["reasons"] == [
        f"the column memory_mb (smallint{'' if MYSQL else '(6)'}) holds no more than 32767",
        f"the column free_ram_mb (int{'' if MYSQL else '(10)'} unsigned) holds nothing below 0",
    ]
    assert (left_out["host"], left_out["code"]) == ("large", 1264)
    database.execute(told["mend"])
    large.start(memory_kib=64 * 1024 * 1024)
    with capture_logs() as logs:
        async with ComputeNodeWriter(database.url, settings=SETTINGS) as writer:
            writer.attach(large)
            await writer.flush()
    assert [log["event"] for log in logs if log["log_level"] != "info"] == []
    assert database.row("hypervisor_hostname = 'large'")["free_ram_mb"] == -32_768


async def test_a_table_that_cannot_be_seen_may_be_missing(database: Database) -> None:
    """The server forbids a table that it does not have: the DDL is named beside the GRANTs."""
    account = "'blind'@'localhost'"
    (columns, _) = schema.grant_statements(database.name, account)
    url = make_account(database, "blind", columns)
    database.execute("DROP TABLE asynchost_fence")
    error = await refusal(database, url)
    assert error.code == 1142
    ways, _, grants = error.remedy.partition("; then ")
    command, _, create = ways.partition(", or ")
    assert command == (
        "create the table if it is missing:"
        " asynchost schema --apply --database URL (as an account that may create tables)"
    )
    for statement in (create, *grants.split("; ")):
        database.execute(statement)
    async with ComputeNodeWriter(url):
        pass


async def test_a_database_that_cannot_be_seen_may_be_missing(database: Database) -> None:
    """The same with the database."""
    url = make_account(database, "outsider")
    error = await refusal(database, url.replace(database.name, "nowhere"))
    assert error.code == 1044
    assert error.remedy.startswith(
        "create the database if it is missing: CREATE DATABASE `nowhere`; then GRANT SELECT"
    )


async def test_an_account_that_may_not_create_is_told_who_may(empty_database: Database) -> None:
    """``schema --apply`` itself, with the daemon's account."""
    account = "'runner'@'localhost'"
    url = make_account(
        empty_database, "runner", f"GRANT SELECT ON {empty_database.name}.* TO {account}"
    )
    with pytest.raises(DatabaseRefusedError, match=r"GRANT CREATE ON .* TO 'runner'@'localhost'"):
        await apply_schema(url)


async def test_the_printed_grants_suffice(database: Database) -> None:
    """The least-privilege account creates, adopts, writes, renews and takes leave."""
    account = "'little'@'localhost'"
    url = make_account(database, "little", *schema.grant_statements(database.name, account))
    database.insert_node(hypervisor_hostname="there", deleted=None)
    hosts = [FakeHost("new"), FakeHost("there")]
    async with ComputeNodeWriter(url, settings=SETTINGS) as writer:
        for host in hosts:
            writer.attach(host)
        await writer.flush()
        for host in hosts:
            host.start(3)
        await writer.flush()
    assert [row["vcpus_used"] for row in database.rows()] == [3, 3]
    assert [fence["state"] for fence in database.fences()] == ["stopped", "stopped"]


async def test_a_wrong_password_is_refused_and_not_shown(database: Database) -> None:
    """The error names the account, never the password."""
    url = make_account(database, "guarded", password="right")
    wrong = url.replace("guarded@", "guarded:wr0ng@")
    error = await refusal(database, wrong)
    assert error.code == 1045
    assert "guarded" in error.remedy
    assert "wr0ng" not in f"{error} {error!r} {error.__dict__}"
    assert "wr0ng" not in "".join(traceback.format_exception(error))
    database.execute(f"GRANT ALL ON {database.name}.* TO guarded@localhost")
    async with ComputeNodeWriter(url, password="right"):
        pass


async def test_a_password_may_hold_any_letter(database: Database) -> None:
    """Also those that the driver's own encoding does not have."""
    url = make_account(
        *(database, "foreigner", f"GRANT ALL ON {database.name}.* TO foreigner@localhost"),
        password="pü€",
    )
    async with ComputeNodeWriter(url, password="pü€"):
        pass
    async with ComputeNodeWriter(url.replace("foreigner@", "foreigner:p%C3%BC%E2%82%AC@")):
        pass
    assert (await refusal(database, url.replace("foreigner@", "foreigner:pü@"))).code == 1045


async def test_a_missing_database_is_named(database: Database) -> None:
    """The statement that creates it is part of the text."""
    error = await refusal(database, database.server.url("nowhere"))
    assert (error.code, error.remedy) == (1049, "create it: CREATE DATABASE `nowhere`")


async def test_a_binary_log_of_statements_is_refused_at_once() -> None:
    """Such a server takes no write in READ COMMITTED; the way out is said."""
    binary_log = ("--log-bin", "--binlog-format=STATEMENT", "--server-id=1")
    async with PrivateServer(arguments=binary_log) as server:
        Database(server, "mysql").execute("CREATE DATABASE nova")
        await apply_schema(server.url("nova"))
        error = await refusal(Database(server, "nova"))
    assert (error.code, error.remedy) == (1665, "set binlog_format to MIXED or ROW")


async def test_the_tables_are_made_where_the_default_row_format_is_compact() -> None:
    """As an old configuration still has it; the guard's keys are longer than that takes."""
    async with PrivateServer(arguments=["--innodb-default-row-format=compact"]) as server:
        Database(server, "mysql").execute("CREATE DATABASE nova")
        assert [state.created for state in await apply_schema(server.url("nova"))] == [True, True]
        async with ComputeNodeWriter(server.url("nova")) as writer:
            writer.attach(FakeHost("n1"))
            await writer.flush()


async def test_the_probes_change_nothing(database: Database) -> None:
    """Asking for rights leaves rows, times and the next id alone."""
    database.insert_node()
    before = database.rows(), database.execute("SHOW CREATE TABLE compute_nodes")
    session = await Session.connect(DatabaseUrl.parse(database.url), 5.0)
    async with session:
        await check(session)
    assert (database.rows(), database.execute("SHOW CREATE TABLE compute_nodes")) == before
