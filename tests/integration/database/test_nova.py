"""Nova's wider tables, and beside a nova-compute: only what is ours is written.

``nova.sql`` holds Nova's two tables as its migrations of the release 34.0 make them. The shapes
in between are made from the original table, column after column in the order of today's table:
that in which Nova's releases have added them.
"""

import asyncio
import json
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from asynchost.database import ComputeNodeWriter, WriterSettings, apply_schema, schema
from asynchost.errors import NovaOwnsRowError, ServiceMissingError, ServiceTakenError
from asynchost.testing import FakeHost
from tests.support.mariadb import Database
from tests.support.waiting import eventually

TODAYS = Path(__file__).parent / "nova.sql"
AT_ONCE = WriterSettings(quiet_seconds=0, maximum_delay_seconds=0)
STEPS = (
    "MODIFY deleted int DEFAULT NULL",
    "ADD host_ip varchar(39) DEFAULT NULL",
    "ADD supported_instances text DEFAULT NULL",
    "ADD pci_stats text DEFAULT NULL",
    "ADD metrics text DEFAULT NULL",
    "ADD extra_resources text DEFAULT NULL",
    "ADD stats text DEFAULT NULL",
    "ADD numa_topology text DEFAULT NULL",
    "MODIFY service_id int DEFAULT NULL, ADD host varchar(255) DEFAULT NULL",
    "ADD UNIQUE KEY uniq (host, hypervisor_hostname, deleted)",
    "ADD ram_allocation_ratio float DEFAULT NULL, ADD cpu_allocation_ratio float DEFAULT NULL",
    "ADD uuid varchar(36) DEFAULT NULL, ADD UNIQUE KEY (uuid)",
    "ADD disk_allocation_ratio float DEFAULT NULL",
    "ADD mapped int DEFAULT NULL",
)
SUPPORTED = (("x86_64", "qemu", "hvm"), ("x86_64", "kvm", "hvm"))
OTHERS = (
    *("host_ip", "pci_stats", "metrics", "extra_resources"),
    *("numa_topology", "ram_allocation_ratio", "cpu_allocation_ratio", "disk_allocation_ratio"),
)


@pytest.fixture
async def nova(empty_database: Database) -> Database:
    """A database of today's Nova, with the companion table."""
    for statement in TODAYS.read_text().split(";\n"):
        if statement.strip():
            empty_database.execute(statement)
    await apply_schema(empty_database.url)
    return empty_database


def columns(database: Database) -> set[tuple[str, str]]:
    """The columns of compute_nodes and whether each may be NULL."""
    rows = database.execute("SHOW COLUMNS FROM compute_nodes")
    return {(row["Field"], row["Null"]) for row in rows}


def add_service(database: Database, host: str, silent_seconds: int) -> int:
    """A nova-compute that reported so long ago; returns its id."""
    database.execute(
        "INSERT INTO services (host, `binary`, topic, report_count, deleted, updated_at) VALUES"
        f" ('{host}', 'nova-compute', 'compute', 1, 0,"
        f" UTC_TIMESTAMP() - INTERVAL {silent_seconds} SECOND)"
    )
    (found,) = database.execute(f"SELECT id FROM services WHERE host = '{host}'")
    return int(found["id"])


async def write_two_hosts(database: Database, url: str | None = None) -> None:
    """One row is made, one is adopted; both are written, and nothing else of them is."""
    database.insert_node(hypervisor_hostname="there", service_id=7)
    wider = {name for name, _ in columns(database)} - schema.COMPUTE_NODES_COLUMNS.keys()
    there = database.row("hypervisor_hostname = 'there'")
    hosts = [FakeHost("made"), FakeHost("there")]
    for host in hosts:
        facts = host.snapshot().facts
        assert facts is not None
        host.set_facts(replace(facts, supported_instances=SUPPORTED))
    async with ComputeNodeWriter(url or database.url, settings=AT_ONCE) as writer:
        for host in hosts:
            writer.attach(host)
        await writer.flush()
        for host in hosts:
            host.start(vcpus=3)
        await writer.flush()
    made = database.row("hypervisor_hostname = 'made'")
    assert made["vcpus_used"] == 3
    assert made["deleted"] == 0
    expected = {"host": "made", "mapped": 0, "stats": "{}"}
    if "supported_instances" in wider:
        assert json.loads(made["supported_instances"]) == [list(one) for one in SUPPORTED]
    for column in wider - {"uuid", "supported_instances"}:
        assert made[column] == expected.get(column), column
    if "uuid" in wider:
        assert uuid.UUID(made["uuid"])
    now = database.row("hypervisor_hostname = 'there'")
    assert now["vcpus_used"] == 3
    assert {name: now[name] for name in wider} == {name: there[name] for name in wider}


