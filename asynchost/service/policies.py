"""What counts on each host, from the options that say so.

Pure: text in, a policy's fields for each host or an
:class:`~asynchost.errors.InvalidSettingError` out. Each option is ``[NAME=]VALUE``: for the host
that is connected as NAME=URI, else for all. What stands before the first ``=`` is the name, so that
a value which holds one itself is written with a name, or as ``=VALUE``.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from asynchost.accounting import DEFAULT_POLICY, Counted, CountedMemory
from asynchost.errors import InvalidSettingError

_LARGEST = 2**31 - 1
"""The largest value of the columns that a reserve is added to, signed int(11)."""
_DOMAIN_0 = {  # whether its memory counts, and its vCPUs
    "memory": (True, False),
    "vcpus": (False, True),
    "both": (True, True),
    "none": (False, False),
}

PolicyOptions = Mapping[str, Sequence[str]]
"""The values given for each option, by its name with the dashes."""


class PolicyOption(NamedTuple):
    """One option."""

    metavar: str
    help: str
    read: Callable[[str], dict[str, Any]]
    """The policy's fields that a value sets. Raises ValueError."""
    expected: str
    """What would have been a value."""
    repeatable: bool = False


def _count(value: str) -> dict[str, Any]:
    return {"count": Counted(value)}


def _memory(value: str) -> dict[str, Any]:
    return {"memory": CountedMemory(value)}


def _number(field: str) -> Callable[[str], dict[str, Any]]:
    def read(value: str) -> dict[str, Any]:
        # The length is looked at first: Python refuses to convert thousands of digits.
        if not re.fullmatch(r"[0-9]{1,10}", value) or int(value) > _LARGEST:
            raise ValueError
        return {field: int(value)}

    return read


def _domain_0(value: str) -> dict[str, Any]:
    if value not in _DOMAIN_0:
        raise ValueError
    memory, vcpus = _DOMAIN_0[value]
    return {"domain_0_memory": memory, "domain_0_vcpus": vcpus}


def _pattern(field: str) -> Callable[[str], dict[str, Any]]:
    def read(value: str) -> dict[str, Any]:
        if not value:
            raise ValueError
        return {field: (value,)}

    return read


_WHOLE_NUMBER = f"give a whole number from 0 to {_LARGEST}"
_SHELL_PATTERN = "give a shell pattern of names, such as 'build-*'"
POLICY_OPTIONS: Final = {
    "--count": PolicyOption(
        "active|defined",
        "The domains that count: the active ones, or those that are shut off, too. "
        f"[default: {DEFAULT_POLICY.count}]",
        _count,
        "give active or defined",
    ),
    "--memory": PolicyOption(
        "current|maximum",
        "The memory that counts: what a domain has, or what it may get. "
        f"[default: {DEFAULT_POLICY.memory}]",
        _memory,
        "give current or maximum",
    ),
    "--reserved-vcpus": PolicyOption(
        "N",
        f"vCPUs to add for the host itself. [default: {DEFAULT_POLICY.reserved_vcpus}]",
        _number("reserved_vcpus"),
        _WHOLE_NUMBER,
    ),
    "--reserved-memory": PolicyOption(
        "MIB",
        f"Memory to add for the host itself. [default: {DEFAULT_POLICY.reserved_memory_mb}]",
        _number("reserved_memory_mb"),
        f"{_WHOLE_NUMBER}, in MiB",
    ),
    "--domain-0": PolicyOption(
        "memory|vcpus|both|none",
        "What counts of Xen's Domain-0. [default: memory]",
        _domain_0,
        "give memory, vcpus, both or none",
    ),
    "--only": PolicyOption(
        "PATTERN",
        "Count only domains whose name matches, as 'web-*'. May be repeated. A pattern that "
        "holds a = is written =PATTERN. [default: all]",
        _pattern("include"),
        _SHELL_PATTERN,
        repeatable=True,
    ),
    "--except": PolicyOption(
        "PATTERN",
        "Do not count domains whose name matches, in spite of --only. May be repeated.",
        _pattern("exclude"),
        _SHELL_PATTERN,
        repeatable=True,
    ),
}


def by_option(parameters: Mapping[str, Sequence[str]]) -> PolicyOptions:
    """The options from a function's keywords, as a command line hands them over."""
    return {f"--{name.replace('_', '-')}": values for name, values in parameters.items()}


def parse_policies(options: PolicyOptions, names: Sequence[str | None]) -> list[dict[str, Any]]:
    """The policy's fields that each host is given, in the order of ``names``; None is a host
    without one.

    A host's own value of an option takes the place of the one for all. Patterns add up; a host
    that has some of its own has no others.
    """
    fields: list[dict[str, Any]] = [{} for _ in names]
    for name, texts in options.items():
        option = POLICY_OPTIONS[name]
        given = by_host(
            name, texts, names, option.read, option.expected, repeatable=option.repeatable
        )
        for host, one in zip(names, fields, strict=True):
            one.update(given.get(host if host in given else None, {}))
    return fields


def by_host(
    option: str,
    texts: Sequence[str],
    names: Sequence[str | None],
    read: Callable[[str], dict[str, Any]],
    expected: str,
    *,
    repeatable: bool = False,
) -> dict[str | None, dict[str, Any]]:
    """What is given for each host's name, and under None for all hosts: what ``read`` makes of
    a value. Raises :class:`InvalidSettingError`, with what was ``expected``."""
    given: dict[str | None, dict[str, Any]] = {}
    for text in texts:
        head, equals, tail = text.partition("=")
        name = head or None
        value = tail
        # No host's name holds a slash: that is a path.
        if not equals or "/" in head:
            name, value = None, text
        elif name is not None and name not in names:
            or_else = f", or ={text} if that is the pattern" if repeatable else ""
            raise InvalidSettingError(
                option, text, f"no host is named {name!r}; give --connect {name}=URI{or_else}"
            )
        try:
            fields = read(value)
        except ValueError:
            raise InvalidSettingError(option, text, expected) from None
        before = given.setdefault(name, {})
        if before and not repeatable:
            whose = "all hosts have" if name is None else "that host has"
            raise InvalidSettingError(option, text, f"{whose} one already")
        for field, one in fields.items():
            before[field] = before.get(field, ()) + one if repeatable else one
    return given
