"""A lane's flush, with a session that answers when it is told to."""

import asyncio
from typing import Any

import pytest

from asynchost.database import ComputeNodeWriter, WriterSettings
from asynchost.database.attachment import Attachment
from asynchost.database.classify import Kind, StatementError
from asynchost.database.identity import Claim, How
from asynchost.database.lane import Lane
from asynchost.database.rows import RowEncoder, named
from asynchost.database.statements import ROWS_PER_STATEMENT, FenceKey
from asynchost.testing import FakeHost
from tests.support.waiting import eventually

SOME = 100
"""Handed out at once."""


class SlowSession:
    """A server that takes everything, once it may."""

    is_mariadb = False

    def __init__(self) -> None:
        self.sizes: list[int] = []
        """The rows of each statement that was sent."""
        self.closed = False
        self.error: StatementError | None = None
        self._may_answer = asyncio.Semaphore(0)

    async def write(self, text: str) -> int:
        rows = text.count(" UNION ALL ") + 1
        self.sizes.append(rows)
        await self._may_answer.acquire()
        if self.error is not None:
            self.closed = True
            raise self.error
        return 2 * rows

    def answer(self) -> None:
        self._may_answer.release()


class Hosts:
    """So many hosts, whose rows are owned and differ, and which are due when they are told to."""

    def __init__(self, count: int) -> None:
        self.writer = ComputeNodeWriter("mysql://u@h/db", settings=WriterSettings())
        self.hosts = [FakeHost(f"n{number}") for number in range(count)]
        self.attachments = [self.writer.attach(host) for host in self.hosts]
        for number, (host, attachment) in enumerate(
            zip(self.hosts, self.attachments, strict=True), 1
        ):
            values = named(RowEncoder().encode(host.snapshot()))
            attachment.own(Claim(number, 0, FenceKey(host.host, "0"), 1, How.ADOPTED, values))
            host.start()
        self.waiting: list[Attachment] = []

    def due(self) -> list[Attachment]:
        some, self.waiting = self.waiting[:SOME], self.waiting[SOME:]
        return some

    @property
    def dirty(self) -> int:
        return sum(attachment.dirty for attachment in self.attachments)


async def idle() -> None:
    """Let everything come to rest that waits for nobody."""
    for _ in range(200):
        await asyncio.sleep(0)


def flushing(session: SlowSession, hosts: Hosts) -> "asyncio.Task[Any]":
    lane: Any = Lane(session, "me")  # type: ignore[arg-type]  # a double
    return asyncio.create_task(lane.flush(hosts.due))


async def test_the_next_statement_is_ready_when_the_last_is_answered() -> None:
    """It is sent in the next round of the loop, before the last one's books are done."""
    hosts, session = Hosts(SOME + 2 * ROWS_PER_STATEMENT), SlowSession()
    hosts.waiting = list(hosts.attachments)
    task = flushing(session, hosts)
    sizes = [SOME, ROWS_PER_STATEMENT, ROWS_PER_STATEMENT]
    for sent in (1, 2, 3):
        await idle()
        assert session.sizes == sizes[:sent]
        assert hosts.dirty == sum(sizes[sent - 1 :])
        session.answer()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert session.sizes == sizes[: sent + 1]
    assert await task == []
    assert hosts.dirty == 0


async def test_what_becomes_due_meanwhile_goes_with_the_next_statement() -> None:
    """The longer the server takes, the more rows share its next one."""
    hosts, session = Hosts(3 * SOME), SlowSession()
    hosts.waiting = hosts.attachments[:SOME]
    task = flushing(session, hosts)
    await idle()
    hosts.waiting = hosts.attachments[SOME : SOME + 10]
    await eventually(lambda: not hosts.waiting)
    hosts.waiting = hosts.attachments[SOME + 10 :]
    await eventually(lambda: not hosts.waiting)
    session.answer()
    await idle()
    assert session.sizes == [SOME, 2 * SOME]
    session.answer()
    await task
    assert hosts.dirty == 0


async def test_a_host_that_changes_back_meanwhile_is_written_again() -> None:
    """Until the answer nothing would differ."""
    hosts, session = Hosts(SOME), SlowSession()
    before = hosts.attachments[0]
    hosts.waiting = list(hosts.attachments)
    task = flushing(session, hosts)
    await idle()
    hosts.hosts[0].stop(1)
    hosts.waiting = [before]
    await eventually(lambda: not hosts.waiting)
    assert not before.dirty
    session.answer()
    await idle()
    assert session.sizes == [SOME, 1]
    session.answer()
    await task
    assert hosts.dirty == 0


async def test_nothing_is_sent_after_a_statement_that_ended_the_session() -> None:
    """What was prepared is not sent, and what was sent is in doubt."""
    hosts, session = Hosts(2 * ROWS_PER_STATEMENT), SlowSession()
    hosts.waiting = list(hosts.attachments)
    task = flushing(session, hosts)
    await idle()
    session.error = StatementError("db", 2013, "gone", Kind.CONNECTION)
    session.answer()
    with pytest.raises(StatementError):
        await task
    assert len(session.sizes) == 1
    assert hosts.dirty == 2 * ROWS_PER_STATEMENT


async def test_few_rows_are_written_one_statement_after_another() -> None:
    """A second hand would cost them more than it saves."""
    hosts, session = Hosts(4), SlowSession()
    hosts.waiting = list(hosts.attachments)
    task = flushing(session, hosts)
    await idle()
    assert session.sizes == [4]
    assert len(asyncio.all_tasks()) == 2
    session.answer()
    await task


async def test_many_hosts_that_do_not_differ_leave_the_loop_to_others() -> None:
    """A reconnect looks at all of them."""
    hosts, session = Hosts(5 * SOME), SlowSession()
    for host in hosts.hosts:
        host.stop(1)
    hosts.waiting = list(hosts.attachments)
    task = flushing(session, hosts)
    rounds = 0
    while not task.done():
        await asyncio.sleep(0)
        rounds += 1
    assert (await task, session.sizes) == ([], [])
    assert rounds > 5
