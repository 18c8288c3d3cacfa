"""The examples are run as a reader would run them."""

import asyncio
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
