"""The writer on a real server that behaves: rows true, nothing else touched, nothing left."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from asynchost.database import ComputeNodeWriter, OnForeignEdit, WhenFenced, WriterSettings
from asynchost.database.lane import Lane
from asynchost.database.rows import RowEncoder, named
from asynchost.errors import ClosedError, FencedError, InvalidSettingError, RowConflictError
from asynchost.model import DiskUsage
from asynchost.testing import FakeHost
from tests.support.mariadb import MYSQL, Database
from tests.support.waiting import eventually

AT_ONCE = WriterSettings(quiet_seconds=0, maximum_delay_seconds=0)
NEVER_BY_ITSELF = WriterSettings(quiet_seconds=3600, maximum_delay_seconds=3600)


def assert_true(database: Database, host: FakeHost) -> None:
    """The row holds what the host is now."""
    assert_true_of(database.row(f"hypervisor_hostname = '{host.snapshot().name}'"), host)


def assert_true_of(row: dict[str, object], host: FakeHost) -> None:
    """This row does."""
    values = named(RowEncoder().encode(host.snapshot()))
    assert {column: row[column] for column in values} == values


async def test_a_host_gets_its_row_and_every_change(database: Database) -> None:
    """Created, then kept true, without anybody asking for a flush."""
    host = FakeHost("n1")
    async with ComputeNodeWriter(database.url, settings=AT_ONCE) as writer:
        attachment = writer.attach(host, service_id=3)
        await eventually(database.rows)
        number = host.start(vcpus=4, memory_kib=3 * 1024 * 1024 + 1023)
        await eventually(lambda: database.row()["vcpus_used"] == 4)
        assert_true(database, host)
        host.stop(number)
        await eventually(lambda: database.row()["vcpus_used"] == 0)
        assert_true(database, host)
        assert (attachment.row_id, attachment.term) == (database.row()["id"], 1)
    assert database.row()["service_id"] == 3


async def test_only_columns_that_differ_are_written(database: Database) -> None:
    """What another program writes into the other columns stays, until the next renewal."""
    host = FakeHost("n1")
    # A renewal would mend the columns.
    settings = replace(AT_ONCE, renewal_interval_seconds=86_400)
    async with ComputeNodeWriter(database.url, settings=settings) as writer:
        writer.attach(host)
        await writer.flush()
        database.execute(
            "UPDATE compute_nodes SET vcpus = 99, local_gb = 98, cpu_info = 'mine',"
            " updated_at = '2001-02-03'"
        )
        host.start(vcpus=2, memory_kib=0)
        await writer.flush()
    row = database.row()
    assert (row["vcpus"], row["local_gb"], row["cpu_info"]) == (99, 98, "mine")
    assert (row["vcpus_used"], row["running_vms"]) == (2, 1)
    assert row["updated_at"].year > 2001


async def test_a_change_that_is_taken_back_is_not_written(database: Database) -> None:
    """The newest state is compared, not what happened in between."""
    host = FakeHost("n1")
    async with ComputeNodeWriter(database.url, settings=NEVER_BY_ITSELF) as writer:
        writer.attach(host)
        await writer.flush()
        database.execute("UPDATE compute_nodes SET updated_at = '2001-02-03'")
        host.stop(host.start())
        await writer.flush()
        assert database.row()["updated_at"].year == 2001
        assert database.fences()[0]["seq"] == 0


async def test_a_burst_is_one_write(database: Database) -> None:
    """Forty starts within the quiet time: one flush, with the last values."""
    host = FakeHost("n1")
    settings = WriterSettings(quiet_seconds=0.05, maximum_delay_seconds=5)
    async with ComputeNodeWriter(database.url, settings=settings) as writer:
        writer.attach(host)
        await writer.flush()
        with capture_logs() as logs:
            for _ in range(40):
                host.start()
            # The line follows the answer, and the answer the row.
            await eventually(lambda: logs)
        assert database.row()["vcpus_used"] == 40
        assert [log["event"] for log in logs] == ["row written"]
        assert database.fences()[0]["seq"] == 1


async def test_each_host_may_have_its_own_delays(database: Database) -> None:
    """One is written at once while the other may still wait for an hour."""
    prompt, patient = FakeHost("prompt"), FakeHost("patient")
    async with ComputeNodeWriter(database.url, settings=NEVER_BY_ITSELF) as writer:
        writer.attach(prompt, quiet_seconds=0, maximum_delay_seconds=0)
        writer.attach(patient)
        with pytest.raises(InvalidSettingError, match="quiet_seconds: -1"):
            writer.attach(FakeHost("wrong"), quiet_seconds=-1)
        await writer.flush()
        for host in (patient, prompt):
            host.start(vcpus=3)
        await eventually(
            lambda: database.row("hypervisor_hostname = 'prompt'")["vcpus_used"] == 3, 30
        )
        assert database.row("hypervisor_hostname = 'patient'")["vcpus_used"] == 0
        # The answer comes after the row.
        await eventually(lambda: writer.status.dirty == 1)
        assert (writer.status.hosts, writer.status.owned) == (2, 2)


async def test_each_flush_is_one_line_of_the_log(database: Database) -> None:
    """With host, row, and the columns written with their values."""
    host = FakeHost("n1")
    async with ComputeNodeWriter(database.url, settings=NEVER_BY_ITSELF) as writer:
        attachment = writer.attach(host)
        await writer.flush()
        host.start(vcpus=6, memory_kib=2048)
        with capture_logs() as logs:
            await writer.flush()
    assert logs == [
        {
            "event": "row written",
            "log_level": "info",
            "host": "n1",
            "row": attachment.row_id,
            "vcpus_used": 6,
            "memory_mb_used": 2,
            "free_ram_mb": 32_766,
            "running_vms": 1,
        }
    ]


async def test_unknown_disk_is_null_and_not_zero_free(database: Database) -> None:
    """free_disk_gb NULL makes schedulers skip the row; it is filled in when it becomes known."""
    host = FakeHost("n1")
    host.set_disk(None)
    async with ComputeNodeWriter(database.url, settings=AT_ONCE) as writer:
        writer.attach(host)
        await writer.flush()
        row = database.row()
        assert (row["local_gb"], row["local_gb_used"], row["free_disk_gb"]) == (0, 0, None)
        host.set_disk(DiskUsage(10 * 2**30, 4 * 2**30, -(2**30)))
        await writer.flush()
        assert_true(database, host)
        assert database.row()["disk_available_least"] == -1


async def test_an_incomplete_host_gets_no_row_until_it_is_complete(database: Database) -> None:
    """Unknown is never zero: no row before the facts are there."""
    host = FakeHost("n1")
    facts = host.snapshot().facts
    host.set_facts(None)
    async with ComputeNodeWriter(database.url, settings=AT_ONCE) as writer:
        writer.attach(host)
        await writer.flush()
        assert database.rows() == []
        host.set_facts(facts)
        await eventually(database.rows)


async def test_a_stale_host_is_not_written_and_says_so(database: Database) -> None:
    """Its totals are frozen; the companion table tells since when."""
    host = FakeHost("n1")
    async with ComputeNodeWriter(database.url, settings=AT_ONCE) as writer:
        writer.attach(host)
        await writer.flush()
        host.lose()
        host.start(vcpus=5)
        await eventually(lambda: database.fences()[0]["state"] == "stale")
        assert database.fences()[0]["stale_since"] is not None
        await writer.flush()
        assert database.row()["vcpus_used"] == 0
        host.find()
        await eventually(lambda: database.row()["vcpus_used"] == 5)
        await eventually(lambda: database.fences()[0]["state"] == "fresh")
        assert database.fences()[0]["stale_since"] is None


async def test_an_idle_owner_keeps_its_guard_fresh_and_leaves_the_row(database: Database) -> None:
    """seen_at moves with each renewal, updated_at does not."""
    settings = WriterSettings(renewal_interval_seconds=0.02)
    hosts = [FakeHost(f"n{number}") for number in range(3)]
    async with ComputeNodeWriter(database.url, settings=settings) as writer:
        for host in hosts:
            writer.attach(host)
        await writer.flush()
        database.execute("UPDATE compute_nodes SET updated_at = '2001-02-03'")
        before = [fence["seen_at"] for fence in database.fences()]
        await eventually(
            lambda: all(
                fence["seen_at"] > seen
                for fence, seen in zip(database.fences(), before, strict=True)
            )
        )
        assert {row["updated_at"].year for row in database.rows()} == {2001}


async def test_many_hosts_are_written_together_and_each_once(database: Database) -> None:
    """Several hundred rows, each with its own values and with its own columns."""
    hosts = [FakeHost(f"n{number:03}") for number in range(300)]
    async with ComputeNodeWriter(database.url, settings=NEVER_BY_ITSELF) as writer:
        for host in hosts:
            writer.attach(host)
        await writer.flush()
        for number, host in enumerate(hosts):
            host.start(vcpus=number + 1, memory_kib=1024 * number)
            if number % 3 == 0:
                host.set_disk(DiskUsage(number * 2**30, 0))
        with capture_logs() as logs:
            await writer.flush()
        # A line for each statement, not for each row.
        assert sum(log.get("count", 1) for log in logs) == len(hosts)
        together = [log for log in logs if log["event"] == "rows written"]
        assert 0 < len(together) < len(hosts) / 10
        assert all(len(log["rows"]) == 10 for log in together)
        rows = {row["hypervisor_hostname"]: row for row in database.rows()}
        for host in hosts:
            values = named(RowEncoder().encode(host.snapshot()))
            assert {column: rows[host.host][column] for column in values} == values
        for written in (log["rows"] for log in together):
            for host, values in written.items():
                assert values.items() <= rows[host].items()
        assert {fence["seq"] for fence in database.fences()} == {1}


async def test_names_cannot_reach_the_sql_text(database: Database) -> None:
    """Quotes, backslashes and comments are values like any other."""
    name = "a'b\\\"; DROP TABLE compute_nodes; -- %s \n"
    host = FakeHost("hostile", name=name)
    other = FakeHost("plain")
    async with ComputeNodeWriter(database.url, settings=NEVER_BY_ITSELF) as writer:
        writer.attach(host)
        writer.attach(other)
        await writer.flush()
        database.execute("UPDATE compute_nodes SET hypervisor_hostname = 'x'")
        for one in (host, other):
            one.start()
        await writer.flush()
    assert {fence["node"] for fence in database.fences()} == {name, "plain"}
    assert [row["vcpus_used"] for row in database.rows()] == [1, 1]


async def test_two_hosts_of_one_name_are_refused(database: Database) -> None:
    """At once where the names are given, whichever way the second one is attached."""
    async with ComputeNodeWriter(database.url) as writer:
        writer.attach(FakeHost("qemu:///a", name="same"))
        with pytest.raises(RowConflictError, match="qemu:///a and qemu:///b") as caught:
            writer.attach(FakeHost("qemu:///b", name="same"))
        assert "its own name" in str(caught.value)


async def test_two_names_for_one_row_are_refused(database: Database) -> None:
    """Only the database knows that its collation takes them for the same."""
    first, second = FakeHost("one", name="node"), FakeHost("two", name="NODE")
    async with ComputeNodeWriter(database.url, settings=AT_ONCE) as writer:
        writer.attach(first)
        await writer.flush()
        refused = writer.attach(second)
        with pytest.raises(RowConflictError):
            await asyncio.wait_for(writer.wait(), 30)
        assert isinstance(refused.error, RowConflictError)
        first.start(7)
        await writer.flush()
    assert database.row()["vcpus_used"] == 7


async def test_the_older_of_two_agents_is_fenced(database: Database) -> None:
    """It stops writing, says who has the row, and its other hosts go on."""
    shared, own = FakeHost("shared"), FakeHost("own")
    async with ComputeNodeWriter(database.url, settings=AT_ONCE) as older:
        fenced = older.attach(shared)
        older.attach(own)
        await older.flush()
        rival = FakeHost("shared")
        rival.start(vcpus=3)
        async with ComputeNodeWriter(database.url, settings=AT_ONCE) as newer:
            newer.attach(rival)
            await newer.flush()
            shared.start(vcpus=9)
            with pytest.raises(FencedError) as caught:
                await asyncio.wait_for(older.wait(), 30)
            assert caught.value.term == 2
            assert fenced.error is caught.value
            own.start(vcpus=1)
            shared.start(vcpus=9)
            await older.flush()
            assert database.row("hypervisor_hostname = 'own'")["vcpus_used"] == 1
            assert database.row("hypervisor_hostname = 'shared'")["vcpus_used"] == 3


async def test_agents_that_start_at_once_make_one_row_and_leave_one_writer(
    database: Database,
) -> None:
    """Four processes' worth of writers for the same twenty hosts: the last claim has each row."""
    names = [f"n{number:02}" for number in range(20)]
    async with AsyncExitStack() as stack:
        writers = [
            await stack.enter_async_context(ComputeNodeWriter(database.url, settings=AT_ONCE))
            for _ in range(4)
        ]
        hosts = [[FakeHost(name) for name in names] for _ in writers]
        attachments = [
            [writer.attach(host) for host in own]
            for writer, own in zip(writers, hosts, strict=True)
        ]
        await asyncio.gather(*(writer.flush() for writer in writers))
        for number, own in enumerate(hosts):
            for host in own:
                host.start(vcpus=number + 1)
        await asyncio.gather(*(writer.flush() for writer in writers))
        terms = {fence["node"]: fence["term"] for fence in database.fences()}
        assert terms == dict.fromkeys(names, 4)
        rows = {row["hypervisor_hostname"]: row for row in database.rows()}
        assert sorted(rows) == names
        assert len(database.rows()) == len(names)
        for index, name in enumerate(names):
            (winner,) = (n for n, own in enumerate(attachments) if own[index].error is None)
            assert attachments[winner][index].term == 4
            assert rows[name]["vcpus_used"] == winner + 1


