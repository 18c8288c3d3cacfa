"""A dry run: every statement is shown, none is carried out."""

import asyncio
from collections.abc import Callable

import pytest

from asynchost.database import ComputeNodeWriter, WriterSettings
from asynchost.errors import RowConflictError
from asynchost.testing import FakeHost
from tests.support.mariadb import Database

# No sign of life comes in between, which the database would show.
AT_ONCE = WriterSettings(
    quiet_seconds=0, maximum_delay_seconds=0, renewal_interval_seconds=1_000_000
)


async def test_statements_are_shown_and_nothing_is_written(database: Database) -> None:
    """By an account that may only read one table, beside an agent that writes."""
    database.make_account("'reader'@'localhost'")
    database.execute(f"GRANT SELECT ON {database.name}.compute_nodes TO 'reader'@'localhost'")
    there, same, new = FakeHost("there"), FakeHost("there"), FakeHost("new")
    shown: list[str] = []
    async with ComputeNodeWriter(database.url, settings=AT_ONCE) as agent:
        attachment = agent.attach(there)
        await agent.flush()
        before = database.rows(), database.fences()
        url = database.server.url(database.name, user="reader")
        async with ComputeNodeWriter(url, settings=AT_ONCE, dry_run=shown.append) as writer:
            for host in (same, new):
                writer.attach(host)
            await writer.flush()
            (insert,) = shown
            assert insert.startswith("INSERT INTO compute_nodes")
            assert "'new'" in insert
            shown.clear()
            same.start(vcpus=2)
            await writer.flush()
            (update,) = shown
            assert "t.vcpus_used = 2" in update
            assert f"f.cn_id = {attachment.row_id}" in update
            shown.clear()
            await writer.flush()
            assert shown == []
        assert (database.rows(), database.fences()) == before
        # The agent was not disturbed, and the shown statement cannot land: it is nobody's.
        database.execute(update)
        there.start(vcpus=5)
        await agent.flush()
        assert database.row()["vcpus_used"] == 5
        assert attachment.term == 1


def reader(database: Database, *tables: str) -> str:
    """The URL of an account that may read these tables, and nothing else."""
    database.make_account("'reader'@'localhost'")
    for table in tables:
        database.execute(f"GRANT SELECT ON {database.name}.{table} TO 'reader'@'localhost'")
    return database.server.url(database.name, user="reader")


async def flush_three(url: str, show: Callable[[str], None] | None) -> dict[str, str]:
    """Which hosts are refused by a run that writes, or by one that shows, and why."""
    async with ComputeNodeWriter(url, settings=AT_ONCE, dry_run=show) as writer:
        attachments = [writer.attach(FakeHost(name)) for name in ("kept", "n1", "there")]
        await writer.flush()
        return {a.host: str(a.error) for a in attachments if a.error is not None}


async def test_beside_nova_it_finds_what_a_run_that_writes_would(nova: Database) -> None:
    """A row that a living nova-compute keeps is refused, and a new one has its host's service:
    what is shown makes the very row that is made."""
    nova.insert_service("rack1", 5)
    nova.insert_node(hypervisor_hostname="kept", service_id=None, host="rack1")
    nova.insert_node(hypervisor_hostname="there", service_id=0)
    service = nova.insert_service("N1.example.org", 5000)
    before = nova.rows()
    shown: list[str] = []
    refused = await flush_three(reader(nova, "compute_nodes", "services"), shown.append)
    assert list(refused) == ["kept"]
    assert "beside_nova" in refused["kept"]
    assert (nova.rows(), nova.fences()) == (before, [])
    insert, update = shown
    there = nova.row("hypervisor_hostname = 'there'")
    assert f"f.cn_id = {there['id']} " in update
    nova.execute(insert)
    promised = nova.row("hypervisor_hostname = 'n1'")
    assert (promised["service_id"], promised["host"]) == (service, "N1.example.org")
    nova.execute("DELETE FROM compute_nodes WHERE hypervisor_hostname = 'n1'")
    assert await flush_three(nova.url, None) == refused
    made = nova.row("hypervisor_hostname = 'n1'")
    its_own = {"id", "uuid", "created_at", "updated_at"}
    assert {c: made[c] for c in made.keys() - its_own} == {
        c: promised[c] for c in promised.keys() - its_own
    }


@pytest.mark.parametrize("is_there", [True, False])
async def test_two_hosts_for_one_row_are_refused_as_by_a_run_that_writes(
    database: Database, is_there: bool
) -> None:
    """Whether the row is there or would be made."""
    if is_there:
        async with ComputeNodeWriter(database.url, settings=AT_ONCE) as writer:
            writer.attach(FakeHost("n1"))
            await writer.flush()
    shown: list[str] = []
    for show in (shown.append, None):
        first, second = FakeHost("a", name="n1"), FakeHost("b", name="N1")
        async with ComputeNodeWriter(database.url, settings=AT_ONCE, dry_run=show) as writer:
            attached = [writer.attach(first), writer.attach(second)]
            await writer.flush()
            errors = [type(attachment.error) for attachment in attached]
        assert errors == [type(None), RowConflictError]
    assert len([one for one in shown if one.startswith("INSERT")]) == (0 if is_there else 1)


async def test_a_name_that_the_services_cannot_hold_stops_no_other_host(nova: Database) -> None:
    """It is left out, as by a run that writes."""
    nova.execute("ALTER TABLE compute_nodes CONVERT TO CHARACTER SET utf8mb4")
    nova.execute("ALTER TABLE services CONVERT TO CHARACTER SET utf8mb3")
    shown: list[str] = []
    async with ComputeNodeWriter(nova.url, settings=AT_ONCE, dry_run=shown.append) as writer:
        for name in ("n\N{GRINNING FACE}", "n1"):
            writer.attach(FakeHost(name))
        await asyncio.wait_for(writer.flush(), 30)
    (insert,) = shown
    assert "'n1'" in insert


async def test_without_the_right_to_read_services_it_knows_none(nova: Database) -> None:
    """As a run that writes with such an account."""
    nova.insert_service("kept", 5)
    nova.insert_service("N1.example.org", 5000)
    shown: list[str] = []
    assert await flush_three(reader(nova, "compute_nodes"), shown.append) == {}
    assert all(statement.startswith("INSERT") for statement in shown)
    for statement in shown:
        nova.execute(statement)
    assert [(row["host"], row["service_id"]) for row in nova.rows()] == [
        ("kept", 0),
        ("n1", 0),
        ("there", 0),
    ]
