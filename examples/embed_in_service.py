"""Watch a host from inside an asyncio service, beside its other tasks.

Run it with a libvirt URI: ``python examples/embed_in_service.py qemu:///system``

The service owns its tasks and its signals; the monitor owns only itself. When the service ends,
by Ctrl-C, by SIGTERM or because one task failed, the monitor is closed on the way out.
"""

import asyncio
import signal
import sys

import asynchost


async def place_guests(monitor: asynchost.HostMonitor) -> None:
    """One task of the service: decides from memory, without asking libvirt or a database."""
    await monitor.ready(facts=True)
    while True:
        # While the host is stale its totals are frozen: better to decide nothing then.
        if monitor.facts is not None and monitor.status.fresh:
            free_mb = monitor.facts.memory_mb - monitor.usage.memory_mb_used
            print(f"room for {max(free_mb, 0) // 1024} guests of 1 GiB", flush=True)
        await asyncio.sleep(1)


async def bill_usage(monitor: asynchost.HostMonitor) -> None:
    """Another task: follows each change, at its own pace."""
    async for change in monitor.changes():
        print(f"{change.domain_name!r} used {change.delta.vcpus_used:+d} vCPUs", flush=True)


async def serve(uri: str) -> None:
    """The service: everything in one task group, so that nothing outlives it."""
    async with asynchost.HostMonitor(uri) as monitor, asyncio.TaskGroup() as tasks:
        # Ends the group with the error that ended the monitor, should the monitor ever die.
        tasks.create_task(monitor.wait())
        tasks.create_task(place_guests(monitor))
        tasks.create_task(bill_usage(monitor))


async def main(uri: str) -> None:
    """Run the service until a signal asks it to end."""
    asynchost.quiet_libvirt()
    service = asyncio.create_task(serve(uri))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, service.cancel)
    try:
        await service
    except asyncio.CancelledError:
        print("ended", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
