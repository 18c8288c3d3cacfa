"""A program that embeds the monitor in its own way, run by a test as a process of its own.

``python -m tests.support.embedder WAY URI``: libvirt's event loop implementation can be chosen
once per process, so each way needs a fresh one. Watches ``URI``, starts and destroys a guest
over a connection of its own, and prints what the monitor said of it as one line of JSON.
"""

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Coroutine
from time import monotonic, sleep
from typing import Any

import libvirt

from asynchost import HostMonitor, MonitorSettings
from asynchost.errors import HypervisorRefusedError
from tests.support import guests

ROUNDS = 5

THREADS_END_WITHIN_SECONDS = 30.0
"""One that has nothing left to do still needs a processor to end on."""

SETTINGS = MonitorSettings(
    audit_interval_seconds=0, second_resync_seconds=0, instances_path="/proc"
)
"""No audit: whatever the monitor sees, it sees by events."""

Main = Callable[[], Coroutine[Any, Any, None]]


async def watch(uri: str) -> dict[str, Any]:
    """See a guest come and go, several times."""
    connection = await asyncio.to_thread(libvirt.open, uri)
    seen: list[int] = []
    try:
        async with asyncio.timeout(60), HostMonitor(uri, settings=SETTINGS) as monitor:
            before = monitor.usage.vcpus_used
            changes = monitor.changes()
            for number in range(ROUNDS):
                xml = guests.guest_xml(f"embedder-{number}", vcpus=3, kind="test")
                guest = await asyncio.to_thread(connection.createXML, xml)
                seen.append((await anext(changes)).after.vcpus_used - before)
                await asyncio.to_thread(guest.destroy)
                seen.append((await anext(changes)).after.vcpus_used - before)
                del guest
            drift = len(await monitor.audit())
    except HypervisorRefusedError as error:
        return {"refused": str(error)}
    finally:
        await asyncio.to_thread(connection.close)
    return {"seen": seen, "drift": drift}


def run_default_loop() -> None:
    """Serve libvirt's own event loop implementation for ever."""
    while True:
        libvirt.virEventRunDefaultImpl()


def own_threads() -> list[str]:
    """The package's."""
    return sorted(one.name for one in threading.enumerate() if one.name.startswith("asynchost"))


def main(way: str, uri: str) -> None:
    """Embed the monitor in the given way."""
    libvirt.registerErrorHandler(lambda *_: None, None)
    result: dict[str, Any] = {}

    async def embed() -> None:
        if way.startswith("libvirtaio"):
            import libvirtaio

            libvirtaio.virEventRegisterAsyncIOImpl()
        result.update(await watch(uri))

    if way in ("default-in-a-thread", "default-that-nothing-runs"):
        libvirt.virEventRegisterDefaultImpl()
    if way == "default-in-a-thread":
        # Without a timer it would sleep in poll(), deaf to what is registered afterwards.
        threading.Thread(target=run_default_loop, daemon=True).start()
    if way == "uvloop":
        import uvloop

        uvloop.run(embed())
    elif way == "other-thread":
        thread = threading.Thread(target=asyncio.run, args=(embed(),))
        thread.start()
        thread.join()
    else:
        asyncio.run(embed(), debug=way.endswith("debug"))
    give_up_at = monotonic() + THREADS_END_WITHIN_SECONDS
    while own_threads() and monotonic() < give_up_at:
        sleep(0.01)
    result["threads"] = own_threads()
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
