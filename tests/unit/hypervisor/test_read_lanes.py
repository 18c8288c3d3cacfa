"""The connections that reads go through, as far as real ones cannot be made to do it.

What they do with real reads is in ``test_reader.py``, and with locked domains in the fault tests.
"""

import asyncio
from time import monotonic
from types import SimpleNamespace
from typing import Any, cast

import pytest

from asynchost.errors import HypervisorUnavailableError
from asynchost.hypervisor import read_lanes
from asynchost.hypervisor.call_thread import Call
from asynchost.hypervisor.connection import Connection
from asynchost.hypervisor.read_lanes import ReadLanes


class Deaf:
    """A connection to a libvirtd that has no worker left: it does not open, nor let go."""

    def __init__(self) -> None:
        self.thread: Any = SimpleNamespace(in_flight=set())
        self.in_process = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self) -> None:
        """Given up at its deadline."""
        raise HypervisorUnavailableError("qemu:///system", "no answer within 30 s")

    def close(self) -> None:
        """Its thread is still in the call."""


class Held(Deaf):
    """A connection whose thread is in a read that was given up."""

    def __init__(self, given_up_seconds_ago: float = 60.0) -> None:
        super().__init__()
        call = Call(lambda: None, lambda _: None)
        call.abandoned_at = monotonic() - given_up_seconds_ago
        self.thread.in_flight.add(call)


async def test_no_spare_is_opened_while_the_last_one_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would hold one more thread, for as long as libvirtd says nothing."""
    monkeypatch.setattr(read_lanes, "_OPEN_AGAIN_SECONDS", 0.0)
    made: list[Deaf] = []

    def make() -> Connection:
        made.append(Deaf())
        return cast("Connection", made[-1])

    held: Any = Held()
    lanes = ReadLanes(held, make, lambda: None)

    async def tend() -> int:
        lanes.tend()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return len(made)

    assert [await tend() for _ in range(3)] == [1, 1, 1]
    made[0].closed.set_result(None)
    assert [await tend() for _ in range(3)] == [2, 2, 2]


async def test_one_that_is_being_opened_is_waited_for() -> None:
    """Nobody is told that there is none left before that has failed."""
    held: Any = Held()
    lanes = ReadLanes(held, lambda: cast("Connection", Deaf()), lambda: None)
    lanes.tend()
    assert not lanes.hang(5.0, background=False)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert lanes.hang(5.0, background=False)


async def test_a_call_that_was_given_up_a_moment_ago_may_still_return() -> None:
    """As one that somebody cancelled, and libvirt answers."""
    held: Any = Held(given_up_seconds_ago=0.0)
    lanes = ReadLanes(held, lambda: cast("Connection", Deaf()), lambda: None)
    assert not lanes.hang(5.0, background=False)
