"""Containers: what LXC reports as current memory is something else, so the maximum counts."""

import asyncio
import os
import signal

import libvirt

from tests.integration.pipeline import pipeline
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mariadb import Database
from tests.support.recount import Totals


async def test_a_container_counts_its_maximum_memory_while_it_runs(
    libvirtd: PrivateLibvirtd, lxc_connection: libvirt.virConnect, database: Database
) -> None:
    """Started, started again, ended: in the row as what it may use, not as what it uses now."""
    async with pipeline(libvirtd.uri("lxc"), database) as host:
        await host.agrees(Totals(0, 0, 0, 0))
        first = await asyncio.to_thread(
            guests.start,
            lxc_connection,
            guests.guest_xml("c", vcpus=2, memory_kib=65536, kind="lxc"),
        )
        await host.agrees(Totals(2, 64, 1, 0))
        assert first.info()[2] < 65536
        await asyncio.to_thread(
            guests.start,
            lxc_connection,
            guests.guest_xml("d", memory_kib=32768, kind="lxc"),
            persistent=False,
        )
        await host.agrees(Totals(3, 96, 2, 0))
        assert host.row()["hypervisor_type"] == "LXC"
        assert await host.monitor.audit() == []
        await asyncio.to_thread(first.destroy)
        await host.agrees(Totals(1, 32, 1, 0))
        # The controller's end is the container's, and destroying takes LXC two seconds.
        os.kill(libvirtd.guest_pid("d"), signal.SIGKILL)
        await host.agrees(Totals(0, 0, 0, 0))
