"""The promise that a process which was told to end does end, whatever it waits for."""

import signal
import sys

from asynchost.service.exits import ExitStatus
from tests.integration.service.processes import command

PROGRAM = """
import asyncio, sys, time
from asynchost.service.logs import configure_logs
from asynchost.service.stopping import Stop, stop_on_signals

configure_logs("warning", "console")

async def main():
    stop = Stop()
    stop_on_signals(
        stop,
        grace_seconds=float(sys.argv[1]),
        last_act=lambda: print("last act", flush=True),
    )
    # A thread of the loop's own pool, as a look-up of a name in DNS takes one; asyncio.run
    # waits for it, and so would the interpreter.
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)
    async with stop.interrupts():
        print("ready", flush=True)
        await asyncio.Event().wait()
    print("orderly", flush=True)

asyncio.run(main())
"""


async def test_a_stop_that_does_not_end_is_ended() -> None:
    """After the grace time the process is gone, and says that it was not orderly."""
    async with command(sys.executable, "-c", PROGRAM, "0.3") as process:
        await process.says("ready")
        status, seconds = await process.stops(signal.SIGTERM)
    assert status == ExitStatus.FAULT
    assert process.out == ["ready", "orderly", "last act"]
    assert process.err[-1] == "asynchost: error: not stopped 0.3 s after the signal"
    assert seconds >= 0.3


async def test_a_second_signal_does_not_wait_for_the_grace_time() -> None:
    """Whoever signals twice means it; the status says with what."""
    async with command(sys.executable, "-c", PROGRAM, "60") as process:
        await process.says("ready")
        process.send(signal.SIGINT)
        await process.says("orderly")
        status, _ = await process.stops(signal.SIGTERM)
    assert status == 128 + signal.SIGTERM
    assert process.out == ["ready", "orderly", "last act"]