async def test_an_idle_fenced_agent_finds_out(database: Database) -> None:
    """The renewal tells, without any change."""
    settings = WriterSettings(renewal_interval_seconds=0.02)
    async with ComputeNodeWriter(database.url, settings=settings) as older:
        older.attach(FakeHost("shared"))
        await older.flush()
        async with ComputeNodeWriter(database.url) as newer:
            newer.attach(FakeHost("shared"))
            await newer.flush()
            with pytest.raises(FencedError):
                await asyncio.wait_for(older.wait(), 30)


@pytest.mark.parametrize(
    ("harm", "term", "event"),
    [
        pytest.param(
            *("UPDATE compute_nodes SET deleted = 1", 2, "row or guard gone, claiming again"),
            id="soft-deleted",
        ),
        pytest.param(
            *("DELETE FROM compute_nodes", 2, "row or guard gone, claiming again"), id="deleted"
        ),
        pytest.param(
            *("UPDATE compute_nodes SET vcpus_used = 77", 1, "row changed by another program"),
            id="overwritten",
        ),
    ],
)
async def test_an_idle_hosts_row_is_mended(
    database: Database, harm: str, term: int, event: str
) -> None:
    """Within a renewal, though nothing changes on the host; said once, and nothing more written."""
    settings = replace(AT_ONCE, renewal_interval_seconds=0.1)
    host = FakeHost("n1")
    async with ComputeNodeWriter(database.url, settings=settings) as writer:
        attachment = writer.attach(host)
        await writer.flush()
        host.start(vcpus=4)
        await writer.flush()
        with capture_logs() as logs:
            database.execute(harm)
            await eventually(lambda: database.rows("deleted = 0 AND vcpus_used = 4"))
            assert_true_of(database.row("deleted = 0"), host)
            # Two more renewals find nothing to do.
            for _ in range(2):
                seen = database.fences()[0]["seen_at"]
                await eventually(lambda seen=seen: database.fences()[0]["seen_at"] > seen)
        assert attachment.term == term
        (warning,) = [log for log in logs if log["log_level"] == "warning"]
        assert (warning["event"], warning["host"]) == (event, "n1")
        assert warning.get("found", {"vcpus_used": 77}) == {"vcpus_used": 77}
        assert warning.get("wanted", {"vcpus_used": 4}) == {"vcpus_used": 4}
        # The host is watched as before.
        host.start(vcpus=1)
        await eventually(lambda: database.row("deleted = 0")["vcpus_used"] == 5)


