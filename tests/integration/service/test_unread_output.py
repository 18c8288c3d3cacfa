"""Whoever does not read the daemon's output, or stops reading it, holds up nothing."""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import libvirt
import pytest

from asynchost.service.control import FOLDER_VARIABLE
from tests.integration.service.processes import asynchost, command, run_to_the_end
from tests.integration.service.rows import Database
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.waiting import eventually

SMALLEST_PIPE = 4096


class Unread:
    """A process whose outputs share one pipe that nobody reads."""

    def __init__(self, process: asyncio.subprocess.Process, reading: int) -> None:
        self.process = process
        self.reading = reading

    @property
    def is_full(self) -> bool:
        """Whether the pipe takes no more."""
        waiting = fcntl.ioctl(self.reading, 0x541B, b"\0" * 4)  # FIONREAD
        return int.from_bytes(waiting, "little") > SMALLEST_PIPE // 2

    async def stops(self, *numbers: signal.Signals) -> int:
        """Send signals, and return the exit status."""
        for number in numbers:
            self.process.send_signal(number)
        async with asyncio.timeout(30):
            return await self.process.wait()

    def left(self) -> str:
        """What waits in the pipe."""
        os.set_blocking(self.reading, False)
        with suppress(BlockingIOError):
            return os.read(self.reading, 2**20).decode()
        return ""


@asynccontextmanager
async def unread(
    *arguments: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Unread]:
    """Run a program, both of whose outputs go into the smallest pipe that there is."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, SMALLEST_PIPE)
    with tempfile.TemporaryDirectory() as folder:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            env={**os.environ, FOLDER_VARIABLE: folder, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
            start_new_session=True,
        )
        os.close(writing)
        try:
            yield Unread(process, reading)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            os.close(reading)


def used(database: Database) -> int | None:
    """``vcpus_used`` of the only row."""
    row = database.row()
    return None if row is None else int(row["vcpus_used"])


def state(database: Database) -> str:
    """What the guard of the only row says."""
    (guard,) = database.execute("SELECT state FROM asynchost_fence")
    return str(guard["state"])


def log_at_length(uri: str, database: Database) -> tuple[str, ...]:
    """A daemon that fills its log as fast as it can."""
    return asynchost(
        *("run", "--connect", f"a={uri}", "--database", database.url()),
        *("--log-level", "debug", "--audit-interval", "0.1", "--disk", "none"),
    )


async def restart(domain: libvirt.virDomain, times: int = 1) -> None:
    """Make some changes, each of which is worth some log lines. It runs at the end."""

    def work() -> None:
        for _ in range(times):
            domain.destroy()
            domain.create()

    await asyncio.to_thread(work)


async def fill(daemon: Unread, domain: libvirt.virDomain) -> None:
    """Change the domain until the daemon's log takes no more."""

    async def full() -> bool:
        await restart(domain)
        return daemon.is_full

    await eventually(full)


async def test_a_log_that_nobody_reads_holds_up_nothing(
    database: Database,
    libvirtd: PrivateLibvirtd,
    test_connection: libvirt.virConnect,
    tmp_path: Path,
) -> None:
    """The row follows, the control socket answers, and the first signal ends it in order."""
    environment = {FOLDER_VARIABLE: str(tmp_path)}
    arguments = log_at_length(libvirtd.uri("test"), database)
    async with unread(*arguments, environment=environment) as daemon:
        await eventually(lambda: used(database) == 0)
        one = guests.guest_xml("one", vcpus=3, kind="test")
        domain = await asyncio.to_thread(guests.start, test_connection, one)
        await fill(daemon, domain)
        await restart(domain, times=50)
        await eventually(lambda: used(database) == 3)
        two = await asyncio.to_thread(
            guests.start, test_connection, guests.guest_xml("two", vcpus=2, kind="test")
        )
        await eventually(lambda: used(database) == 5)
        status, out, _ = await run_to_the_end("explain", environment=environment)
        assert (status, "vcpus_used 5" in "".join(out)) == (0, True)
        await asyncio.to_thread(two.destroy)
        await asyncio.to_thread(domain.destroy)
        await eventually(lambda: used(database) == 0)
        assert await daemon.stops(signal.SIGTERM) == 0
    assert state(database) == "stopped"


async def test_a_second_signal_ends_at_once_though_nobody_reads(
    database: Database, libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> None:
    """With a database that does not answer, the first one alone would take seconds."""
    arguments = log_at_length(libvirtd.uri("test"), database)
    xml = guests.guest_xml("one", kind="test")
    domain = await asyncio.to_thread(guests.start, test_connection, xml)
    async with unread(*arguments) as daemon:
        await eventually(lambda: database.row() is not None)
        await fill(daemon, domain)
        database.server.suspend()
        try:
            status = await daemon.stops(signal.SIGTERM, signal.SIGINT)
        finally:
            database.server.resume()
    # Which of two that are pending is taken first is the kernel's choice.
    assert status in (128 + signal.SIGTERM, 128 + signal.SIGINT)


async def test_a_stop_that_does_not_end_is_ended_though_nobody_reads(tmp_path: Path) -> None:
    """The line that says so waits for nobody either."""
    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio, sys, time\n"
        "from asynchost.service.logs import configure_logs\n"
        "from asynchost.service.stopping import Stop, stop_on_signals\n"
        "from asynchost.service.streams import replace_standard_streams\n"
        "replace_standard_streams(goes_on=True)\n"
        "configure_logs('info', 'json')\n"
        "stop = Stop()\n"
        "stop_on_signals(stop, grace_seconds=0.2)\n"
        "print('x' * 100_000, file=sys.stderr)\n"
        "time.sleep(60)\n"
    )
    async with unread(sys.executable, str(program), environment={"PYTHONPATH": "."}) as running:
        await eventually(lambda: running.is_full)
        assert await running.stops(signal.SIGTERM) == 1


