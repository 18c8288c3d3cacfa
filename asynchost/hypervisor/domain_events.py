"""The domain events that can move a total, and what each asks for.

An event is never a number to add: it says "this domain is dirty". Each is registered where the
libvirt library and the driver have it. Sources: libvirt's event documentation, and what QEMU
and the test driver were seen to send.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple

import libvirt

from asynchost.domains import EventKind as Kind
from asynchost.domains import EventReason, Lifecycle


class DomainEvent(NamedTuple):
    """One event, reduced to what it means here."""

    uuid: str
    domain: Any
    """libvirt's object, good for one read: it saves a look-up, and pins the connection."""
    detail: str
    look_again: bool = False
    """Whether it can come before the number it announces."""
    migration: bool = False
    """Whether only ``virDomainGetState`` tells what the domain is doing."""
    disk: bool = False
    """Whether it can change what the host's disk is used for."""
    redefined: bool = False
    """Whether the domain may have other disks from now on."""
    lifecycle: Lifecycle | None = None
    """What a lifecycle event says; None for other events."""
    copied: bool = False
    """Whether a live migration copies the domain to another host."""


Translate = Callable[[Any, tuple[Any, ...]], DomainEvent]
"""Turns libvirt's domain and the event's own arguments into what they mean here."""


class EventKind(NamedTuple):
    """How one libvirt event id is turned into :class:`DomainEvent`."""

    name: str
    """The part of the constant after ``VIR_DOMAIN_EVENT_ID_``."""
    translate: Translate
    optional: bool = False
    """Whether supported versions of libvirt, or drivers, lack it, so that its absence is no
    fault of the host and is not reported."""


_LIFECYCLE: Final = {
    libvirt.VIR_DOMAIN_EVENT_DEFINED: "defined",
    libvirt.VIR_DOMAIN_EVENT_UNDEFINED: "undefined",
    libvirt.VIR_DOMAIN_EVENT_STARTED: "started",
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: "suspended",
    libvirt.VIR_DOMAIN_EVENT_RESUMED: "resumed",
    libvirt.VIR_DOMAIN_EVENT_STOPPED: "stopped",
    libvirt.VIR_DOMAIN_EVENT_SHUTDOWN: "shutdown",
    libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED: "pmsuspended",
    libvirt.VIR_DOMAIN_EVENT_CRASHED: "crashed",
}
_REDEFINED: Final = frozenset({"defined", "undefined"})
_DISK: Final = frozenset({*_REDEFINED, "started", "stopped"})
# (event, detail): STARTED/MIGRATED, SUSPENDED/MIGRATED, SUSPENDED/POSTCOPY,
# SUSPENDED/POSTCOPY_FAILED, RESUMED/MIGRATED, RESUMED/POSTCOPY.
_MIGRATION: Final = frozenset({(2, 1), (3, 1), (3, 7), (3, 8), (4, 1), (4, 3)})


def _reasons(kind: str) -> dict[int, EventReason]:
    """The details of one kind of lifecycle event, by libvirt's own constants."""
    prefix = f"VIR_DOMAIN_EVENT_{kind.upper()}_"
    known = set(EventReason)
    return {
        value: EventReason(name.removeprefix(prefix).lower())
        for name, value in vars(libvirt).items()
        if name.startswith(prefix) and name.removeprefix(prefix).lower() in known
    }


_REASONS: Final = {kind: _reasons(kind) for kind in _LIFECYCLE.values()}


def _lifecycle_of(event: int, detail: int) -> Lifecycle:
    """What libvirt's two numbers say."""
    name = _LIFECYCLE.get(event)
    if name is None:
        return Lifecycle(Kind.OTHER, EventReason.OTHER, event, detail)
    return Lifecycle(Kind(name), _REASONS[name].get(detail, EventReason.OTHER), event, detail)


@lru_cache
def _meaning(event: int, detail: int) -> tuple[str, bool, bool, bool, bool, Lifecycle]:
    """What a lifecycle event means here: all of it that is no matter of the domain."""
    name = _LIFECYCLE.get(event, f"event {event}")
    look_again, migration = name == "started", (event, detail) in _MIGRATION
    disk, redefined = name in _DISK, name in _REDEFINED
    meaning = _lifecycle_of(event, detail)
    return f"lifecycle {name}", look_again, migration, disk, redefined, meaning


def _lifecycle(domain: Any, arguments: tuple[Any, ...]) -> DomainEvent:
    return DomainEvent(domain.UUIDString(), domain, *_meaning(*arguments[:2]))


def _dirty(detail: str, look_again: bool, *, device: bool = False) -> Translate:
    def translate(domain: Any, _arguments: tuple[Any, ...]) -> DomainEvent:
        uuid = domain.UUIDString()
        return DomainEvent(uuid, domain, detail, look_again, disk=device, redefined=device)

    return translate


def _migration_iteration(domain: Any, _arguments: tuple[Any, ...]) -> DomainEvent:
    return DomainEvent(domain.UUIDString(), domain, "migration iteration", copied=True)


EVENTS: Final = (
    EventKind("LIFECYCLE", _lifecycle),
    EventKind("REBOOT", _dirty("reboot", look_again=False)),
    EventKind("BALLOON_CHANGE", _dirty("balloon change", look_again=True)),
    EventKind("DEVICE_ADDED", _dirty("device added", look_again=True, device=True)),
    EventKind("DEVICE_REMOVED", _dirty("device removed", look_again=True, device=True)),
    EventKind("MEMORY_DEVICE_SIZE_CHANGE", _dirty("memory device size", look_again=True)),
    EventKind("JOB_COMPLETED", _dirty("job completed", look_again=False)),
    # Sent by the host that the domain leaves.
    EventKind("MIGRATION_ITERATION", _migration_iteration),
    # libvirt has it from 12.4 on. It comes after the number; an added vCPU has no event.
    EventKind("VCPU_REMOVED", _dirty("vcpu removed", look_again=False), optional=True),
)
