"""A host's row read as it stands, and a look at the server: with real ones, writing nothing."""

from datetime import timedelta

import pytest

from asynchost.database import ComputeNodeWriter
from asynchost.database.checkup import NodeRow, inspect, known_false, reach, read_rows
from asynchost.database.schema import COMPUTE_NODES_COLUMNS, OWNED_COLUMNS
from asynchost.errors import AmbiguousRowError, DatabaseRefusedError, DatabaseUnavailableError
from asynchost.testing import FakeHost
from tests.support.mariadb import MYSQL, Database

TEXTS = ("hypervisor_type", "cpu_info")


def insert(database: Database, name: str, service_id: int, deleted: int | None = 0) -> int:
    """A row of which every number is the service's; returns its id."""
    values = dict.fromkeys(OWNED_COLUMNS, str(service_id)) | dict.fromkeys(TEXTS, "'x'")
    values |= {
        "hypervisor_hostname": f'"{name}"',
        "service_id": str(service_id),
        "deleted": "NULL" if deleted is None else str(deleted),
    }
    columns = ", ".join(values)
    database.execute(f"INSERT INTO compute_nodes ({columns}) VALUES ({', '.join(values.values())})")
    return max(int(row["id"]) for row in database.rows())


def node_row(row_id: int, name: str, number: int) -> NodeRow:
    """What is read of such a row."""
    values = dict.fromkeys(OWNED_COLUMNS, number) | dict.fromkeys(TEXTS, "x")
    return NodeRow(row_id, {**values, "hypervisor_hostname": name})


async def test_each_host_has_its_live_row_or_none(database: Database) -> None:
    """Names are the database's to compare; a soft-deleted row is none."""
    first = insert(database, "node1", 1)
    insert(database, "node2", 2, deleted=7)
    third = insert(database, "node'3", 3, deleted=None)
    names = {"node1": None, "NODE1": None, "node2": None, "node'3": None, "node4": None}
    before = database.rows()
    assert await read_rows(database.url, names) == {
        "node1": node_row(first, "node1", 1),
        "NODE1": node_row(first, "node1", 1),
        "node2": None,
        "node'3": node_row(third, "node'3", 3),
        "node4": None,
    }
    assert database.rows() == before


async def test_of_several_rows_the_service_tells_which(database: Database) -> None:
    """Without one there is no answer."""
    insert(database, "node1", 1)
    second = insert(database, "node1", 2)
    with pytest.raises(AmbiguousRowError, match="service_id"):
        await read_rows(database.url, {"node1": None})
    assert await read_rows(database.url, {"node1": 2}) == {"node1": node_row(second, "node1", 2)}
    assert await read_rows(database.url, {"node1": 9}) == {"node1": None}


async def test_a_replica_is_read_where_there_is_no_other(private_database: Database) -> None:
    """To look takes no write, and no right but the one to read."""
    row = insert(private_database, "node1", 1)
    columns = ", ".join(COMPUTE_NODES_COLUMNS)
    for statement in (
        "CREATE USER reader@localhost",
        f"GRANT SELECT ({columns}) ON compute_nodes TO reader@localhost",
        "SET GLOBAL read_only = 1",
    ):
        private_database.execute(statement)
    url = private_database.server.url(private_database.name, user="reader")
    assert await read_rows(url, {"node1": None}) == {"node1": node_row(row, "node1", 1)}
    with pytest.raises(DatabaseUnavailableError, match="read-only"):
        await reach(url)
    private_database.execute("REVOKE SELECT ON compute_nodes FROM reader@localhost")
    private_database.execute("REVOKE ALL, GRANT OPTION FROM reader@localhost")
    with pytest.raises(DatabaseRefusedError):
        await read_rows(url, {"node1": None})


async def test_what_a_server_says_of_itself(database: Database) -> None:
    """Its version, whom it takes us for, and a clock that is this machine's."""
    server = await reach(database.url)
    assert ("MariaDB" in server.version) is not MYSQL
    assert server.account.endswith("@localhost")
    assert not server.tls
    # Of a process that is held up between two looks, the one in the middle tells little.
    assert abs(server.behind) < timedelta(minutes=1)


async def test_what_is_missing_is_told_with_its_statement(database: Database) -> None:
    """And what is there, with what it has beside."""
    database.execute("ALTER TABLE compute_nodes ADD COLUMN uuid varchar(36)")
    assert [column.name for column in (await inspect(database.url)).columns] == ["uuid"]
    database.execute("ALTER TABLE compute_nodes DROP COLUMN vcpus")
    with pytest.raises(DatabaseRefusedError) as refused:
        await inspect(database.url)
    assert "ADD COLUMN `vcpus`" in refused.value.remedy


async def test_rows_that_are_known_to_be_false_are_found(database: Database) -> None:
    """By what their guards say."""
    async with ComputeNodeWriter(database.url) as writer:
        for name in ("n1", "n2", "n3"):
            writer.attach(FakeHost(name))
        await writer.flush()
    assert await known_false(database.url) == {}
    database.execute("UPDATE asynchost_fence SET state = 'partial' WHERE node = 'n2'")
    database.execute("UPDATE asynchost_fence SET state = 'refused' WHERE node = 'n3'")
    assert await known_false(database.url) == {"n2": "partial", "n3": "refused"}
