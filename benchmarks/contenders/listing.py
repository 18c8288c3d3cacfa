"""The least that tells what a host's domains use: list them, ask each."""

import time
from typing import Any

import libvirt

from asynchost.hypervisor.domain_events import EVENTS
from asynchost.hypervisor.listing import paused_reasons
from benchmarks.contenders.base import KEEPALIVE


class Listing:
    """Opens a connection, lists, reads, closes; straight from the one thread there is."""

    def __init__(self) -> None:
        # Events need some loop to be registered; nothing is received, so nothing need run it.
        libvirt.virEventRegisterDefaultImpl()

    async def measure(self, uri: str, same_calls: bool) -> dict[str, Any]:
        """Once: wall time and CPU time of opening, listing and reading.

        With ``same_calls``, all calls that a monitor makes of libvirt until it is ready, and
        nothing beside them: the floor for whoever wants events, and the states' reasons.
        """
        before, cpu = time.monotonic(), time.process_time()
        connection = libvirt.openReadOnly(uri)
        ids = []
        if same_calls:
            connection.setKeepAlive(*KEEPALIVE)
            connection.registerCloseCallback(_ignore, None)
            ids = [
                connection.domainEventRegisterAny(
                    None, getattr(libvirt, f"VIR_DOMAIN_EVENT_ID_{kind.name}"), _ignore, None
                )
                for kind in EVENTS
            ]
            connection.getType()
        found = []
        domains = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        if same_calls:
            paused_reasons(connection)
        while domains:
            domain = domains.pop()
            found.append((domain.UUIDString(), *domain.info()))
        answer = {
            "seconds": time.monotonic() - before,
            "cpu": time.process_time() - cpu,
            "active": len(found),
        }
        for callback_id in ids:
            connection.domainEventDeregisterAny(callback_id)
        if same_calls:
            connection.unregisterCloseCallback()
        connection.close()
        return answer


def _ignore(*_: object) -> None:
    pass