async def test_a_habit_of_somebody_elses_is_told_and_no_more_put_right(database: Database) -> None:
    """Three times it is; what changes by itself is written as ever."""
    settings = replace(AT_ONCE, renewal_interval_seconds=0.05)
    host = FakeHost("n1")

    async def used_is(value: int) -> None:
        await eventually(lambda: database.row()["vcpus_used"] == value, 30)

    async with ComputeNodeWriter(database.url, settings=settings) as writer:
        attachment = writer.attach(host)
        host.start(vcpus=4)
        await writer.flush()
        with capture_logs() as logs:
            for _ in range(3):
                database.execute("UPDATE compute_nodes SET vcpus_used = 77, memory_mb = 5")
                await used_is(4)
            database.execute("UPDATE compute_nodes SET vcpus_used = 78, memory_mb = 6")
            await eventually(lambda: attachment.foreign_edits == 4, 30)
            # Two more renewals leave it and say nothing more.
            for _ in range(2):
                seen = database.fences()[0]["seen_at"]
                await eventually(lambda seen=seen: database.fences()[0]["seen_at"] > seen)
            assert database.row()["vcpus_used"] == 78
        told = [log for log in logs if log["event"] == "row changed by another program"]
        assert [log["put_right"] for log in told] == [True, True, True, False]
        assert [log["edits"] for log in told] == [1, 2, 3, 4]
        assert told[3]["found"] == {"vcpus_used": 78, "memory_mb": 6}
        host.start(vcpus=1)
        await used_is(5)
        assert database.row()["memory_mb"] == 6


