"""What the table refuses of one row: named, told in its guard, tried again, and nobody else's."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from asynchost.database import ComputeNodeWriter, OnForeignEdit, WriterSettings
from asynchost.errors import AmbiguousRowError, FencedError
from asynchost.model import HostSnapshot
from asynchost.testing import FakeHost
from tests.support.mariadb import Database
from tests.support.waiting import eventually, eventually_equal

SETTINGS = WriterSettings(
    quiet_seconds=0,
    maximum_delay_seconds=0,
    backoff_initial_seconds=0.1,
    backoff_maximum_seconds=1.0,
    renewal_interval_seconds=0.5,
)
LESS_THAN_FIVE = "ALTER TABLE compute_nodes ADD CONSTRAINT rule CHECK (vcpus_used < 5)"


def used(database: Database, name: str) -> object:
    """What the row of the host ``name`` says."""
    return database.row(f"hypervisor_hostname = '{name}'")["vcpus_used"]


def states(database: Database) -> dict[object, object]:
    """What the guards say, by host."""
    return {fence["node"]: fence["state"] for fence in database.fences()}


async def test_what_was_refused_is_written_once_the_table_is_mended(database: Database) -> None:
    """Without a change of the host's; until then nothing calls the row fresh."""
    host, other = FakeHost("n1"), FakeHost("n2")
    async with ComputeNodeWriter(database.url, settings=SETTINGS) as writer:
        attachment = writer.attach(host)
        writer.attach(other)
        await writer.flush()
        database.execute(LESS_THAN_FIVE)
        with capture_logs() as logs:
            host.start(vcpus=6, memory_kib=1024**2)
            other.start(vcpus=1)
            await writer.flush()
            await eventually_equal(lambda: states(database), {"n1": "partial", "n2": "fresh"})
        row = database.row("hypervisor_hostname = 'n1'")
        # The columns that fit are written all the same.
        assert (row["vcpus_used"], row["memory_mb_used"], row["running_vms"]) == (0, 1024, 1)
        assert used(database, "n2") == 1
        assert attachment.left_out == {"vcpus_used": 6}
        assert (writer.status.partial, writer.status.refused, writer.status.dirty) == (1, 0, 0)
        (told,) = [log for log in logs if log["log_level"] == "error"]
        assert (told["host"], told["columns"]) == ("n1", ["vcpus_used"])
        # At later attempts it is not told again.
        with capture_logs() as logs:
            await asyncio.sleep(0)
            database.execute("ALTER TABLE compute_nodes DROP CONSTRAINT rule")
            await eventually(lambda: used(database, "n1") == 6, 30)
            await eventually_equal(lambda: states(database), {"n1": "fresh", "n2": "fresh"})
        assert [log for log in logs if log["log_level"] == "error"] == []
        assert (writer.status.partial, attachment.left_out) == (0, {})


async def test_a_value_that_does_not_fit_is_null_where_the_column_takes_null(
    database: Database,
) -> None:
    """Else the column keeps its last value; there is no other number in its place."""
    database.execute(
        "ALTER TABLE compute_nodes MODIFY running_vms TINYINT DEFAULT NULL,"
        " MODIFY vcpus_used TINYINT NOT NULL, MODIFY hypervisor_version SMALLINT NOT NULL"
    )
    host = FakeHost("n1")
    facts = host.snapshot().facts
    assert facts is not None
    host.set_facts(replace(facts, hypervisor_version=1))
    async with ComputeNodeWriter(database.url, settings=SETTINGS) as writer:
        attachment = writer.attach(host)
        await writer.flush()
        host.set_facts(replace(facts, hypervisor_version=2**20, vcpus=99))
        for _ in range(130):
            host.start(vcpus=1, memory_kib=0)
        await writer.flush()
        row = database.row()
        assert (row["vcpus"], row["running_vms"]) == (99, None)
        assert row["vcpus_used"] <= 127
        assert row["hypervisor_version"] == 1
        assert attachment.left_out.keys() == {"running_vms", "vcpus_used", "hypervisor_version"}
        # What is written in place of a value is nobody's edit.
        fences = database.fences()
        await eventually(lambda: database.fences()[0]["seen_at"] > fences[0]["seen_at"])
        assert writer.status.foreign_edits == 0


async def test_a_row_that_cannot_be_complete_is_not_made(database: Database) -> None:
    """Its host is named as refused, and gets its row when the table is mended."""
    database.execute(LESS_THAN_FIVE)
    host, other = FakeHost("n1"), FakeHost("n2")
    host.start(vcpus=6)
    async with ComputeNodeWriter(database.url, settings=SETTINGS) as writer:
        with capture_logs() as logs:
            writer.attach(host)
            writer.attach(other)
            await writer.flush()
        assert [row["hypervisor_hostname"] for row in database.rows()] == ["n2"]
        assert (writer.status.refused, writer.status.owned) == (1, 1)
        (told,) = [log for log in logs if log["log_level"] == "error"]
        assert told["host"] == "n1"
        database.execute("ALTER TABLE compute_nodes DROP CONSTRAINT rule")
        await eventually(lambda: len(database.rows()) == 2, 30)
        assert used(database, "n1") == 6
        await eventually(lambda: writer.status.refused == 0)


