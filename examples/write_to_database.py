"""Keep a host's row in compute_nodes true from your own program.

Run it with a libvirt URI and a database whose tables exist (``asynchost schema --apply``)::

    python examples/write_to_database.py qemu:///system mysql://user@host/database

A password belongs into the environment variable DATABASE_PASSWORD, where others cannot read it.
"""

import asyncio
import os
import sys

import asynchost


async def main(uri: str, database_url: str) -> None:
    """Write the row now and at each change, until Ctrl-C."""
    asynchost.quiet_libvirt()
    writer = asynchost.ComputeNodeWriter(database_url, password=os.environ.get("DATABASE_PASSWORD"))
    # In this order, so that the writer ends first and its last write takes the newest totals.
    async with asynchost.HostMonitor(uri) as monitor, writer:
        writer.attach(monitor)
        # The host's capabilities may come some time after its totals; no row without them.
        await monitor.ready(facts=True)
        await writer.flush()
        print(f"written: {monitor.usage}", flush=True)
        # Raises when somebody must mend something, or when another agent took the row over.
        await writer.wait()


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        pass
    except asynchost.AsynchostError as error:
        sys.exit(str(error))
