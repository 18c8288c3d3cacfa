"""A dry run: every statement is shown, none is carried out."""

from asynchost.database import ComputeNodeWriter, WriterSettings
from asynchost.testing import FakeHost
from tests.support.mariadb import Database

# No sign of life comes in between, which the database would show.
AT_ONCE = WriterSettings(
    quiet_seconds=0, maximum_delay_seconds=0, renewal_interval_seconds=1_000_000
)


async def test_statements_are_shown_and_nothing_is_written(database: Database) -> None:
    """By an account that may only read one table, beside an agent that writes."""
    database.execute("CREATE OR REPLACE USER 'reader'@'localhost'")
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
