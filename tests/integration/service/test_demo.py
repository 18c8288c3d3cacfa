"""``asynchost demo``: shows itself, and leaves nothing, whenever it is interrupted."""

import asyncio
import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pymysql
import pytest

from tests.integration.service.processes import asynchost, command
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.waiting import eventually

DEV = Path(__file__).parents[3] / "dev"


@pytest.fixture
def temporary_folder() -> Iterator[Path]:
    """Where the demonstration makes its temporary files; nothing of them may stay."""
    # Not pytest's: a socket's path has room for 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="demo-"))
    yield folder
    left = [path.name for path in folder.iterdir()]
    shutil.rmtree(folder)
    assert left == []


def servers_in(folder: Path) -> list[str]:
    """The command lines of the running processes that name ``folder``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


def running_vms(socket: str, database: str) -> int:
    """What the only row says."""
    user = pwd.getpwuid(os.geteuid()).pw_name
    connection = pymysql.connect(unix_socket=socket, user=user, database=database)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT running_vms FROM compute_nodes WHERE hypervisor_hostname = 'demo'")
        ((number,),) = cursor.fetchall()
    return int(number)


@pytest.mark.parametrize("how", [asynchost("demo"), (str(DEV), "run")], ids=["demo", "dev run"])
async def test_it_shows_changes_and_row_writes_and_ends_on_ctrl_c(
    temporary_folder: Path, how: tuple[str, ...]
) -> None:
    """Watched until changes and writes were shown, then interrupted as by a terminal."""
    environment = {"TMPDIR": str(temporary_folder)}
    async with command(*how, "--log-format", "console", environment=environment) as demo:
        await demo.says("libvirt's test driver")
        client = (await demo.says("mariadb -S ")).split()
        await demo.says("domains 1 -> ")
        await demo.says("row written")
        # The domains of the driver's own and of the demonstration, as that line tells to look.
        assert running_vms(socket=client[2], database=client[3]) >= 1
        assert servers_in(temporary_folder)
        demo.interrupt_like_a_terminal()
        # Within two seconds: after those it would end itself, with another status.
        assert await demo.ends() == 0
    assert "Traceback" not in "".join(demo.err)
    assert servers_in(temporary_folder) == []


async def test_interrupted_while_it_is_loaded_it_just_ends(temporary_folder: Path) -> None:
    """Somebody changes their mind at once: no traceback, and the signal is not lost."""
    environment = {"TMPDIR": str(temporary_folder)}
    async with command(str(DEV), "run", environment=environment) as demo:
        await eventually(lambda: "/libvirt" in Path(f"/proc/{demo.pid}/maps").read_text(), 30)
        demo.interrupt_like_a_terminal()
        # It may have come further than that by now.
        assert await demo.ends() in (-signal.SIGINT, 0)
    assert "Traceback" not in "".join(demo.err)
    assert servers_in(temporary_folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_interrupted_while_the_server_is_being_made_it_leaves_nothing(
    temporary_folder: Path, number: signal.Signals
) -> None:
    """Somebody changes their mind within the first second."""
    environment = {"TMPDIR": str(temporary_folder)}
    async with command(*asynchost("demo"), environment=environment) as demo:
        await eventually(lambda: servers_in(temporary_folder), 30, "a server being made")
        assert (await demo.stops(number))[0] == 0
    assert servers_in(temporary_folder) == []


async def test_a_second_signal_leaves_nothing_either(temporary_folder: Path) -> None:
    """An end at once still removes the folder and the server."""
    environment = {"TMPDIR": str(temporary_folder)}
    async with command(*asynchost("demo"), environment=environment) as demo:
        await demo.says("mariadb -S ")
        # Which of two that are pending is handled first is the interpreter's choice.
        demo.send(signal.SIGINT)
        demo.send(signal.SIGTERM)
        assert await demo.ends() in (128 + signal.SIGINT, 128 + signal.SIGTERM)
    await eventually(lambda: servers_in(temporary_folder) == [])


async def test_a_libvirtd_that_answers_is_what_it_shows(
    temporary_folder: Path, libvirtd: PrivateLibvirtd, qemu_connection: libvirt.virConnect
) -> None:
    """With a real hypervisor, nothing is pretended. It is put where the system's would be."""
    if not libvirtd.privileged:
        pytest.skip("another /run can be mounted as root only")
    mount = 'mount -t tmpfs none /run && mkdir /run/libvirt && mount --bind "$0" /run/libvirt'
    sockets = str(libvirtd.socket_path.parent)
    arguments = ("unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', sockets, *asynchost("demo"))
    async with command(*arguments, environment={"TMPDIR": str(temporary_folder)}) as demo:
        await demo.says("this machine's QEMU (qemu:///system)")
        await demo.says("totals ready")
        await asyncio.to_thread(guests.start, qemu_connection, guests.guest_xml("one"))
        await demo.says("domains 0 -> 1")
        assert (await demo.stops(signal.SIGINT))[0] == 0
