"""Print every change of what is used on a host.

Run it with a libvirt URI: ``python examples/print_changes.py qemu:///system``
"""

import asyncio
import contextlib
import sys

import asynchost


async def main(uri: str) -> None:
    """Print the totals as they are, then each change until Ctrl-C."""
    asynchost.quiet_libvirt()
    async with asynchost.HostMonitor(uri) as monitor:
        with monitor.changes() as changes:
            print(monitor.usage, flush=True)
            async for change in changes:
                # A domain's name is text from outside: !r keeps it off the terminal's controls.
                print(f"{change.domain_name!r}: {change.detail}, {change.delta}", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
