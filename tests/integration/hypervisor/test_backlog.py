"""A backlog of events, of the time in which the process, or only its loop, stood still."""

from typing import Any

import libvirt
import pytest

from asynchost import Cause, HostMonitor
from asynchost.agenda import Mark
from asynchost.hypervisor import batch, read_lanes
from asynchost.hypervisor import connection as connection_module
from tests.integration.pipeline import EVENTS_ONLY, monitor_agrees
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.waiting import eventually

PAIRS = 2000


async def test_a_backlog_is_worked_off_in_small_pieces_and_no_read_waits_behind_it(
    libvirtd: PrivateLibvirtd,
    test_connection: libvirt.virConnect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not even one that was due before the first event is read.

    libvirtd answers behind the events that it sent before. The thread that waits for the answer
    reads them all, and the loop is then handed all in one go.
    """
    guest = guests.start(test_connection, guests.guest_xml("g", memory_kib=4096, kind="test"))
    uuid = guest.UUIDString()
    async with HostMonitor(libvirtd.uri("test"), settings=EVENTS_ONLY) as monitor:
        reader = monitor._source._reader
        assert reader is not None
        events = reader._lanes.events.connection
        read_domain, hand_on = batch.read_domain, events._hand_on
        behind: list[str] = []
        pieces: list[int] = []

        def watch_read(connection: Any, read: batch.Read) -> Any:
            if connection is events.handle and monitor.status.events < due:
                behind.append(read.uuid)
            return read_domain(connection, read)

        def watch_piece() -> None:
            pieces.append(len(events._received))
            hand_on()

        # However long libvirtd has no processor in between, and however long all of it takes.
        monkeypatch.setattr(connection_module, "_CALM_SECONDS", 2.0)
        monkeypatch.setattr(read_lanes, "_BACKLOG_SECONDS", 600.0)
        monkeypatch.setattr(batch, "read_domain", watch_read)
        monkeypatch.setattr(events, "_hand_on", watch_piece)
        due = monitor.status.events + 2 * PAIRS
        for _ in range(PAIRS):  # on the loop's own thread, which is the fault under test
            guest.suspend()
            guest.resume()
        reader.mark(uuid, Mark(Cause.LOOK_AGAIN))
        reader.pump()
        await eventually(lambda: monitor.status.events >= due)
        await reader.settle()
        assert behind == []
        assert max(pieces) <= 32
        await monitor_agrees(monitor, test_connection)
