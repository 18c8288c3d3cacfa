"""Test a program that follows a host, without libvirt.

Run it with pytest and pytest-asyncio: ``pytest examples/test_your_code.py``
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from asynchost import EventKind, EventReason, HostMonitor
from asynchost.testing import ScriptedLibvirt


async def count_crashes(monitor: HostMonitor, crashes: Counter[str]) -> None:
    """The code under test: count the crashes of each guest by its name."""
    with monitor.domain_events(kinds=[EventKind.STOPPED]) as events:
        async for event in events:
            if event.reason is EventReason.CRASHED:
                crashes[event.name] += 1


@pytest.fixture
def libvirt() -> ScriptedLibvirt:
    """A host without a server; the test moves it."""
    return ScriptedLibvirt("node-1")


@pytest_asyncio.fixture
async def monitor(libvirt: ScriptedLibvirt) -> AsyncIterator[HostMonitor]:
    """A real monitor of that host."""
    async with libvirt.monitor() as monitor:
        yield monitor


@pytest.mark.asyncio
async def test_a_guest_that_crashes_is_counted(
    libvirt: ScriptedLibvirt, monitor: HostMonitor
) -> None:
    """One that is shut down is not."""
    crashes: Counter[str] = Counter()
    following = asyncio.create_task(count_crashes(monitor, crashes))
    await asyncio.sleep(0)  # until it has subscribed
    for name, reason in (("web", EventReason.CRASHED), ("db", EventReason.SHUTDOWN)):
        uuid = libvirt.start(name)
        libvirt.stop(uuid, reason)
    await monitor.aclose()  # the stream gives its backlog, and ends
    await following
    assert crashes == {"web": 1}