async def test_where_edits_are_only_reported_none_is_put_right(database: Database) -> None:
    """From the first one on; a column whose own value moves is written as ever."""
    settings = replace(AT_ONCE, renewal_interval_seconds=0.05, on_foreign_edit=OnForeignEdit.REPORT)
    host = FakeHost("n1")
    async with ComputeNodeWriter(database.url, settings=settings) as writer:
        attachment = writer.attach(host)
        await writer.flush()
        with capture_logs() as logs:
            database.execute(
                "UPDATE compute_nodes SET vcpus_used = 77, memory_mb = 5,"
                " updated_at = UTC_TIMESTAMP()"
            )
            await eventually(lambda: attachment.foreign_edits == 1, 30)
            for _ in range(2):
                seen = database.fences()[0]["seen_at"]
                await eventually(lambda seen=seen: database.fences()[0]["seen_at"] > seen)
        (told,) = [log for log in logs if log["event"] == "row changed by another program"]
        assert (told["put_right"], told["found"]) == (False, {"vcpus_used": 77, "memory_mb": 5})
        host.start(vcpus=2)
        await writer.flush()
    assert (database.row()["vcpus_used"], database.row()["memory_mb"]) == (2, 5)


async def test_a_host_that_stands_by_takes_over_from_an_agent_that_stops(
    database: Database,
) -> None:
    """Not from one that lives."""
    settings = replace(AT_ONCE, renewal_interval_seconds=0.5, when_fenced=WhenFenced.WAIT)
    lively = replace(AT_ONCE, renewal_interval_seconds=0.05)
    host, same = FakeHost("shared"), FakeHost("shared")
    async with ComputeNodeWriter(database.url, settings=settings) as older:
        attachment = older.attach(host)
        await older.flush()
        async with ComputeNodeWriter(database.url, settings=lively) as newer:
            newer.attach(same)
            same.start(vcpus=7)
            await newer.flush()
            host.start(vcpus=1)
            await eventually(lambda: attachment.standby is not None, 30)
            assert database.row()["vcpus_used"] == 7
            assert attachment.term is None
        await eventually(lambda: database.row()["vcpus_used"] == 1, 30)
        assert attachment.term == 3
        host.start(vcpus=1)
        await eventually(lambda: database.row()["vcpus_used"] == 2, 30)


