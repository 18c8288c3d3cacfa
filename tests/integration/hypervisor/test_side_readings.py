"""What no total needs may fail in any way: the host is watched on, and its events counted."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import libvirt
import pytest
import structlog
from structlog.testing import capture_logs

from asynchost import HostMonitor, MonitorSettings
from asynchost.hypervisor import disk_watch, listing, overcommit_watch, source
from asynchost.hypervisor.connection import Connection
from tests.integration.pipeline import monitor_agrees
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.waiting import eventually

SETTINGS = MonitorSettings(
    audit_interval_seconds=0.5,
    second_resync_seconds=0.5,
    disk_interval_seconds=0.5,
    instances_path="/var/lib",
)


@pytest.fixture(autouse=True)
def structlog_as_before() -> Iterator[None]:
    """Capturing lines configures structlog, which other tests find as they left it."""
    yield
    structlog.reset_defaults()


class Fault:
    """A function that raises what nobody expects, until it is mended."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.raised = 0
        self.mended = False

    def __get__(self, owner: object, _type: type) -> Callable[..., Any]:
        return partial(self, owner)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if self.mended:
            return self._function(*arguments, **named)
        self.raised += 1
        raise ValueError("a surprise")


WHERE = [
    (source, "read_facts"),
    (source, "read_node"),
    (disk_watch, "read_local"),
    (overcommit_watch, "read_disks"),
    (overcommit_watch, "list_uuids"),
    (Connection, "list_domains"),
]


@pytest.mark.parametrize(("owner", "name"), WHERE, ids=[name for _, name in WHERE])
async def test_an_unexpected_error_of_a_side_reading_ends_nothing(
    libvirtd: PrivateLibvirtd,
    qemu_connection: libvirt.virConnect,
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    name: str,
) -> None:
    """It is logged once with its traceback and tried again; events are counted meanwhile."""
    fault = Fault(getattr(owner, name))
    await asyncio.to_thread(guests.define, qemu_connection, guests.guest_xml("defined"))
    with capture_logs() as logs, ExitStack() as mended:
        monkeypatch.setattr(owner, name, fault)
        mended.callback(setattr, fault, "mended", True)
        async with HostMonitor(libvirtd.uri(), settings=SETTINGS) as monitor:
            await eventually(lambda: fault.raised >= 2, describe="tried again")
            await asyncio.to_thread(guests.start, qemu_connection, guests.guest_xml("other"))
            await monitor_agrees(monitor, qemu_connection)
            fault.mended = True
            await monitor.ready()
            audits = monitor.status.audits
            await eventually(lambda: monitor.status.audits > audits, describe="an audit")
            await eventually(lambda: monitor.facts is not None and monitor.disk is not None)
            assert monitor.status.fresh
            assert monitor.status.generation == 1
    surprises = [line for line in logs if "unexpected error" in line["event"]]
    assert len(surprises) == 1
    assert isinstance(surprises[0]["exc_info"], ValueError)


async def test_an_explanation_is_given_without_a_domain_whose_read_surprises(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has a record is explained whatever the reading of the others raises."""
    guests.start(test_connection, guests.guest_xml("counted", kind="test"))
    guests.define(test_connection, guests.guest_xml("defined", kind="test"))
    async with HostMonitor(libvirtd.uri("test"), settings=SETTINGS) as monitor:
        for name in ("read_domain", "list_all"):
            with monkeypatch.context() as patched:
                patched.setattr(listing, name, Fault(getattr(listing, name)))
                explanation = await monitor.explain()
            assert "counted" in {account.name for account in explanation.domains}
        assert monitor.status.fresh


async def test_an_unexpected_error_of_a_connection_makes_a_new_one(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The totals are stale and say why until there is another connection."""
    async with HostMonitor(libvirtd.uri("test"), settings=SETTINGS) as monitor:
        assert monitor._source._reader is not None
        fault = Fault(Connection.open)
        with monkeypatch.context() as patched, capture_logs():
            patched.setattr(Connection, "open", fault)
            monitor._source._reader._connection.declare_lost("for the test")
            await eventually(lambda: fault.raised >= 2, describe="tried again")
            assert not monitor.status.fresh
        await eventually(lambda: monitor.status.fresh)
        assert monitor.status.generation >= 2


_WATCH = """
import asyncio, sys
from asynchost import HostMonitor, MonitorSettings

async def main():
    settings = MonitorSettings(instances_path=sys.argv[2], disk_interval_seconds=0.2)
    async with asyncio.timeout(60), HostMonitor(sys.argv[1], settings=settings) as monitor:
        await monitor.disks_read()
        while monitor.disk is None or monitor.disk.available_least_bytes is None:
            await asyncio.sleep(0.01)
        print(monitor.status.unreadable_disks, monitor.usage.running_vms)

asyncio.run(main())
"""


async def test_a_disk_with_a_name_that_the_locale_lacks_is_read(
    libvirtd: PrivateLibvirtd, qemu_connection: libvirt.virConnect, tmp_path: Path
) -> None:
    """libvirt's paths are UTF-8; a service may run in a locale that knows ASCII alone."""
    image = tmp_path / "größe.img"
    image.write_bytes(bytes(1 << 20))
    xml = guests.guest_xml("g").replace(
        "</devices>",
        f"<disk type='file' device='disk'><source file='{image}'/><target dev='vdz' bus='virtio'/>"
        "</disk></devices>",
    )
    guests.define(qemu_connection, xml)
    environment = {
        **os.environ,
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", _WATCH, libvirtd.uri(), str(tmp_path)],
        env=environment,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (ended.returncode, ended.stdout.split()) == (0, [b"{}", b"0"]), ended.stderr