async def test_an_edit_that_is_left_so_is_not_called_fresh(database: Database) -> None:
    """Its columns are named; it is fresh again when the host's own value is written."""
    settings = replace(SETTINGS, on_foreign_edit=OnForeignEdit.REPORT)
    host = FakeHost("n1")
    async with ComputeNodeWriter(database.url, settings=settings) as writer:
        attachment = writer.attach(host)
        await writer.flush()
        database.execute("UPDATE compute_nodes SET vcpus_used = 7")
        await eventually_equal(lambda: states(database), {"n1": "partial"})
        assert attachment.left_out == {"vcpus_used": 0}
        host.start(vcpus=2)
        await eventually_equal(lambda: states(database), {"n1": "fresh"})
        assert used(database, "n1") == 2


async def test_a_refused_host_that_keeps_changing_costs_the_others_nothing(
    database: Database,
) -> None:
    """It stands in no statement with them, is tried every two seconds, and told once."""
    host, others = FakeHost("bad"), [FakeHost(f"n{number:02}") for number in range(40)]
    async with ComputeNodeWriter(database.url, settings=SETTINGS) as writer:
        for one in (host, *others):
            writer.attach(one)
        await writer.flush()
        database.execute(LESS_THAN_FIVE)
        host.start(vcpus=6)
        await writer.flush()
        before = _updates(database)
        with capture_logs() as logs:
            for step in range(100):
                host.start(vcpus=1, memory_kib=0)
                others[step % len(others)].start(vcpus=0, memory_kib=0)
                await asyncio.sleep(0.01)
            await eventually(lambda: writer.status.dirty <= 1)
        # One for each of the others' changes, one for what can be written of its own, few more.
        assert _updates(database) - before < 300
        assert len([log for log in logs if log["log_level"] == "error"]) <= 1


def _updates(database: Database) -> int:
    """How many statements that change rows the server has carried out so far."""
    rows = database.execute(
        "SHOW GLOBAL STATUS WHERE Variable_name IN ('Com_update', 'Com_update_multi')"
    )
    return sum(int(str(row["Value"])) for row in rows)


class BrokenHost(FakeHost):
    """A source whose state cannot be had, as a fault in a program that embeds the writer."""

    broken = False

    def snapshot(self) -> HostSnapshot:
        if self.broken:
            raise ZeroDivisionError("broken")
        return super().snapshot()


def _odd_facts(host: BrokenHost) -> None:
    facts = FakeHost().snapshot().facts
    assert facts is not None
    host.set_facts(replace(facts, vcpus=1.5))  # type: ignore[arg-type]


def _raises(host: BrokenHost) -> None:
    facts = FakeHost().snapshot().facts
    host.broken = True
    host.set_facts(facts)


@pytest.mark.parametrize("fault", [_odd_facts, _raises])
@pytest.mark.parametrize("is_claimed", [True, False])
async def test_a_fault_of_one_host_ends_nothing_else(
    database: Database, fault: Callable[[BrokenHost], None], is_claimed: bool
) -> None:
    """It is named and counted, and looked at again."""
    broken, good = BrokenHost("broken"), FakeHost("good")
    facts = broken.snapshot().facts
    if not is_claimed:
        broken.set_facts(None)
    async with ComputeNodeWriter(database.url, settings=SETTINGS) as writer:
        with capture_logs() as logs:
            writer.attach(broken)
            writer.attach(good)
            await writer.flush()
            fault(broken)
            for _ in range(3):
                good.start(vcpus=1)
                await writer.flush()
                assert used(database, "good") == good.usage.vcpus_used
            await eventually(lambda: writer.status.refused + writer.status.partial == 1)
        assert [log for log in logs if log["log_level"] == "error" and log["host"] == "broken"]
        broken.broken = False
        broken.set_facts(facts)
        broken.start(vcpus=3)
        await eventually(lambda: "broken" in states(database) and used(database, "broken") == 3, 30)
        await eventually(lambda: writer.status.refused + writer.status.partial == 0)


