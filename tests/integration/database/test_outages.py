"""The writer while its server is killed, stopped, late, or says no: the row is true afterwards."""

import asyncio
import gc
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from asynchost.database import ComputeNodeWriter, WriterSettings, apply_schema
from asynchost.database.rows import RowEncoder, named
from asynchost.database.session import Session
from asynchost.errors import DatabaseRefusedError
from asynchost.testing import FakeHost
from tests.support.mariadb import Database, PrivateServer
from tests.support.waiting import eventually

AT_ONCE = WriterSettings(
    quiet_seconds=0,
    maximum_delay_seconds=0,
    backoff_initial_seconds=0.02,
    backoff_maximum_seconds=0.1,
    refusal_retry_seconds=0.1,
    # A sign of life in between would be the first to find out, or one task more.
    renewal_interval_seconds=86_400,
)
GIVING_UP = replace(AT_ONCE, statement_deadline_seconds=0.5)
"""For what is never answered. A busy machine may be as late with what is."""


@contextmanager
def locked(database: Database, statement: str) -> Iterator[None]:
    """A rival's transaction that holds the locks of ``statement``, rolled back at the end."""
    rival = database.connect()
    try:
        with rival.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute(statement)
        yield
    finally:
        rival.rollback()
        rival.close()


async def vcpus_used(database: Database) -> object:
    """What the row says; asked in a thread, for the writer must run meanwhile."""
    return (await asyncio.to_thread(database.row))["vcpus_used"]


async def test_a_killed_server_is_waited_for(private_database: Database) -> None:
    """Changes during the outage are in the row after it; one line for each reason, one says up."""
    server, host = private_database.server, FakeHost("n1")
    async with ComputeNodeWriter(private_database.url, settings=AT_ONCE) as writer:
        attachment = writer.attach(host)
        await writer.flush()
        with capture_logs() as logs:
            await server.kill()
            for _ in range(5):
                host.start()
            await eventually(lambda: logs)
            await server.start()
            await writer.flush()
        assert await vcpus_used(private_database) == 5
        assert attachment.term == 1, "a reconnect raises no term"
    *down, up, written = logs
    assert {log["event"] for log in down} == {"database unavailable, trying again"}
    assert len({log["reason"] for log in down}) == len(down)
    assert [up["event"], written["event"]] == ["database connected", "row written"]


async def test_a_restart_between_two_writes_loses_none(private_database: Database) -> None:
    """An orderly restart, seen only at the next write."""
    host = FakeHost("n1")
    async with ComputeNodeWriter(private_database.url, settings=AT_ONCE) as writer:
        writer.attach(host)
        await writer.flush()
        await private_database.server.restart()
        host.start()
        await writer.flush()
        assert await vcpus_used(private_database) == 1


async def test_lost_acknowledged_writes_are_found_and_written_again(
    private_database: Database,
) -> None:
    """The database is older at the next connection than what it had acknowledged."""
    server, host = private_database.server, FakeHost("n1")
    # The writer's own way in, so that it stays out while the loss is made.
    door = server.folder / "door"
    door.symlink_to(server.socket)
    url = private_database.url.replace(str(server.socket), str(door))
    async with ComputeNodeWriter(url, settings=AT_ONCE) as writer:
        writer.attach(host)
        await writer.flush()
        host.start(vcpus=2)
        await writer.flush()
        door.unlink()
        await server.restart(crash=True)
        # What a crash with innodb_flush_log_at_trx_commit = 0 leaves: an older row and guard.
        private_database.execute(
            "UPDATE compute_nodes, asynchost_fence SET vcpus_used = 0, seq = 0"
        )
        with capture_logs() as logs:
            host.set_disk(None)
            door.symlink_to(server.socket)
            await eventually(lambda: [log for log in logs if log["event"] == "row written"])
        assert await vcpus_used(private_database) == 2
        assert "the database lost acknowledged writes" in [log["event"] for log in logs]
        (written,) = [log for log in logs if log["event"] == "row written"]
        assert written["vcpus_used"] == 2
        # All of it: the writes may not be lost but late, as on a node that lags.
        assert written.keys() >= named(RowEncoder().encode(host.snapshot())).keys()


