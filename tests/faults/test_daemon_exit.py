"""The end of the daemon while libvirtd answers: it ends with status 0, and its row is released."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic

from asynchost.service.control import FOLDER_VARIABLE
from asynchost.service.declared import CONFIG_VARIABLE
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mariadb import Database

Make = Callable[..., PrivateLibvirtd]

CONSOLE_SCRIPT = "from asynchost_command import main; main()"
MILLISECONDS = (0, 3, 10, 30, 60)
"""How long after the daemon's last log line libvirtd answers. The interpreter's end takes 65."""


@contextmanager
def daemon(folder: Path, database: Database, *uris: str) -> Iterator[subprocess.Popen[bytes]]:
    """``asynchost run`` of hosts named a, b, ..., as the console script starts it."""
    hosts = [f"--connect={name}={uri}" for name, uri in zip("abc", uris, strict=False)]
    kept = {name: one for name, one in os.environ.items() if not name.startswith("ASYNCHOST")}
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", CONSOLE_SCRIPT, "run", *hosts),
            *("--database", database.url, "--disk", "none"),
        ],
        env={
            **kept,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            FOLDER_VARIABLE: str(folder),
            CONFIG_VARIABLE: os.devnull,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def read_until(process: subprocess.Popen[bytes], words: bytes) -> None:
    """Read the daemon's log up to a line with ``words``; the line is returned at once."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if words in line:
            return
    raise AssertionError(f"ended with {process.wait()} without {words!r}: {lines}")


def resume_after(libvirtd: PrivateLibvirtd, milliseconds: int) -> None:
    """Let libvirtd answer that long from now. A sleep would be too coarse."""
    at = monotonic() + milliseconds / 1000
    while monotonic() < at:
        pass
    libvirtd.resume()


def guards(database: Database) -> list[str]:
    """What the guards of all rows say."""
    return [str(row["state"]) for row in database.execute("SELECT state FROM asynchost_fence")]


async def end(process: subprocess.Popen[bytes], libvirtd: PrivateLibvirtd, wait: int) -> None:
    """SIGTERM, and libvirtd answers ``wait`` milliseconds after the last line of the log."""
    process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(read_until, process, b'"stopped"')
    resume_after(libvirtd, wait)
    assert await asyncio.to_thread(process.wait, 60) == 0


async def test_an_open_that_libvirtd_answers_at_the_end_crashes_no_daemon(
    private_libvirtd: Make, database: Database, tmp_path: Path
) -> None:
    """One host's libvirtd hangs from the beginning; the row of the other host is released."""
    libvirtd = private_libvirtd()
    for wait in MILLISECONDS:
        libvirtd.pause()
        try:
            with daemon(tmp_path, database, "test:///default", libvirtd.uri("test")) as process:
                await asyncio.to_thread(read_until, process, b"row claimed")
                await end(process, libvirtd, wait)
        finally:
            libvirtd.resume()
        assert guards(database) == ["stopped"], wait


async def test_a_call_that_libvirtd_answers_at_the_end_crashes_no_daemon(
    private_libvirtd: Make, database: Database, tmp_path: Path
) -> None:
    """The only host's libvirtd hangs at the end, once its row is ours; the row is released."""
    libvirtd = private_libvirtd()
    for wait in MILLISECONDS:
        try:
            with daemon(tmp_path, database, libvirtd.uri("test")) as process:
                await asyncio.to_thread(read_until, process, b"row claimed")
                libvirtd.pause()
                await end(process, libvirtd, wait)
        finally:
            libvirtd.resume()
        assert guards(database) == ["stopped"], wait
