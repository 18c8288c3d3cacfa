"""The writer's task, with a lane that carries out everything at once."""

import asyncio
from collections.abc import Iterable, Mapping
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

AT_ONCE = WriterSettings(quiet_seconds=0, maximum_delay_seconds=0)
MANY = 1000
"""Several times what is claimed in one turn."""


class WillingLane:
    """A database that takes everything."""

    def __init__(self) -> None:
        self.claimed = 0

    async def flush(self, due: Due) -> list[Setback]:
        await asyncio.sleep(0)
        while hosts := due():
            for host in hosts:
                if (write := host.plan()) is not None:
                    host.acknowledge(write)
        return []

    async def claim(self, hosts: Iterable[Attachment], _: Mapping[int, str]) -> list[Setback]:
        await asyncio.sleep(0)
        for host in hosts:
            if (wanted := host.wanted()) is not None:
                self.claimed += 1
                key = FenceKey(wanted.name, "0")
                host.own(Claim(self.claimed, 0, key, 1, How.CREATED, dict(wanted.values)))
        return []

    async def renew(self, hosts: Iterable[Attachment], **_: Any) -> None:
        for host in hosts:
            if (sign := host.sign()) is not None:
                host.told(sign)

    async def reconcile(self, _: Iterable[Attachment]) -> list[Attachment]:
        return []

    async def aclose(self) -> None:
        pass

    def abort(self) -> None:
        pass


async def test_hosts_that_must_wait_for_their_claim_have_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also those that have waited before, and without anything happening to them."""

    async def open_at_once(worker: Worker) -> Any:
        for attachment in worker.attachments:
            attachment.touch()
        return lane

    lane = WillingLane()
    monkeypatch.setattr(Worker, "_open", open_at_once)
    async with ComputeNodeWriter("mysql://u@h/db", settings=AT_ONCE) as writer:
        for number in range(MANY):
            writer.attach(FakeHost(f"n{number}"))
        async with asyncio.timeout(30):
            await writer.flush()
        assert (writer.status.owned, lane.claimed) == (MANY, MANY)
