"""Wait until a host is nearly full, and until it has room again.

Run it with a libvirt URI: ``python examples/autoscale.py qemu:///system``

The thresholds are shares of the host's own CPUs. They may be given as two more arguments:
``python examples/autoscale.py qemu:///system 0.8 0.5``
"""

import asyncio
import contextlib
import sys

import asynchost


def share(monitor: asynchost.HostMonitor) -> float | None:
    """Which part of the host's CPUs is promised to guests; None while that is not known now."""
    if monitor.facts is None or not monitor.status.fresh:
        return None  # frozen totals are no reason to do anything
    return monitor.usage.vcpus_used / monitor.facts.vcpus


def above(monitor: asynchost.HostMonitor, limit: float) -> bool:
    """Whether more than ``limit`` is in use."""
    used = share(monitor)
    return used is not None and used > limit


def below(monitor: asynchost.HostMonitor, limit: float) -> bool:
    """Whether less than ``limit`` is in use."""
    used = share(monitor)
    return used is not None and used < limit


async def main(uri: str, high: str = "0.8", low: str = "0.5") -> None:
    """Say when another host is wanted, and when it is not wanted any more."""
    asynchost.quiet_libvirt()
    async with asynchost.HostMonitor(uri) as monitor:
        print("watching", flush=True)
        while True:
            await monitor.wait_for(lambda monitor: above(monitor, float(high)))
            print(f"SCALE UP: {monitor.usage.vcpus_used} vCPUs in use", flush=True)
            await monitor.wait_for(lambda monitor: below(monitor, float(low)))
            print(f"SCALE DOWN: {monitor.usage.vcpus_used} vCPUs in use", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
