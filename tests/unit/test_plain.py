"""Records as plain JSON types: every public record, each of its fields."""

import json
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import pytest

import asynchost
from asynchost import (
    Cause,
    Change,
    ChangeKind,
    Counted,
    DiskSource,
    DiskUsage,
    Domain,
    DomainAccount,
    DomainEvent,
    DomainState,
    Drift,
    EventKind,
    EventReason,
    Explanation,
    HostFacts,
    HostSnapshot,
    MonitorSettings,
    MonitorStatus,
    Observation,
    Origin,
    Policy,
    Usage,
    UsageDelta,
    WriterSettings,
    WriterStatus,
)
from asynchost.plain import plain

AT = datetime(2026, 11, 28, 20, 35, 0, 250_000, tzinfo=UTC)
USAGE = Usage(6, 3 * 1024 + 1023, 2, 1)
USAGE_PLAIN = {
    "vcpus_used": 6,
    "memory_kib_used": 4095,
    "running_vms": 2,
    "current_workload": 1,
    "memory_mb_used": 3,
}
FACTS = HostFacts("n", "QEMU", 1, 8, 16, {"features": ("aes",)}, (("x86_64", "kvm", "hvm"),))
DISK = DiskUsage(10 * 2**30, 3 * 2**30, -1)
DRIFT = Drift("h", "u", "g", "vcpus", 1, 2, 0.5, "why")
OBSERVATION = Observation("u", "g", 1, DomainState.PAUSED, 2, None, 2, 3, 4)
ACCOUNT = DomainAccount("u", "g", 1, 2, 3, USAGE, "counted", 0.5, Cause.EVENT, "started", None)
DOMAIN = Domain("u", "g", 7, 1, 2, 3, 4, USAGE, "counted: active", AT, Cause.EVENT, "why")
RECORDS: list[Any] = [
    DOMAIN,
    DomainEvent(
        *(9, "epoch", AT, 1, "h", "u", "g", EventKind.STARTED, EventReason.BOOTED, 2, 0),
        *(None, DOMAIN, True, Origin.EVENT, 3),
    ),
    USAGE,
    UsageDelta(1, -2, 3, -4),
    Change(
        *("h", 1, Usage(), USAGE, Cause.EVENT, "lifecycle started", "u", "g"),
        kind=ChangeKind.STARTED,
        number=7,
        at=AT,
    ),
    DRIFT,
    FACTS,
    DISK,
    HostSnapshot("h", "n", usage=USAGE, facts=FACTS, disk=DISK, stuck=frozenset({"b", "a"})),
    MonitorStatus(
        *("h", True, True, None, 1, {"u": "why"}, 1, 2, 3, 4, {"vcpus": 1}, (DRIFT,), ("x",)),
    ),
    OBSERVATION,
    ACCOUNT,
    Explanation(USAGE, Usage(), (ACCOUNT,), None),
    Policy(count=Counted.DEFINED, include=("a*",)),
    MonitorSettings(disk=DiskSource.POOL),
    WriterSettings(),
    WriterStatus(*range(len(fields(WriterStatus)))),
]


def names_of(record: Any) -> list[str]:
    """The names of its fields."""
    if is_dataclass(record):
        return [field.name for field in fields(record)]
    return list(record._fields)


def is_plain(value: Any) -> bool:
    """Whether it is built of nothing but what JSON has."""
    if type(value) is dict:
        return all(type(key) is str and is_plain(one) for key, one in value.items())
    if type(value) is list:
        return all(map(is_plain, value))
    return type(value) in (str, int, float, bool, type(None))


def test_every_public_record_is_tried_here() -> None:
    """A record that is added to the package must be added to the samples."""
    public = {
        one
        for name in asynchost.__all__
        if isinstance(one := getattr(asynchost, name), type)
        and (is_dataclass(one) or hasattr(one, "_fields"))
    }
    assert {type(record) for record in RECORDS} == public


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_is_a_dictionary_of_plain_types(record: Any) -> None:
    """Each field is there by its name, and JSON takes it as it is and gives it back."""
    told = record.as_dict()
    assert set(names_of(record)) <= set(told)
    assert is_plain(told)
    assert json.loads(json.dumps(told)) == told


def test_a_change_is_told_in_full() -> None:
    """Enums by value, times as ISO 8601, memory in MiB with that in KiB, and the difference."""
    change = next(record for record in RECORDS if isinstance(record, Change))
    assert change.as_dict() == {
        "host": "h",
        "generation": 1,
        "before": dict.fromkeys(USAGE_PLAIN, 0),
        "after": USAGE_PLAIN,
        "cause": "event",
        "detail": "lifecycle started",
        "uuid": "u",
        "domain_name": "g",
        "folded": 1,
        "kind": "started",
        "number": 7,
        "at": "2026-11-28T20:35:00.250000+00:00",
        "delta": {
            "vcpus_used": 6,
            "memory_kib_used": 4095,
            "running_vms": 2,
            "current_workload": 1,
        },
    }


def test_a_domain_event_is_told_with_its_id() -> None:
    """Which forwarders use as the key of a message."""
    event = next(record for record in RECORDS if isinstance(record, DomainEvent))
    told = event.as_dict()
    assert (told["id"], told["kind"], told["after"]["cost"]["memory_mb_used"]) == (
        *("epoch-9", "started", 3),
    )


def test_what_rows_hold_of_a_disk_is_told_in_gib_as_well() -> None:
    """As the columns have it."""
    told = DISK.as_dict()
    assert (told["local_gb"], told["local_gb_used"], told["free_disk_gb"]) == (10, 3, 7)


def test_a_set_is_a_sorted_list() -> None:
    """The same record is the same text each time."""
    assert plain(frozenset({"b", "a", "c"})) == ["a", "b", "c"]


def test_an_enum_is_its_value_wherever_it_is() -> None:
    """Also as a key, which is text in JSON."""

    class Colour(Enum):
        RED = 1

    assert plain({Colour.RED: [Colour.RED, DomainState.RUNNING]}) == {"1": [1, 1]}
    assert type(plain(DomainState.RUNNING)) is int
    assert type(plain(Cause.EVENT)) is str


def test_any_dataclass_inside_becomes_a_dictionary() -> None:
    """Also one that is no record of this package."""

    @dataclass
    class Own:
        number: int

    assert plain([Own(1)]) == [{"number": 1}]


@pytest.mark.parametrize("value", [object(), b"bytes", Usage])
def test_what_has_no_plain_form_is_a_type_error(value: object) -> None:
    """A wrong text would be found out too late."""
    with pytest.raises(TypeError, match="no plain form"):
        plain(value)
