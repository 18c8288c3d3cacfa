"""A host's totals, counted anew by code that shares nothing with the package under test.

Plain blocking libvirt calls over a connection of its own: what a person would do by hand.
Call it in ``asyncio.to_thread`` from a test that has a loop.
"""

from typing import NamedTuple

import libvirt

DOMAIN_ZERO = "00000000-0000-0000-0000-000000000000"

# Drivers whose "current memory" is something else, so that maximum memory counts.
MAXIMUM_MEMORY_DRIVERS = ("LXC", "BHYVE")

WORKING_WHILE_PAUSED = (
    libvirt.VIR_DOMAIN_PAUSED_STARTING_UP,
    libvirt.VIR_DOMAIN_PAUSED_MIGRATION,
    libvirt.VIR_DOMAIN_PAUSED_SAVE,
    libvirt.VIR_DOMAIN_PAUSED_DUMP,
    libvirt.VIR_DOMAIN_PAUSED_SNAPSHOT,
    libvirt.VIR_DOMAIN_PAUSED_SHUTTING_DOWN,
    libvirt.VIR_DOMAIN_PAUSED_POSTCOPY,
)


class Totals(NamedTuple):
    """The four numbers of a row that depend on domains, by their column's names."""

    vcpus_used: int
    memory_mb_used: int
    running_vms: int
    current_workload: int


def recount(uri: str) -> Totals:
    """Count every active domain of ``uri`` over a connection opened and closed for it."""
    connection = libvirt.openReadOnly(uri)
    try:
        return recount_over(connection)
    finally:
        connection.close()


def recount_over(connection: libvirt.virConnect) -> Totals:
    """Count every active domain over an open connection.

    A domain that ends between the listing and its read counts nothing.
    """
    count_maximum = connection.getType().upper() in MAXIMUM_MEMORY_DRIVERS
    vcpus = memory_kib = running = workload = 0
    for domain in connection.listAllDomains(0):
        try:
            if not domain.isActive():
                continue
            _, maximum_kib, current_kib, domain_vcpus, _ = domain.info()
            state, reason = domain.state()
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                continue
            raise
        memory_kib += maximum_kib if count_maximum else current_kib
        if domain.UUIDString() == DOMAIN_ZERO:
            continue
        vcpus += domain_vcpus
        running += 1
        workload += _is_working(state, reason)
    return Totals(vcpus, memory_kib // 1024, running, workload)


def _is_working(state: int, reason: int) -> bool:
    """Whether the domain is in the middle of a task: shutting down, starting, migrating."""
    if state == libvirt.VIR_DOMAIN_PAUSED:
        return reason in WORKING_WHILE_PAUSED
    if state == libvirt.VIR_DOMAIN_RUNNING:
        return bool(reason == libvirt.VIR_DOMAIN_RUNNING_POSTCOPY)
    return bool(state == libvirt.VIR_DOMAIN_SHUTDOWN)
