"""How the server carries the statements out: a guard statement reads and locks its own rows."""

import asyncio
from collections.abc import Mapping

import pytest
from structlog.testing import capture_logs

from asynchost.database import ComputeNodeWriter, WriterSettings, apply_schema, statements
from asynchost.database.statements import FenceKey, RowWrite, Sign
from asynchost.testing import FakeHost
from tests.support.mariadb import MYSQL, Database, PrivateServer

OWNER, ROWS, AGENTS = "me", 60, 40
KEY = FenceKey("n7", "0")
SETTINGS = WriterSettings(
    quiet_seconds=0,
    maximum_delay_seconds=0,
    backoff_initial_seconds=0.02,
    backoff_maximum_seconds=0.1,
)
BY_KEY = {"const", "eq_ref", "ref", "range", "system"}


def guard_statements() -> Mapping[str, str]:
    """Each statement that touches a guard or a row, for one host."""
    write = RowWrite(7, 1, 1, ("vcpus_used",), (3,))
    return {
        "update": statements.update([write], OWNER),
        "renew": statements.renew([Sign(7, 1, "fresh", None)], OWNER),
        "read_back": statements.read_back([KEY]),
        "read_guards": statements.read_guards([KEY], 180.0),
        "lock_guards": statements.lock_guards([KEY]),
        "lock_rows": statements.lock_rows([7]),
        "take_silent_fence": statements.take_silent_fence(KEY, OWNER, 0, 180.0),
        "read_fences": statements.read_fences([KEY]),
        "adopt": statements.adopt([7]),
        "read_rows": statements.read_rows([7]),
        "evict_fences": statements.evict_fences({KEY: 7}, OWNER),
        "point_fences": statements.point_fences({KEY: 7}),
    }


@pytest.mark.parametrize("name", guard_statements())
async def test_a_statement_for_one_host_takes_its_key(database: Database, name: str) -> None:
    """In the server's own plan no table of the two is read from end to end."""
    first = database.insert_node(hypervisor_hostname="n0", service_id=0)
    names = [f"n{number}" for number in range(ROWS)]
    nodes = ", ".join(f"(0, 0, 1, 1, 1, 0, 0, 0, 'QEMU', 1, '{{}}', '{name}')" for name in names)
    guards = ", ".join(
        f"('{name}', '0', {first + 1 + number}, 1, 0, 'me', 'fresh', NOW(), NOW())"
        for number, name in enumerate(names)
    )
    database.execute(
        "INSERT INTO compute_nodes (deleted, service_id, vcpus, memory_mb, local_gb, vcpus_used,"
        " memory_mb_used, local_gb_used, hypervisor_type, hypervisor_version, cpu_info,"
        f" hypervisor_hostname) VALUES {nodes}"
    )
    database.execute(
        "INSERT INTO asynchost_fence (node, service, cn_id, term, seq, owner, state, seen_at,"
        f" updated_at) VALUES {guards}"
    )
    explain = "EXPLAIN FORMAT=TRADITIONAL" if MYSQL else "EXPLAIN"
    plan = database.execute(f"{explain} {guard_statements()[name]}")
    tables = [step for step in plan if step["table"] in ("asynchost_fence", "compute_nodes", *"ft")]
    assert tables
    assert all(step["type"] in BY_KEY and step["key"] for step in tables), plan


async def test_many_agents_that_start_at_once_do_not_deadlock() -> None:
    """Each with one host of its own; on MariaDB also where a scan would wait for every locked row,
    as is the default from 11.6 on."""
    isolation = [] if MYSQL else ["--innodb-snapshot-isolation=ON"]
    async with PrivateServer(arguments=["--max-connections=100", *isolation]) as server:
        Database(server, "mysql").execute("CREATE DATABASE nova")
        database = Database(server, "nova")
        await apply_schema(database.url)

        async def agent(number: int) -> None:
            async with ComputeNodeWriter(database.url, settings=SETTINGS) as writer:
                writer.attach(FakeHost(f"n{number}"))
                await writer.flush()

        with capture_logs() as logs:
            await asyncio.gather(*(agent(number) for number in range(AGENTS)))
        assert len(database.rows()) == AGENTS
    # 1213 is a deadlock.
    assert [log for log in logs if "1213" in str(log.get("reason"))] == []
