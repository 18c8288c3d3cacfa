"""Whatever loop the program runs, and however often: events arrive, rows are written, all ends.

These tests run loops of their own, so they are plain functions.
"""

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import libvirt
import pytest
import uvloop

from asynchost import HostMonitor
from tests.integration.pipeline import EVENTS_ONLY, pipeline
from tests.integration.traces import nothing_left_behind
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.mariadb import Database
from tests.support.recount import Totals
from tests.support.waiting import eventually

REPOSITORY = Path(__file__).parents[3]

Main = Coroutine[Any, Any, None]


def in_a_thread(main: Main) -> None:
    """``asyncio.run`` in a thread that is not the main one."""
    failures: list[BaseException] = []

    def body() -> None:
        try:
            asyncio.run(main)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def on_uvloop(main: Main) -> None:
    """The other loop that people use."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def in_debug_mode_of_uvloop(main: Main) -> None:
    """Where a call from a foreign thread is an error."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop, debug=True) as runner:
        runner.run(main)


def in_debug_mode(main: Main) -> None:
    """Where a call from a foreign thread is an error."""
    asyncio.run(main, debug=True)


WAYS = [asyncio.run, in_debug_mode, on_uvloop, in_debug_mode_of_uvloop, in_a_thread]

every_way = pytest.mark.parametrize("run", WAYS, ids=lambda way: str(way.__name__))


async def watch_one_guest_come_and_go(
    uri: str, connection: libvirt.virConnect, database: Database
) -> None:
    """The whole pipeline for one guest, leaving nothing behind."""

    async def once() -> None:
        async with pipeline(uri, database) as host:
            guest = await asyncio.to_thread(
                guests.start, connection, guests.guest_xml("g", vcpus=2, kind="test")
            )
            await host.agrees(Totals(2, 16, 1, 0))
            await asyncio.to_thread(guest.destroy)
            await asyncio.to_thread(guest.undefine)
            await host.agrees(Totals(0, 0, 0, 0))

    await once()
    async with nothing_left_behind():
        await once()


@every_way
def test_the_pipeline_runs_on(
    libvirtd: PrivateLibvirtd,
    test_connection: libvirt.virConnect,
    database: Database,
    run: Callable[[Main], None],
) -> None:
    """Each kind of loop, over libvirtd's socket, with a real database."""
    run(watch_one_guest_come_and_go(libvirtd.uri("test"), test_connection, database))


@every_way
def test_a_driver_in_this_process_runs_on(run: Callable[[Main], None]) -> None:
    """Its events come by a timer that is armed in whatever thread makes the change."""

    async def watch() -> None:
        connection = libvirt.open("test:///default")
        try:
            domain = connection.lookupByName("test")
            async with HostMonitor("test:///default", settings=EVENTS_ONLY) as monitor:
                before = monitor.usage
                with monitor.changes() as changes:
                    for _ in range(20):
                        await asyncio.to_thread(domain.destroy)
                        async with asyncio.timeout(10):
                            gone = await anext(changes)
                        await asyncio.to_thread(domain.create)
                        async with asyncio.timeout(10):
                            back = await anext(changes)
                        assert (gone.before, back.after) == (before, before)
                        assert gone.delta.running_vms == -1
        finally:
            connection.close()

    run(watch())


