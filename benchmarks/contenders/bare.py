"""The plainest code there can be: a callback, and perhaps one ``info()`` for each event."""

import asyncio
import threading
import time
from contextlib import AsyncExitStack
from queue import SimpleQueue
from typing import Any

import libvirt

from benchmarks.contenders.base import KEEPALIVE, Contender
from benchmarks.contenders.bindings import BINDINGS
from benchmarks.contenders.loads import load

_SIGNS = {libvirt.VIR_DOMAIN_EVENT_STARTED: 1, libvirt.VIR_DOMAIN_EVENT_STOPPED: -1}


class Bare(Contender):
    """Only notes the time of each event."""

    def __init__(self, binding: str = "ours") -> None:
        super().__init__()
        self._wrap = BINDINGS[binding](asyncio.get_running_loop())
        self._connection: Any = None
        self._callback_id = 0
        self._handled = 0
        self._loads = AsyncExitStack()

    @property
    def handled(self) -> int:
        """See the base."""
        return self._handled

    async def watch(self, uri: str) -> dict[str, Any]:
        """See the base."""
        await asyncio.to_thread(self._connect, uri)
        return {}

    def _connect(self, uri: str) -> None:
        self._connection = libvirt.openReadOnly(uri)
        if "+" in uri:  # a driver inside the process has no such thing
            self._connection.setKeepAlive(*KEEPALIVE)
        self._callback_id = self._connection.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._wrap(self.on_event), None
        )

    async def load(self, kind: str) -> dict[str, Any]:
        """Have something else to do until it disconnects; see :mod:`.loads`."""
        await self._loads.enter_async_context(load(kind, self._connection))
        return {}

    async def unwatch(self) -> None:
        """See the base."""
        await self._loads.aclose()
        connection, self._connection = self._connection, None

        def disconnect() -> None:
            connection.domainEventDeregisterAny(self._callback_id)
            connection.close()

        await asyncio.to_thread(disconnect)

    def on_event(
        self, _connection: Any, domain: Any, event: int, _detail: int, _opaque: object
    ) -> None:
        """What happens at each event."""
        now = time.monotonic_ns()
        self._handled += 1
        sign = _SIGNS.get(event)
        if sign is not None:
            self.marks.append((domain.UUIDString(), now, sign))


class BareInfo(Bare):
    """One ``info()`` inside the callback: the least CPU, and a loop that stands still for it."""

    def on_event(
        self, _connection: Any, domain: Any, _event: int, _detail: int, _opaque: object
    ) -> None:
        """See the base."""
        domain.info()
        self._handled += 1


class BareInfoThread(Bare):
    """One ``info()`` in a thread of its own: the least that leaves the loop free."""

    def __init__(self) -> None:
        super().__init__()
        self._queue: SimpleQueue[Any] = SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def on_event(
        self, _connection: Any, domain: Any, _event: int, _detail: int, _opaque: object
    ) -> None:
        """See the base."""
        self._queue.put(domain)

    def _read(self) -> None:
        while True:
            self._queue.get().info()
            self._handled += 1


class BareRead(Bare):
    """One ``info()`` in a thread for each event, and its result back on the loop."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[tuple[Any, int]] = SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def on_event(
        self, _connection: Any, domain: Any, event: int, _detail: int, _opaque: object
    ) -> None:
        """See the base."""
        self._queue.put((domain, event))

    def _read(self) -> None:
        while True:
            domain, event = self._queue.get()
            domain.info()
            self._loop.call_soon_threadsafe(self._came_back, domain.UUIDString(), event)
            del domain

    def _came_back(self, uuid: str, event: int) -> None:
        now = time.monotonic_ns()
        self._handled += 1
        self.marks.append((uuid, now, _SIGNS.get(event, 0)))


class Classic(Bare):
    """Counts all domains anew at each event, in a thread, one event after the other.

    In a storm it falls behind; :meth:`end` then lets the rest of the line go, and tells how many
    events were served and what CPU time one took.
    """

    def __init__(self) -> None:
        super().__init__()
        self._waiting: SimpleQueue[None] = SimpleQueue()
        self._served = 0
        self._served_cpu = 0.0
        self._dropping = False
        threading.Thread(target=self._serve, daemon=True).start()

    def on_event(
        self, _connection: Any, _domain: Any, _event: int, _detail: int, _opaque: object
    ) -> None:
        """See the base."""
        self._handled += 1
        self._waiting.put(None)

    async def begin(self) -> dict[str, Any]:
        """See the base."""
        self._dropping, self._served, self._served_cpu = False, 0, 0.0
        return await super().begin()

    async def end(self, expected: int, settle: float) -> dict[str, Any]:
        """See the base; ``served`` and ``served_cpu`` are the recounts' share."""
        found = await super().end(expected, settle)
        self._dropping = True
        while not self._waiting.empty():  # noqa: ASYNC110 - a thread empties it
            await asyncio.sleep(0.01)
        return {**found, "served": self._served, "served_cpu": self._served_cpu}

    async def unwatch(self) -> None:
        """See the base."""
        await asyncio.sleep(0.05)
        await super().unwatch()

    def _serve(self) -> None:
        while True:
            self._waiting.get()
            if self._dropping:
                continue
            before = time.thread_time()
            vcpus = memory = 0
            for domain in self._connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
                _state, _maximum, current, number, _time = domain.info()
                vcpus, memory = vcpus + number, memory + current
            self._served += 1
            self._served_cpu += time.thread_time() - before
