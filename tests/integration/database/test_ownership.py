"""Who owns a row, when answers are lost, sessions fall silent and owners look dead or alive."""

import asyncio
from dataclasses import replace

import pytest

from asynchost.database import ComputeNodeWriter, WhenFenced, WriterSettings
from asynchost.database import session as session_module
from asynchost.database.claim import claim
from asynchost.database.classify import Kind, StatementError
from asynchost.database.identity import StillOwnedError, Wanted
from asynchost.database.rows import RowEncoder, named
from asynchost.database.session import Session
from asynchost.database.url import DatabaseUrl
from asynchost.errors import RowConflictError
from asynchost.testing import FakeHost
from tests.support.mariadb import Database
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

SETTINGS = WriterSettings(
    quiet_seconds=0,
    maximum_delay_seconds=0,
    statement_deadline_seconds=10.0,
    backoff_initial_seconds=0.02,
    backoff_maximum_seconds=0.1,
)
# A look every sixth of a second, and an owner that is gone after six: a machine under load must not
# keep one that lives from a sign for so long.
STANDBY = replace(
    SETTINGS,
    renewal_interval_seconds=2.0,
    when_fenced=WhenFenced.WAIT,
)
LIVELY = replace(SETTINGS, renewal_interval_seconds=0.1)
LONG_AGO = "UPDATE asynchost_fence SET seen_at = '2000-01-01', updated_at = '2000-01-01'"


def wanted(silent_seconds: float | None = None) -> Wanted:
    values = named(RowEncoder().encode(FakeHost("node").snapshot()))
    return Wanted("node", None, values, host="node", silent_seconds=silent_seconds)


async def claimed_term(database: Database, what: Wanted, owner: str) -> int:
    async with await Session.connect(DatabaseUrl.parse(database.url), 10.0) as session:
        (claimed,) = await claim(session, [what], owner, {})
        return claimed.term


async def test_a_standbys_claim_is_refused_while_the_owner_lives(database: Database) -> None:
    """In the same statement that would take the guard: nothing of the owner's is touched."""
    await claimed_term(database, wanted(), "owner")
    before = (database.fences(), database.rows())
    with pytest.raises(StillOwnedError):
        await claimed_term(database, wanted(silent_seconds=3600), "standby")
    assert (database.fences(), database.rows()) == before


@pytest.mark.parametrize(
    ("change", "term"),
    [
        pytest.param("UPDATE asynchost_fence SET state = 'stopped'", 2, id="let go"),
        pytest.param(LONG_AGO, 2, id="silent"),
        pytest.param("UPDATE asynchost_fence SET owner = 'standby'", 2, id="answer lost"),
        pytest.param("DELETE FROM asynchost_fence", 1, id="no guard"),
    ],
)
async def test_a_standbys_claim_goes_through_where_the_owner_is_gone(
    database: Database, change: str, term: int
) -> None:
    """The row stays one, and the standby has it."""
    await claimed_term(database, wanted(), "owner")
    database.execute(change)
    assert await claimed_term(database, wanted(silent_seconds=3600), "standby") == term
    assert database.fences()[0]["owner"] == "standby"
    assert len(database.rows()) == 1


async def test_a_standby_does_not_believe_an_old_sign_of_an_owner_that_lives(
    database: Database,
) -> None:
    """As a restored backup or a replica shows it: the owner has not stood still before its eyes."""
    async with ComputeNodeWriter(database.url, settings=STANDBY) as older:
        attachment = older.attach(FakeHost("shared"))
        await older.flush()
        async with ComputeNodeWriter(database.url, settings=LIVELY) as newer:
            owner = newer.attach(FakeHost("shared"))
            await newer.flush()
            await eventually(lambda: attachment.standby is not None, 30)
            for second in range(25):
                # Each old sign is another one: under load 25 of the same could be all that the
                # standby happens to see for six seconds.
                database.execute(f"{LONG_AGO}, seen_at = seen_at + INTERVAL {second} SECOND")
                await eventually(lambda: database.fences()[0]["seen_at"].year > 2000, 30)
            assert attachment.standby is not None
            assert (owner.term, owner.error) == (2, None)
        # Let go of, it is taken over.
        await eventually(lambda: attachment.term == 3, 30)


