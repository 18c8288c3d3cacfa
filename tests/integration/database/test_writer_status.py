"""A writer's status says what happened to its rows and to its connection."""

from dataclasses import replace

from asynchost.database import ComputeNodeWriter, WhenFenced, WriterSettings
from asynchost.database.attachment import Attachment
from asynchost.database.status import RowState
from asynchost.testing import FakeHost
from tests.support.mariadb import Database
from tests.support.waiting import eventually

AT_ONCE = WriterSettings(
    quiet_seconds=0,
    maximum_delay_seconds=0,
    backoff_initial_seconds=0.01,
    backoff_maximum_seconds=0.05,
)
TAKE_OVER = "UPDATE asynchost_fence SET term = term + 1, owner = 'rival'"


def state(attachment: Attachment) -> RowState:
    """Of the row."""
    return attachment.status.state


def has_lost_its_row(attachment: Attachment) -> bool:
    """Whether another agent is known to own it."""
    return state(attachment) is not RowState.OWNED


async def test_a_row_is_told_from_its_claim_to_its_last_write(database: Database) -> None:
    """Whose it is, when it was written, and that nothing is left to write."""
    host = FakeHost("n1")
    async with ComputeNodeWriter(database.url, settings=AT_ONCE) as writer:
        attachment = writer.attach(host)
        assert (state(attachment), attachment.status.written_seconds) == (RowState.WAITING, None)
        await writer.flush()
        host.start()
        await writer.flush()
        row = attachment.status
        assert (row.state, row.row_id, row.term) == (RowState.OWNED, database.row()["id"], 1)
        assert (row.dirty, row.unwritten_seconds, row.writes) == (False, None, 2)
        assert row.written_seconds is not None
        status = writer.status
        assert (status.connected, status.reason, status.connects) == (True, None, 1)
        assert (status.writes, status.unwritten_seconds) == (2, None)


async def test_a_change_that_cannot_be_written_grows_old(private_database: Database) -> None:
    """The server is away: the status says since when, why, and how old the oldest change is."""
    database = private_database
    host = FakeHost("n1")
    async with ComputeNodeWriter(database.url, settings=AT_ONCE) as writer:
        attachment = writer.attach(host)
        await writer.flush()
        database.server.suspend()
        try:
            host.start()
            await eventually(lambda: (attachment.status.unwritten_seconds or 0) > 0.2)
            assert attachment.status.dirty
            oldest = writer.status.unwritten_seconds
            assert oldest is not None
            host.start()
            assert (writer.status.unwritten_seconds or 0) >= oldest
        finally:
            database.server.resume()
        await eventually(lambda: writer.status.unwritten_seconds is None)
        await database.server.kill()
        await eventually(lambda: not writer.status.connected and writer.status.connect_failures)
        assert "mysql://" in str(writer.status.reason)
        await database.server.start()
        await eventually(lambda: writer.status.connected)
        assert (writer.status.reason, writer.status.connects) == (None, 2)


async def test_another_owner_is_named(database: Database) -> None:
    """By an agent that stands by, and by one that has given the row up, which says why."""
    for when, expected in ((WhenFenced.WAIT, RowState.STANDING_BY), (WhenFenced.EXIT, None)):
        host = FakeHost("n1")
        settings = replace(AT_ONCE, when_fenced=when)
        async with ComputeNodeWriter(database.url, settings=settings) as writer:
            attachment = writer.attach(host)
            await writer.flush()
            database.execute(TAKE_OVER)
            host.start()
            await eventually(lambda a=attachment: state(a) is not RowState.OWNED)
            row = attachment.status
            assert row.state is (expected or RowState.GIVEN_UP)
            assert (row.owner, row.dirty) == ("rival", False)
            assert (row.reason is None) == (expected is not None)
        for table in ("compute_nodes", "asynchost_fence"):
            database.execute(f"DELETE FROM {table}")
