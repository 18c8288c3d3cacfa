"""A daemon under a service manager, whose socket a stand-in listens to."""

import json
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pymysql
import pytest

from tests.integration.service.processes import Command, asynchost, command
from tests.integration.service.rows import Database
from tests.support.waiting import eventually


class StandIn:
    """Keeps all that a manager is told."""

    def __init__(self, name: str, receiver: socket.socket) -> None:
        self.name = name
        self.messages: list[str] = []
        self._receiver = receiver

    def heard(self, words: str) -> str | None:
        """The first message that holds these words."""
        while True:
            try:
                self.messages.append(self._receiver.recv(4096).decode())
            except BlockingIOError:
                return next((one for one in self.messages if words in one), None)

    async def hears(self, words: str, deadline_seconds: float = 30) -> str:
        """Wait for such a message."""
        return await eventually(lambda: self.heard(words), deadline_seconds, f"a message {words!r}")


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest) -> Iterator[StandIn]:
    """The stand-in, by a path and by a name in the abstract namespace."""
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
    ):
        name = f"{folder}/notify" if request.param == "path" else f"@{folder}"
        receiver.bind(name.replace("@", "\0", 1))
        receiver.setblocking(False)
        yield StandIn(name, receiver)


@asynccontextmanager
async def daemon_of(manager: StandIn, *arguments: str, **variables: str) -> AsyncIterator[Command]:
    """A daemon that the stand-in seems to have started."""
    environment = {"NOTIFY_SOCKET": manager.name, "INVOCATION_ID": "f00", **variables}
    async with command(*asynchost("run", *arguments), environment=environment) as daemon:
        yield daemon


async def test_the_manager_is_told_of_start_reload_and_stop(
    manager: StandIn, database: Database
) -> None:
    """Ready when the row is written and the other host found unreachable, which is named."""
    away = "gone=test+unix:///default?socket=/nowhere/at/all"
    arguments = ("--connect", "a=test:///default", "--connect", away, "--disk", "none")
    async with daemon_of(manager, *arguments, "--database", database.url()) as daemon:
        ready = await manager.hears("READY=1")
        assert "STATUS=2 hosts: 1 written, 1 not reachable (gone)" in ready
        assert [row["hypervisor_hostname"] for row in database.rows()] == ["a"]
        manager.messages.clear()
        daemon.send(signal.SIGHUP)
        reloading = await manager.hears("RELOADING=1")
        assert "\nMONOTONIC_USEC=" in reloading
        await manager.hears("READY=1")
        assert (await daemon.stops(signal.SIGTERM))[0] == 0
        assert await manager.hears("STOPPING=1")


async def test_ready_waits_for_the_row(manager: StandIn, database: Database) -> None:
    """While somebody has locked the table, the status names who waits."""
    locker = pymysql.connect(
        unix_socket=str(database.server.socket), user=database.server.user, database="nova"
    )
    arguments = ("--connect", "a=test:///default", "--disk", "none", "--database", database.url())
    with locker, locker.cursor() as cursor:
        cursor.execute("LOCK TABLES asynchost_fence WRITE")
        async with daemon_of(manager, *arguments) as daemon:
            await daemon.says("totals ready")
            await manager.hears("STATUS=1 host: 1 waiting (a)")
            assert not manager.heard("READY=1")
            cursor.execute("UNLOCK TABLES")
            await manager.hears("READY=1\nSTATUS=1 host: 1 written")
            assert (await daemon.stops(signal.SIGTERM))[0] == 0


async def test_signs_of_life_stop_while_the_loop_stands_still(
    manager: StandIn, database: Database
) -> None:
    """A process that is stopped gives none, and gives them again when it goes on."""
    arguments = ("--connect", "a=test:///default", "--disk", "none", "--database", database.url())
    async with daemon_of(manager, *arguments, WATCHDOG_USEC="600000") as daemon:
        await manager.hears("WATCHDOG=1")
        daemon.send(signal.SIGSTOP)
        await eventually(lambda: is_stopped(daemon.pid), 10)
        manager.heard("")
        manager.messages.clear()
        assert manager.heard("WATCHDOG=1") is None
        daemon.send(signal.SIGCONT)
        await manager.hears("WATCHDOG=1")
        assert (await daemon.stops(signal.SIGTERM))[0] == 0


def is_stopped(pid: int) -> bool:
    """Whether the process is stopped by a signal."""
    return "State:\tT" in Path(f"/proc/{pid}/status").read_text()


async def test_lines_carry_priorities_where_stderr_is_the_journal(database: Database) -> None:
    """The journal says by device and inode which stream is its own."""
    shell = 'JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2) exec "$@"'
    arguments = asynchost("run", "--connect", "a=test:///default", "--database", database.url())
    async with command("/bin/sh", "-c", shell, "sh", *arguments) as daemon:
        await daemon.says("running")
        assert (await daemon.stops(signal.SIGTERM))[0] == 0
    for line in daemon.err:
        mark, record = line[:3], json.loads(line[3:])
        assert mark == {"info": "<6>", "warning": "<4>"}[record["level"]]
