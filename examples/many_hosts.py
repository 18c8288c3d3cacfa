"""Follow the guests of several hosts in one stream of lines of JSON.

Run it with libvirt URIs: ``python examples/many_hosts.py qemu:///system qemu+tls://rack1/system``

A host that is refused, or whose monitor ends otherwise, is told as one line; the others go on.
"""

import asyncio
import contextlib
import json
import sys

import asynchost


async def follow(uri: str) -> None:
    """Print each event of one host. Ends when the monitor of the host ends."""
    try:
        async with asynchost.HostMonitor(uri) as monitor:
            with monitor.domain_events() as events:
                print(json.dumps({"host": uri, "guests": len(events.initial)}), flush=True)
                async for event in events:
                    print(json.dumps(event.as_dict() | {"host": uri}), flush=True)
    except asynchost.AsynchostError as error:
        print(json.dumps({"host": uri, "error": str(error)}), flush=True)


async def main(*uris: str) -> None:
    """Follow all hosts until Ctrl-C, or until every monitor has ended."""
    asynchost.quiet_libvirt()
    async with asyncio.TaskGroup() as tasks:
        for uri in uris:
            tasks.create_task(follow(uri))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