@pytest.mark.parametrize("steps", range(len(STEPS) + 1))
async def test_every_shape_on_the_way_is_written(database: Database, steps: int) -> None:
    """From the original table to today's."""
    for step in STEPS[:steps]:
        database.execute(f"ALTER TABLE compute_nodes {step}")
    await write_two_hosts(database)


async def test_the_last_shape_is_todays(nova: Database) -> None:
    """So none of Nova's columns is missing in between."""
    todays = columns(nova)
    assert {name for name, _ in todays} >= {*schema.NOVA_COLUMNS, *OTHERS}
    nova.execute("DROP TABLE compute_nodes")
    nova.execute(schema.compute_nodes_ddl())
    for step in STEPS:
        nova.execute(f"ALTER TABLE compute_nodes {step}")
    assert columns(nova) == todays


async def test_the_printed_rights_suffice_beside_nova(nova: Database) -> None:
    """And without those on Nova's columns and services a row is made all the same."""
    account = "'beside'@'localhost'"
    nova.execute("CREATE OR REPLACE USER 'beside'@'localhost'")
    for grant in schema.grant_statements(nova.name, account):
        nova.execute(grant)
    url = nova.server.url(nova.name, user="beside")
    async with ComputeNodeWriter(url, settings=AT_ONCE) as writer:
        writer.attach(FakeHost("poor"))
        await writer.flush()
    assert (nova.row()["host"], nova.row()["uuid"]) == (None, None)
    for grant in schema.nova_grant_statements(nova.name, account):
        nova.execute(grant)
    await write_two_hosts(nova, url)


async def test_a_row_of_a_host_that_tells_no_guests_is_read_by_nova_too(nova: Database) -> None:
    """Nova's readers want at least an empty list."""
    async with ComputeNodeWriter(nova.url, settings=AT_ONCE) as writer:
        writer.attach(FakeHost("n1"))
        await writer.flush()
    assert nova.row()["supported_instances"] == "[]"


async def test_what_a_table_demands_is_supplied(database: Database) -> None:
    """Somebody's own columns, NOT NULL and without a default."""
    database.execute(
        "ALTER TABLE compute_nodes ADD n decimal(5, 2) NOT NULL, ADD t varchar(9) NOT NULL,"
        " ADD b blob NOT NULL, ADD d datetime NOT NULL, ADD with_default int NOT NULL DEFAULT 5,"
        " ADD made int AS (vcpus * 2) STORED, ADD nothing int NULL"
    )
    async with ComputeNodeWriter(database.url, settings=AT_ONCE) as writer:
        writer.attach(FakeHost("n1"))
        await writer.flush()
    row = database.row()
    assert (row["n"], row["t"], row["b"]) == (0, "", b"")
    assert row["d"] == row["created_at"]
    assert (row["with_default"], row["made"], row["nothing"]) == (5, row["vcpus"] * 2, None)


