"""The tests' own harness: what the other tests take for granted about libvirtd and guests."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import libvirt
import pytest

from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.locked import locking
from tests.support.recount import Totals, recount
from tests.support.waiting import eventually, eventually_equal

EMPTY = Totals(0, 0, 0, 0)


def test_all_drivers_of_a_daemon_report_one_hostname(libvirtd: PrivateLibvirtd) -> None:
    """qemu and test are two hosts of the same name: a name must be given to tell them apart."""
    with libvirtd.connection("qemu") as qemu, libvirtd.connection("test") as test:
        assert qemu.getType() == "QEMU"
        assert test.getType() == "TEST"
        assert qemu.getHostname() == test.getHostname() == libvirtd.hostname


def test_recount_follows_a_qemu_guest(
    libvirtd: PrivateLibvirtd, qemu_connection: libvirt.virConnect
) -> None:
    """Start, resume, pause, live vCPU add, save, restore, destroy: each has its totals."""
    uri = libvirtd.uri("qemu")
    assert recount(uri) == EMPTY
    guest = guests.start(qemu_connection, guests.guest_xml("one", vcpus=1, max_vcpus=4))
    assert recount(uri) == Totals(1, 16, 1, 0)
    guest.resume()
    assert guest.state()[0] == libvirt.VIR_DOMAIN_RUNNING
    guest.suspend()
    guests.add_vcpus(guest, 3)
    assert recount(uri) == Totals(3, 16, 1, 0)
    guest.managedSave()
    assert recount(uri) == EMPTY
    guest.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    # Restored into pause it stays "paused for migration": a task, until somebody resumes it.
    assert recount(uri) == Totals(3, 16, 1, 1)
    guest.resume()
    assert recount(uri) == Totals(3, 16, 1, 0)
    guest.destroy()
    assert recount(uri) == EMPTY


async def test_a_killed_qemu_process_is_seen(
    libvirtd: PrivateLibvirtd, qemu_connection: libvirt.virConnect
) -> None:
    """SIGKILL to the process found by the guest's name ends that guest and no other."""
    for name in ("victim", "victim-2"):
        guests.start(qemu_connection, guests.guest_xml(name))
    assert set(libvirtd.guest_pids()) == {"victim", "victim-2"}
    os.kill(libvirtd.guest_pid("victim"), signal.SIGKILL)
    await eventually_equal(lambda: recount(libvirtd.uri()), Totals(1, 16, 1, 0))
    with pytest.raises(LookupError):
        libvirtd.guest_pid("victim")


def test_the_test_driver_is_shared_and_starts_empty(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> None:
    """All clients of the socket see one test host; memory changes there are immediate."""
    uri = libvirtd.uri("test")
    assert recount(uri) == EMPTY
    guest = guests.start(
        test_connection,
        guests.guest_xml("t", vcpus=2, memory_kib=4096, max_memory_kib=8192, kind="test"),
    )
    assert recount(uri) == Totals(2, 4, 1, 0)
    guest.setMemory(8192)
    assert recount(uri) == Totals(2, 8, 1, 0)


def test_an_lxc_guest_counts_its_maximum_memory(
    libvirtd: PrivateLibvirtd, lxc_connection: libvirt.virConnect
) -> None:
    """A container starts; what its cgroup uses at the moment is not what is counted."""
    guest = guests.start(lxc_connection, guests.guest_xml("c", memory_kib=65536, kind="lxc"))
    assert recount(libvirtd.uri("lxc")) == Totals(1, 64, 1, 0)
    assert guest.info()[2] < 65536
    assert libvirtd.guest_pid("c") > 0


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_guests_survive_their_daemon(
    private_libvirtd: Callable[..., PrivateLibvirtd], end: str
) -> None:
    """The daemon killed or ended and started again finds its guests as they were."""
    daemon = private_libvirtd()
    with daemon.connection() as connection:
        guests.start(connection, guests.guest_xml("survivor", vcpus=2))
    process = daemon.guest_pid("survivor")
    getattr(daemon, end)()
    assert not daemon.alive
    with pytest.raises(libvirt.libvirtError):
        daemon.open()
    daemon.start()
    assert daemon.guest_pid("survivor") == process
    assert recount(daemon.uri()) == Totals(2, 16, 1, 0)


async def test_stop_leaves_no_process_and_no_file(
    private_libvirtd: Callable[..., PrivateLibvirtd],
) -> None:
    """Daemon (a stopped one too), guest and folder are gone after stop."""
    daemon = private_libvirtd()
    with daemon.connection() as connection:
        guests.start(connection, guests.guest_xml("g"))
    folder, processes = daemon.folder, [daemon.pid, daemon.guest_pid("g")]
    daemon.pause()
    daemon.stop()
    assert not folder.exists()
    await eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes))


def test_tcp_listener_keeps_its_port_over_a_restart(
    private_libvirtd: Callable[..., PrivateLibvirtd],
) -> None:
    """The TCP transport answers, before and after a restart."""
    daemon = private_libvirtd(listen_tcp=True)
    uri = daemon.tcp_uri("qemu")
    assert recount(uri) == EMPTY
    daemon.restart()
    assert daemon.tcp_uri("qemu") == uri
    assert recount(uri) == EMPTY


def test_a_hook_can_come_and_go(private_libvirtd: Callable[..., PrivateLibvirtd]) -> None:
    """A hook installed after the daemon's start is called; removed, it is not."""
    daemon = private_libvirtd(hooks=True)
    with daemon.connection() as connection:
        daemon.install_hook('#!/bin/sh\necho "$1 $2" >> /etc/libvirt/hooks/calls\n')
        guest = guests.start(connection, guests.guest_xml("hooked"))
        calls = daemon.hooks_folder / "calls"
        assert "hooked start" in calls.read_text().splitlines()
        daemon.remove_hook()
        calls.unlink()
        guest.destroy()
        assert not calls.exists()
        del guest


async def test_eventually_reports_the_last_value() -> None:
    """A wait that fails says what was waited for and what was seen."""
    with pytest.raises(AssertionError, match="a miracle; last value: 0"):
        await eventually(lambda: 0, 0.02, "a miracle")
    with pytest.raises(AssertionError, match="1 is not 2"):
        await eventually_equal(lambda: 1, 2, 0.02)


@pytest.mark.parametrize("operation", ["start", "release"])
async def test_a_locked_guest_blocks_its_reads_and_every_listing(
    private_libvirtd: Callable[..., PrivateLibvirtd], operation: Literal["start", "release"]
) -> None:
    """While a guest is locked, a listing on another connection waits; a healthy guest answers."""
    daemon = private_libvirtd(hooks=True)
    # One for each: of two calls at once on one connection, the second can hang in the client
    # until the first one returns.
    with (
        daemon.connection() as connection,
        daemon.connection() as other,
        daemon.connection() as third,
    ):
        healthy = guests.start(third, guests.guest_xml("healthy"))
        held = guests.define(connection, guests.guest_xml("held"))
        if operation == "release":
            held.create()
        with locking(daemon, ["held"], operation) as lock:
            change = held.create if operation == "start" else held.destroy
            changing = asyncio.create_task(asyncio.to_thread(change))
            await eventually(lambda: lock.waiting() == {"held"}, describe="the lock")
            listing = asyncio.create_task(asyncio.to_thread(other.listAllDomains, 0))
            # The healthy guest's reads take milliseconds; the listing outlasts all of them.
            for _ in range(50):
                assert (await asyncio.to_thread(healthy.info))[3] == 1
            assert not listing.done()
            assert not changing.done()
        await asyncio.gather(changing, listing)
        assert len(listing.result()) == 2
        del healthy, held, listing
