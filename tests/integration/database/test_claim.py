"""Claims on a real server: one row, whoever else tries."""

import asyncio

import pytest

from asynchost.database.claim import claim
from asynchost.database.classify import Kind, StatementError
from asynchost.database.identity import Claim, How, Wanted
from asynchost.database.rows import RowEncoder, Values, named
from asynchost.database.session import Session
from asynchost.database.statements import FenceKey, RowWrite, take_fences, update
from asynchost.database.url import DatabaseUrl
from asynchost.errors import AmbiguousRowError, RowConflictError
from asynchost.testing import FakeHost
from tests.support.mariadb import Database
from tests.support.waiting import eventually

RACERS = 8
HOSTS = 20


async def connect(database: Database) -> Session:
    return await Session.connect(DatabaseUrl.parse(database.url), 10.0)


def values_of(name: str) -> Values:
    return named(RowEncoder().encode(FakeHost(name).snapshot()))


def wanted(name: str = "node", service_id: int | None = None, known_term: int = 0) -> Wanted:
    return Wanted(name, service_id, values_of(name), known_term, host=name)


async def claim_once(database: Database, what: Wanted, owner: str = "me") -> Claim:
    async with await connect(database) as session:
        (claimed,) = await claim(session, [what], owner, {})
        return claimed


async def test_a_missing_row_is_created_with_every_column(database: Database) -> None:
    """Every NOT NULL column holds its real value, deleted is 0, the times are set."""
    claimed = await claim_once(database, wanted("n1"))
    row = database.row()
    assert claimed.how is How.CREATED
    assert (row["id"], row["service_id"], row["deleted"]) == (claimed.row_id, 0, 0)
    assert row["created_at"] is not None
    assert row["updated_at"] == row["created_at"]
    assert row["deleted_at"] is None
    assert {column: row[column] for column in claimed.values} == values_of("n1")


async def test_a_given_service_is_written_into_a_created_row(database: Database) -> None:
    """A row that must be created has the service that was given."""
    claimed = await claim_once(database, wanted("n1", service_id=12))
    assert database.row()["service_id"] == 12
    assert claimed.key == FenceKey("n1", "12")


async def test_a_live_row_is_adopted_with_the_service_it_has(database: Database) -> None:
    """Without a service, the single live row is taken as it is, and nothing of it is written."""
    row_id = database.insert_node(service_id=7, vcpus_used=3)
    before = database.row()
    claimed = await claim_once(database, wanted())
    assert (claimed.row_id, claimed.service_id, claimed.how) == (row_id, 7, How.ADOPTED)
    assert claimed.values["vcpus_used"] == 3
    assert database.row() == before
    (fence,) = database.fences()
    assert (fence["node"], fence["service"], fence["cn_id"]) == ("node", "7", row_id)


async def test_a_second_claim_takes_over_with_a_higher_term(database: Database) -> None:
    """The row stays one; the term tells the two claims apart."""
    first = await claim_once(database, wanted(), "first")
    second = await claim_once(database, wanted(), "second")
    assert (second.row_id, second.term, second.how) == (first.row_id, 2, How.TAKEN_OVER)
    assert database.fences()[0]["owner"] == "second"


async def test_the_term_passes_one_that_was_held_before(database: Database) -> None:
    """After a deleted guard row, no term that was ever used comes back."""
    claimed = await claim_once(database, wanted(known_term=41))
    assert claimed.term == 42


async def test_several_live_rows_are_ambiguous_without_a_service(database: Database) -> None:
    """The error lists them, and nothing is claimed."""
    ids = [database.insert_node(service_id=service) for service in (7, 8)]
    with pytest.raises(AmbiguousRowError) as caught:
        await claim_once(database, wanted())
    assert caught.value.rows == ((ids[0], 7), (ids[1], 8))
    assert database.fences() == []


async def test_a_given_service_picks_one_of_several_rows(database: Database) -> None:
    """A given service must match."""
    ids = [database.insert_node(service_id=service) for service in (7, 8)]
    assert (await claim_once(database, wanted(service_id=8))).row_id == ids[1]


async def test_a_given_service_does_not_take_another_services_row(database: Database) -> None:
    """No match: the row of that service is created beside it."""
    row_id = database.insert_node(service_id=7)
    claimed = await claim_once(database, wanted(service_id=9))
    assert claimed.how is How.CREATED
    assert claimed.row_id != row_id


async def test_soft_deleted_rows_stay_deleted(database: Database) -> None:
    """They are not found, and not touched."""
    row_id = database.insert_node(deleted=1)
    before = database.row()
    claimed = await claim_once(database, wanted())
    assert claimed.how is How.CREATED
    assert database.row(f"id = {row_id}") == before


async def test_a_row_without_deleted_is_adopted_and_made_live(database: Database) -> None:
    """NULL counts as live where the name has no other live row; then it becomes 0."""
    row_id = database.insert_node(deleted=None)
    assert (await claim_once(database, wanted())).row_id == row_id
    row = database.row()
    assert row["deleted"] == 0
    assert row["updated_at"] is not None


