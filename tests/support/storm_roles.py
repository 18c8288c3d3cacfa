"""The processes of a storm: ``python -m tests.support.storm_roles ROLE ARGUMENT...``.

``generate URI FIRST COUNT SEED`` moves domains as fast as libvirtd lets it; ``watch URI`` is a
program that does nothing but watch the host, with the daemon's garbage collector, and measures
how long its loop stands still; ``beat`` is the same without a host: the noise of the machine.
Each is told what to do in lines of JSON on standard input and answers in kind; see
:mod:`tests.support.storms`.
"""

import asyncio
import ctypes
import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import libvirt

from asynchost import HostMonitor, MonitorSettings
from asynchost.hypervisor import batch
from asynchost.hypervisor.reader import Reader
from asynchost.service.collector import calm_collector
from tests.support.libvirtd import silence_libvirt

BEAT_SECONDS = 0.001
STOPPED_SECONDS = 1.0
"""A gap of this length is the process's own stop; then only its CPU time counts."""
_BUCKETS_PER_SECOND = 10_000


class Heartbeat:
    """How long a loop stands still, measured by a task that wants to run every millisecond.

    Keeps histograms of fixed size, so that measuring does not look like a leak. A pause *net* is
    one without the time in which the loop's thread wanted to run and no processor was free.
    *Unhindered*, it is also one without the time in which the loop waited for another thread of
    the process that, too, wanted to run and could not: where that one has the interpreter's lock,
    or is next to have it, the loop waits for its processor. Taken for that is the time in which
    the loop neither ran nor waited for a processor, but for the millisecond that it slept; at
    most as much as the one thread waited for a processor that waited longest.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._gross, self._net, self._unhindered = Histogram(), Histogram(), Histogram()

    async def run(self) -> None:
        """Beat for ever, on the thread of the loop."""
        waits = ProcessorWaits()
        own = threading.get_native_id()
        wall, cpu, waited = time.monotonic(), time.thread_time(), waits.seconds()
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            now_wall, now_cpu, now_waited = time.monotonic(), time.thread_time(), waits.seconds()
            pause = now_wall - wall
            if pause > STOPPED_SECONDS:
                pause = net = unhindered = now_cpu - cpu
            else:
                lately = {
                    thread: seconds - waited.get(thread, 0.0)
                    for thread, seconds in now_waited.items()
                }
                net = max(0.0, pause - lately.pop(own))
                held_up = max(0.0, net - (now_cpu - cpu) - BEAT_SECONDS)
                unhindered = net - min(held_up, max(lately.values(), default=0.0))
            self._gross.add(pause)
            self._net.add(net)
            self._unhindered.add(unhindered)
            wall, cpu, waited = now_wall, now_cpu, now_waited

    def report(self) -> dict[str, Any]:
        """The pauses in seconds, the heartbeat's own millisecond included."""
        return {
            **self._gross.report(),
            "net": self._net.report(),
            "unhindered": self._unhindered.report(),
        }


class ProcessorWaits:
    """For how long each thread of this process has wanted to run and could not, so far.

    Read without giving up the interpreter's lock, unlike by ``os.pread``: that would be one more
    moment in which the loop can lose it. A wait counts when it is over.
    """

    def __init__(self) -> None:
        self._pread = ctypes.PyDLL(None).pread
        self._line = ctypes.create_string_buffer(100)
        self._files: dict[int, int] = {}

    def seconds(self) -> dict[int, float]:
        """By the threads' native ids."""
        found = {}
        for thread in threading.enumerate():
            number = thread.native_id
            if number is None:  # it has not begun yet
                continue
            if number not in self._files:
                with suppress(FileNotFoundError):
                    path = f"/proc/self/task/{number}/schedstat"
                    self._files[number] = os.open(path, os.O_RDONLY)
            if number in self._files and self._pread(self._files[number], self._line, 99, 0) > 0:
                found[number] = int(self._line.value.split()[1]) / 1e9
        for number in self._files.keys() - found.keys():
            os.close(self._files.pop(number))
        return found


