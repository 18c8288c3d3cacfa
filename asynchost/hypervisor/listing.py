"""Who is active on a host. Blocking, for threads."""

import libvirt


def list_active(connection: libvirt.virConnect) -> dict[str, libvirt.virDomain]:
    """The active domains by UUID. Each ``virDomain`` pins its connection: drop it once read."""
    active = libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE
    try:
        domains = connection.listAllDomains(active)
    except libvirt.libvirtError as error:
        # libvirtd answers no list of more than 16,384 domains, so ask for parts of it. What it
        # then says is a plain "internal error", so any error of a living connection is tried.
        if not connection.isAlive():
            raise error from None
        domains = [
            domain
            for kind in (
                libvirt.VIR_CONNECT_LIST_DOMAINS_PERSISTENT,
                libvirt.VIR_CONNECT_LIST_DOMAINS_TRANSIENT,
            )
            for state in (
                libvirt.VIR_CONNECT_LIST_DOMAINS_RUNNING,
                libvirt.VIR_CONNECT_LIST_DOMAINS_PAUSED,
                libvirt.VIR_CONNECT_LIST_DOMAINS_OTHER,
            )
            for domain in connection.listAllDomains(active | kind | state)
        ]
    return {domain.UUIDString(): domain for domain in domains}