async def test_a_claim_whose_answer_was_lost_is_found_to_be_ours(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has committed, and the connection broke: one row, ours, and nobody is fenced."""
    lost = 0
    write = Session.write

    async def lose_answers_to_commits(self: Session, statement: str) -> int:
        nonlocal lost
        matched = await write(self, statement)
        if statement == "COMMIT" and lost < 3:
            lost += 1
            self.abort()
            raise StatementError(str(self.url), None, "answer lost", Kind.CONNECTION)
        return matched

    monkeypatch.setattr(Session, "write", lose_answers_to_commits)
    hosts = [FakeHost("n1"), FakeHost("n2")]
    async with ComputeNodeWriter(database.url, settings=SETTINGS) as writer:
        attachments = [writer.attach(host) for host in hosts]
        for host in hosts:
            host.start(vcpus=3)
        await writer.flush()
        assert lost == 3
        assert [attachment.error for attachment in attachments] == [None, None]
        hosts[0].start(vcpus=1)
        await writer.flush()
    assert [row["vcpus_used"] for row in database.rows()] == [4, 3]
    assert [fence["term"] for fence in database.fences()] == [4, 4]


async def test_a_claim_session_that_falls_silent_is_ended_by_the_server(
    private_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the guard's lock, and nobody closes it: the server does, after some seconds."""
    monkeypatch.setattr(session_module, "_CLAIM_SECONDS", 1)
    server = private_database.server
    door = server.folder / "door"
    with Proxy(server.socket, door) as proxy:
        write = Session.write
        silenced = False

        async def fall_silent(self: Session, statement: str) -> int:
            nonlocal silenced
            matched = await write(self, statement)
            if statement.startswith("INSERT INTO asynchost_fence") and not silenced:
                silenced = True
                proxy.silence()
            return matched

        monkeypatch.setattr(Session, "write", fall_silent)
        url = private_database.url.replace(str(server.socket), str(door))
        settings = replace(SETTINGS, statement_deadline_seconds=2.0)
        async with ComputeNodeWriter(url, settings=settings) as writer:
            attachment = writer.attach(FakeHost("n1"))
            # In a thread: the other end of the silent connection stays open all the while.
            await asyncio.wait_for(writer.flush(), 60)
            assert silenced
            assert attachment.term == 1, "the silent claim was rolled back"
    assert len(private_database.rows()) == 1


async def test_agents_that_claim_many_hosts_at_once_make_one_row_each(database: Database) -> None:
    """In transactions of many hosts, in opposite orders: they wait or try again; none doubles."""
    names = [f"n{number:03}" for number in range(120)]

    async def agent(order: list[str]) -> list[str]:
        async with ComputeNodeWriter(database.url, settings=SETTINGS) as writer:
            attachments = [writer.attach(FakeHost(name)) for name in order]
            await writer.flush()
            return [a.host for a in attachments if a.row is None and a.error is None]

    async with asyncio.TaskGroup() as group:
        agents = [group.create_task(agent(order)) for order in (names, names[::-1], names)]
    assert [task.result() for task in agents] == [[], [], []]
    rows = database.rows()
    assert sorted(row["hypervisor_hostname"] for row in rows) == names
    fences = {fence["cn_id"]: fence for fence in database.fences()}
    assert {row["id"]: row["hypervisor_hostname"] for row in rows} == {
        row_id: fence["node"] for row_id, fence in fences.items()
    }
    assert {fence["term"] for fence in fences.values()} == {3}


async def test_one_host_that_cannot_be_claimed_costs_the_others_nothing(
    database: Database,
) -> None:
    """Created, adopted and taken over in one batch, beside ambiguous, doubled and bad ones."""
    database.execute(
        "INSERT INTO asynchost_fence VALUES (NULL, 'old', '7', 99, 5, 3, 'gone', 'fresh',"
        " NULL, NOW(), NOW())"
    )
    for name, service in (("old", 7), ("adopted", 7), ("twice", 1), ("twice", 2)):
        database.insert_node(hypervisor_hostname=name, service_id=service)
    hosts = [FakeHost(name) for name in ("new", "old", "adopted", "twice", "bad", "NEW", "naïve")]
    hosts[4].start(vcpus=2**40)
    async with ComputeNodeWriter(database.url, settings=SETTINGS) as writer:
        attachments = {host.host: writer.attach(host) for host in hosts}
        await writer.flush()
        errors = {name: type(a.error).__name__ for name, a in attachments.items() if a.error}
        owned = {name for name, a in attachments.items() if a.row is not None}
        assert errors == {"twice": "AmbiguousRowError", "NEW": "RowConflictError"}
        assert owned == {"new", "old", "adopted", "naïve"}
        status = writer.status
        assert (status.hosts, status.owned, status.given_up) == (7, 4, 2)
        for host in hosts:
            host.start(vcpus=1)
        await writer.flush()
    live = {row["hypervisor_hostname"]: row["vcpus_used"] for row in database.rows()}
    assert live == {"new": 1, "old": 1, "adopted": 1, "naïve": 1, "twice": 0}


async def test_names_that_only_the_guards_take_for_one(database: Database) -> None:
    """The rows' names differ by case, the guards' do not: the second host is refused, and takes
    nothing from the first."""
    database.execute(
        "ALTER TABLE compute_nodes MODIFY hypervisor_hostname varchar(255)"
        " CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
    )
    async with ComputeNodeWriter(database.url, settings=LIVELY) as writer:
        host = FakeHost("node")
        attachment = writer.attach(host)
        await writer.flush()
        writer.attach(FakeHost("NODE"))
        async with asyncio.timeout(60):
            with pytest.raises(RowConflictError, match="NODE"):
                await writer.wait()
        host.start(vcpus=2)
        await writer.flush()
        assert (attachment.error, attachment.term) == (None, 1)
    (row,) = database.rows()
    assert (row["hypervisor_hostname"], row["vcpus_used"]) == ("node", 2)