async def test_a_foreign_key_to_the_services_is_heeded(nova: Database) -> None:
    """As Nova's tables had it for some years: a row is made for the host's service, and for none
    other; a host without one is told what it lacks, and the others go on."""
    nova.execute("DROP TABLE compute_nodes")
    nova.execute(schema.compute_nodes_ddl())
    nova.execute(
        "ALTER TABLE compute_nodes ADD CONSTRAINT fk_compute_nodes_service_id"
        " FOREIGN KEY (service_id) REFERENCES services (id)"
    )
    service = add_service(nova, "served", 5000)
    async with ComputeNodeWriter(nova.url, settings=AT_ONCE) as writer:
        served = FakeHost("served")
        writer.attach(FakeHost("stray"))
        writer.attach(served)
        await writer.flush()
        with pytest.raises(ServiceMissingError, match=r"'stray'.* --service-id"):
            await writer.wait()
        served.start(vcpus=2)
        await writer.flush()
    row = nova.row()
    assert (row["hypervisor_hostname"], row["service_id"]) == ("served", service)
    assert row["vcpus_used"] == 2


async def test_a_given_service_beside_the_one_row_that_the_table_takes(nova: Database) -> None:
    """Said at once with the row that is there, and nothing of it is touched."""
    row_id = nova.insert_node(hypervisor_hostname="n1", host="n1", service_id=7)
    before = nova.rows()
    async with ComputeNodeWriter(nova.url, settings=AT_ONCE) as writer:
        writer.attach(FakeHost("n1"), service_id=9)
        with pytest.raises(ServiceTakenError) as caught:
            await asyncio.wait_for(writer.wait(), 30)
    assert caught.value.rows == ((row_id, 7),)
    assert (nova.rows(), nova.fences()) == (before, [])


@pytest.mark.parametrize("service_host", ["n1", "N1.example.org"])
async def test_a_row_is_made_for_the_service_of_its_host(nova: Database, service_host: str) -> None:
    """By its name, else by what stands before the first dot where that is one service only."""
    add_service(nova, "other", 5000)
    service = add_service(nova, service_host, 5000)
    async with ComputeNodeWriter(nova.url, settings=AT_ONCE) as writer:
        writer.attach(FakeHost("n1"))
        await writer.flush()
    row = nova.row()
    assert (row["service_id"], row["host"]) == (service, service_host)
    assert nova.fences()[0]["service"] == str(service)


async def test_services_that_cannot_be_told_apart_are_nobodys(nova: Database) -> None:
    """Then the row is made without one."""
    for place in ("here", "there"):
        add_service(nova, f"n1.{place}", 0)
    async with ComputeNodeWriter(nova.url, settings=AT_ONCE) as writer:
        writer.attach(FakeHost("n1"))
        await writer.flush()
    assert (nova.row()["service_id"], nova.row()["host"]) == (0, "n1")


async def test_a_row_that_a_living_nova_compute_keeps_is_left_alone(nova: Database) -> None:
    """The other hosts go on; with insistence it is written."""
    add_service(nova, "kept", 5)
    nova.insert_node(hypervisor_hostname="kept", vcpus_used=9)
    async with ComputeNodeWriter(nova.url, settings=AT_ONCE) as writer:
        writer.attach(FakeHost("kept"))
        writer.attach(FakeHost("free"))
        with pytest.raises(NovaOwnsRowError, match="insist with --beside-nova"):
            await writer.wait()
        await eventually(lambda: nova.rows("hypervisor_hostname = 'free'"), 30)
    assert nova.row("hypervisor_hostname = 'kept'")["vcpus_used"] == 9
    insisting = WriterSettings(quiet_seconds=0, maximum_delay_seconds=0, beside_nova=True)
    async with ComputeNodeWriter(nova.url, settings=insisting) as writer:
        writer.attach(FakeHost("kept"))
        await writer.flush()
    assert nova.row("hypervisor_hostname = 'kept'")["vcpus_used"] == 0


async def test_a_row_that_nova_has_soft_deleted_stays_so(nova: Database) -> None:
    """Nova writes the row's id into ``deleted``; a new row is made beside it."""
    row_id = nova.insert_node(hypervisor_hostname="n1", host="n1")
    nova.execute("UPDATE compute_nodes SET deleted = id, deleted_at = UTC_TIMESTAMP()")
    before = nova.row()
    async with ComputeNodeWriter(nova.url, settings=AT_ONCE) as writer:
        writer.attach(FakeHost("n1"))
        await writer.flush()
    assert nova.row(f"id = {row_id}") == before
    assert nova.row("deleted = 0")["host"] == "n1"
