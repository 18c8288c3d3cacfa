"""The writer while the network loses, delays and repeats what it sends: the row is true after."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from asynchost.database import ComputeNodeWriter, WriterSettings
from asynchost.testing import FakeHost
from tests.support.mariadb import Database
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

AT_ONCE = WriterSettings(
    quiet_seconds=0,
    maximum_delay_seconds=0,
    backoff_initial_seconds=0.02,
    backoff_maximum_seconds=0.1,
    # A sign of life in between would change a guard that must stay as it is.
    renewal_interval_seconds=86_400,
)
GIVING_UP = replace(AT_ONCE, statement_deadline_seconds=0.5)
"""For what is never answered. A busy machine may be as late with what is."""
WRITE = b"SET t."
"""Stands in each statement that writes a row, and in no other."""
CLAIM_COMMIT = b"\x03COMMIT"
"""With the command's number before it, the whole statement: the set-up says READ COMMITTED."""
DEADLINE_SECONDS = 30.0


@contextmanager
def network(database: Database, tmp_path: Path) -> Iterator[tuple[Proxy, str]]:
    """A proxy in front of the server, and the URL of the way through it."""
    listen = tmp_path / "p"
    with Proxy(database.server.socket, listen) as proxy:
        yield proxy, database.url.replace(str(database.server.socket), str(listen))


def state(database: Database) -> tuple[int, int]:
    """What the row says, and under which number it was written."""
    return database.row()["vcpus_used"], database.fences()[0]["seq"]


async def test_a_write_whose_answer_was_lost_is_found_to_have_landed(
    database: Database, tmp_path: Path
) -> None:
    """The new connection reads it back: it is not written a second time."""
    host = FakeHost("n1")
    with network(database, tmp_path) as (proxy, url):
        async with ComputeNodeWriter(url, settings=AT_ONCE) as writer:
            writer.attach(host)
            await writer.flush()
            proxy.lose_answer(WRITE)
            host.start(vcpus=3)
            await writer.flush()
            assert proxy.accepted == 2
            assert state(database) == (3, 1)


async def test_a_lost_answer_and_a_newer_state_make_the_newer_row(
    database: Database, tmp_path: Path
) -> None:
    """What landed unheard is no obstacle, also where the newer state is as the one before it."""
    host = FakeHost("n1")
    with network(database, tmp_path) as (proxy, url):
        async with ComputeNodeWriter(url, settings=AT_ONCE) as writer:
            writer.attach(host)
            await writer.flush()
            with capture_logs() as logs:
                proxy.lose_answer(WRITE)
                number = host.start(vcpus=3)
                await eventually(lambda: logs, DEADLINE_SECONDS)
                host.stop(number)
                await writer.flush()
            assert state(database)[0] == 0


async def test_a_half_open_connection_is_given_up(database: Database, tmp_path: Path) -> None:
    """Nothing comes back on it for ever; another one is made within the deadline."""
    host = FakeHost("n1")
    with network(database, tmp_path) as (proxy, url):
        async with ComputeNodeWriter(url, settings=GIVING_UP) as writer:
            writer.attach(host)
            await writer.flush()
            proxy.silence()
            host.start(vcpus=2)
            await writer.flush()
            assert proxy.accepted >= 2
            assert state(database)[0] == 2


@pytest.mark.parametrize("hosts", [1, 3])
async def test_a_packet_that_comes_after_a_newer_write_changes_nothing(
    database: Database, tmp_path: Path, hosts: int
) -> None:
    """Held back on its way, given up, overtaken, and then delivered after all."""
    those = [FakeHost(f"n{number}") for number in range(hosts)]
    with network(database, tmp_path) as (proxy, url):
        async with ComputeNodeWriter(url, settings=GIVING_UP) as writer:
            for host in those:
                writer.attach(host)
            await writer.flush()
            given_up = await database.only_connection()
            held = proxy.hold_back(WRITE)
            for host in those:
                host.start(vcpus=7)
            await eventually(lambda: held.taken, DEADLINE_SECONDS)
            for host in those:
                host.start(vcpus=1)
            await writer.flush()
            assert [row["vcpus_used"] for row in database.rows()] == [8] * hosts
            before = database.rows(), database.fences()
            assert given_up in database.connections(), "the server has not heard of it"
            held.release()
            # The server has carried it out, found nobody to answer, and closed.
            await eventually(lambda: given_up not in database.connections(), DEADLINE_SECONDS)
            assert (database.rows(), database.fences()) == before


async def test_a_claim_whose_answer_was_lost_is_made_again(
    database: Database, tmp_path: Path
) -> None:
    """One row, a higher term, and the row is ours."""
    host = FakeHost("n1")
    with network(database, tmp_path) as (proxy, url):
        async with ComputeNodeWriter(url, settings=AT_ONCE) as writer:
            lost = proxy.lose_answer(CLAIM_COMMIT)
            attachment = writer.attach(host)
            await writer.flush()
            assert lost.taken
            host.start(vcpus=2)
            await writer.flush()
            assert attachment.term == 2
            assert state(database)[0] == 2


async def test_a_claim_that_is_committed_late_costs_a_term_and_no_row(
    database: Database, tmp_path: Path
) -> None:
    """Its commit is held back while the next claim waits for its lock, and then goes on."""
    host = FakeHost("n1")
    with network(database, tmp_path) as (proxy, url):
        async with ComputeNodeWriter(url, settings=GIVING_UP) as writer:
            held = proxy.hold_back(CLAIM_COMMIT)
            with capture_logs() as logs:
                attachment = writer.attach(host)
                await eventually(lambda: held.taken, DEADLINE_SECONDS)
                told = len(logs)
                # It was given up, and its lock stays.
                await eventually(lambda: len(logs) > told, DEADLINE_SECONDS)
                held.release()
            await writer.flush()
            host.start(vcpus=4)
            await writer.flush()
            assert attachment.term is not None
            assert attachment.term >= 2
            assert state(database)[0] == 4