def test_loops_one_after_another(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> None:
    """libvirt allows one registration per process; twenty loops in turn work all the same."""

    async def watch(number: int) -> None:
        async with HostMonitor(libvirtd.uri("test"), settings=EVENTS_ONLY) as monitor:
            assert monitor.usage.running_vms == number
            xml = guests.guest_xml(f"g{number}", kind="test")
            await asyncio.to_thread(guests.start, test_connection, xml)
            await eventually(lambda: monitor.usage.running_vms == number + 1)

    for number in range(20):
        WAYS[number % len(WAYS)](watch(number))


def test_a_loop_that_was_stopped_in_the_middle_does_not_harm_the_next(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> None:
    """A program that leaves its monitor running gets it cancelled by asyncio.run; then again."""
    guests.start(test_connection, guests.guest_xml("g", kind="test"))

    async def leave_it() -> None:
        monitor = HostMonitor(libvirtd.uri("test"), settings=EVENTS_ONLY)
        await monitor.start()
        await monitor.ready()

    async def look() -> None:
        async with HostMonitor(libvirtd.uri("test"), settings=EVENTS_ONLY) as monitor:
            assert monitor.usage.running_vms == 1
            assert await monitor.audit() == []

    for _ in range(3):
        asyncio.run(leave_it())
        asyncio.run(look())


def test_two_loops_at_the_same_time(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> None:
    """One of them serves all connections; when it ends, the other one goes on."""
    barrier = threading.Barrier(2, timeout=20)
    first_has_left = threading.Event()
    failures: list[BaseException] = []

    async def start_guest(monitor: HostMonitor, name: str) -> None:
        before = monitor.usage.running_vms
        xml = guests.guest_xml(name, kind="test")
        await asyncio.to_thread(guests.start, test_connection, xml)
        await eventually(lambda: monitor.usage.running_vms > before)

    async def watch(*, leaves_first: bool) -> None:
        async with HostMonitor(libvirtd.uri("test"), settings=EVENTS_ONLY) as monitor:
            await asyncio.to_thread(barrier.wait)
            await start_guest(monitor, f"a{leaves_first}")
            await asyncio.to_thread(barrier.wait)
            if not leaves_first:
                assert await asyncio.to_thread(first_has_left.wait, 20)
                await start_guest(monitor, "alone")
                await eventually(lambda: monitor.usage.running_vms == 3)

    def body(main: Callable[[], Awaitable[None]], done: threading.Event | None) -> None:
        try:
            asyncio.run(main())  # type: ignore[arg-type]
        except BaseException as error:
            failures.append(error)
            barrier.abort()
        finally:
            if done is not None:
                done.set()

    threads = [
        threading.Thread(target=body, args=(lambda: watch(leaves_first=True), first_has_left)),
        threading.Thread(target=body, args=(lambda: watch(leaves_first=False), None)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if failures:
        raise failures[0]
    assert not any(thread.is_alive() for thread in threads)


# Debug mode tells of each step that took a tenth of a second, which any step does that the
# machine has no processor for.
SLOW_STEP = re.compile(r"Executing <.*> took \d+\.\d+ seconds\n")


def python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program as an embedder would, with asyncio's debug mode and every warning an error."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=REPOSITORY,
    )
    done.stderr = SLOW_STEP.sub("", done.stderr)
    return done


ASKED_ONCE = """
import asyncio, sys
import asynchost

async def main():
    async with asynchost.HostMonitor(sys.argv[1]) as monitor:
        await monitor.get_host_stats(refresh=True)
        print(monitor.usage.running_vms)

asyncio.run(main())
"""


def test_a_program_that_asks_once_says_nothing_but_its_answer(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> None:
    """No line of ours, no warning about anything left open, and an end without delay."""
    guests.start(test_connection, guests.guest_xml("g", kind="test"))
    done = python(ASKED_ONCE, libvirtd.uri("test"))
    # The machine may lack an image folder, which is worth a warning.
    complaints = [line for line in done.stderr.splitlines() if "disk not known" not in line]
    assert (done.returncode, done.stdout, complaints) == (0, "1\n", [])


LEAVES_ITS_OWN_OPEN = """
import asyncio, sys
import libvirt
import asynchost

async def main():
    global connection, domain
    async with asynchost.HostMonitor(sys.argv[1]) as monitor:
        connection = await asyncio.to_thread(libvirt.open, sys.argv[1])
        (domain,) = await asyncio.to_thread(connection.listAllDomains)
        print(monitor.usage.running_vms)

asyncio.run(main())
"""


def test_a_program_that_leaves_a_connection_of_its_own_open_ends(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> None:
    """libvirt lets go of it while the interpreter goes down, when no thread can be started."""
    guests.start(test_connection, guests.guest_xml("g", kind="test"))
    done = python(LEAVES_ITS_OWN_OPEN, libvirtd.uri("test"))
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


WRITES_ONCE = """
import asyncio, sys
import asynchost

async def main():
    settings = asynchost.MonitorSettings(instances_path="/")
    async with (
        asynchost.HostMonitor(sys.argv[1], settings=settings) as monitor,
        asynchost.ComputeNodeWriter(sys.argv[2]) as writer,
    ):
        await monitor.get_host_stats()
        writer.attach(monitor)
        await writer.flush()

asyncio.run(main())
"""


def test_a_program_that_configured_no_logging_gets_no_log_lines(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, database: Database
) -> None:
    """A row is written, and neither stream says a word."""
    done = python(WRITES_ONCE, libvirtd.uri("test"), database.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(database.rows()) == 1


FOREIGN_LOOP = """
import asyncio, sys, threading
import libvirt

def libvirts_own():
    libvirt.virEventRegisterDefaultImpl()
    def turn():
        while True:
            libvirt.virEventRunDefaultImpl()
    threading.Thread(target=turn, daemon=True).start()

def libvirtaio():
    import libvirtaio
    libvirtaio.virEventRegisterAsyncIOImpl()

async def main(uri):
    if sys.argv[2] == "libvirtaio":
        libvirtaio()
    import asynchost
    settings = asynchost.MonitorSettings(
        audit_interval_seconds=0, second_resync_seconds=0, instances_path="/"
    )
    connection = libvirt.open(uri)
    domain = connection.listAllDomains(0)[0]
    async with asynchost.HostMonitor(uri, settings=settings) as monitor:
        for _ in range(5):
            for act in (domain.create, domain.destroy):
                with monitor.changes() as changes:
                    await asyncio.to_thread(act)
                    async with asyncio.timeout(10):
                        print(act.__name__, (await anext(changes)).delta.running_vms)
    del domain, act
    connection.close()

if sys.argv[2] == "own":
    libvirts_own()
asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("registered_before", ["own", "libvirtaio"])
def test_an_event_loop_that_the_program_registered_before_is_used(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, registered_before: str
) -> None:
    """libvirt's default one in a thread, and libvirtaio: events arrive through theirs."""
    guests.define(test_connection, guests.guest_xml("g", kind="test"))
    # Not in debug mode: libvirtaio itself loses every event there.
    done = subprocess.run(
        [sys.executable, "-c", FOREIGN_LOOP, libvirtd.uri("test"), registered_before],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=REPOSITORY,
    )
    assert done.stdout == "create 1\ndestroy -1\n" * 5, done.stderr
    assert done.returncode == 0