async def test_a_killed_session_is_replaced(database: Database) -> None:
    """KILL of the connection: the next change finds another one."""
    host = FakeHost("n1")
    async with ComputeNodeWriter(database.url, settings=AT_ONCE) as writer:
        writer.attach(host)
        await writer.flush()
        for round_number in range(1, 4):
            session = await database.only_connection()
            database.execute(f"KILL {session}")
            host.start()
            await writer.flush()
            assert await vcpus_used(database) == round_number


async def test_a_silent_server_is_given_up_and_found_again(private_database: Database) -> None:
    """SIGSTOP for longer than the deadline: the outcome is unknown, and found out."""
    server, host = private_database.server, FakeHost("n1")
    async with ComputeNodeWriter(private_database.url, settings=GIVING_UP) as writer:
        writer.attach(host)
        await writer.flush()
        server.suspend()
        try:
            with capture_logs() as logs:
                host.start(vcpus=1)
                await eventually(lambda: logs)
            assert "no answer within 0.5 s" in logs[0]["reason"]
            host.start(vcpus=2)
        finally:
            server.resume()
        await writer.flush()
        assert await vcpus_used(private_database) == 3


async def test_a_write_that_was_given_up_cannot_land_after_a_newer_one(
    database: Database,
) -> None:
    """A rival's lock holds the first write back past its deadline; the newer one wins."""
    host = FakeHost("n1")
    async with ComputeNodeWriter(database.url, settings=GIVING_UP) as writer:
        writer.attach(host)
        await writer.flush()
        with capture_logs() as logs, locked(database, "SELECT * FROM compute_nodes FOR UPDATE"):
            number = host.start(vcpus=7)
            await eventually(lambda: logs)
            host.stop(number)
            host.start(vcpus=1)
        await writer.flush()
        assert await vcpus_used(database) == 1
        # Nothing of the older write is still on its way.
        await eventually(lambda: len(database.connections()) == 1)
        assert await vcpus_used(database) == 1


async def test_a_lock_wait_is_not_an_outage(database: Database) -> None:
    """1205 is tried again on the same connection."""
    settings = WriterSettings(
        quiet_seconds=0, maximum_delay_seconds=0, backoff_initial_seconds=0.02
    )
    host, other = FakeHost("n1"), FakeHost("n2")
    async with ComputeNodeWriter(database.url, settings=settings) as writer:
        attachment = writer.attach(host)
        writer.attach(other)
        await writer.flush()
        connection = await database.only_connection()
        lock = f"SELECT * FROM compute_nodes WHERE id = {attachment.row_id} FOR UPDATE"
        with capture_logs() as logs:
            with locked(database, lock):
                host.start()
                await eventually(lambda: logs)
                assert (logs[0]["event"], logs[0]["hosts"]) == ("writing again later", ["n1"])
                other.start()
                await eventually(
                    lambda: database.row("hypervisor_hostname = 'n2'")["vcpus_used"] == 1, 30
                )
            await writer.flush()
        assert [row["vcpus_used"] for row in database.rows()] == [1, 1]
        assert database.connections() == [connection]


async def test_a_server_that_comes_later_is_waited_for(private_database: Database) -> None:
    """Entering returns though nothing answers; the row is made when the server comes."""
    server, host = private_database.server, FakeHost("n1")
    await server.terminate()
    with capture_logs() as logs:
        async with ComputeNodeWriter(private_database.url, settings=AT_ONCE) as writer:
            writer.attach(host)
            host.start(vcpus=3)
            await server.start()
            await writer.flush()
            assert await vcpus_used(private_database) == 3
    assert logs[0]["event"] == "database unavailable, trying again"
    assert "No such file" in logs[0]["reason"] or "refused" in logs[0]["reason"]


