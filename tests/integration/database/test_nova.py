"""Nova's wider tables, and beside a nova-compute: only what is ours is written.

``nova.sql`` holds Nova's two tables as its migrations of the release 34.0 make them. The shapes
in between are made from the original table, column after column in the order of today's table:
that in which Nova's releases have added them.
"""

import asyncio
import json
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from asynchost.database import ComputeNodeWriter, WriterSettings, schema
from asynchost.database.checkup import inspect
from asynchost.database.claim import claim
from asynchost.database.identity import Wanted
from asynchost.database.layout import discover
from asynchost.database.rows import RowEncoder, named
from asynchost.database.session import Session
from asynchost.database.url import DatabaseUrl
from asynchost.errors import NovaOwnsRowError, ServiceMissingError, ServiceTakenError
from asynchost.testing import FakeHost
from tests.support.mariadb import MYSQL, Database
from tests.support.waiting import eventually

AT_ONCE = WriterSettings(quiet_seconds=0, maximum_delay_seconds=0)
INSISTING = WriterSettings(quiet_seconds=0, maximum_delay_seconds=0, beside_nova=True)
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


def columns(database: Database) -> set[tuple[str, str]]:
    """The columns of compute_nodes and whether each may be NULL."""
    rows = database.execute("SHOW COLUMNS FROM compute_nodes")
    return {(row["Field"], row["Null"]) for row in rows}


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
    assert (await inspect(database.url)).misfits == ()
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
    nova.make_account("'beside'@'localhost'")
    for grant in schema.grant_statements(nova.name, account):
        nova.execute(grant)
    url = nova.server.url(nova.name, user="beside")
    async with ComputeNodeWriter(url, settings=AT_ONCE) as writer:
        writer.attach(FakeHost("poor"))
        await writer.flush()
    assert (nova.row()["host"], nova.row()["uuid"]) == (None, None)
    for grant in schema.nova_grant_statements(nova.name, account):
        nova.execute(grant)
    nova.insert_service("rack1", 5)
    nova.insert_node(hypervisor_hostname="kept", service_id=None, host="rack1", vcpus_used=9)
    await left_alone_unless_told(nova, url)
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
        " ADD y year NOT NULL, ADD s set('a', 'b') NOT NULL, ADD e enum('a', 'b') NOT NULL,"
        " ADD made int AS (vcpus * 2) STORED, ADD nothing int NULL"
    )
    async with ComputeNodeWriter(database.url, settings=AT_ONCE) as writer:
        writer.attach(FakeHost("n1"))
        await writer.flush()
    row = database.row()
    assert (row["n"], row["t"], row["b"]) == (0, "", b"")
    assert (row["y"], row["s"], row["e"]) == (0, "", "a")
    assert row["d"] == row["created_at"]
    assert (row["with_default"], row["made"], row["nothing"]) == (5, row["vcpus"] * 2, None)


# A MySQL shows the CHECK only to an account with rights on the whole table.
@pytest.mark.parametrize(
    "grants", [["ALL ON {0}.*"], *([] if MYSQL else [schema.grant_statements("{0}", "")])]
)
async def test_what_demands_json_is_given_it(database: Database, grants: Sequence[str]) -> None:
    """By MariaDB's own type, and where a CHECK asks for it, if the account is shown that."""
    database.execute(
        "ALTER TABLE compute_nodes ADD j json NOT NULL, ADD plain longtext NOT NULL,"
        " ADD checked varchar(9) NOT NULL CHECK (json_valid(checked) OR checked = '')"
    )
    account = "json@localhost"
    database.make_account(account)
    for grant in (*grants, "INSERT (j, plain, checked) ON {0}.compute_nodes"):
        words = grant.format(database.name).removeprefix("GRANT ").removesuffix(" TO ")
        database.execute(f"GRANT {words} TO {account}")
    url = database.server.url(database.name, user="json")
    async with ComputeNodeWriter(url, settings=AT_ONCE) as writer:
        writer.attach(FakeHost("n1"))
        await writer.flush()
    row = database.row()
    assert (row["j"], row["plain"]) == ("{}", "")
    assert row["checked"] == ("{}" if grants[0].startswith("ALL") else "")