async def test_a_dry_run_whose_statements_nobody_reads(
    database: Database, libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> None:
    """It goes on, and ends when it is told to."""
    arguments = (*log_at_length(libvirtd.uri("test"), database), "--dry-run")
    xml = guests.guest_xml("one", kind="test")
    domain = await asyncio.to_thread(guests.start, test_connection, xml)
    async with unread(*arguments) as daemon:
        await fill(daemon, domain)
        assert await daemon.stops(signal.SIGTERM) == 0
    assert database.rows() == []


@pytest.mark.parametrize("reader", ["head -1", "true"])
async def test_a_dry_run_whose_reader_has_gone_ends(
    database: Database,
    libvirtd: PrivateLibvirtd,
    test_connection: libvirt.virConnect,
    reader: str,
) -> None:
    """Nothing is left to do it for; that is no error."""
    arguments = asynchost(
        *("run", "--dry-run", "--connect", f"a={libvirtd.uri('test')}"),
        *("--database", database.url(), "--disk", "none", "--audit-interval", "0.2"),
    )
    shell = ("/bin/bash", "-c", f'"$@" | {reader}; exit "${{PIPESTATUS[0]}}"', "bash")
    async with command(*shell, *arguments) as daemon:
        await daemon.says("host facts read")
        xml = guests.guest_xml("one", vcpus=3, kind="test")
        domain = await asyncio.to_thread(guests.start, test_connection, xml)
        # Its end is noticed with the first statement that nobody takes any more.
        ending = asyncio.create_task(daemon.ends())
        while not ending.done():
            await asyncio.to_thread(domain.destroy if domain.isActive() else domain.create)
            await asyncio.wait({ending}, timeout=0.2)
        assert await ending == 0
    assert "Traceback" not in "".join(daemon.err)


async def test_a_dry_run_on_a_full_disk_says_so(
    database: Database, libvirtd: PrivateLibvirtd
) -> None:
    """A dry run is for its output; without any, it ends."""
    arguments = asynchost(
        *("run", "--dry-run", "--connect", f"a={libvirtd.uri('test')}"),
        *("--database", database.url(), "--disk", "none"),
    )
    async with command("/bin/sh", "-c", '"$@" >/dev/full', "sh", *arguments) as daemon:
        assert await daemon.ends() == 2
    assert "cannot write standard output: No space left on device" in daemon.err[-1]
    assert "TMPDIR" not in daemon.err[-1]


async def test_an_answer_that_nobody_reads_can_be_interrupted(tmp_path: Path) -> None:
    """``explain`` waits for its reader, and ends with the first signal."""
    nodes = tmp_path / "node.xml"
    domains = "".join(
        f"<domain type='test'><name>domain-{number:04}</name><memory>1024</memory>"
        "<os><type>hvm</type></os></domain>"
        for number in range(100)
    )
    nodes.write_text(f"<node>{domains}</node>")
    arguments = asynchost("explain", "--connect", f"test://{nodes}")
    async with unread(*arguments) as running:
        await eventually(lambda: running.is_full)
        assert await running.stops(signal.SIGTERM) == 128 + signal.SIGTERM


@pytest.mark.parametrize("arguments", [("explain",), ("schema",), ("run", "--help"), ("--help",)])
async def test_output_to_a_full_disk_is_told_in_the_right_words(arguments: tuple[str, ...]) -> None:
    """Whichever command writes it."""
    connect = ("--connect", "test:///default") if arguments == ("explain",) else ()
    shell = ("/bin/sh", "-c", '"$@" >/dev/full', "sh")
    async with command(*shell, *asynchost(*arguments, *connect)) as running:
        assert await running.ends() == 2
    assert len(running.err) == 1
    assert "cannot write standard output: No space left on device" in running.err[0]
    assert "TMPDIR" not in running.err[0]


@pytest.mark.parametrize("arguments", [("explain",), ("schema",), ("run", "--help"), ("--help",)])
async def test_a_reader_that_goes_is_no_error(arguments: tuple[str, ...]) -> None:
    """The status is that of the answer, whenever the reader goes."""
    connect = ("--connect", "test:///default") if arguments == ("explain",) else ()
    for reader in ("head -1", "true"):
        shell = ("/bin/bash", "-c", f'"$@" | {reader}; exit "${{PIPESTATUS[0]}}"', "bash")
        async with command(*shell, *asynchost(*arguments, *connect)) as running:
            assert await running.ends() == 0
        assert running.err == []


async def test_a_demonstration_that_nobody_looks_at_ends_and_leaves_nothing() -> None:
    """Its pipe is full within the first second."""
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        arguments = asynchost("demo", "--log-level", "debug")
        async with unread(*arguments, environment={"TMPDIR": folder}) as demo:
            await eventually(lambda: demo.is_full)
            assert await demo.stops(signal.SIGINT) == 0
        assert os.listdir(folder) == []  # noqa: PTH208 - not for async code
