"""Which domains a host has. Blocking, for threads."""

import libvirt

from asynchost.accounting import Counted, Policy
from asynchost.agenda import Mark
from asynchost.explanation import Survey
from asynchost.hypervisor.batch import Read, read_domain
from asynchost.model import Cause, Observation

_LOOK = Mark(Cause.LOOK_AGAIN, "explained")

# Flags that split a listing into parts that do not overlap.
_PERSISTENCE = (
    libvirt.VIR_CONNECT_LIST_DOMAINS_PERSISTENT,
    libvirt.VIR_CONNECT_LIST_DOMAINS_TRANSIENT,
)
_STATES = (
    libvirt.VIR_CONNECT_LIST_DOMAINS_RUNNING,
    libvirt.VIR_CONNECT_LIST_DOMAINS_PAUSED,
    libvirt.VIR_CONNECT_LIST_DOMAINS_SHUTOFF,
    libvirt.VIR_CONNECT_LIST_DOMAINS_OTHER,
)


def list_domains(connection: libvirt.virConnect, policy: Policy) -> dict[str, libvirt.virDomain]:
    """The domains that may count, by UUID: the active ones, or the inactive ones too.

    Each ``virDomain`` pins its connection: drop it once read.
    """
    wanted = 0 if policy.count == Counted.DEFINED else libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE
    domains = list_all(connection, wanted)
    if policy.by_name:
        # Names come with the listing. Who is renamed into what counts is told of by an event.
        return {
            uuid: domain
            for domain in domains
            if policy.may_count(uuid := domain.UUIDString(), domain.name())
        }
    return {domain.UUIDString(): domain for domain in domains}


def paused_reasons(connection: libvirt.virConnect) -> dict[str, int]:
    """Why the paused domains are paused, by UUID: by one call, where the driver has that.

    Empty where it has not (LXC, Xen), so that each is asked by itself. Raises ``libvirtError``
    when the connection is dead.
    """
    try:
        found = connection.getAllDomainStats(
            libvirt.VIR_DOMAIN_STATS_STATE, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_PAUSED
        )
    except libvirt.libvirtError:
        if not connection.isAlive():
            raise
        return {}
    return {
        domain.UUIDString(): stats["state.reason"]
        for domain, stats in found
        if "state.reason" in stats
    }


def survey(connection: libvirt.virConnect, known: frozenset[str]) -> Survey:
    """Read all domains, active or not, but for those ``known``."""
    observations: list[Observation] = []
    failures: dict[str, str] = {}
    for domain in list_all(connection):
        uuid = domain.UUIDString()
        if uuid in known:
            continue
        try:
            observation = read_domain(connection, Read(uuid, _LOOK, domain, ask_reason=False))
        except Exception as error:  # noqa: BLE001 - one domain's is no other's
            failures[uuid] = str(error) or type(error).__name__
        else:
            if observation is not None:
                observations.append(observation)
    return Survey(tuple(observations), failures)


def list_all(connection: libvirt.virConnect, wanted: int = 0) -> list[libvirt.virDomain]:
    """All domains that ``wanted`` takes, libvirt's flags; 0 takes all, active or not."""
    try:
        return list(connection.listAllDomains(wanted))
    except libvirt.libvirtError as error:
        # libvirtd answers no list of more than 16,384 domains, so ask for parts of it. What it
        # then says is a plain "internal error", so any error of a living connection is tried.
        if not connection.isAlive():
            raise error from None
        return [
            domain
            for persistence in _PERSISTENCE
            for state in _STATES
            for domain in connection.listAllDomains(wanted | persistence | state)
        ]
