"""The monitor's settings: their defaults, and what is refused when they are made."""

import math
from dataclasses import FrozenInstanceError, fields

import pytest

from asynchost.accounting import Policy
from asynchost.errors import InvalidSettingError
from asynchost.settings import DiskSource, MonitorSettings

ZERO_IS_NEVER = ("audit_interval_seconds", "second_resync_seconds")
ABOVE_ZERO = (
    "call_deadline_seconds",
    "listing_deadline_seconds",
    "keepalive_interval_seconds",
    "keepalive_count",
    "look_again_seconds",
    "disk_interval_seconds",
)


def test_defaults() -> None:
    """They are promised in the documentation: a change of one is a change for everybody."""
    settings = MonitorSettings()
    assert {field.name: getattr(settings, field.name) for field in fields(settings)} == {
        "audit_interval_seconds": 60.0,
        "call_deadline_seconds": 5.0,
        "listing_deadline_seconds": 30.0,
        "keepalive_interval_seconds": 5,
        "keepalive_count": 3,
        "look_again_seconds": 1.0,
        "second_resync_seconds": 5.0,
        "disk_interval_seconds": 60.0,
        "disk": None,
        "instances_path": None,
        "read_write": False,
        "policy": Policy(),
    }


def test_every_number_is_checked_here() -> None:
    """A setting that is added comes into one of the two lists."""
    numbers = {field.name for field in fields(MonitorSettings)}
    numbers -= {"disk", "instances_path", "read_write", "policy"}
    assert numbers == {*ZERO_IS_NEVER, *ABOVE_ZERO}


@pytest.mark.parametrize("name", [*ZERO_IS_NEVER, *ABOVE_ZERO])
@pytest.mark.parametrize("value", [-1, -0.5, math.inf, math.nan, "5", None])
def test_a_value_that_is_no_time_is_refused_by_its_name(name: str, value: object) -> None:
    """Before anything is opened, with the value and what would do."""
    with pytest.raises(InvalidSettingError) as refused:
        MonitorSettings(**{name: value})  # type: ignore[arg-type]
    assert refused.value.setting == name
    assert repr(value) in str(refused.value)


@pytest.mark.parametrize("name", ABOVE_ZERO)
def test_zero_is_refused_where_it_means_nothing(name: str) -> None:
    """No time at all is not "at once" for a deadline."""
    with pytest.raises(InvalidSettingError, match="give a number above 0"):
        MonitorSettings(**{name: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["keepalive_interval_seconds", "keepalive_count"])
def test_libvirts_own_numbers_are_whole(name: str) -> None:
    """It takes no fractions, and would only say so once connected."""
    with pytest.raises(InvalidSettingError, match="give a whole number above 0"):
        MonitorSettings(**{name: 1.5})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ZERO_IS_NEVER)
def test_zero_turns_a_repetition_off(name: str) -> None:
    """And what is out of range is told that it may."""
    assert getattr(MonitorSettings(**{name: 0}), name) == 0  # type: ignore[arg-type]
    with pytest.raises(InvalidSettingError, match="0 for never, or seconds above 0"):
        MonitorSettings(**{name: -1})  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["", "instances", "./instances", "~/instances"])
def test_an_instances_path_is_a_full_path(path: str) -> None:
    """It is the host's, not the working directory's or the user's."""
    with pytest.raises(InvalidSettingError, match="instances_path"):
        MonitorSettings(instances_path=path)


def test_a_full_instances_path_is_taken() -> None:
    """Whether it is there is asked later, and again and again."""
    assert MonitorSettings(instances_path="/srv/instances").instances_path == "/srv/instances"


@pytest.mark.parametrize("disk", [None, *DiskSource, "pool"])
def test_the_disk_has_a_source(disk: DiskSource | None) -> None:
    """None of them is none at all."""
    assert MonitorSettings(disk=disk).disk == disk


@pytest.mark.parametrize("disk", ["tape", "", 1])
def test_a_source_that_does_not_exist_is_refused(disk: object) -> None:
    """With those that do."""
    with pytest.raises(InvalidSettingError, match="pool, path or none"):
        MonitorSettings(disk=disk)  # type: ignore[arg-type]


def test_settings_cannot_be_changed() -> None:
    """One object may be shared by many monitors."""
    with pytest.raises(FrozenInstanceError):
        MonitorSettings().read_write = True  # type: ignore[misc]


def test_a_policy_is_taken_whole() -> None:
    """What counts is one value, checked when it is made."""
    with pytest.raises(InvalidSettingError, match="policy: 'defined' is not usable"):
        MonitorSettings(policy="defined")  # type: ignore[arg-type]


def test_settings_are_named() -> None:
    """Nobody has to remember an order."""
    with pytest.raises(TypeError):
        MonitorSettings(60.0)  # type: ignore[call-arg]