class Histogram:
    """How often what time passed, up to STOPPED_SECONDS, in tenths of a millisecond."""

    def __init__(self) -> None:
        self._counts = [0] * int(STOPPED_SECONDS * _BUCKETS_PER_SECOND + 1)
        self._longest = 0.0

    def add(self, seconds: float) -> None:
        self._counts[min(int(seconds * _BUCKETS_PER_SECOND), len(self._counts) - 1)] += 1
        self._longest = max(self._longest, seconds)

    def report(self) -> dict[str, float]:
        """The longest and two quantiles."""
        return {
            "longest": self._longest,
            "p999": self._quantile(0.999),
            "p50": self._quantile(0.5),
        }

    def _quantile(self, share: float) -> float:
        wanted, seen = sum(self._counts) * share, 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if seen >= wanted:
                return bucket / _BUCKETS_PER_SECOND
        return STOPPED_SECONDS


def resident_bytes() -> dict[str, int]:
    """The process's memory now, and the most that it had so far."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "resident": int(lines["VmRSS"].split()[0]) * 1024,
        "peak": int(lines["VmHWM"].split()[0]) * 1024,
    }


class Spy:
    """Sees that no domain is read twice at a time, nor waits twice."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self._lock = threading.Lock()
        self._under_way: set[str] = set()
        self._read = batch.read_domain
        batch.read_domain = self._read_domain

    def _read_domain(self, connection: Any, read: batch.Read) -> Any:
        with self._lock:
            if read.uuid in self._under_way:
                self.violations.append(f"{read.uuid} is read twice at once")
            self._under_way.add(read.uuid)
        try:
            return self._read(connection, read)
        finally:
            with self._lock:
                self._under_way.discard(read.uuid)

    async def run(self, reader: Callable[[], Reader | None]) -> None:
        """Look at what waits, again and again."""
        while True:
            await asyncio.sleep(0.01)
            now = reader()
            if now is None:
                continue
            agenda = now._agenda
            handed_out = [
                read.uuid for lane in now._lanes for one in lane.batches for read in list(one._todo)
            ]
            waiting = [
                *agenda._urgent,
                *agenda._background,
                *(uuid for uuid, mark in agenda._in_flight.items() if mark is not None),
            ]
            for what, uuids in (("handed out", handed_out), ("waits", waiting)):
                if len(uuids) != len(set(uuids)):
                    self.violations.append(f"a domain {what} twice")


class Watcher:
    """The embedding program."""

    def __init__(self, uri: str, settings: dict[str, Any], *, spy: bool) -> None:
        self._monitor = HostMonitor(
            uri, settings=MonitorSettings(instances_path="/proc", **settings)
        )
        self._spy = Spy() if spy else None
        self._heartbeat = Heartbeat()
        self._changed_at = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self, orders: "Orders") -> None:
        async with self._monitor as monitor:
            monitor.add_listener(self._changed)
            self._tasks.append(asyncio.create_task(self._heartbeat.run()))
            if self._spy is not None:
                reader = lambda: monitor._source._reader  # noqa: E731
                self._tasks.append(asyncio.create_task(self._spy.run(reader)))
            try:
                while (order := await orders.next()) is not None:
                    orders.answer(await getattr(self, order.pop("do"))(**order))
            finally:
                for task in self._tasks:
                    task.cancel()

    def _changed(self) -> None:
        self._changed_at = time.monotonic()

    async def begin(self) -> dict[str, Any]:
        """Measure from now on."""
        self._heartbeat.reset()
        self._begun = resident_bytes()
        self._cpu, self._events, self._reads = time.process_time(), *self._counters()
        return {"running_vms": self._monitor.usage.running_vms}

    def _counters(self) -> tuple[int, int]:
        reader = self._monitor._source._reader
        return self._monitor.status.events, 0 if reader is None else reader.reads

    async def end(self, expected: list[int], events: int, deadline: float) -> dict[str, Any]:
        """Wait until the totals are as expected and all events are in; what was measured."""
        give_up_at = time.monotonic() + deadline

        async def until(condition: Callable[[], bool]) -> None:
            while not condition() and time.monotonic() < give_up_at:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.01)

        all_in_at = float("inf")

        def over() -> bool:
            nonlocal all_in_at
            all_in = self._counters()[0] - self._events >= events
            if all_in:
                all_in_at = min(all_in_at, time.monotonic())
            return all_in and self._totals() == expected

        await until(over)
        cpu, pauses = time.process_time() - self._cpu, self._heartbeat.report()
        events_now, reads_now = self._counters()
        # What is left when nothing is to be done any more.
        reader = self._monitor._source._reader

        def waiting() -> int:
            if reader is None:
                return 0
            planned = reader._agenda.next_look is not None
            kept = len(reader._domains) + len(reader._to_look_at)
            return len(reader._agenda) + kept + planned

        await until(lambda: waiting() == 0)
        left = waiting()
        drift = await self._monitor.audit()
        return {
            "totals": self._totals(),
            "right_at": self._changed_at,
            "all_in_at": all_in_at,
            "events": events_now - self._events,
            "reads": reads_now - self._reads,
            "cpu": cpu,
            "pauses": pauses,
            "memory_before": self._begun,
            "memory": resident_bytes(),
            "drift": len(drift),
            "generation": self._monitor.status.generation,
            "unreadable": self._monitor.status.unreadable,
            "waiting": left,
            "violations": [] if self._spy is None else self._spy.violations,
        }

    def _totals(self) -> list[int]:
        usage = self._monitor.usage
        return [
            usage.vcpus_used,
            usage.memory_mb_used,
            usage.running_vms,
            usage.current_workload,
        ]


