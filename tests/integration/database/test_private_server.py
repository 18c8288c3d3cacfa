"""The private server: there within a second, gone without a trace."""

import asyncio
import os
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from asynchost.database import PrivateMariaDB, private_server
from asynchost.errors import DatabaseUnavailableError, InvalidSettingError
from tests.support.mariadb import Database
from tests.support.waiting import eventually


def runs(pid: int) -> bool:
    """Whether a process is there and not merely waiting to be reaped."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        # The process may also end between the opening of the file and the reading.
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the servers of each test are, its path short enough for sockets; empty afterwards."""
    with tempfile.TemporaryDirectory(prefix="t-") as path:
        monkeypatch.setattr(tempfile, "tempdir", path)
        yield Path(path)
        assert list(Path(path).iterdir()) == []


async def test_it_serves_and_leaves_nothing() -> None:
    """A usable server on a socket that only its user can reach."""
    async with PrivateMariaDB() as server:
        pid = server.pid
        assert pid is not None
        assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700
        assert Database(server, "mysql").execute("SELECT 1 AS one") == [{"one": 1}]
        assert os.getsid(pid) != os.getsid(0), "a terminal's Ctrl-C must not reach it"
    assert not runs(pid)


async def test_data_survives_a_crash_and_a_restart() -> None:
    """kill, terminate and restart keep the folder."""
    async with PrivateMariaDB() as server:
        admin = Database(server, "mysql")
        admin.execute("CREATE DATABASE nova")
        for crash in (True, False):
            await server.restart(crash=crash)
            assert admin.execute("SHOW DATABASES LIKE 'nova'")
        await server.kill()
        assert server.pid is None
        await server.kill()
        await server.start()
        await server.start()
        assert admin.execute("SHOW DATABASES LIKE 'nova'")


async def test_an_error_inside_leaves_nothing() -> None:
    """As a context manager must."""
    with pytest.raises(ZeroDivisionError):
        async with PrivateMariaDB():
            _ = 1 / 0


@pytest.mark.parametrize("after_seconds", [0.0, 0.02, 0.1, 0.2])
async def test_a_cancelled_start_leaves_nothing(after_seconds: float) -> None:
    """In the middle of the initialisation, and of the start."""
    before = len(asyncio.all_tasks())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(after_seconds), PrivateMariaDB():
            await asyncio.Event().wait()
    assert len(asyncio.all_tasks()) == before


async def test_it_dies_with_its_parent(folder: Path) -> None:
    """Also when that one is killed with SIGKILL."""
    code = (
        "import asyncio\n"
        "from asynchost.database import PrivateMariaDB\n"
        "async def main():\n"
        "    async with PrivateMariaDB() as server:\n"
        "        print(server.pid, server.folder, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    assert process.stdout is not None
    pid, left = (await process.stdout.readline()).split()
    process.send_signal(signal.SIGKILL)
    await process.wait()
    await eventually(lambda: not runs(int(pid)))
    # Nobody is left who could have removed it.
    shutil.rmtree(os.fsdecode(left))


async def test_a_server_that_does_not_start_tells_why() -> None:
    """The end of its log is part of the error."""
    with pytest.raises(DatabaseUnavailableError, match="unknown variable 'nonsense=1'"):
        async with PrivateMariaDB(arguments=["--nonsense=1"]):
            pass


async def test_an_initialisation_that_takes_too_long_is_a_server_that_is_not_there() -> None:
    """The documented error, as for a start that takes too long."""
    with pytest.raises(DatabaseUnavailableError, match="mariadbd --bootstrap does not end"):
        async with PrivateMariaDB(start_timeout_seconds=0.01):
            pass


async def test_a_missing_program_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What to install, and how."""
    monkeypatch.setattr(private_server, "_SEARCH_PATH", "/nowhere")
    with pytest.raises(InvalidSettingError, match="sudo apt-get install"):
        async with PrivateMariaDB():
            pass


async def test_a_folder_too_deep_for_a_socket_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instead of whatever the server would say."""
    deep = folder / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(InvalidSettingError, match="room for 107 bytes"):
        async with PrivateMariaDB():
            pass
    deep.rmdir()
