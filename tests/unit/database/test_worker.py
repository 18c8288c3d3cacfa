"""The writer's task, with a lane that carries out everything at once."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from asynchost.database import ComputeNodeWriter, WriterSettings
from asynchost.database.attachment import Attachment
from asynchost.database.claims import Setback
from asynchost.database.identity import Claim, How
from asynchost.database.lane import Due
from asynchost.database.statements import FenceKey
from asynchost.database.worker import Worker
from asynchost.testing import FakeHost
from tests.support.waiting import eventually

AT_ONCE = WriterSettings(quiet_seconds=0, maximum_delay_seconds=0)
MANY = 1000
"""Several times what is claimed in one turn."""


class WillingLane:
    """A database that takes everything."""

    ended = False

    def __init__(self) -> None:
        self.claimed = 0
        self.renewals = self.read_back = self.looks = 0
        self.restless: set[Attachment] = set()
        """Hosts that have changed again when they are written."""

    async def flush(self, due: Due) -> list[Setback]:
        await asyncio.sleep(0)
        while hosts := due():
            for host in hosts:
                if (write := host.plan()) is not None:
                    host.acknowledge(write, asyncio.get_running_loop().time())
                if host in self.restless and host.row is not None:
                    self.looks += 1
                    host.touch()
            await asyncio.sleep(0)
        return []

    async def claim(self, hosts: Iterable[Attachment], _: Mapping[int, str]) -> list[Setback]:
        await asyncio.sleep(0)
        for host in hosts:
            if (wanted := host.wanted()) is not None:
                self.claimed += 1
                key = FenceKey(wanted.name, "0")
                host.own(Claim(self.claimed, 0, key, 1, How.CREATED, dict(wanted.values)))
        return []

    async def renew(self, hosts: Iterable[Attachment], **_: Any) -> list[Attachment]:
        self.renewals += 1
        for host in hosts:
            if (sign := host.sign()) is not None:
                host.told(sign)
        return []

    async def reconcile(self, _: Iterable[Attachment]) -> list[Attachment]:
        self.read_back += 1
        return []

    async def look_for_twins(self, *_: object) -> None:
        pass

    async def aclose(self) -> None:
        pass

    def abort(self) -> None:
        pass


@pytest.fixture
def lane(monkeypatch: pytest.MonkeyPatch) -> WillingLane:
    """What each worker gets that connects."""
    willing = WillingLane()

    async def open_at_once(worker: Worker) -> Any:
        for attachment in worker.attachments:
            attachment.touch()
        return willing

    monkeypatch.setattr(Worker, "_open", open_at_once)
    return willing


async def test_hosts_that_must_wait_for_their_claim_have_their_turn(lane: WillingLane) -> None:
    """Also those that have waited before, and without anything happening to them."""
    async with ComputeNodeWriter("mysql://u@h/db", settings=AT_ONCE) as writer:
        for number in range(MANY):
            writer.attach(FakeHost(f"n{number}"))
        async with asyncio.timeout(30):
            await writer.flush()
        assert (writer.status.owned, lane.claimed) == (MANY, MANY)


async def test_a_flush_ends_when_the_last_is_claimed_beside_a_renewal(
    lane: WillingLane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not wait for the next one."""
    monkeypatch.setattr("random.random", lambda: 0.0)  # the first renewal is at once
    async with ComputeNodeWriter("mysql://u@h/db", settings=AT_ONCE) as writer:
        for number in range(MANY // 4):
            writer.attach(FakeHost(f"n{number}"))
        async with asyncio.timeout(30):
            await writer.flush()
    assert lane.claimed == MANY // 4


def restless(
    lane: WillingLane, monkeypatch: pytest.MonkeyPatch, renewal_seconds: float
) -> ComputeNodeWriter:
    """A writer with a host that is due whenever it was written, and no other end to a turn."""
    monkeypatch.setattr("asynchost.database.worker._LONGEST_TURN_SECONDS", 1e9)
    settings = replace(AT_ONCE, renewal_interval_seconds=renewal_seconds)
    writer = ComputeNodeWriter("mysql://u@h/db", settings=settings)
    lane.restless.add(writer.attach(FakeHost("restless")))
    return writer


async def test_signs_of_life_are_given_while_there_is_always_something_to_write(
    lane: WillingLane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each at its time, or hosts that do not change would look dead."""
    async with restless(lane, monkeypatch, 0.05):
        await eventually(lambda: lane.renewals >= 5)


async def test_rows_are_read_back_more_often_than_signs_of_life_are_due(
    lane: WillingLane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If so asked; what others may wait for before they take over is another interval."""
    monkeypatch.setattr("random.random", lambda: 0.5)
    settings = replace(AT_ONCE, renewal_interval_seconds=3600, read_back_interval_seconds=0.01)
    async with ComputeNodeWriter("mysql://u@h/db", settings=settings) as writer:
        writer.attach(FakeHost("n1"))
        await eventually(lambda: lane.read_back >= 5)
        assert lane.renewals == 0


async def test_closing_does_not_wait_for_hosts_that_are_always_due(
    lane: WillingLane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The turn under way ends, and everything is looked at once more."""
    async with restless(lane, monkeypatch, 1e6):
        await eventually(lambda: lane.looks > 2)
    assert lane.renewals == 1  # the one that says that it has stopped
    assert not caplog.records


async def test_a_host_that_was_detached_is_not_claimed(lane: WillingLane) -> None:
    """Not even if it was to be written when it was."""
    async with ComputeNodeWriter("mysql://u@h/db", settings=AT_ONCE) as writer:
        attachments = [writer.attach(FakeHost(f"n{number}")) for number in range(MANY)]
        flushing = asyncio.create_task(writer.flush())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for attachment in attachments[1:]:
            writer.detach(attachment)
        async with asyncio.timeout(30):
            await flushing
        assert lane.claimed == writer.status.hosts == 1