async def test_a_host_that_stands_by_takes_over_from_an_agent_that_died(database: Database) -> None:
    """By the database's clock, once three renewals are missed; in between it keeps still."""
    settings = replace(AT_ONCE, renewal_interval_seconds=0.1, when_fenced=WhenFenced.WAIT)
    host = FakeHost("shared")
    async with ComputeNodeWriter(database.url, settings=settings) as writer:
        attachment = writer.attach(host)
        await writer.flush()
        database.execute(
            "UPDATE asynchost_fence SET term = 9, owner = 'rival',"
            " seen_at = UTC_TIMESTAMP(6) + INTERVAL 1 HOUR"
        )
        await eventually(lambda: attachment.standby is not None, 30)
        host.start(vcpus=3)
        # A living owner is left alone: the rows it is asked for are read a few times.
        reads = "SHOW GLOBAL STATUS LIKE 'Com_select'"
        before = int(database.execute(reads)[0]["Value"])
        await eventually(lambda: int(database.execute(reads)[0]["Value"]) > before + 5, 30)
        assert database.row()["vcpus_used"] == 0
        database.execute("UPDATE asynchost_fence SET seen_at = '2000-01-01', updated_at = seen_at")
        await eventually(lambda: database.row()["vcpus_used"] == 3, 30)
        assert attachment.term == 10


