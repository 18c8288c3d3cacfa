"""The end of a process while libvirt is inside a call: it ends with its own status."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.libvirtd import PrivateLibvirtd

Make = Callable[..., PrivateLibvirtd]

# Each prints END as the last thing that it does.
CLOSED = """
import asyncio, sys, time
from asynchost import HostMonitor
from asynchost.hypervisor.event_loop import EVENT_LOOP

async def main():
    monitor = HostMonitor(sys.argv[1])
    await monitor.start()
    while not EVENT_LOOP._handles:  # until it waits for libvirtd's answer
        await asyncio.sleep(0.001)
    await monitor.aclose()

asyncio.run(main())
print("END", flush=True)
"""
CANCELLED = """
import asyncio, sys
from asynchost import HostMonitor
from asynchost.hypervisor.event_loop import EVENT_LOOP

async def main():
    await HostMonitor(sys.argv[1]).start()
    while not EVENT_LOOP._handles:
        await asyncio.sleep(0.001)

asyncio.run(main())
print("END", flush=True)
"""
FORKED = """
import asyncio, atexit, os, sys
from asynchost import HostMonitor
from asynchost.hypervisor.connection import _UNSETTLED

async def main():
    async with HostMonitor(sys.argv[1]) as monitor:
        _UNSETTLED.add(monitor._source._reader._connection)  # as if it were being opened
        child = os.fork()
        if child == 0:
            atexit._run_exitfuncs()
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        _UNSETTLED.clear()
        await monitor.audit()
        assert monitor.status.generation == 1 and monitor.status.fresh

asyncio.run(main())
print("END", flush=True)
"""


def run(program: str, uri: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, "-c", program, uri],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("answers", [True, False], ids=["answers", "silent"])
@pytest.mark.parametrize("program", [CLOSED, CANCELLED], ids=["closed", "cancelled"])
async def test_a_libvirtd_that_answers_at_the_end_crashes_nobody(
    private_libvirtd: Make, program: str, answers: bool
) -> None:
    """An open that is under way when the program ends: answered in that moment, or never."""
    daemon = private_libvirtd()
    for _ in range(3):
        daemon.pause()
        try:
            process = run(program, daemon.uri("test"))
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == b"END\n"
            if answers:
                daemon.resume()
            _, errors = await asyncio.to_thread(process.communicate, timeout=60)
        finally:
            daemon.resume()
        assert process.returncode == 0, errors


async def test_a_child_that_was_forked_ends_without_harm_to_its_parent(
    private_libvirtd: Make,
) -> None:
    """It has neither the threads nor any right to the sockets."""
    process = run(FORKED, private_libvirtd().uri("test"))
    output, errors = await asyncio.to_thread(process.communicate, timeout=60)
    assert (process.returncode, output) == (0, b"END\n"), errors
