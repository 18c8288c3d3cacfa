"""A connection that ends while idle, or is replaced beside the writing: no write waits for it."""

import asyncio
import socket
from contextlib import closing
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from asynchost.database import ComputeNodeWriter, WhenFenced, WriterSettings, worker
from asynchost.testing import FakeHost
from tests.support.mariadb import Database, over_tcp
from tests.support.waiting import eventually, eventually_equal

SETTINGS = WriterSettings(
    quiet_seconds=0,
    maximum_delay_seconds=0,
    backoff_initial_seconds=0.1,
    renewal_interval_seconds=86_400,
)


async def test_a_connection_that_ends_while_idle_is_replaced_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at the next change, and without a warning: nothing was lost."""
    # Else one that ends as soon as it was made is taken for an outage.
    monkeypatch.setattr(worker, "_SHORTEST_LIFE_SECONDS", 0)
    host = FakeHost("n1")
    async with ComputeNodeWriter(database.url, settings=SETTINGS) as writer:
        writer.attach(host)
        await writer.flush()
        session = await database.only_connection()
        with capture_logs() as logs:
            database.execute(f"KILL {session}")

            async def is_new() -> bool:
                connections = await asyncio.to_thread(database.connections)
                return len(connections) == 1 and connections != [session]

            await eventually(is_new, 30)
            new = database.connections()
            host.start(vcpus=2)
            await eventually(lambda: database.row()["vcpus_used"] == 2)
        assert database.connections() == new
        assert [log for log in logs if log["log_level"] in ("warning", "error")] == []


async def test_a_first_server_that_is_mute_holds_up_no_write() -> None:
    """It is asked at each new connection, and never answers; the second one is written at."""
    settings = replace(SETTINGS, statement_deadline_seconds=3600, connection_age_seconds=0.2)
    with closing(socket.create_server(("127.0.0.1", 0))) as mute:
        async with over_tcp() as second:
            url = second.url.replace("@", f"@127.0.0.1:{mute.getsockname()[1]},", 1)
            host = FakeHost("n1")
            async with ComputeNodeWriter(url, settings=settings) as writer:
                writer.attach(host)
                await writer.flush()
                seen = set()
                for _ in range(1000):
                    host.start(vcpus=1, memory_kib=0)
                    await asyncio.wait_for(writer.flush(), 30)
                    seen.update(await asyncio.to_thread(second.connections))
                    if len(seen) >= 3:
                        break
                assert len(seen) >= 3
                await eventually_equal(lambda: second.row()["vcpus_used"], host.usage.vcpus_used)


async def test_a_connection_that_is_often_replaced_keeps_no_standby_from_taking_over(
    database: Database,
) -> None:
    """It goes on looking through the next one."""
    standby_settings = replace(
        SETTINGS,
        when_fenced=WhenFenced.WAIT,
        renewal_interval_seconds=0.5,
        connection_age_seconds=0.3,
    )
    async with ComputeNodeWriter(database.url, settings=standby_settings) as standby:
        attachment = standby.attach(FakeHost("n1"))
        await standby.flush()
        # An owner that never gives another sign of life.
        owner = ComputeNodeWriter(database.url, settings=SETTINGS)
        async with owner:
            owner.attach(FakeHost("n1"))
            await owner.flush()
            await eventually(lambda: attachment.standby is not None, 30)
            await eventually(lambda: attachment.term == 3, 30)