async def test_an_unforeseen_end_outranks_a_lost_host(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """wait() tells that nothing is written any more, not that one host was fenced before."""
    shared, other = FakeHost("shared"), FakeHost("other")
    settings = replace(AT_ONCE, renewal_interval_seconds=0.02)
    writer = ComputeNodeWriter(database.url, settings=settings)
    async with writer:
        for host in (shared, other):
            writer.attach(host)
        await writer.flush()
        async with ComputeNodeWriter(database.url) as newer:
            newer.attach(FakeHost("shared"))
            await newer.flush()
        with pytest.raises(FencedError):
            await asyncio.wait_for(writer.wait(), 30)

        async def fault(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(Lane, "flush", fault)
        with pytest.raises(ZeroDivisionError):
            await writer.flush()
        with pytest.raises(ZeroDivisionError):
            await writer.wait()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param("DELETE FROM asynchost_fence", id="guard deleted"),
        pytest.param("UPDATE asynchost_fence SET term = 0, owner = 'old'", id="guard restored"),
        pytest.param("DELETE FROM compute_nodes", id="row deleted"),
        pytest.param("UPDATE compute_nodes SET deleted = id", id="row soft-deleted"),
        pytest.param("UPDATE compute_nodes SET deleted = NULL", id="deleted cleared"),
        pytest.param("DELETE f, t FROM asynchost_fence f, compute_nodes t", id="both deleted"),
    ],
)
async def test_a_lost_row_or_guard_is_claimed_again(database: Database, damage: str) -> None:
    """No person is needed: one live row, all columns true, a term that was never used."""
    host = FakeHost("n1")
    async with ComputeNodeWriter(database.url, settings=AT_ONCE) as writer:
        attachment = writer.attach(host)
        await writer.flush()
        database.execute(damage)
        host.start(vcpus=5)
        await writer.flush()
        assert attachment.term == 2
    row = database.row("deleted = 0")
    values = named(RowEncoder().encode(host.snapshot()))
    assert {column: row[column] for column in values} == values


async def test_a_bad_row_is_left_out_and_the_others_go_on(database: Database) -> None:
    """One value that the table refuses costs one host, until it changes."""
    hosts = [FakeHost(f"n{number}") for number in range(9)]
    async with ComputeNodeWriter(database.url, settings=NEVER_BY_ITSELF) as writer:
        for host in hosts:
            writer.attach(host)
        await writer.flush()
        for host in hosts:
            host.start(vcpus=1)
        number = hosts[4].start(vcpus=2**40)
        with capture_logs() as logs:
            await writer.flush()
        (left_out,) = [log for log in logs if log["log_level"] == "error"]
        assert (left_out["host"], left_out["code"]) == ("n4", 1264)
        assert [row["vcpus_used"] for row in database.rows()] == [1, 1, 1, 1, 0, 1, 1, 1, 1]
        hosts[4].stop(number)
        await writer.flush()
        assert [row["vcpus_used"] for row in database.rows()] == [1] * 9


