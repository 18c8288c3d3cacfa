"""What a program that embeds the monitor may do to it: cancel anywhere, block, vanish, differ.

Nothing of it may leak, hang or make a noise, and the next monitor must find libvirt as new.
"""

import asyncio
import gc
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from itertools import count
from pathlib import Path
from typing import Any

import libvirt
import pytest

from asynchost import HostMonitor, MonitorSettings
from asynchost.hypervisor.event_loop import EVENT_LOOP
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.proxy import Proxy
from tests.support.recount import Totals, recount_over
from tests.support.waiting import DEADLINE_SECONDS, eventually

SETTINGS = MonitorSettings(
    audit_interval_seconds=0, second_resync_seconds=0, instances_path="/proc"
)
"""No audit: what is right in the end was right by events and by the resync."""

BLOCKED_SECONDS = 5.0
CHILD_DEADLINE_SECONDS = 90.0


async def agrees(monitor: HostMonitor, connection: libvirt.virConnect) -> None:
    """Wait until the monitor's totals are a recount's."""

    async def agree() -> bool:
        usage = monitor.usage
        assert await asyncio.to_thread(recount_over, connection) == Totals(
            usage.vcpus_used, usage.memory_mb_used, usage.running_vms, usage.current_workload
        )
        return True

    await eventually(agree, describe="the totals of a recount")


async def follows_events(uri: str, connection: libvirt.virConnect) -> None:
    """A new monitor of the running loop sees a guest come and go."""
    async with HostMonitor(uri, settings=SETTINGS) as monitor:
        before = monitor.usage.running_vms
        xml = guests.guest_xml(guests.new_uuid(), kind="test")
        guest = await asyncio.to_thread(connection.createXML, xml)
        await eventually(lambda: monitor.usage.running_vms == before + 1)
        await asyncio.to_thread(guest.destroy)
        await eventually(lambda: monitor.usage.running_vms == before)
        await agrees(monitor, connection)


# -- what must be gone afterwards


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def own_threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("asynchost")]


def wait_until(condition: Callable[[], bool], deadline_seconds: float = DEADLINE_SECONDS) -> None:
    """Wait without a loop."""
    give_up_at = time.monotonic() + deadline_seconds
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.001)


class Leftovers:
    """What this process holds, against what it held when this was made."""

    def __init__(self) -> None:
        gc.collect()
        self._files = open_files()
        self._handles = len(EVENT_LOOP._handles)
        self._timers = len(EVENT_LOOP._timers)

    def found(self) -> dict[str, object]:
        """What is there now and was not there before."""
        more = {
            "files": open_files() - self._files,
            "handles": len(EVENT_LOOP._handles) - self._handles,
            "timers": len(EVENT_LOOP._timers) - self._timers,
        }
        # What the tests before this one still had to close may be less by now.
        found: dict[str, object] = {name: value for name, value in more.items() if value > 0}
        threads = own_threads()
        return {**found, "threads": threads} if threads else found

    def check(self, describe: str = "", deadline_seconds: float = DEADLINE_SECONDS) -> None:
        """Wait, without a loop, until there is nothing: threads end by themselves."""
        give_up_at = time.monotonic() + deadline_seconds
        while found := self.found():
            assert time.monotonic() < give_up_at, f"{describe}: {found}"
            time.sleep(0.001)
            gc.collect()


# -- cancelled at every await

Begin = Callable[[], None]
Program = Callable[[str, Begin], Coroutine[Any, Any, None]]


async def enter_and_leave(uri: str, begin: Begin) -> None:
    begin()
    async with HostMonitor(uri, settings=SETTINGS):
        pass


async def audit(uri: str, begin: Begin) -> None:
    async with HostMonitor(uri, settings=SETTINGS) as monitor:
        begin()
        await monitor.audit()


async def host_stats(uri: str, begin: Begin) -> None:
    async with HostMonitor(uri, settings=SETTINGS) as monitor:
        begin()
        await monitor.get_host_stats(refresh=True)


async def first_change(uri: str, begin: Begin) -> None:
    async with HostMonitor(uri, settings=SETTINGS) as monitor:
        begin()
        connection = libvirt.open(uri)
        try:
            changes = monitor.changes()
            guest = connection.createXML(guests.guest_xml(guests.new_uuid(), kind="test"))
            try:
                await anext(changes)
            finally:
                guest.destroy()
                del guest
            await anext(changes)
        finally:
            connection.close()