async def test_a_server_that_comes_later_and_refuses_ends_the_wait() -> None:
    """Down at the start, then no table: wait() raises, and so does a flush."""
    async with PrivateServer() as server:
        Database(server, "mysql").execute("CREATE DATABASE nova")
        await server.kill()
        async with ComputeNodeWriter(server.url("nova"), settings=AT_ONCE) as writer:
            writer.attach(FakeHost("n1"))
            flushing = asyncio.create_task(writer.flush())
            await server.start()
            with pytest.raises(DatabaseRefusedError, match="compute_nodes is missing"):
                await asyncio.wait_for(writer.wait(), 30)
            with pytest.raises(DatabaseRefusedError):
                await flushing


@pytest.mark.parametrize(
    ("harm", "mend"),
    [
        pytest.param(
            "RENAME TABLE compute_nodes TO away",
            "RENAME TABLE away TO compute_nodes",
            id="table",
        ),
        pytest.param(
            "ALTER TABLE compute_nodes RENAME COLUMN vcpus_used TO away",
            "ALTER TABLE compute_nodes RENAME COLUMN away TO vcpus_used",
            id="column",
        ),
    ],
)
async def test_a_refusal_while_running_is_tried_again(
    private_database: Database, harm: str, mend: str
) -> None:
    """It says so, stays up, and goes on when a person has mended it."""
    host = FakeHost("n1")
    async with ComputeNodeWriter(private_database.url, settings=AT_ONCE) as writer:
        writer.attach(host)
        await writer.flush()
        with capture_logs() as logs:
            private_database.execute(harm)
            host.start(vcpus=2)
            await eventually(lambda: logs)
            private_database.execute(mend)
            await writer.flush()
        assert await vcpus_used(private_database) == 2
        waiting = asyncio.create_task(writer.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting


async def test_a_read_only_server_is_an_outage(private_database: Database) -> None:
    """As in a failover: an account that may not write now is not an account without rights."""
    private_database.execute("CREATE USER plain@localhost")
    private_database.execute("GRANT SELECT, INSERT, UPDATE ON nova.* TO plain@localhost")
    url = private_database.server.url("nova", user="plain")
    private_database.execute("SET GLOBAL read_only = 1")
    host = FakeHost("n1")
    with capture_logs() as logs:
        async with ComputeNodeWriter(url, settings=AT_ONCE) as writer:
            writer.attach(host)
            assert "error 1290" in logs[0]["reason"]
            private_database.execute("SET GLOBAL read_only = 0")
            await writer.flush()
            host.start()
            private_database.execute("SET GLOBAL read_only = 1")
            await eventually(lambda: logs[-1]["event"] == "database unavailable, trying again")
            private_database.execute("SET GLOBAL read_only = 0")
            await writer.flush()
    assert await vcpus_used(private_database) == 1


async def test_leaving_while_the_server_is_silent_keeps_the_deadline(
    private_database: Database,
) -> None:
    """What stays dirty is told, and nothing is waited for longer than the deadline."""
    server, host = private_database.server, FakeHost("n1")
    # Nothing else ends it while somebody lives to see it.
    settings = WriterSettings(shutdown_deadline_seconds=0.3, statement_deadline_seconds=3600)
    with capture_logs() as logs:
        async with ComputeNodeWriter(private_database.url, settings=settings) as writer:
            writer.attach(host)
            await writer.flush()
            server.suspend()
            host.start()
            began = time.monotonic()
        took = time.monotonic() - began
    server.resume()
    assert took > 0.25
    assert logs[-1]["event"] == "closed with unwritten changes"
    assert logs[-1]["hosts"] == ["n1"]


async def test_leaving_names_all_that_is_unwritten_and_what_of_it_is_stale(
    private_database: Database,
) -> None:
    """A host that went stale with a change unwritten is not written, and is told of; one that went
    stale without is not."""
    server, hosts = private_database.server, [FakeHost(f"n{number:03}") for number in range(150)]
    dirty, stale, clean = hosts[:100], hosts[100:140], hosts[140:]
    settings = replace(AT_ONCE, shutdown_deadline_seconds=0.3)
    with capture_logs() as logs:
        async with ComputeNodeWriter(private_database.url, settings=settings) as writer:
            for host in hosts:
                writer.attach(host)
            await writer.flush()
            server.suspend()
            for host in (*dirty, *stale):
                host.start()
            for host in (*stale, *clean):
                host.lose()
    server.resume()
    told = [log for log in logs if log["event"] == "closed with unwritten changes"]
    named = sorted(name for log in told for name in log["hosts"])
    assert named == [host.host for host in (*dirty, *stale)]
    assert sorted(name for log in told for name in log["stale"]) == [host.host for host in stale]
    assert {log["count"] for log in told} == {140}
    rows = private_database.rows("hypervisor_hostname >= 'n100'")
    assert {row["vcpus_used"] for row in rows} == {0}


async def test_leaving_while_refused_says_so_once(private_database: Database) -> None:
    """The attempts are close together by then; each of them in the log would be a flood."""
    host = FakeHost("n1")
    settings = replace(AT_ONCE, refusal_retry_seconds=3600, shutdown_deadline_seconds=1)
    with capture_logs() as logs:
        async with ComputeNodeWriter(private_database.url, settings=settings) as writer:
            writer.attach(host)
            await writer.flush()
            private_database.execute("RENAME TABLE compute_nodes TO away")
            host.start()
            await eventually(lambda: logs[-1]["event"] == "database unavailable, trying again")
    errors = [log["event"] for log in logs if log["log_level"] in ("error", "warning")]
    assert errors == ["database unavailable, trying again", "closed with unwritten changes"]


async def test_leaving_while_the_server_is_down_and_nothing_is_dirty_is_quick(
    private_database: Database,
) -> None:
    """No reason to wait for it."""
    async with ComputeNodeWriter(private_database.url, settings=AT_ONCE) as writer:
        writer.attach(FakeHost("n1"))
        await writer.flush()
        with capture_logs() as logs:
            await private_database.server.kill()
            await writer.aclose()
    assert "closed with unwritten changes" not in [log["event"] for log in logs]


async def test_leaving_can_be_cancelled(private_database: Database) -> None:
    """Then nothing more is written, and everything is closed all the same."""
    server, host = private_database.server, FakeHost("n1")
    writer = ComputeNodeWriter(private_database.url, settings=AT_ONCE)
    async with asyncio.timeout(20):
        await writer.__aenter__()
        writer.attach(host)
        await writer.flush()
        tasks = len(asyncio.all_tasks())
        server.suspend()
        host.start()
        leaving = asyncio.create_task(writer.aclose())
        await asyncio.sleep(0.05)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
    server.resume()
    assert len(asyncio.all_tasks()) == tasks - 1


async def test_many_hosts_survive_a_crash_with_every_row_true(
    private_database: Database,
) -> None:
    """Changes go on while the server is killed three times; then each row is what its host is."""
    server = private_database.server
    hosts = [FakeHost(f"n{number:02}") for number in range(40)]
    async with ComputeNodeWriter(private_database.url, settings=AT_ONCE) as writer:
        for host in hosts:
            writer.attach(host)
        await writer.flush()

        async def change() -> None:
            for step in range(300):
                hosts[step % len(hosts)].start(vcpus=1 + step % 5)
                await asyncio.sleep(0.001)

        changing = asyncio.create_task(change())
        for _ in range(3):
            await server.restart(crash=True)
        await changing
        await writer.flush()
    rows = await asyncio.to_thread(private_database.rows)
    assert [(row["hypervisor_hostname"], row["vcpus_used"]) for row in rows] == [
        (host.host, host.usage.vcpus_used) for host in hosts
    ]


async def test_a_claim_held_up_by_a_silent_agent_goes_through(database: Database) -> None:
    """Its guard row is locked by a claim that stopped half-way; the other host is served."""
    half_claimed = (
        "INSERT INTO asynchost_fence VALUES"
        " (NULL, 'n1', '0', NULL, 1, 0, 'silent', 'fresh', NULL, NOW(), NOW())"
    )
    settings = WriterSettings(quiet_seconds=0, maximum_delay_seconds=0, backoff_initial_seconds=0.1)
    async with ComputeNodeWriter(database.url, settings=settings) as writer:
        with locked(database, half_claimed):
            writer.attach(FakeHost("n1"))
            writer.attach(FakeHost("n2"))
            await eventually(lambda: database.rows("hypervisor_hostname = 'n2'"), 30)
            assert database.rows("hypervisor_hostname = 'n1'") == []
        await writer.flush()
    assert len(database.rows()) == 2


async def test_the_tables_may_come_after_the_refusal(empty_database: Database) -> None:
    """Refused on entering, a new writer enters once the schema was applied."""
    with pytest.raises(DatabaseRefusedError):
        async with ComputeNodeWriter(empty_database.url):
            pass
    await apply_schema(empty_database.url)
    async with ComputeNodeWriter(empty_database.url):
        pass


async def test_a_connection_that_is_lost_amid_many_rows(database: Database) -> None:
    """One statement landed, one was under way, one was prepared: each host is written again."""
    hosts = [FakeHost(f"n{number:04}") for number in range(1200)]
    async with ComputeNodeWriter(database.url, settings=AT_ONCE) as writer:
        for host in hosts:
            writer.attach(host)
        await writer.flush()
        session = await database.only_connection()
        with locked(database, "SELECT * FROM compute_nodes WHERE id = 600 FOR UPDATE"):
            for host in hosts:
                host.start(vcpus=2)
            await eventually(lambda: database.rows("vcpus_used = 2"))
            assert len(database.rows("vcpus_used = 2")) < len(hosts)
            with capture_logs() as logs:
                database.execute(f"KILL {session}")
                # Where the wait for the lock has ended before, the next statement finds out.
                await eventually(lambda: "database unavailable" in str(logs), 30)
        await writer.flush()
    assert {row["vcpus_used"] for row in database.rows()} == {2}
    assert len(database.rows()) == len(hosts)


async def test_a_long_outage_costs_no_memory_and_one_write_for_each_dirty_host(
    private_database: Database,
) -> None:
    """Thousands of changes and dozens of attempts, and nothing of them is kept but the state."""
    server = private_database.server
    hosts = [FakeHost(f"n{number:02}") for number in range(50)]
    async with ComputeNodeWriter(private_database.url, settings=AT_ONCE) as writer:
        for host in hosts:
            writer.attach(host)
        await writer.flush()
        await server.kill()
        for host in hosts[:40]:
            host.start(vcpus=1)

        attempts = 0
        connect = Session.connect

        async def counted(*arguments: Any) -> Session:
            nonlocal attempts
            attempts += 1
            return await connect(*arguments)

        async def outage(changes: int, failures: int) -> None:
            for _ in range(changes):
                for host in hosts[:40]:
                    host.stop(host.start(vcpus=1))
                await asyncio.sleep(0)
            before = attempts
            await eventually(lambda: attempts >= before + failures, 30)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Session, "connect", counted)
            # What any outage costs is there by then.
            await outage(changes=20, failures=10)
            before = blocks()
            await outage(changes=200, failures=40)
            # The changes were sixteen thousand.
            assert blocks() - before < 1000
        for host in hosts[:40]:
            host.start(vcpus=3)
        with capture_logs() as logs:
            await server.start()
            await writer.flush()
        assert sum(log["count"] for log in logs if log["event"] == "rows written") == 40
        rows = await asyncio.to_thread(private_database.rows)
        assert [row["vcpus_used"] for row in rows] == [4] * 40 + [0] * 10
        fences = await asyncio.to_thread(private_database.fences)
        assert {fence["seq"] for fence in fences[40:]} == {0}


def blocks() -> int:
    """How many pieces of memory are in use."""
    gc.collect()
    return sys.getallocatedblocks()
