"""Every way to a libvirtd: its sockets, TCP, ssh; an old one that lacks events.

The guests are started over the daemon's own socket, so that only the monitor goes the way that
is tested.
"""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt
import pytest

from asynchost import HostMonitor, HypervisorUnavailableError
from asynchost.hypervisor.connection import Connection
from asynchost.hypervisor.domain_events import EVENTS
from tests.integration.pipeline import EVENTS_ONLY, pipeline, totals_in, totals_of
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mariadb import Database
from tests.support.recount import Totals
from tests.support.waiting import eventually

# What ssh would do once it has logged in: join its standard input and output to the socket. It
# refuses where the real one might ask a person.
_SSH = """\
#!{python}
import os, socket, sys, threading

if "BatchMode=yes" not in sys.argv:
    sys.exit("a person would be asked")
server = socket.socket(socket.AF_UNIX)
server.connect({socket!r})

def pump(read, write, end):
    while piece := read():
        write(piece)
    end()

threading.Thread(
    target=pump,
    args=(lambda: os.read(0, 65536), server.sendall, lambda: server.shutdown(socket.SHUT_WR)),
    daemon=True,
).start()
pump(lambda: server.recv(65536), lambda piece: os.write(1, piece), lambda: None)
"""


def by_unix(daemon: PrivateLibvirtd, _folder: Path) -> str:
    """The scheme in full, instead of the plain one with a socket."""
    return f"qemu+unix:///system?socket={daemon.socket_path}"


def by_the_read_only_socket(daemon: PrivateLibvirtd, _folder: Path) -> str:
    """The one that every user of the machine may open."""
    return f"qemu+unix:///system?socket={daemon.read_only_socket_path}"


def by_tcp(daemon: PrivateLibvirtd, _folder: Path) -> str:
    """Over the network."""
    return daemon.tcp_uri("qemu")


def by_ssh(daemon: PrivateLibvirtd, folder: Path) -> str:
    """Over a program in ssh's place, which is told what ssh would be told."""
    ssh = folder / "ssh"
    ssh.write_text(_SSH.format(python=sys.executable, socket=str(daemon.socket_path)))
    ssh.chmod(0o755)
    return f"qemu+ssh://monitor@node.invalid/system?command={ssh}"


@pytest.mark.parametrize("way", [by_unix, by_the_read_only_socket, by_tcp, by_ssh])
async def test_totals_and_row_follow_a_guest(
    private_libvirtd: Callable[..., PrivateLibvirtd],
    database: Database,
    tmp_path: Path,
    way: Callable[[PrivateLibvirtd, Path], str],
) -> None:
    """Events arrive, reads and listings work, and nobody is asked for anything."""
    daemon = private_libvirtd(listen_tcp=True)
    with daemon.connection() as connection:
        async with asyncio.timeout(60), pipeline(way(daemon, tmp_path), database) as host:

            async def become(expected: Totals) -> None:
                def true() -> bool:
                    found = totals_of(host.monitor.usage), totals_in(host.row())
                    assert found == (expected, expected)
                    return True

                await eventually(lambda: host.attachment.row_id is not None)
                await eventually(true, 20.0, "totals and row")

            await become(Totals(0, 0, 0, 0))
            guest = await asyncio.to_thread(
                guests.start, connection, guests.guest_xml("g", vcpus=2)
            )
            await become(Totals(2, 16, 1, 0))
            assert await host.monitor.audit() == []
            await asyncio.to_thread(guest.destroy)
            await become(Totals(0, 0, 0, 0))
            assert host.monitor.status.generation == 1
            del guest


# Every event id beside the one without which there would be nothing.
OTHERS = [event.name for event in EVENTS if event.name != "LIFECYCLE" and not event.optional]
OPTIONAL = [event.name for event in EVENTS if event.optional]


@pytest.mark.parametrize("old", ["library", "daemon"])
@pytest.mark.parametrize("name", OTHERS)
async def test_a_libvirt_too_old_for_an_event_loses_that_event_only(
    libvirtd: PrivateLibvirtd,
    test_connection: libvirt.virConnect,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    old: str,
    name: str,
) -> None:
    """A warning that names it, and the monitor works; the library may lack it, or the daemon."""
    constant = f"VIR_DOMAIN_EVENT_ID_{name}"
    if old == "library":
        monkeypatch.delattr(libvirt, constant)
    else:
        monkeypatch.setattr(libvirt, constant, 999)  # one that the daemon has never heard of
    async with HostMonitor(libvirtd.uri("test"), settings=EVENTS_ONLY) as monitor:
        assert monitor.status.missing_events == (name,)
        xml = guests.guest_xml("g", vcpus=2, kind="test")
        await asyncio.to_thread(guests.start, test_connection, xml)
        await eventually(lambda: totals_of(monitor.usage) == Totals(2, 16, 1, 0))
    (line,) = [text for text in caplog.messages if "event not available" in text]
    assert name in line


@pytest.mark.parametrize("old", ["library", "daemon"])
@pytest.mark.parametrize("name", OPTIONAL)
async def test_an_optional_event_is_missed_without_a_word(
    libvirtd: PrivateLibvirtd,
    test_connection: libvirt.virConnect,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    old: str,
    name: str,
) -> None:
    """No warning, nothing in the status; the monitor works. Library or daemon may lack it."""
    del test_connection
    constant = f"VIR_DOMAIN_EVENT_ID_{name}"
    if old == "library":
        monkeypatch.delattr(libvirt, constant, raising=False)
    else:
        # One that the daemon has never heard of.
        monkeypatch.setattr(libvirt, constant, 999, raising=False)
    async with HostMonitor(libvirtd.uri("test"), settings=EVENTS_ONLY) as monitor:
        assert monitor.status.missing_events == ()
    assert not [text for text in caplog.messages if "event not available" in text]


async def test_a_libvirt_without_lifecycle_events_is_not_watched(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its totals would be right once a minute only: it is not called fresh."""
    monkeypatch.setattr(libvirt, "VIR_DOMAIN_EVENT_ID_LIFECYCLE", 999)
    open_connection, attempts = Connection.open, []

    async def counted(connection: Connection, *arguments: Any) -> None:
        attempts.append(connection.uri)
        await open_connection(connection, *arguments)

    monkeypatch.setattr(Connection, "open", counted)
    monitor = HostMonitor(libvirtd.uri("test"), settings=EVENTS_ONLY)
    await monitor.start()
    try:
        await eventually(lambda: len(attempts) >= 2, describe="it tries again")
        assert not monitor.status.ready
        with pytest.raises(HypervisorUnavailableError):
            await monitor.audit()
    finally:
        await monitor.aclose()
