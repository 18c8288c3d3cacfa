"""Several servers in one URL: the first that serves is used, and what it lacks is written."""

import asyncio
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from asynchost.database import ComputeNodeWriter, WriterSettings, apply_schema
from asynchost.database.url import DatabaseUrl
from asynchost.errors import DatabaseRefusedError
from asynchost.testing import FakeHost
from tests.support.libvirtd_settings import free_tcp_port
from tests.support.mariadb import Database, over_tcp
from tests.support.waiting import eventually

AT_ONCE = WriterSettings(
    quiet_seconds=0,
    maximum_delay_seconds=0,
    statement_deadline_seconds=5,
    backoff_initial_seconds=0.02,
    backoff_maximum_seconds=0.1,
    refusal_retry_seconds=0.1,
)


def together(*urls: str) -> str:
    """One URL of several."""
    parsed = [DatabaseUrl.parse(url) for url in urls]
    return (
        f"mysql://{parsed[0].user}:{parsed[0].password}@"
        + ",".join(place for url in parsed for place in url.places)
        + f"/{parsed[0].database}?fetch_server_public_key=1"
    )


def nobody() -> str:
    """The URL of a server that is not there."""
    return f"mysql://agent:pw@127.0.0.1:{free_tcp_port()}/nova"


async def used(database: Database) -> object:
    """What the row of the only host says; None while there is none."""
    rows = await asyncio.to_thread(database.rows)
    return rows[0]["vcpus_used"] if rows else None


async def test_a_server_that_is_down_or_read_only_is_passed_over() -> None:
    """Also by the command that makes the tables."""
    async with over_tcp() as replica, over_tcp() as primary:
        replica.execute("SET GLOBAL read_only = 1")
        url = together(nobody(), replica.url, primary.url)
        assert [state.created for state in await apply_schema(url)] == [False, False]
        with capture_logs() as logs:
            async with ComputeNodeWriter(url, settings=AT_ONCE) as writer:
                host = FakeHost("n1")
                host.start()
                writer.attach(host)
                await writer.flush()
        assert await used(primary) == 1
        assert replica.rows() == []
        (connected,) = [log for log in logs if log["event"] == "database connected"]
        assert connected["server"] == DatabaseUrl.parse(primary.url).places[0]
        assert connected["tls"] is False


async def test_after_a_failover_everything_is_there_and_the_first_is_gone_back_to() -> None:
    """The second holds nothing of it; the first, when it is back, what was true long ago."""
    settings = replace(AT_ONCE, connection_age_seconds=0.3)
    async with over_tcp() as first, over_tcp() as second:
        host = FakeHost("n1")
        url = together(first.url, second.url)
        async with ComputeNodeWriter(url, settings=settings) as writer:
            writer.attach(host)
            host.start()
            await writer.flush()
            assert await used(first) == 1
            await first.server.kill()
            host.start()
            await writer.flush()
            assert await used(second) == 2
            await first.server.start()

            async def is_back() -> bool:
                return await used(first) == 2

            # It is looked at again without any change: a connection grows old.
            await eventually(is_back, 30)


async def test_servers_that_are_all_down_are_named_in_one_line() -> None:
    """Each with its reason."""
    urls = nobody(), nobody()
    with capture_logs() as logs:
        async with ComputeNodeWriter(together(*urls), settings=AT_ONCE):
            await eventually(lambda: logs)
    for url in urls:
        assert DatabaseUrl.parse(url).places[0] in logs[0]["reason"]


async def test_one_that_refuses_is_told_where_no_other_serves() -> None:
    """A wrong password is for a person to mend, whatever the other one's trouble."""
    async with over_tcp() as one:
        url = together(nobody(), one.url).replace(":pw@", ":wrong@")
        place = DatabaseUrl.parse(one.url).places[0]
        with pytest.raises(DatabaseRefusedError, match=f"{place}: Access denied"):
            async with ComputeNodeWriter(url, settings=AT_ONCE):
                pass


async def test_an_old_connection_is_replaced_between_two_writes(database: Database) -> None:
    """Nothing is claimed anew for it."""
    settings = replace(AT_ONCE, connection_age_seconds=0.2)
    async with ComputeNodeWriter(database.url, settings=settings) as writer:
        host = FakeHost("n1")
        attachment = writer.attach(host)
        await writer.flush()
        before = await database.only_connection()
        await eventually(lambda: before not in database.connections(), 30)
        host.start()
        await writer.flush()
        assert database.row()["vcpus_used"] == 1
        assert attachment.term == 1


async def test_an_old_connection_serves_on_where_there_is_no_new_one() -> None:
    """No room for one more: the row is written all the same."""
    settings = replace(AT_ONCE, connection_age_seconds=0.2)
    async with over_tcp() as database:
        with capture_logs() as logs:
            async with ComputeNodeWriter(database.url, settings=settings) as writer:
                host = FakeHost("n1")
                writer.attach(host)
                await writer.flush()
                database.execute("ALTER USER agent@'127.0.0.1' ACCOUNT LOCK")
                await eventually(
                    lambda: any("serves on" in log["event"] for log in logs),
                    30,
                )
                host.start()
                await writer.flush()
        assert database.row()["vcpus_used"] == 1


async def test_an_unknown_error_of_a_claim_is_told_and_the_claim_is_tried_again(
    database: Database,
) -> None:
    """The server answered, so the connection stays; the row is made once the cause is gone."""
    database.execute(
        "CREATE TRIGGER novel BEFORE INSERT ON compute_nodes FOR EACH ROW"
        " SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 31337, MESSAGE_TEXT = 'a novelty'"
    )
    with capture_logs() as logs:
        async with ComputeNodeWriter(database.url, settings=AT_ONCE) as writer:
            session = await database.only_connection()
            writer.attach(FakeHost("n1"))
            await eventually(lambda: [log for log in logs if log["log_level"] == "warning"], 30)
            # In a thread: it waits for the end of a claim that has begun.
            await asyncio.to_thread(database.execute, "DROP TRIGGER novel")
            await writer.flush()
            assert database.connections() == [session]
    told = [log for log in logs if log["log_level"] != "info"]
    assert [log["event"] for log in told] == ["writing again later"]
    assert told[0]["hosts"] == ["n1"]
    assert "a novelty (error 31337)" in told[0]["reason"]
    assert len(database.rows()) == 1
