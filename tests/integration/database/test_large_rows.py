"""Statements are bounded in bytes as well as in rows; a row that is too large is left out."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from asynchost.database import ComputeNodeWriter, WriterSettings, apply_schema
from asynchost.testing import FakeHost
from tests.support.mariadb import Database, PrivateServer

AT_ONCE = WriterSettings(
    quiet_seconds=0,
    maximum_delay_seconds=0,
    statement_deadline_seconds=30,
    backoff_initial_seconds=0.02,
    backoff_maximum_seconds=0.1,
)
HOSTS = 100
DEADLINE_SECONDS = 60.0


@pytest.fixture
async def narrow() -> AsyncIterator[Database]:
    """A database whose server takes statements of a MiB."""
    async with PrivateServer(arguments=["--max-allowed-packet=1M"]) as server:
        Database(server, "mysql").execute("CREATE DATABASE nova")
        database = Database(server, "nova")
        await apply_schema(database.url)
        yield database


def describe(host: FakeHost, size_bytes: int) -> None:
    """Let the CPU's description be of about this size."""
    facts = host.snapshot().facts
    assert facts is not None
    features = [f"f{number:08}" for number in range(size_bytes // 13)]
    host.set_facts(replace(facts, cpu_info={**facts.cpu_info, "features": features}))


async def test_many_large_rows_are_several_statements(narrow: Database) -> None:
    """Two MiB of descriptions where the server takes one at a time."""
    hosts = [FakeHost(f"n{number:03}") for number in range(HOSTS)]
    async with ComputeNodeWriter(narrow.url, settings=AT_ONCE) as writer:
        for host in hosts:
            writer.attach(host)
        await writer.flush()
        for host in hosts:
            describe(host, 20_000)
        with capture_logs() as logs:
            await asyncio.wait_for(writer.flush(), DEADLINE_SECONDS)
    assert {len(row["cpu_info"]) > 20_000 for row in narrow.rows()} == {True}
    assert {log["log_level"] for log in logs} == {"info"}


async def test_a_row_that_is_larger_than_any_statement_costs_the_others_nothing(
    narrow: Database,
) -> None:
    """Nor its own other columns; the column that is too large, and takes no NULL, stays as it was.

    A row that is to be made is left out. Once they are of a usual size, both are written.
    """
    hosts = [FakeHost(f"n{number:03}") for number in range(HOSTS)]
    new = FakeHost("new")
    describe(new, 1_500_000)
    async with ComputeNodeWriter(narrow.url, settings=AT_ONCE) as writer:
        for host in hosts:
            writer.attach(host)
        await writer.flush()
        session = await narrow.only_connection()
        before = narrow.rows()[40]["cpu_info"]
        writer.attach(new)
        for host in hosts:
            describe(host, 1_500_000 if host is hosts[40] else 1_000)
            host.start(vcpus=2)
        with capture_logs() as logs:
            await asyncio.wait_for(writer.flush(), DEADLINE_SECONDS)
        left_out = [log for log in logs if log["log_level"] != "info"]
        assert {(log["host"], log["code"]) for log in left_out} == {("n040", 1153), ("new", 1153)}
        rows = narrow.rows()
        assert [row["vcpus_used"] for row in rows] == [2] * HOSTS
        assert [row["hypervisor_hostname"] for row in rows if row["cpu_info"] == before] == ["n040"]
        assert narrow.connections() == [session], "nothing was sent that would end the session"
        for host in (hosts[40], new):
            describe(host, 1_000)
        await asyncio.wait_for(writer.flush(), DEADLINE_SECONDS)
        rows = narrow.rows()
        assert [row["vcpus_used"] for row in rows] == [2] * HOSTS + [0]
        assert before not in [row["cpu_info"] for row in rows]
