"""The writer's settings: defaults, and what is out of range."""

import pytest

from asynchost.database.settings import WriterSettings
from asynchost.errors import InvalidSettingError


def test_the_defaults_are_the_documented_ones() -> None:
    """Debouncing, deadlines and renewal."""
    settings = WriterSettings()
    assert (settings.quiet_seconds, settings.maximum_delay_seconds) == (0.05, 0.5)
    assert settings.shutdown_deadline_seconds == 5.0
    assert settings.renewal_interval_seconds == 60.0
    assert settings.read_back_interval_seconds is None


@pytest.mark.parametrize("name", ["quiet_seconds", "maximum_delay_seconds"])
def test_zero_means_at_once(name: str) -> None:
    """Zero is a value."""
    assert getattr(WriterSettings(**{name: 0.0}), name) == 0.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("quiet_seconds", -0.1),
        ("maximum_delay_seconds", float("inf")),
        ("quiet_seconds", float("nan")),
        ("statement_deadline_seconds", 0.0),
        ("renewal_interval_seconds", 0.0),
        ("read_back_interval_seconds", 0.0),
        ("backoff_initial_seconds", -1.0),
        ("refusal_retry_seconds", float("nan")),
    ],
)
def test_a_value_out_of_range_is_named(name: str, value: float) -> None:
    """The setting, the value, and what to give."""
    with pytest.raises(InvalidSettingError, match=f"{name}: .* give seconds"):
        WriterSettings(**{name: value})