async def test_a_server_that_tells_no_checks_is_asked_for_none(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As MariaDB before 10.2.22: what it declares as JSON is known by its collation."""
    database.execute("ALTER TABLE compute_nodes ADD j json NOT NULL, ADD plain text NOT NULL")
    query = Session.query

    async def as_an_old_one(session: Session, statement: str) -> Any:
        for name in ("CHECK_CONSTRAINTS", "check_constraints"):
            statement = statement.replace(name, "no_such_view")
        return await query(session, statement)

    monkeypatch.setattr(Session, "query", as_an_old_one)
    async with ComputeNodeWriter(database.url, settings=AT_ONCE) as writer:
        writer.attach(FakeHost("n1"))
        await writer.flush()
    assert (database.row()["j"], database.row()["plain"]) == ("{}", "")


@pytest.mark.parametrize("kind", ["int", "varbinary(255)"])
async def test_a_host_that_is_no_text_names_no_nova_compute(database: Database, kind: str) -> None:
    """A column of somebody's own, by that name."""
    database.execute(f"ALTER TABLE compute_nodes ADD host {kind} DEFAULT NULL")
    database.insert_node(hypervisor_hostname="n1", host="5", vcpus_used=9)
    async with ComputeNodeWriter(database.url, settings=AT_ONCE) as writer:
        writer.attach(FakeHost("n1"))
        await writer.flush()
    assert database.row()["vcpus_used"] == 0


async def test_a_table_whose_name_differs_in_case_is_another_one(database: Database) -> None:
    """What it demands is no matter of ours."""
    database.execute("CREATE TABLE COMPUTE_NODES (legacy int NOT NULL, memory_mb tinyint)")
    with capture_logs() as logs:
        async with ComputeNodeWriter(database.url, settings=AT_ONCE) as writer:
            writer.attach(FakeHost("n1"))
            await writer.flush()
    assert database.row()["hypervisor_hostname"] == "n1"
    assert [log["event"] for log in logs if log["log_level"] == "warning"] == []


async def test_a_foreign_key_to_the_services_is_heeded(nova: Database) -> None:
    """As Nova's tables had it for some years: a row is made for the host's service, and for none
    other; a host without one is told what it lacks, and the others go on."""
    nova.execute("DROP TABLE compute_nodes")
    nova.execute(schema.compute_nodes_ddl())
    nova.execute(
        "ALTER TABLE compute_nodes ADD CONSTRAINT fk_compute_nodes_service_id"
        " FOREIGN KEY (service_id) REFERENCES services (id)"
    )
    service = nova.insert_service("served", 5000)
    async with ComputeNodeWriter(nova.url, settings=AT_ONCE) as writer:
        served = FakeHost("served")
        writer.attach(FakeHost("stray"))
        writer.attach(served)
        await writer.flush()
        with pytest.raises(ServiceMissingError, match=r"'stray'.* service_id"):
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
    nova.insert_service("other", 5000)
    service = nova.insert_service(service_host, 5000)
    async with ComputeNodeWriter(nova.url, settings=AT_ONCE) as writer:
        writer.attach(FakeHost("n1"))
        await writer.flush()
    row = nova.row()
    assert (row["service_id"], row["host"]) == (service, service_host)
    assert nova.fences()[0]["service"] == str(service)


async def test_services_that_cannot_be_told_apart_are_nobodys(nova: Database) -> None:
    """Then the row is made without one."""
    for place in ("here", "there"):
        nova.insert_service(f"n1.{place}", 0)
    async with ComputeNodeWriter(nova.url, settings=AT_ONCE) as writer:
        writer.attach(FakeHost("n1"))
        await writer.flush()
    assert (nova.row()["service_id"], nova.row()["host"]) == (0, "n1")


async def left_alone_unless_told(nova: Database, url: str | None = None) -> None:
    """Of two hosts in one batch, ``kept`` is refused and ``free`` is not; with insistence both are
    written."""
    async with ComputeNodeWriter(url or nova.url, settings=AT_ONCE) as writer:
        writer.attach(FakeHost("kept"))
        writer.attach(FakeHost("free"))
        with pytest.raises(NovaOwnsRowError, match="insist with beside_nova") as caught:
            await asyncio.wait_for(writer.wait(), 30)
        assert caught.value.hypervisor_hostname == "kept"
        await eventually(lambda: nova.rows("hypervisor_hostname = 'free'"), 30)
    assert nova.row("hypervisor_hostname = 'kept'")["vcpus_used"] == 9
    async with ComputeNodeWriter(url or nova.url, settings=INSISTING) as writer:
        writer.attach(FakeHost("kept"))
        await writer.flush()
    assert nova.row("hypervisor_hostname = 'kept'")["vcpus_used"] == 0


async def test_a_row_that_a_living_nova_compute_keeps_is_left_alone(nova: Database) -> None:
    """The other hosts go on; with insistence it is written."""
    nova.insert_service("kept", 5)
    nova.insert_node(hypervisor_hostname="kept", vcpus_used=9)
    await left_alone_unless_told(nova)


@pytest.mark.parametrize(
    ("tells", "original"), [("host", False), ("service_id", False), ("service_id", True)]
)
async def test_a_row_that_names_a_living_nova_compute_is_left_alone(
    nova: Database, tells: str, original: bool
) -> None:
    """Whatever that one is called: nova.conf may say ``host = rack1``."""
    if original:
        nova.execute("DROP TABLE compute_nodes")
        nova.execute(schema.compute_nodes_ddl())
    service = nova.insert_service("rack1", 5)
    said = {"host": "rack1", "service_id": None} if tells == "host" else {"service_id": service}
    nova.insert_node(hypervisor_hostname="kept", vcpus_used=9, **said)
    nova.insert_node(hypervisor_hostname="free", service_id=0)
    await left_alone_unless_told(nova)


@pytest.mark.parametrize(
    "case", ["no service", "another binary", "silent", "gone", "given", "its own", "of no host"]
)
async def test_a_row_that_no_living_nova_compute_keeps_is_written(
    nova: Database, case: str
) -> None:
    """Of a service only its id is the row's, and that says little where a user gave it, now or
    when the row was made."""
    others = nova.insert_service("rack1", 5)
    service, host = {
        "no service": lambda: (0, "n1"),
        "another binary": lambda: (nova.insert_service("c1", 5, "nova-conductor"), "c1"),
        "silent": lambda: (nova.insert_service("rack2", 5000), "rack2"),
        "gone": lambda: (nova.insert_service("rack2", 5, deleted=1), "rack2"),
        "given": lambda: (others, None),
        "its own": lambda: (others, "n1"),
        "of no host": lambda: (None, None),
    }[case]()
    nova.insert_node(hypervisor_hostname="n1", service_id=service, host=host, vcpus_used=9)
    async with ComputeNodeWriter(nova.url, settings=AT_ONCE) as writer:
        attachment = writer.attach(FakeHost("n1"), service_id=others if case == "given" else None)
        await asyncio.wait_for(writer.flush(), 30)
        assert attachment.error is None
    row = nova.row()
    assert (row["vcpus_used"], row["service_id"], row["host"]) == (0, service, host)


async def test_a_row_that_nova_makes_while_it_is_claimed_is_left_alone(
    nova: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts is what is there under the lock."""
    async with await Session.connect(DatabaseUrl.parse(nova.url), 10.0) as session:
        write = session.write

        async def write_after_nova(statement: str) -> int:
            if statement == "START TRANSACTION":
                nova.insert_service("rack1", 0)
                nova.insert_node(hypervisor_hostname="n1", service_id=None, host="rack1")
            return await write(statement)

        monkeypatch.setattr(session, "write", write_after_nova)
        wanted = Wanted("n1", None, named(RowEncoder().encode(FakeHost("n1").snapshot())))
        with pytest.raises(NovaOwnsRowError):
            await claim(session, [wanted], "me", {}, await discover(session))
    assert nova.row()["host"] == "rack1"
    assert nova.fences() == []


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