class Steps:
    """Counts every suspension of every task of a loop, and cancels one task at the n-th."""

    def __init__(self, cancel_at: int, *, again: bool) -> None:
        self._cancel_at = cancel_at
        self._again = again
        self._steps = -1
        self.target: asyncio.Task[None] | None = None
        self.cancelled = False

    def begin(self) -> None:
        """Count from here on."""
        self._steps = 0

    def make_task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> asyncio.Task[Any]:
        """The loop's task factory."""
        return asyncio.Task(_Counted(coroutine, self.suspended), loop=loop, **options)

    def suspended(self) -> None:
        """A task awaits something."""
        if self._steps < 0 or self.target is None:
            return
        self._steps += 1
        if self._steps == self._cancel_at or (self._again and self.cancelled):
            self.cancelled = self.target.cancel() or self.cancelled


class _Counted(Coroutine[Any, Any, Any]):
    """A coroutine that tells of each of its suspensions."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], suspended: Callable[[], None]) -> None:
        self._coroutine = coroutine
        self._suspended = suspended

    def send(self, value: Any) -> Any:
        awaited = self._coroutine.send(value)
        self._suspended()
        return awaited

    def throw(self, *error: Any) -> Any:
        awaited = self._coroutine.throw(*error)
        self._suspended()
        return awaited

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Any:
        raise NotImplementedError


async def cancel_at(
    number: int, program: Program, uri: str, *, again: bool, leave: bool
) -> tuple[bool, list[dict[str, Any]]]:
    """Run the program and cancel it at the n-th await.

    Returns whether there was such an await, and what the loop was told of errors that nobody
    took. ``again`` cancels at every await from then on; ``leave`` returns as soon as the
    program has ended, whatever it left to be done.
    """
    loop = asyncio.get_running_loop()
    noise: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: noise.append(context))
    steps = Steps(number, again=again)
    loop.set_task_factory(steps.make_task)
    task: asyncio.Task[None] = loop.create_task(program(uri, steps.begin))
    steps.target = task
    done, _ = await asyncio.wait([task], timeout=DEADLINE_SECONDS)
    assert done, f"hangs when cancelled at await {number}"
    assert task.cancelled() == steps.cancelled, f"swallowed a cancellation at await {number}"
    if not task.cancelled():
        task.result()
    if not leave:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            _, pending = await asyncio.wait(others, timeout=DEADLINE_SECONDS)
            assert not pending, f"cancelled at await {number}, leaves behind {pending}"
    return steps.cancelled, noise


@pytest.mark.parametrize("program", [enter_and_leave, audit, host_stats, first_change])
@pytest.mark.parametrize(
    ("again", "leave"),
    [(False, False), (True, False), (False, True)],
    ids=["once", "over-and-over", "and-the-loop-ends"],
)
def test_cancelling_at_any_await_leaks_nothing(
    libvirtd: PrivateLibvirtd,
    test_connection: libvirt.virConnect,
    program: Program,
    again: bool,
    leave: bool,
) -> None:
    """Each await of each task in turn is the last that the program waits for."""
    uri = libvirtd.uri("test")
    guests.start(test_connection, guests.guest_xml("there", kind="test"))
    asyncio.run(follows_events(uri, test_connection))
    leftovers = Leftovers()
    for number in count(1):
        cancelled, noise = asyncio.run(cancel_at(number, program, uri, again=again, leave=leave))
        gc.collect()
        leftovers.check(f"cancelled at await {number}")
        assert noise == [], f"cancelled at await {number}"
        if not cancelled:
            break
    assert number > 5, "the walk met hardly an await"
    asyncio.run(follows_events(uri, test_connection))


def test_a_connection_that_opens_too_late_is_closed(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect, tmp_path: Path
) -> None:
    """Nobody waits for it any more, the loop is gone: its thread closes it, and not by chance."""
    with Proxy(libvirtd.socket_path, tmp_path / "proxy") as proxy:
        uri = libvirtd.uri("test", socket_path=tmp_path / "proxy")

        async def give_up_while_opening() -> None:
            proxy.hold()
            async with asyncio.TaskGroup() as tasks:
                task = tasks.create_task(enter_and_leave(uri, lambda: None))
                await eventually(lambda: proxy.accepted == 1)
                task.cancel()

        gc.collect()
        gc.disable()  # it would do by chance what must not be left to chance
        try:
            asyncio.run(give_up_while_opening())
            proxy.release()
            wait_until(lambda: proxy.open_flows == 0)
        finally:
            gc.enable()


# -- loops that end, block, and are several


def in_a_process_of_its_own(
    body: Callable[[str], None], private_libvirtd: Callable[..., PrivateLibvirtd]
) -> None:
    """Call one of this file's functions with the URI of a host in a fresh process.

    Coroutines that are pending when their loop is closed cannot clean up, and whenever they are
    collected Python says so: the program's fault, and a noise that no other test should hear.
    """
    # Nothing serves the connection that keeps the host from being forgotten.
    daemon = private_libvirtd(drops_the_silent=False)
    uri = daemon.uri("test")
    code = f"from tests.faults.test_embedding import {body.__name__}; {body.__name__}({uri!r})"
    with daemon.connection("test"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            check=False,
            capture_output=True,
            text=True,
            timeout=CHILD_DEADLINE_SECONDS,
            cwd=Path(__file__).parents[2],
        )
    assert done.returncode == 0, done.stderr


async def begin_to_watch(uri: str) -> HostMonitor:
    """A monitor that is ready, and that nobody will close."""
    monitor = HostMonitor(uri, settings=SETTINGS)
    await monitor.start()
    await monitor.ready()
    return monitor


def close_loops_early(uri: str) -> None:
    connection = libvirt.open(uri)
    asyncio.run(follows_events(uri, connection))
    leftovers = Leftovers()
    for _ in range(3):
        loop = asyncio.new_event_loop()
        monitor = loop.run_until_complete(begin_to_watch(uri))
        loop.close()
        guests.start(connection, guests.guest_xml(guests.new_uuid(), kind="test"))
        asyncio.run(follows_events(uri, connection))
        del monitor, loop
        gc.collect()
        asyncio.run(follows_events(uri, connection))
    leftovers.check()


def test_a_loop_closed_without_a_goodbye_does_not_hurt_the_next(
    private_libvirtd: Callable[..., PrivateLibvirtd],
) -> None:
    """The monitor, its loop and its connection vanish in mid-air; then a new one works."""
    in_a_process_of_its_own(close_loops_early, private_libvirtd)


async def test_a_loop_blocked_for_seconds_catches_up(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> None:
    """Everything that happened meanwhile is seen afterwards, over the same connection."""
    async with HostMonitor(libvirtd.uri("test"), settings=SETTINGS) as monitor:
        changes = monitor.changes()
        for number in range(100):
            guests.start(test_connection, guests.guest_xml(f"before-{number}", kind="test"))
        time.sleep(BLOCKED_SECONDS)  # noqa: ASYNC251 - the fault under test
        for number in range(100):
            guests.start(test_connection, guests.guest_xml(f"after-{number}", kind="test"))
        await eventually(lambda: monitor.usage.running_vms == 200)
        await agrees(monitor, test_connection)
        assert monitor.status.generation == 1
        assert await monitor.audit() == []
        changes.close()


def test_many_loops_one_after_another(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> None:
    """Each asyncio.run of a process has monitors that work, and takes everything along."""
    asyncio.run(follows_events(libvirtd.uri("test"), test_connection))
    leftovers = Leftovers()
    for _ in range(20):
        asyncio.run(follows_events(libvirtd.uri("test"), test_connection))
        leftovers.check()


def in_a_thread(
    main: Callable[[], Awaitable[None]],
) -> tuple[threading.Thread, list[BaseException]]:
    """Run a coroutine function by asyncio.run in a new thread; the list gets its failure."""
    failures: list[BaseException] = []

    async def run() -> None:
        await main()

    def body() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=body, name="another loop")
    thread.start()
    return thread, failures


def test_two_loops_in_two_threads_at_the_same_time(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> None:
    """Both see every event, whichever of them was there first, and also after that one ended."""
    uri = libvirtd.uri("test")
    leftovers = Leftovers()

    async def see_guests(monitor: HostMonitor) -> None:
        # One of its own: of two calls at once on one connection, the second can hang in the
        # client until the first one returns.
        with libvirtd.connection("test") as connection:
            for _ in range(5):
                xml = guests.guest_xml(guests.new_uuid(), kind="test")
                guest = await asyncio.to_thread(connection.createXML, xml)
                await agrees(monitor, connection)
                await asyncio.to_thread(guest.destroy)
                await agrees(monitor, connection)
                del guest

    for first_ends in (True, False):
        first_is_up, both_are_up, one_has_ended = (threading.Event() for _ in range(3))

        async def first(ends: bool = first_ends) -> None:
            async with HostMonitor(uri, settings=SETTINGS) as monitor:
                first_is_up.set()  # noqa: B023
                await asyncio.to_thread(both_are_up.wait, DEADLINE_SECONDS)  # noqa: B023
                await see_guests(monitor)
                if not ends:
                    await asyncio.to_thread(one_has_ended.wait, DEADLINE_SECONDS)  # noqa: B023
                    await see_guests(monitor)
            one_has_ended.set()  # noqa: B023

        async def second(ends: bool = not first_ends) -> None:
            await asyncio.to_thread(first_is_up.wait, DEADLINE_SECONDS)  # noqa: B023
            async with HostMonitor(uri, settings=SETTINGS) as monitor:
                both_are_up.set()  # noqa: B023
                await see_guests(monitor)
                if not ends:
                    await asyncio.to_thread(one_has_ended.wait, DEADLINE_SECONDS)  # noqa: B023
                    await see_guests(monitor)
            one_has_ended.set()  # noqa: B023

        for thread, failures in [in_a_thread(first), in_a_thread(second)]:
            thread.join(DEADLINE_SECONDS)
            assert not thread.is_alive()
            assert failures == []
    leftovers.check()


def close_the_first_loop_early(uri: str) -> None:
    connection = libvirt.open(uri)
    first = asyncio.new_event_loop()
    lost = first.run_until_complete(begin_to_watch(uri))

    async def second() -> None:
        async with HostMonitor(uri, settings=SETTINGS) as monitor:
            await asyncio.to_thread(first.close)
            for number in range(3):
                guests.start(connection, guests.guest_xml(f"later-{number}", kind="test"))
                await agrees(monitor, connection)

    asyncio.run(second())
    del lost


def test_a_loop_that_is_closed_early_leaves_another_one_working(
    private_libvirtd: Callable[..., PrivateLibvirtd],
) -> None:
    """The loop that was there first closes without a goodbye: the other one notices nothing."""
    in_a_process_of_its_own(close_the_first_loop_early, private_libvirtd)


# -- other event loops


@pytest.fixture
def embed(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> Callable[[str], Awaitable[dict[str, Any]]]:
    """Run ``tests.support.embedder`` in a given way, and return what it printed."""
    guests.start(test_connection, guests.guest_xml("there", vcpus=2, kind="test"))

    async def run(way: str) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-W", "error", "-m", "tests.support.embedder", way, libvirtd.uri("test")),
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": "."},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(CHILD_DEADLINE_SECONDS):
                output, errors = await process.communicate()
        except BaseException:
            process.kill()
            await process.wait()
            raise
        assert process.returncode == 0, errors.decode()
        if way != "libvirtaio-debug":  # which prints its own
            assert b"Traceback" not in errors, errors.decode()
        result: dict[str, Any] = json.loads(output)
        assert result["threads"] == []
        return result

    return run


@pytest.mark.parametrize(
    "way", ["plain", "debug", "uvloop", "other-thread", "libvirtaio", "default-in-a-thread"]
)
async def test_events_arrive_in_every_kind_of_loop(
    embed: Callable[[str], Awaitable[dict[str, Any]]], way: str
) -> None:
    """Also where the program registered an event loop of its own with libvirt before."""
    result = await embed(way)
    assert result["seen"] == [3, 0] * 5, result
    assert result["drift"] == 0


async def test_an_event_loop_that_nothing_runs_is_refused_at_once(
    embed: Callable[[str], Awaitable[dict[str, Any]]],
) -> None:
    """No event would ever come: it is said, with the way out, instead of waited for.

    The program itself waits a minute for its totals, and would print no refusal after that.
    """
    result = await embed("default-that-nothing-runs")
    assert "nothing runs" in result["refused"]
    assert "virEventRunDefaultImpl" in result["refused"]


async def test_libvirtaio_in_debug_mode_is_refused_at_once(
    embed: Callable[[str], Awaitable[dict[str, Any]]],
) -> None:
    """It fails wherever a call in a thread asks it, and the events are gone: that is said."""
    result = await embed("libvirtaio-debug")
    assert "libvirtaio" in result["refused"]
    assert "debug mode off" in result["refused"]
