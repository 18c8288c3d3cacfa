"""The records: their units, their differences, and what can be made of them."""

from collections.abc import Callable

import libvirt
import pytest
from hypothesis import given

from asynchost.model import (
    Cause,
    Change,
    ChangeKind,
    DiskUsage,
    DomainState,
    Drift,
    HostFacts,
    HostSnapshot,
    MonitorStatus,
    Usage,
    UsageDelta,
)
from tests.support.strategies import AT, usages

GIB = 1_073_741_824
FACTS = HostFacts("node-1", "QEMU", 7_002_022, 8, 16_000, {})


def snapshot(**given: object) -> HostSnapshot:
    """A complete and fresh snapshot, but for what is given."""
    complete: dict[str, object] = {
        "host": "qemu:///system",
        "name": "node-1",
        "fresh": True,
        "usage": Usage(),
        "facts": FACTS,
        "disk_settled": True,
    }
    return HostSnapshot(**(complete | given))  # type: ignore[arg-type]


def made(before: Usage, after: Usage) -> Change:
    """A change of which only the totals matter."""
    return Change("host", 1, before, after, Cause.RESYNC, kind=ChangeKind.RESYNC, number=1, at=AT)


def test_domain_states_are_those_of_libvirt() -> None:
    """The core's copy of virDomainState has libvirt's names and numbers."""
    theirs = {
        name.removeprefix("VIR_DOMAIN_"): value
        for name, value in vars(libvirt).items()
        if name.removeprefix("VIR_DOMAIN_") in DomainState.__members__
    }
    assert {state.name: state.value for state in DomainState} == theirs


@pytest.mark.parametrize(
    ("memory_kib", "memory_mb"), [(0, 0), (1023, 0), (1024, 1), (2047, 1), (3 * 512, 1)]
)
def test_usage_memory_mb_is_floored_once(memory_kib: int, memory_mb: int) -> None:
    """Two halves of a MiB are one: the sum is floored, not its parts."""
    assert Usage(memory_kib_used=memory_kib).memory_mb_used == memory_mb


def test_usage_minus_subtracts_each_field_and_keeps_kib() -> None:
    """A difference keeps its sign and its unit."""
    difference = Usage(4, 1024, 2, 0) - Usage(1, 1025, 2, 1)
    assert difference == UsageDelta(3, -1, 0, -1)


@given(usages, usages)
def test_change_delta_leads_from_before_to_after(before: Usage, after: Usage) -> None:
    """``before`` plus ``delta`` is ``after``, in every field."""
    delta = made(before, after).delta
    assert before + delta == after
    assert after - delta == before
    assert after - before == delta
    assert delta + -delta == delta - delta == UsageDelta()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Usage(1) + Usage(1),
        lambda: sum([Usage(1)]),
        lambda: sum([Usage(1)], Usage()),
        lambda: UsageDelta(1) + Usage(1),
        lambda: UsageDelta(1) - Usage(1),
        lambda: Usage(1) + 1,
        lambda: Usage(1) - 1,
        lambda: Usage(1) > Usage(0),
        lambda: tuple(Usage(1)),
        lambda: (*Usage(1),),
    ],
)
def test_what_makes_no_sense_of_usages_is_a_type_error(wrong: Callable[[], object]) -> None:
    """Two usages are no usage of anything, and none is a row of numbers."""
    with pytest.raises(TypeError):
        wrong()


def test_a_usage_is_equal_to_a_usage_alone() -> None:
    """A difference of the same numbers is another thing, and so is a tuple."""
    assert Usage(1, 2, 3, 4) == Usage(1, 2, 3, 4)
    assert Usage(1, 2, 3, 4) != UsageDelta(1, 2, 3, 4)
    assert Usage(1, 2, 3, 4) != (1, 2, 3, 4)
    assert hash(Usage(1)) == hash(Usage(1))


def test_cause_reads_as_its_word() -> None:
    """A cause can be logged and compared as plain text."""
    assert [str(cause) for cause in Cause] == ["resync", "event", "look-again", "audit"]


def test_disk_figures_are_floored_and_agree() -> None:
    """``free_disk_gb`` is the difference of the other two columns, not of the bytes."""
    disk = DiskUsage(total_bytes=10 * GIB - 1, used_bytes=3 * GIB - 1)
    assert (disk.local_gb, disk.local_gb_used, disk.free_disk_gb) == (9, 2, 7)
    assert disk.available_least_bytes is None
    assert DiskUsage(GIB, GIB - 1).local_gb == 1


def test_snapshot_is_writable_when_fresh_and_complete() -> None:
    """A row needs totals, facts, a name and the first look at the disk; not the disk itself."""
    assert snapshot().writable
    assert snapshot().disk is None


@pytest.mark.parametrize(
    "missing",
    [
        {"fresh": False},
        {"usage": None},
        {"facts": None},
        {"name": None},
        {"disk_settled": False},
    ],
    ids=lambda missing: next(iter(missing)),
)
def test_snapshot_is_not_writable_while_something_is_unknown(missing: dict[str, object]) -> None:
    """Unknown is never zero: no row is made from a part."""
    assert not snapshot(**missing).writable


def test_snapshot_begins_with_nothing_known() -> None:
    """The defaults claim nothing."""
    nothing = HostSnapshot("host", None)
    assert (nothing.usage, nothing.facts, nothing.disk, nothing.stuck) == (
        None,
        None,
        None,
        frozenset(),
    )
    assert (nothing.generation, nothing.fresh, nothing.disk_settled) == (0, False, False)
    assert not nothing.writable


def test_a_usage_begins_with_nothing() -> None:
    """What is not named in a sum or a difference is not in it."""
    assert Usage() == Usage(0, 0, 0, 0)
    assert UsageDelta() == UsageDelta(0, 0, 0, 0)


def test_a_change_is_one_change_unless_it_says_otherwise() -> None:
    """Of no one domain and without a word of libvirt's."""
    change = made(Usage(), Usage())
    assert (change.folded, change.uuid, change.domain_name, change.detail) == (1, None, None, "")


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (FACTS, "vcpus"),
        (DiskUsage(1, 1), "used_bytes"),
        (snapshot(), "usage"),
        (made(Usage(), Usage()), "after"),
        (Usage(), "vcpus_used"),
        (UsageDelta(), "vcpus_used"),
        (Drift("host", "uuid", "guest", "vcpus", 1, 2, 3.0, ""), "after"),
        (
            MonitorStatus("host", True, True, None, 1, {}, 0, 0, 0, 0, {}, (), ()),
            "fresh",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_records_cannot_be_changed(record: object, field: str) -> None:
    """What was handed to a subscriber stays what it was."""
    with pytest.raises(AttributeError):
        setattr(record, field, None)