class Orders:
    """Standard input, a line of JSON at a time, and the answers to it."""

    def __init__(self) -> None:
        self._lines = asyncio.StreamReader()

    async def open(self) -> None:
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self._lines), sys.stdin
        )

    async def next(self) -> dict[str, Any] | None:
        """The next order; None at the end."""
        line = await self._lines.readline()
        return json.loads(line) if line else None

    def answer(self, answer: dict[str, Any]) -> None:
        print(json.dumps(answer), flush=True)


async def watch(uri: str, settings: str, spy: str) -> None:
    orders = Orders()
    await orders.open()
    calm_collector()
    await Watcher(uri, json.loads(settings), spy=bool(spy)).run(orders)


async def beat() -> None:
    orders, heartbeat = Orders(), Heartbeat()
    await orders.open()
    task = asyncio.create_task(heartbeat.run())
    while (order := await orders.next()) is not None:
        if order["do"] == "begin":
            heartbeat.reset()
            orders.answer({})
        else:
            orders.answer({"pauses": heartbeat.report()})
    task.cancel()


def generate(uri: str, first: str, count: str, seed: str) -> None:
    """Move ``count`` domains from the number ``first`` on, each order for some time.

    Every operation emits exactly one event on the test driver, and none changes anything else.
    """
    chance = random.Random(int(seed))
    connection = libvirt.open(uri)
    names = [f"d{number}" for number in range(int(first), int(first) + int(count))]
    domains = [connection.lookupByName(name) for name in names]
    active = [domain.isActive() for domain in domains]
    paused = [domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED for domain in domains]
    for line in sys.stdin:
        order = json.loads(line)
        end = time.monotonic() + order["seconds"]
        done = 0
        while done < order["most"] and time.monotonic() < end:
            at = chance.randrange(len(domains))
            domain = domains[at]
            if not active[at]:
                domain.create()
                active[at] = True
            elif chance.random() < 0.3:
                domain.destroy()
                active[at] = paused[at] = False
            elif paused[at]:
                domain.resume()
                paused[at] = False
            else:
                domain.suspend()
                paused[at] = True
            done += 1
        print(json.dumps({"events": done, "ended_at": time.monotonic()}), flush=True)


def main(role: str, *arguments: str) -> None:
    """Play a role until standard input ends."""
    silence_libvirt()
    if role == "generate":
        generate(*arguments)
    else:
        roles: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {"watch": watch, "beat": beat}
        asyncio.run(roles[role](*arguments))


if __name__ == "__main__":
    main(*sys.argv[1:])
