"""Each event that can come before the number that it announces is followed by a second look.

QEMU's own races are in the fault tests. They are won or lost by chance, and some of them only on
hardware; here libvirt's test driver changes its number when the test says so, after the event's
read and without an event of its own.
"""

import asyncio
from dataclasses import replace

import libvirt
import pytest

from asynchost import Cause, HostMonitor
from asynchost.hypervisor.domain_events import EVENTS
from tests.integration.pipeline import EVENTS_ONLY, monitor_agrees, totals_of
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.recount import Totals
from tests.support.waiting import POLL_SECONDS, eventually

PROMPT = replace(EVENTS_ONLY, look_again_seconds=0.2)
"""A look that is due comes at once, but no sooner than the number has changed."""

KINDS = {event.name: event for event in EVENTS}
STARTED = (libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_STARTED_BOOTED)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("LIFECYCLE", STARTED),
        ("BALLOON_CHANGE", (1024,)),
        ("DEVICE_ADDED", ("dimm0",)),
        ("DEVICE_REMOVED", ("dimm0",)),
        ("MEMORY_DEVICE_SIZE_CHANGE", ("virtiomem0", 2048)),
    ],
)
async def test_a_number_that_comes_after_its_event_is_found_by_looking_again(
    libvirtd: PrivateLibvirtd,
    test_connection: libvirt.virConnect,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    arguments: tuple[object, ...],
) -> None:
    """The read at the event is too early; nothing but the second look tells."""
    xml = guests.guest_xml("g", memory_kib=4096, max_memory_kib=65536, kind="test")
    guest = guests.start(test_connection, xml)
    async with HostMonitor(libvirtd.uri("test"), settings=PROMPT) as monitor:
        reader = monitor._source._reader
        assert reader is not None
        reads = reader.reads
        look, changed = reader._wake, False

        def look_once_changed() -> None:
            if changed:
                look()
            else:
                asyncio.get_running_loop().call_later(POLL_SECONDS, look_once_changed)

        monkeypatch.setattr(reader, "_wake", look_once_changed)
        # As libvirt would hand it on, with an object of the connection that has the events.
        events = reader._lanes.events.connection
        receive = events._receiver(KINDS[name].translate)
        receive(events.handle, events.handle.lookupByName("g"), *arguments, None)
        await eventually(lambda: reader.reads > reads, describe="the read at the event")
        assert totals_of(monitor.usage) == Totals(1, 4, 1, 0)
        with monitor.changes() as changes:
            await asyncio.to_thread(guest.setMemory, 8192)
            changed = True
            async with asyncio.timeout(20):
                change = await anext(changes)
        assert (change.cause, change.delta.memory_kib_used) == (Cause.LOOK_AGAIN, 4096)
        await monitor_agrees(monitor, test_connection)
    del guest
