"""What counts on each host, by the command line: every mistake names option, value and way out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynchost.accounting import Counted, CountedMemory, Policy
from asynchost.errors import InvalidSettingError
from asynchost.service.config import Texts, load
from asynchost.service.declared import SETTINGS, Part

HOSTS = ("a=test:///1.xml", "test:///2.xml", "c=test:///3.xml")
ALL_OPTIONS = {one.option: () for one in SETTINGS.values() if one.part is Part.POLICY}
NUMBER = "give a whole number from 0 to 2147483647"


def policies_of(options: Texts) -> list[Policy]:
    """Each host's, in the order of ``HOSTS``; the options as they are written."""
    texts = {option.removeprefix("--"): values for option, values in options.items()}
    return [host.policy for host in load({"connect": HOSTS, **texts}).run.hosts]


def test_without_options_every_host_has_the_published_meaning() -> None:
    """So do those that are given nothing."""
    assert policies_of({}) == policies_of(ALL_OPTIONS) == [Policy()] * 3


@pytest.mark.parametrize(
    ("option", "value", "policy"),
    [
        ("--count", "defined", Policy(count=Counted.DEFINED)),
        ("--count", "active", Policy()),
        ("--memory", "maximum", Policy(memory=CountedMemory.MAXIMUM)),
        ("--memory", "current", Policy()),
        ("--reserved-vcpus", "2", Policy(reserved_vcpus=2)),
        ("--reserved-memory", "512", Policy(reserved_memory_mb=512)),
        ("--reserved-memory", "0", Policy()),
        ("--domain-0", "memory", Policy()),
        ("--domain-0", "vcpus", Policy(domain_0_memory=False, domain_0_vcpus=True)),
        ("--domain-0", "both", Policy(domain_0_vcpus=True)),
        ("--domain-0", "none", Policy(domain_0_memory=False)),
        ("--only", "web-*", Policy(include=("web-*",))),
        ("--except", "build-?", Policy(exclude=("build-?",))),
    ],
)
def test_a_bare_value_is_for_all_hosts_and_a_named_one_for_its_own(
    option: str, value: str, policy: Policy
) -> None:
    """The same value, three ways."""
    assert policies_of({option: [value]}) == [policy] * 3
    assert policies_of({option: [f"={value}"]}) == [policy] * 3
    assert policies_of({option: [f"c={value}"]}) == [Policy(), Policy(), policy]


@given(st.permutations(["4", "c=0", "a=1"]))
def test_a_hosts_own_value_outranks_the_one_for_all(values: list[str]) -> None:
    """In whatever order they are given; one option does not touch another."""
    policies = policies_of({"--reserved-vcpus": values, "--count": ["defined"]})
    assert [policy.reserved_vcpus for policy in policies] == [1, 4, 0]
    assert {policy.count for policy in policies} == {Counted.DEFINED}


def test_patterns_add_up_and_a_host_with_its_own_has_no_others() -> None:
    """Both lists, in the order given."""
    policies = policies_of(
        {"--only": ["web-*", "a=x", "db-*", "a=y"], "--except": ["*-old", "c=tmp"]}
    )
    assert [policy.include for policy in policies] == [
        ("x", "y"),
        ("web-*", "db-*"),
        ("web-*", "db-*"),
    ]
    assert [policy.exclude for policy in policies] == [("*-old",), ("*-old",), ("tmp",)]


@pytest.mark.parametrize(
    ("text", "includes"),
    [
        ("=k=v*", [("k=v*",)] * 3),
        ("a=k=v*", [("k=v*",), (), ()]),
        ("a==v*", [("=v*",), (), ()]),
        ("==v*", [("=v*",)] * 3),
    ],
)
def test_a_pattern_may_hold_an_equals_sign(text: str, includes: list[tuple[str, ...]]) -> None:
    """What stands before the first one is a host's name, or nothing."""
    policies = policies_of({"--only": [text]})
    assert [policy.include for policy in policies] == includes


@pytest.mark.parametrize(
    ("option", "values", "text"),
    [
        ("--count", ["all"], "'all' is not usable: give active or defined"),
        ("--count", [""], "'' is not usable: give active or defined"),
        ("--count", ["a="], "'a=' is not usable: give active or defined"),
        ("--memory", ["used"], "'used' is not usable: give current or maximum"),
        ("--reserved-vcpus", ["-1"], f"'-1' is not usable: {NUMBER}"),
        ("--reserved-vcpus", ["1.5"], f"'1.5' is not usable: {NUMBER}"),
        ("--reserved-vcpus", ["2147483648"], f"'2147483648' is not usable: {NUMBER}"),
        ("--reserved-vcpus", ["٣"], f"'٣' is not usable: {NUMBER}"),
        ("--reserved-memory", ["1G"], f"'1G' is not usable: {NUMBER}, in MiB"),
        ("--domain-0", ["cpu"], "'cpu' is not usable: give memory, vcpus, both or none"),
        (
            "--only",
            [""],
            "'' is not usable: give a shell pattern of names, such as 'build-*'",
        ),
        (
            "--except",
            ["a="],
            "'a=' is not usable: give a shell pattern of names, such as 'build-*'",
        ),
        (
            "--count",
            ["b=defined"],
            "'b=defined' is not usable: no host is named 'b'; give --connect b=URI",
        ),
        (
            "--only",
            ["b=web-*"],
            (
                "'b=web-*' is not usable: no host is named 'b'; give --connect b=URI, "
                "or =b=web-* if that is the pattern"
            ),
        ),
        (
            "--count",
            ["active", "=active"],
            "'=active' is not usable: all hosts have one already",
        ),
        (
            "--reserved-vcpus",
            ["1", "a=0", "a=3"],
            "'a=3' is not usable: that host has one already",
        ),
    ],
)
def test_refusals_name_option_value_and_way_out(option: str, values: list[str], text: str) -> None:
    """A name that is mistyped is never taken for a pattern that counts nothing."""
    with pytest.raises(InvalidSettingError) as caught:
        policies_of({option: values})
    assert str(caught.value) == f"{option}: {text}"
