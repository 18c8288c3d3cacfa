"""The end of one host's monitor is no other host's, and not the daemon's."""

import asyncio

import pytest

from asynchost import ComputeNodeWriter, HostMonitor, MonitorSettings, WriterSettings
from asynchost.errors import HypervisorRefusedError
from asynchost.hypervisor.source import Source
from asynchost.service import hosts as module
from asynchost.service.config import HostConfig
from asynchost.service.hosts import Hosts
from tests.support.waiting import eventually

NOWHERE = "mysql://me@localhost/nova?unix_socket=/nowhere"
IMPATIENT = WriterSettings(backoff_initial_seconds=0.01, backoff_maximum_seconds=0.01)
A, B = HostConfig("test:///default", name="a"), HostConfig("test:///default?b", name="b")
REFUSED = HypervisorRefusedError("test:///default", "denied", "join the group")


@pytest.fixture(autouse=True)
def begin_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a person here."""
    monkeypatch.setattr(module, "_FIRST_PAUSE_SECONDS", 0.001)


def end(monkeypatch: pytest.MonkeyPatch, errors: dict[str, list[Exception]]) -> None:
    """Have the monitors of these URIs end with these errors, one after another."""
    run = Source.run

    async def end_or_run(source: Source) -> None:
        if left := errors.get(source._uri):
            raise left.pop(0)
        await run(source)

    monkeypatch.setattr(Source, "run", end_or_run)


def new_monitor(config: HostConfig, settings: MonitorSettings) -> HostMonitor:
    """As the daemon does it."""
    return HostMonitor(config.uri, name=config.name, settings=settings)


async def test_a_monitor_that_ends_by_itself_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ended it; its row has a place in the writer again."""
    errors: list[Exception] = [ZeroDivisionError("nobody expected it"), REFUSED]
    end(monkeypatch, {A.uri: errors})
    async with ComputeNodeWriter(NOWHERE, settings=IMPATIENT) as writer:
        hosts = Hosts(writer, MonitorSettings(disk="none"), new_monitor)
        await hosts.add(A)
        await hosts.add(B)
        first = [one.monitor for one in hosts.watched]
        await eventually(lambda: hosts.watched[0].monitor.status.ready)
        assert hosts.watched[0].monitor is not first[0]
        assert hosts.watched[1].monitor is first[1], "the other host was left alone"
        assert writer.status.hosts == 2
        assert [one.host for one in hosts.attachments] == ["a", "b"]
        await hosts.aclose()


async def test_hosts_that_are_all_refused_end_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is watched, and a person must mend it. One of several is no reason."""
    refusals: list[Exception] = [REFUSED] * 1000
    errors: dict[str, list[Exception]] = {A.uri: refusals}
    end(monkeypatch, errors)
    async with ComputeNodeWriter(NOWHERE, settings=IMPATIENT) as writer:
        hosts = Hosts(writer, MonitorSettings(disk="none"), new_monitor)
        keeping = asyncio.create_task(hosts.keep())
        await hosts.add(B)
        await hosts.add(A)
        await eventually(lambda: len(refusals) < 998)
        assert not keeping.done()
        await hosts.change([B], [], MonitorSettings(disk="none"))
        with pytest.raises(HypervisorRefusedError):
            await asyncio.wait_for(keeping, 30)
        await hosts.aclose()


async def test_a_host_can_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are not touched."""
    async with ComputeNodeWriter(NOWHERE, settings=IMPATIENT) as writer:
        hosts = Hosts(writer, MonitorSettings(disk="none"), new_monitor)
        await hosts.add(A)
        monitor = hosts.watched[0].monitor
        for _ in range(3):
            await hosts.add(B)
            await hosts.change([B], [], MonitorSettings(disk="none"))
        assert [one.monitor for one in hosts.watched] == [monitor]
        assert writer.status.hosts == 1
        await hosts.aclose()
