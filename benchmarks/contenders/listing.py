"""The least that tells what a host's domains use: list them, ask each."""

import time
from typing import Any

import libvirt


class Listing:
    """Opens a connection, lists, reads, closes; straight from the one thread there is."""

    async def measure(self, uri: str) -> dict[str, Any]:
        """Once: wall time and CPU time of opening, listing and reading."""
        before, cpu = time.monotonic(), time.process_time()
        connection = libvirt.openReadOnly(uri)
        found = [
            (domain.UUIDString(), *domain.info())
            for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        ]
        answer = {
            "seconds": time.monotonic() - before,
            "cpu": time.process_time() - cpu,
            "active": len(found),
        }
        connection.close()
        return answer
