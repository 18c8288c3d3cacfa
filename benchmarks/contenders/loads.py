"""What else a program does while it waits for events."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import libvirt

BUSY_SECONDS = 0.001
READING_PAUSE_SECONDS = 0.0005


@contextlib.asynccontextmanager
async def load(kind: str, connection: Any) -> AsyncIterator[None]:
    """``idle``: nothing. ``busy``: the loop works half of the time, a millisecond at a time.
    ``reading``: a thread makes calls on the connection that the events come through."""
    if kind == "busy":
        task = asyncio.create_task(_work())
        try:
            yield
        finally:
            task.cancel()
    elif kind == "reading":
        stop = threading.Event()
        thread = threading.Thread(target=_read, args=(connection, stop), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            await asyncio.to_thread(thread.join)
    else:
        yield


async def _work() -> None:
    while True:
        until = time.monotonic() + BUSY_SECONDS
        while time.monotonic() < until:
            pass
        await asyncio.sleep(BUSY_SECONDS)


def _read(connection: Any, stop: threading.Event) -> None:
    domains = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
    while not stop.is_set():
        for domain in domains:
            domain.info()
            # Waiting gives the interpreter's lock away, as any worker's pause does.
            if stop.wait(READING_PAUSE_SECONDS):
                return