async def test_closing_with_a_locked_row_lets_go_of_all_others(database: Database) -> None:
    """At once; of the locked one at the end."""
    hosts = [FakeHost(f"n{number}") for number in range(5)]
    settings = replace(SETTINGS, shutdown_deadline_seconds=4.0)
    rival = database.connect()
    writer = ComputeNodeWriter(database.url, settings=settings)
    async with writer:
        for host in hosts:
            writer.attach(host)
        await writer.flush()
        with rival.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute(
                f"SELECT * FROM compute_nodes WHERE id = {database.rows()[0]['id']} FOR UPDATE"
            )
        for host in hosts:
            host.start()
        closing = asyncio.create_task(writer.aclose())
        others = {f"n{number}": "stopped" for number in range(1, 5)}
        await eventually_equal(
            lambda: {k: v for k, v in states(database).items() if k != "n0"}, others
        )
        assert not closing.done()
        await closing
    assert set(states(database).values()) == {"stopped"}
    rival.close()


async def test_a_host_that_is_detached_is_let_go_of(database: Database) -> None:
    """Its guard says so, and a claim that comes after is not called so."""
    host, other = FakeHost("n1"), FakeHost("n2")
    async with ComputeNodeWriter(database.url, settings=SETTINGS) as writer:
        attachment = writer.attach(host)
        writer.attach(other)
        await writer.flush()
        writer.detach(attachment)
        await eventually_equal(lambda: states(database), {"n1": "stopped", "n2": "fresh"})
        writer.attach(host)
        await writer.flush()
        await eventually_equal(lambda: states(database), {"n1": "fresh", "n2": "fresh"})


async def test_a_flush_waits_only_for_what_was_dirty_when_it_began(database: Database) -> None:
    """And not for a host that was detached, or whose row is locked since."""
    slow, other = FakeHost("slow"), FakeHost("other")
    rival = database.connect()
    async with ComputeNodeWriter(database.url, settings=SETTINGS) as writer:
        attachment = writer.attach(slow)
        writer.attach(other)
        await writer.flush()
        with rival.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute(f"SELECT * FROM compute_nodes WHERE id = {attachment.row_id} FOR UPDATE")
        slow.start()
        waiting = asyncio.create_task(writer.flush())
        other.start()
        await eventually(lambda: used(database, "other") == 1)
        assert not waiting.done()
        writer.detach(attachment)
        await waiting
        await writer.flush()
    rival.close()


async def test_a_host_that_was_ambiguous_is_claimed_once_it_is_not(database: Database) -> None:
    """It is looked at again and again, told once, and does not keep the other from its row."""
    host, other = FakeHost("n1"), FakeHost("n2")
    settings = replace(SETTINGS, given_up_retry_seconds=0.2)
    async with ComputeNodeWriter(database.url, settings=settings) as writer:
        attachment = writer.attach(host)
        writer.attach(other)
        await writer.flush()
        columns = ", ".join(c for c in database.row("hypervisor_hostname = 'n1'") if c != "id")
        with capture_logs() as logs:
            database.execute(
                f"INSERT INTO compute_nodes ({columns}) SELECT {columns} FROM compute_nodes"
                " WHERE hypervisor_hostname = 'n1'"
            )
            database.execute(
                f"UPDATE asynchost_fence SET term = 0 WHERE cn_id = {attachment.row_id}"
            )
            with pytest.raises(AmbiguousRowError):
                await asyncio.wait_for(writer.wait(), 30)
            assert (writer.status.given_up, writer.status.owned) == (1, 1)
            other.start(vcpus=2)
            await eventually(lambda: used(database, "n2") == 2)
            before = attachment.due_at
            await eventually(lambda: attachment.due_at > before)
            assert attachment.error is not None
            database.execute("DELETE FROM compute_nodes WHERE hypervisor_hostname = 'n1' LIMIT 1")
            host.start(vcpus=3)
            await eventually(lambda: used(database, "n1") == 3, 30)
        assert [log["host"] for log in logs if log["event"] == "row refused"] == ["n1"]
        assert (writer.status.given_up, attachment.error) == (0, None)


async def test_each_host_that_is_given_up_is_told_once(database: Database) -> None:
    """Two fenced hosts of three: wait() names both, and then waits on."""
    names = ["n1", "n2", "n3"]
    async with ComputeNodeWriter(database.url, settings=SETTINGS) as writer:
        for name in names:
            writer.attach(FakeHost(name))
        await writer.flush()
        async with ComputeNodeWriter(database.url, settings=SETTINGS) as newer:
            for name in names[:2]:
                newer.attach(FakeHost(name))
            await newer.flush()
            told = []
            for _ in range(2):
                with pytest.raises(FencedError) as caught:
                    await asyncio.wait_for(writer.wait(), 30)
                told.append(caught.value.hypervisor_hostname)
        assert sorted(told) == names[:2]
        waiting = asyncio.create_task(writer.wait())
        await asyncio.wait({waiting}, timeout=0.1)
        assert not waiting.done()
    await waiting
