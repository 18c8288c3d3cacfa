"""The examples are run as a reader would run them."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import libvirt
import pytest

from asynchost.database.inspection import apply_schema
from asynchost.database.private_server import PrivateMariaDB
from tests.integration.service.processes import REPOSITORY, Command, command
from tests.integration.service.rows import Database
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.waiting import eventually

GUEST = guests.guest_xml("one", vcpus=3, memory_kib=65536, kind="test")


@asynccontextmanager
async def example(name: str, *arguments: str) -> AsyncIterator[Command]:
    """Run one example; warnings are errors in it, too."""
    program = (sys.executable, "-W", "error", f"examples/{name}.py", *arguments)
    async with command(*program) as running:
        yield running


async def ends_cleanly(running: Command, number: signal.Signals) -> None:
    """One signal ends it with status 0 and without a complaint."""
    status, _ = await running.stops(number)
    assert (status, complaints(running)) == (0, [])


def complaints(running: Command) -> list[str]:
    """What went to standard error, but for what depends on the machine: its image folder."""
    return [line for line in running.err if "disk not known" not in line]


async def test_the_readme(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, tmp_path: Path
) -> None:
    """Its first program says what is used, and then each change; only the host is another one."""
    text = (REPOSITORY / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    assert text.count("qemu:///system") == 1
    program = tmp_path / "program.py"
    program.write_text(text.replace("qemu:///system", libvirtd.uri("test")))
    async with command(sys.executable, "-u", "-W", "error", str(program)) as running:
        assert "vcpus_used=0" in await running.says("Usage(")
        await asyncio.to_thread(guests.start, test_connection, GUEST)
        line = await running.says("UsageDelta(")
        # Which of a start's events it is read for first, is a matter of moments.
        assert line.startswith("'one' lifecycle ")
        assert "vcpus_used=3, memory_kib_used=65536, running_vms=1" in line
        # It takes no signal over; asyncio ends it in order all the same.
        running.send(signal.SIGINT)
        assert await running.ends() != 0
    assert complaints(running)[-1:] == ["KeyboardInterrupt"]


async def test_print_changes(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> None:
    """A guest that starts is one line, with its name and what it adds."""
    async with example("print_changes", libvirtd.uri("test")) as running:
        await running.says("vcpus_used=0")
        await asyncio.to_thread(guests.start, test_connection, GUEST)
        assert "vcpus_used=3" in await running.says("'one'")
        await ends_cleanly(running, signal.SIGINT)


async def test_follow_guests(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> None:
    """Each event of a guest is one line, with its reason and what the guest uses."""
    async with example("follow_guests", libvirtd.uri("test")) as running:
        await running.says("waiting for events")
        # Not defined first: the read that a definition causes may see the guest run already.
        guest = await asyncio.to_thread(test_connection.createXML, GUEST)
        line = await running.says("'one' started")
        assert line == "'one' started (booted): nothing -> 3 vCPUs, 65536 KiB"
        await asyncio.to_thread(guest.suspend)
        await running.says("'one' suspended (paused)")
        await asyncio.to_thread(guest.destroy)
        assert "3 vCPUs, 65536 KiB -> nothing" in await running.says("'one' stopped (destroyed)")
        await ends_cleanly(running, signal.SIGINT)


async def test_many_hosts(libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect) -> None:
    """Each line is JSON and names its host; one that is refused ends nothing."""
    refused = libvirtd.uri("test").replace("test", "xen", 1)
    async with example("many_hosts", libvirtd.uri("test"), refused) as running:
        assert json.loads(await running.says('"error"'))["host"] == refused
        await running.says('"guests"')
        await asyncio.to_thread(guests.start, test_connection, GUEST)
        event = json.loads(await running.says('"kind": "started"'))
        assert (event["host"], event["after"]["vcpus"]) == (libvirtd.uri("test"), 3)
        status, _ = await running.stops(signal.SIGINT)
        (line,) = complaints(running)
        assert (status, "monitor ended" in line, "xen" in line) == (0, True, True)


async def test_autoscale(libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect) -> None:
    """Both thresholds are noticed at once; the test driver's host has 16 CPUs."""
    async with example("autoscale", libvirtd.uri("test"), "0.1", "0.05") as running:
        await running.says("watching")
        guest = await asyncio.to_thread(guests.start, test_connection, GUEST)
        await running.says("SCALE UP: 3 vCPUs")
        await asyncio.to_thread(guest.destroy)
        await running.says("SCALE DOWN: 0 vCPUs")
        await ends_cleanly(running, signal.SIGINT)


async def test_the_example_of_a_test_passes() -> None:
    """With pytest, as its reader would run it."""
    program = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=")
    async with command(*program, "examples/test_your_code.py") as running:
        await running.says("1 passed")
        assert await running.ends() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_embed_in_service(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, number: signal.Signals
) -> None:
    """Both tasks of the service see the host, and either signal ends all of it."""
    async with example("embed_in_service", libvirtd.uri("test")) as running:
        await running.says("room for")
        await asyncio.to_thread(guests.start, test_connection, GUEST)
        await running.says("'one' used +3 vCPUs")
        await ends_cleanly(running, number)
        assert running.out[-1] == "ended"


async def test_write_to_database(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> None:
    """The row is there when it says so, follows the host, and stays after the end."""
    async with PrivateMariaDB() as server:
        database = Database(server, "nova")
        database.execute("CREATE DATABASE nova", within="mysql")
        await apply_schema(database.url())
        async with example("write_to_database", libvirtd.uri("test"), database.url()) as running:
            await running.says("written: ")
            await eventually(lambda: (database.row() or {}).get("running_vms") == 0)
            await asyncio.to_thread(guests.start, test_connection, GUEST)
            await eventually(lambda: (database.row() or {})["vcpus_used"] == 3)
            await ends_cleanly(running, signal.SIGINT)


async def test_write_to_database_without_tables(libvirtd: PrivateLibvirtd) -> None:
    """What must be mended first is one line, as in any good program."""
    async with PrivateMariaDB() as server:
        url = server.url("mysql")
        async with example("write_to_database", libvirtd.uri("test"), url) as running:
            assert await running.ends() == 1
        (line,) = complaints(running)
        assert "the table compute_nodes is missing" in line