async def test_a_name_that_the_table_cannot_hold_costs_only_its_host(database: Database) -> None:
    """The original table knows no character of four bytes; MariaDB will not even compare one."""
    database.execute("ALTER TABLE compute_nodes CONVERT TO CHARACTER SET utf8mb3")
    hosts = [FakeHost(name) for name in ("n1", "n\N{GRINNING FACE}", "n3")]
    with capture_logs() as logs:
        async with ComputeNodeWriter(database.url, settings=AT_ONCE) as writer:
            for host in hosts:
                writer.attach(host)
            await writer.flush()
    assert [row["hypervisor_hostname"] for row in database.rows()] == ["n1", "n3"]
    (left_out,) = [log for log in logs if log["event"] == "row left out until its values change"]
    assert left_out["host"] == hosts[1].host


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        pytest.param(
            "ALTER TABLE compute_nodes ADD CHECK (vcpus_used < 9)",
            3819 if MYSQL else 4025,
            id="check",
        ),
        pytest.param(
            "CREATE TRIGGER rule BEFORE UPDATE ON compute_nodes FOR EACH ROW IF NEW.vcpus_used > 8"
            " THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'too many'; END IF",
            1644,
            id="trigger",
        ),
    ],
)
async def test_a_row_against_somebodys_own_rule_is_left_out_too(
    database: Database, rule: str, code: int
) -> None:
    """A rule that others have put on the table costs one host, and no connection."""
    hosts = [FakeHost(f"n{number}") for number in range(5)]
    async with ComputeNodeWriter(database.url, settings=NEVER_BY_ITSELF) as writer:
        for host in hosts:
            writer.attach(host)
        await writer.flush()
        database.execute(rule)
        session = await database.only_connection()
        for number, host in enumerate(hosts):
            host.start(vcpus=9 if number == 2 else 1)
        with capture_logs() as logs:
            await asyncio.wait_for(writer.flush(), 30)
        (left_out,) = [log for log in logs if log["log_level"] == "error"]
        assert (left_out["host"], left_out["code"]) == ("n2", code)
        assert [row["vcpus_used"] for row in database.rows()] == [1, 1, 0, 1, 1]
        assert database.connections() == [session]


async def test_leaving_writes_what_is_dirty(database: Database) -> None:
    """A change that was still being debounced is in the row when the writer is gone."""
    host = FakeHost("n1")
    async with ComputeNodeWriter(database.url, settings=NEVER_BY_ITSELF) as writer:
        writer.attach(host)
        await writer.flush()
        host.start(vcpus=8)
    assert database.row()["vcpus_used"] == 8
    assert database.fences()[0]["state"] == "stopped"


async def test_leaving_at_once_writes_nothing_and_leaves_nothing(database: Database) -> None:
    """A shutdown deadline of zero, also before the writer's task took its first step."""
    files = open_files()
    settings = WriterSettings(shutdown_deadline_seconds=0)
    host = FakeHost("n1")
    with capture_logs() as logs:
        async with ComputeNodeWriter(database.url, settings=settings) as writer:
            writer.attach(host)
    assert database.rows() == []
    assert (logs[-1]["event"], logs[-1]["count"]) == ("closed with unwritten changes", 1)
    assert open_files() == files


async def test_a_detached_host_is_no_longer_written(database: Database) -> None:
    """Its row stays as it is, and its source is no longer listened to."""
    host = FakeHost("n1")
    async with ComputeNodeWriter(database.url, settings=AT_ONCE) as writer:
        attachment = writer.attach(host)
        await writer.flush()
        writer.detach(attachment)
        host.start(vcpus=8)
        await writer.flush()
    assert database.row()["vcpus_used"] == 0


async def test_a_closed_writer_refuses_and_wait_returns(database: Database) -> None:
    """wait() ends with the writer; everything else says that it is closed."""
    writer = ComputeNodeWriter(database.url)
    async with writer:
        waiting = asyncio.create_task(writer.wait())
    await waiting
    with pytest.raises(ClosedError):
        writer.attach(FakeHost("late"))
    with pytest.raises(ClosedError):
        await writer.flush()
    await writer.aclose()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_nothing_is_left_wherever_it_is_cancelled(database: Database) -> None:
    """Cancelled at every step from entering to leaving: no task, no file descriptor."""

    async def use() -> None:
        host = FakeHost("n1")
        async with ComputeNodeWriter(database.url, settings=AT_ONCE) as writer:
            writer.attach(host)
            await writer.flush()
            for _ in range(3):
                host.start()
                await writer.flush()

    await use()
    files, tasks = open_files(), len(asyncio.all_tasks())
    steps = 0
    completed = False
    while not completed:
        steps += 1
        task = asyncio.create_task(use())
        for _ in range(steps):
            await asyncio.sleep(0)
        # The steps are turns of the loop: far more than the awaits, as the server needs time.
        steps += steps // 8
        task.cancel()
        try:
            await task
            completed = True
        except asyncio.CancelledError:
            pass
        assert len(asyncio.all_tasks()) == tasks
        await asyncio.sleep(0)
        assert open_files() == files
    assert steps > 10
