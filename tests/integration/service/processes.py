"""A command of ours as a real process: started, watched line by line, signalled, never left.

May live here: the process and its output. Must not: what the output means.
"""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from asynchost.service.control import FOLDER_VARIABLE
from asynchost.service.declared import CONFIG_VARIABLE
from tests.support.waiting import eventually

REPOSITORY = Path(__file__).parents[3]
START_DEADLINE_SECONDS = 30.0
"""Importing everything takes a second here, and many times that on a machine under load."""


class Command:
    """A running process of which every line of output is kept."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.out: list[str] = []
        self.err: list[str] = []
        self._following = asyncio.create_task(self._follow())

    @property
    def pid(self) -> int:
        """The process's id, which is also its group's."""
        return self._process.pid

    def said(self, words: str) -> str | None:
        """The first line of either output that holds ``words``."""
        return next((line for line in [*self.out, *self.err] if words in line), None)

    async def says(self, words: str, deadline_seconds: float = START_DEADLINE_SECONDS) -> str:
        """Wait for a line that holds ``words``, and return it."""

        def probe() -> str | None:
            line = self.said(words)
            if line is None and self._following.done():
                raise RuntimeError(f"ended with {self._process.returncode}: {self.err} {self.out}")
            return line

        return await eventually(probe, deadline_seconds, f"a line with {words!r} in {self.err}")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        self._process.send_signal(number)

    def interrupt_like_a_terminal(self) -> None:
        """SIGINT to the whole process group, as Ctrl-C at a terminal does."""
        os.killpg(self.pid, signal.SIGINT)

    async def ends(self, deadline_seconds: float = START_DEADLINE_SECONDS) -> int:
        """Wait for the end; returns the exit status, negative for a signal's number.

        By then everything that it has printed is here as well.
        """
        async with asyncio.timeout(deadline_seconds):
            status = await self._process.wait()
            # What it wrote last can still be in the pipes. Not awaited itself, or the deadline
            # would end the following, too.
            await asyncio.wait([self._following])
        return status

    async def kill(self) -> None:
        """End it and its group at once, and keep what was printed."""
        # Also after the process's own end: what it left behind would keep its outputs open.
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self._process.wait()
        await self._following

    async def stops(
        self, number: signal.Signals, deadline_seconds: float = START_DEADLINE_SECONDS
    ) -> tuple[int, float]:
        """Send a signal and wait for the end; returns the exit status and the seconds it took."""
        began = time.monotonic()
        self.send(number)
        status = await self.ends(deadline_seconds)
        return status, time.monotonic() - began

    async def _follow(self) -> None:
        """Keep what it prints, until it closes its outputs."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_collect(self._process.stdout, self.out))
            tasks.create_task(_collect(self._process.stderr, self.err))


async def _collect(stream: asyncio.StreamReader | None, lines: list[str]) -> None:
    assert stream is not None
    while line := await stream.readline():
        lines.append(line.decode(errors="backslashreplace").rstrip("\n"))


@asynccontextmanager
async def command(
    *arguments: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Command]:
    """Run a program in a process group of its own; it and its group are gone after the block.

    A daemon's socket is nowhere that another process looks, and no configuration of this machine
    is read, unless ``environment`` says so.
    """
    with tempfile.TemporaryDirectory() as nowhere:
        alone = {
            FOLDER_VARIABLE: nowhere,
            CONFIG_VARIABLE: os.devnull,
            **(environment or {}),
        }
        async with _running(*arguments, environment=alone) as running:
            yield running


@asynccontextmanager
async def _running(*arguments: str, environment: Mapping[str, str]) -> AsyncIterator[Command]:
    process = await asyncio.create_subprocess_exec(
        *arguments,
        cwd=REPOSITORY,
        env={**_clean_environment(), **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        # What was started in a shell's background ignores it, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        limit=2**20,
    )
    running = Command(process)
    try:
        yield running
    finally:
        await running.kill()


def asynchost(*arguments: str) -> tuple[str, ...]:
    """The command line of ``asynchost``, with warnings that would otherwise be hidden."""
    return (sys.executable, "-W", "error::ResourceWarning", "-m", "asynchost", *arguments)


async def run_to_the_end(
    *arguments: str, environment: Mapping[str, str] | None = None
) -> tuple[int, list[str], list[str]]:
    """Run ``asynchost``; returns exit status, standard output and standard error."""
    async with command(*asynchost(*arguments), environment=environment) as running:
        status = await running.ends()
    return status, running.out, running.err


def _clean_environment() -> dict[str, str]:
    """The environment without what would decide something here."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ASYNCHOST")}
