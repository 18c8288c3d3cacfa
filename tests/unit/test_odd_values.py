"""Odd values for the public classes: each is taken, or refused with an error of the package."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asynchost import (
    ConfigurationError,
    HostMonitor,
    HypervisorRefusedError,
    InvalidSettingError,
    MonitorSettings,
    Policy,
)

letters = st.characters()
"""All there are, with halves of surrogate pairs among them."""
odd_texts = st.text(letters, max_size=20)
odd_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**31, 2**40, 2**63, 10**400, -(10**400), 5e-324, 1e308, math.inf, math.nan]),
    st.floats(),
    odd_texts,
    odd_texts.map(lambda text: "/" + text),
    st.binary(max_size=4),
    st.complex_numbers(),
    st.lists(st.integers(), max_size=2),
)
odd_uris = st.one_of(
    odd_texts,
    st.builds(
        "{}{}://{}/{}{}".format,
        st.sampled_from(["qemu", "test", "xen", "lxc", "qemu+ssh", "QEMU", "qemu+"]),
        st.sampled_from(["", "", "+tcp", "+unix", "+nothing"]),
        odd_texts,
        odd_texts,
        odd_texts.map(lambda text: "?" + text),
    ),
)


@contextlib.contextmanager
def only_of(setting: str) -> Iterator[None]:
    """A refusal names the setting, in a text that can be printed."""
    try:
        yield
    except InvalidSettingError as error:
        if error.setting != setting:
            raise AssertionError(error.setting) from error
        str(error).encode()
        raise


@given(st.sampled_from([field.name for field in fields(MonitorSettings)]), odd_values)
@example("instances_path", "/a\0b")
@example("instances_path", "/a\ud800b")
@example("keepalive_interval_seconds", 2_200_000)
@example("keepalive_count", 2**31)
@example("audit_interval_seconds", 10**400)
@example("look_again_seconds", 5e-324)
def test_a_setting_is_taken_or_refused_by_its_name(name: str, value: Any) -> None:
    """And what is taken makes a monitor."""
    settings = MonitorSettings()
    with contextlib.suppress(InvalidSettingError), only_of(name):
        settings = MonitorSettings(**{name: value})
    HostMonitor("test:///default", settings=settings)


@given(st.sampled_from([field.name for field in fields(Policy)]), odd_values)
def test_a_policys_value_is_taken_or_refused_by_its_name(name: str, value: Any) -> None:
    """Nothing foreign comes out of it."""
    with contextlib.suppress(InvalidSettingError), only_of(name):
        Policy(**{name: value})


@given(odd_uris)
@example("qemu:///sys\0tem")
@example("qemu:///sys\ud800tem")
@example("qemu://[::1/system")
@example("qemu:///system\n")
def test_a_uri_is_taken_or_refused(uri: str) -> None:
    """The error can be printed, whatever the URI holds."""
    try:
        HostMonitor(uri)
    except HypervisorRefusedError as refused:
        str(refused).encode()
    else:
        uri.encode()
        assert "\0" not in uri


@pytest.mark.parametrize(
    "make", [str.encode, lambda _: None, lambda _: 5], ids=["bytes", "none", "int"]
)
def test_what_is_no_text_is_refused(make: Callable[[str], Any]) -> None:
    """A URI, and a name, in words; no TypeError of somebody's."""
    with pytest.raises(HypervisorRefusedError, match="no text"):
        HostMonitor(make("test:///default"))
    name = make("name")
    if name is not None:
        with pytest.raises(InvalidSettingError, match="characters"):
            HostMonitor("test:///default", name=name)


@given(odd_texts)
@example("\ud800")
def test_a_name_is_taken_or_refused(name: str) -> None:
    """What is taken can be written anywhere."""
    try:
        HostMonitor("test:///default", name=name)
    except ConfigurationError as refused:
        str(refused).encode()
    else:
        name.encode()
