"""When a host has settled, how that is said, and who gives signs of life."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from asynchost.errors import HypervisorUnavailableError
from asynchost.monitor import HostMonitor
from asynchost.service import supervision
from asynchost.service.accounts import Watched
from asynchost.service.config import HostConfig
from asynchost.service.supervision import Standing, beat, standing, summary, tell
from asynchost.service.systemd import Manager
from asynchost.settings import MonitorSettings


def watched(name: str) -> Watched:
    """A host that is about to be watched."""
    monitor = HostMonitor("test:///default", name=name)
    return Watched(HostConfig("test:///default", name=name), MonitorSettings(), monitor)


class Recorder(Manager):
    """A manager that keeps what it is told."""

    def __init__(self, *, watchdog_seconds: float | None = None) -> None:
        super().__init__({"NOTIFY_SOCKET": "@recorder"})
        self.watchdog_seconds = watchdog_seconds
        self.told: list[str] = []

    def _send(self, message: str) -> None:
        self.told.append(message)


def test_a_host_waits_until_an_attempt_to_connect_has_failed() -> None:
    """Then it is not reachable, and the start need not wait for it."""
    host = watched("a")
    assert standing(host) is Standing.WAITING
    host.monitor._state.started()
    assert standing(host) is Standing.WAITING
    host.monitor._state.disconnected(HypervisorUnavailableError("test:///default", "no socket"))
    assert standing(host) is Standing.AWAY


def test_a_summary_names_who_is_missing() -> None:
    """Ten of each kind at most."""
    hosts = [watched(f"h{number}") for number in range(12)]
    names = ", ".join(f"h{number}" for number in range(10))
    assert summary(hosts) == f"12 hosts: 12 waiting ({names} and 2 more)"
    assert summary(hosts[:1]) == "1 host: 1 waiting (h0)"
    assert summary([]) == "0 hosts: none"


@pytest.mark.looptime
async def test_ready_is_told_after_a_minute_at_the_latest() -> None:
    """With the names of those that are missing."""
    manager = Recorder()
    task = asyncio.create_task(tell([watched("a")], manager))
    await asyncio.sleep(supervision.READY_SECONDS - 1)
    assert manager.told == ["STATUS=1 host: 1 waiting (a)"]
    await asyncio.sleep(2)
    assert manager.told[1:] == ["READY=1\nSTATUS=1 host: 1 waiting (a)"]
    task.cancel()


@pytest.mark.looptime
@pytest.mark.parametrize("alive", [True, False])
async def test_signs_of_life_come_while_the_daemon_is_whole(alive: bool) -> None:
    """Three in each interval; none once a part has ended, so that the manager restarts it."""
    manager = Recorder(watchdog_seconds=30)
    is_alive: Callable[[], Any] = lambda: alive  # noqa: E731
    task = asyncio.create_task(beat(is_alive, manager))
    await asyncio.sleep(29)
    assert manager.told == (["WATCHDOG=1"] * 3 if alive else [])
    task.cancel()


async def test_without_a_manager_nothing_runs() -> None:
    """Both return at once."""
    async with asyncio.timeout(5):
        await tell([watched("a")], Manager({}))
        await beat(lambda: True, Manager({}))