async def test_a_row_without_deleted_yields_to_a_live_one(database: Database) -> None:
    """NULL does not count where the name has a live row."""
    null_id = database.insert_node(deleted=None)
    live_id = database.insert_node(deleted=0)
    assert (await claim_once(database, wanted())).row_id == live_id
    assert database.row(f"id = {null_id}")["deleted"] is None


async def test_a_row_held_by_another_host_of_this_process_is_a_conflict(
    database: Database,
) -> None:
    """The error names both, and the term of the one that has it is not touched."""
    async with await connect(database) as session:
        (first,) = await claim(session, [wanted("node")], "me", {})
        with pytest.raises(RowConflictError) as caught:
            await claim(session, [wanted("node")], "me", {first.row_id: "qemu:///system"})
        assert caught.value.hosts == ("qemu:///system", "node")
    assert database.fences()[0]["term"] == first.term


async def test_agents_that_start_at_once_make_one_row_each(database: Database) -> None:
    """Eight agents, twenty hosts, in the same order at the same time: twenty rows.

    On a slow machine one may wait too long for the others; then it tries again, as a writer does.
    """

    async def claim_in_the_end(session: Session, host: int, owner: str) -> Claim:
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + 60
        while True:
            try:
                (claimed,) = await claim(session, [wanted(f"n{host}")], owner, {})
            except StatementError as error:
                if error.kind is not Kind.SAME_CONNECTION or loop.time() > give_up_at:
                    raise
            else:
                return claimed

    async def agent(number: int) -> list[Claim]:
        async with await connect(database) as session:
            return [
                await claim_in_the_end(session, host, f"agent {number}") for host in range(HOSTS)
            ]

    async with asyncio.TaskGroup() as group:
        agents = [group.create_task(agent(number)) for number in range(RACERS)]
    rows = database.rows()
    assert sorted(row["hypervisor_hostname"] for row in rows) == sorted(
        f"n{host}" for host in range(HOSTS)
    )
    claims = [claimed for task in agents for claimed in task.result()]
    assert len({(claimed.row_id, claimed.term) for claimed in claims}) == RACERS * HOSTS
    assert sum(claimed.how is How.CREATED for claimed in claims) == HOSTS
    assert {fence["term"] for fence in database.fences()} == {RACERS}


async def test_a_claim_whose_session_dies_leaves_nothing(database: Database) -> None:
    """A half-done claim is rolled back with its connection: the next one creates the row."""
    session = await connect(database)
    await session.write("START TRANSACTION")
    await session.write(take_fences({FenceKey("node", "0"): 0}, "dead"))
    session.abort()
    # With it goes its lock, which a claim would wait for no longer than a second.
    await eventually(lambda: database.connections() == [])
    claimed = await claim_once(database, wanted())
    assert (claimed.how, claimed.term) == (How.CREATED, 1)


async def test_an_edited_service_moves_the_guard_and_fences_the_older_agent(
    database: Database,
) -> None:
    """One row has one guard: the one under the old key loses the row and gets a higher term."""
    first = await claim_once(database, wanted(), "first")
    database.execute("UPDATE compute_nodes SET service_id = 5")
    second = await claim_once(database, wanted(), "second")
    assert second.row_id == first.row_id
    old, new = database.fences()
    assert (old["service"], old["cn_id"], old["term"], old["owner"]) == ("0", None, 2, "second")
    assert (new["service"], new["cn_id"], new["owner"]) == ("5", first.row_id, "second")


@pytest.mark.parametrize(
    "stale",
    [
        pytest.param({"term": 1}, id="older term"),
        pytest.param({"seq": 4}, id="older number"),
        pytest.param({"owner": "rival"}, id="another owner"),
    ],
)
@pytest.mark.parametrize("rows", [1, 2])
async def test_an_outdated_write_does_not_land(
    database: Database, stale: dict[str, object], rows: int
) -> None:
    """Older term, older number, other owner: matched by nothing, whatever the statement's form."""
    parts = {"term": 2, "seq": 6, "owner": "me", **stale}
    async with await connect(database) as session:
        ids = []
        for number in range(rows):
            await claim(session, [wanted(f"n{number}")], "before", {})
            (claimed,) = await claim(session, [wanted(f"n{number}")], "me", {})
            ids.append(claimed.row_id)
        good = [RowWrite(row_id, 2, 5, ("vcpus_used",), (5,)) for row_id in ids]
        assert await session.write(update(good, "me")) == 2 * rows
        assert await session.write(update(good, "me")) == 2 * rows, "a repeated write matches"
        outdated = [
            RowWrite(row_id, int(str(parts["term"])), int(str(parts["seq"])), ("vcpus_used",), (9,))
            for row_id in ids
        ]
        assert await session.write(update(outdated, str(parts["owner"]))) == 0
    assert [row["vcpus_used"] for row in database.rows()] == [5] * rows
