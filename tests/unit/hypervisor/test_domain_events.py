"""libvirt's domain events, reduced to what they mean here."""

import libvirt
import pytest

from asynchost.domains import EventKind, EventReason, Lifecycle
from asynchost.hypervisor.domain_events import EVENTS, DomainEvent

UUID = "6f000000-0000-4000-8000-000000000001"


class Domain:
    """As much of a ``virDomain`` as an event needs."""

    def UUIDString(self) -> str:  # noqa: N802 - libvirt's name
        """The one thing that is asked of it."""
        return UUID


DOMAIN = Domain()
KINDS = {kind.name: kind for kind in EVENTS}


def lifecycle(event: str, detail: int = 0) -> DomainEvent:
    """What a lifecycle event is taken for."""
    number = getattr(libvirt, f"VIR_DOMAIN_EVENT_{event}")
    return KINDS["LIFECYCLE"].translate(DOMAIN, (number, detail, None))


def test_every_event_that_can_move_a_total_is_asked_for() -> None:
    """By libvirt's names, all of which the installed one has."""
    assert list(KINDS) == [
        "LIFECYCLE",
        "REBOOT",
        "BALLOON_CHANGE",
        "DEVICE_ADDED",
        "DEVICE_REMOVED",
        "MEMORY_DEVICE_SIZE_CHANGE",
        "JOB_COMPLETED",
        "MIGRATION_ITERATION",
        "VCPU_REMOVED",
    ]
    for name, kind in KINDS.items():
        assert kind.optional or hasattr(libvirt, f"VIR_DOMAIN_EVENT_ID_{name}")


def test_only_an_event_that_libvirt_9_does_not_have_is_optional() -> None:
    """libvirt has VCPU_REMOVED from 12.4 on. No other event may be missed without a word."""
    assert [name for name, kind in KINDS.items() if kind.optional] == ["VCPU_REMOVED"]


@pytest.mark.parametrize(
    ("name", "detail", "disk"),
    [
        ("DEFINED", "lifecycle defined", True),
        ("UNDEFINED", "lifecycle undefined", True),
        ("STARTED", "lifecycle started", True),
        ("SUSPENDED", "lifecycle suspended", False),
        ("RESUMED", "lifecycle resumed", False),
        ("STOPPED", "lifecycle stopped", True),
        ("SHUTDOWN", "lifecycle shutdown", False),
        ("PMSUSPENDED", "lifecycle pmsuspended", False),
        ("CRASHED", "lifecycle crashed", False),
    ],
)
def test_a_lifecycle_event_marks_its_domain(name: str, detail: str, disk: bool) -> None:
    """It says which, what happened, and whether files may have come or gone; never a number."""
    event = lifecycle(name)
    assert (event.uuid, event.domain, event.detail, event.disk) == (UUID, DOMAIN, detail, disk)
    assert event.redefined == (name in ("DEFINED", "UNDEFINED"))
    assert event.look_again == (name == "STARTED")
    assert not event.migration


def test_an_unknown_lifecycle_event_marks_its_domain_all_the_same() -> None:
    """A newer libvirt's: its number is its name."""
    event = KINDS["LIFECYCLE"].translate(DOMAIN, (77, 0, None))
    assert event == DomainEvent(
        *(UUID, DOMAIN, "lifecycle event 77"),
        lifecycle=Lifecycle(EventKind.OTHER, EventReason.OTHER, 77, 0),
    )


MIGRATIONS = {
    ("STARTED", "STARTED_MIGRATED"),
    ("SUSPENDED", "SUSPENDED_MIGRATED"),
    ("SUSPENDED", "SUSPENDED_POSTCOPY"),
    ("SUSPENDED", "SUSPENDED_POSTCOPY_FAILED"),
    ("RESUMED", "RESUMED_MIGRATED"),
    ("RESUMED", "RESUMED_POSTCOPY"),
}
DETAILS = [
    (event, name.removeprefix("VIR_DOMAIN_EVENT_"))
    for event in ("DEFINED", "UNDEFINED", "STARTED", "SUSPENDED", "RESUMED", "STOPPED", "SHUTDOWN")
    for name in vars(libvirt)
    if name.startswith(f"VIR_DOMAIN_EVENT_{event}_")
]


@pytest.mark.parametrize(("event", "detail"), DETAILS)
def test_a_migrations_events_ask_for_the_reason(event: str, detail: str) -> None:
    """By libvirt's names: only ``virDomainGetState`` tells post-copy from running."""
    number = getattr(libvirt, f"VIR_DOMAIN_EVENT_{detail}")
    expected = (event, detail) in MIGRATIONS
    assert lifecycle(event, number).migration == expected


def test_each_migration_detail_exists() -> None:
    """The table above was looked at in full."""
    assert set(DETAILS) >= MIGRATIONS


@pytest.mark.parametrize(
    ("name", "detail", "look_again"),
    [
        ("REBOOT", "reboot", False),
        ("BALLOON_CHANGE", "balloon change", True),
        ("DEVICE_ADDED", "device added", True),
        ("DEVICE_REMOVED", "device removed", True),
        ("MEMORY_DEVICE_SIZE_CHANGE", "memory device size", True),
        ("JOB_COMPLETED", "job completed", False),
        ("VCPU_REMOVED", "vcpu removed", False),
    ],
)
def test_other_events_mark_their_domain(name: str, detail: str, look_again: bool) -> None:
    """Those that can come before their number have the domain looked at once more; a device may
    be a disk."""
    event = KINDS[name].translate(DOMAIN, ("whatever it says", None))
    device = detail.startswith("device ")
    assert event == DomainEvent(UUID, DOMAIN, detail, look_again, disk=device, redefined=device)


def test_an_iteration_says_that_a_migration_copies_the_domain() -> None:
    """libvirt sends one when the copy begins, and with each round of it."""
    event = KINDS["MIGRATION_ITERATION"].translate(DOMAIN, (1, None))
    assert event == DomainEvent(UUID, DOMAIN, "migration iteration", copied=True)
