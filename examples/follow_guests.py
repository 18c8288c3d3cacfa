"""Print what happens to each guest of a host, why, and what the guest uses.

Run it with a libvirt URI: ``python examples/follow_guests.py qemu:///system``
"""

import asyncio
import contextlib
import sys

import asynchost
from asynchost import Domain, DomainEvent, EventKind


def size(domain: Domain | None) -> str:
    """What a guest uses, in words; None is a guest that does not run."""
    return "nothing" if domain is None else f"{domain.vcpus} vCPUs, {domain.memory_kib} KiB"


def tell(event: DomainEvent) -> str:
    """One event as one line. A guest's name is text from outside: !r escapes it."""
    match event.kind:
        case EventKind.CHANGED:
            what = f"changed, found by {event.origin}"
        case EventKind.OTHER:
            what = f"event {event.raw_kind}, which this version does not know"
        case _:
            what = f"{event.kind} ({event.reason})"
    if not event.known:
        return f"{event.name!r} {what}: it does not answer"
    return f"{event.name!r} {what}: {size(event.before)} -> {size(event.after)}"


async def main(uri: str) -> None:
    """Print the guests that run, then each event until Ctrl-C."""
    asynchost.quiet_libvirt()
    async with asynchost.HostMonitor(uri) as monitor:
        with monitor.domain_events() as events:
            for domain in events.initial.values():
                print(f"{domain.name!r} runs: {size(domain)}", flush=True)
            print(f"{len(events.initial)} guests; waiting for events", flush=True)
            async for event in events:
                if event.lost:
                    print(f"{event.lost} events were lost: too slow", flush=True)
                print(tell(event), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
