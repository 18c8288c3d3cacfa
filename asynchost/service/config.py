"""What the daemon was asked to do, checked, before anything is opened.

Pure: text in, frozen values or an :class:`~asynchost.errors.InvalidSettingError` out. Every
error names the option and the value and says the way out, so that it can be printed as it is.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from asynchost.accounting import DEFAULT_POLICY, Policy
from asynchost.database.foreign_edits import OnForeignEdit
from asynchost.database.settings import WhenFenced, WriterSettings
from asynchost.errors import ConfigurationError, InvalidSettingError
from asynchost.service.policies import PolicyOptions, by_host, parse_policies
from asynchost.settings import DiskSource, MonitorSettings

QUIET_SECONDS = WriterSettings().quiet_seconds
MAXIMUM_DELAY_SECONDS = WriterSettings().maximum_delay_seconds
AUDIT_INTERVAL_SECONDS = MonitorSettings().audit_interval_seconds

_LONGEST_AUDIT_INTERVAL_SECONDS = 86_400.0
_SHORTEST_AUDIT_INTERVAL_SECONDS = 0.1
_LONGEST_DELAY_SECONDS = 3_600.0
_LONGEST_NAME = 255
"""The width of the column ``hypervisor_hostname``."""
_LARGEST_SERVICE_ID = 2**31 - 1
"""The largest value of the column ``service_id``, a signed int(11)."""

_URI_SYNTAX = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+\Z")


@dataclass(frozen=True, slots=True)
class HostConfig:
    """One host to monitor."""

    uri: str
    name: str | None = None
    """Written as ``hypervisor_hostname``; None takes the name that libvirt reports."""
    service_id: int | None = None
    """The row's ``service_id``; None adopts the one that the row has, or creates it with that of
    Nova's service of the host, or with 0."""
    policy: Policy = DEFAULT_POLICY
    """What counts on it."""
    policy_given: frozenset[str] = frozenset()
    """The policy's fields that were asked for; the others are as they are by default."""
    disk: DiskSource | None = None
    """Where its disk's figures come from; None takes what fits the URI."""
    instances_path: str | None = None
    """The folder that holds its instances; None takes the one of all hosts."""

    def settings(self, of_all: MonitorSettings) -> MonitorSettings:
        """How it is watched, where all hosts are watched like ``of_all``."""
        return replace(
            of_all,
            policy=self.policy,
            disk=self.disk or of_all.disk,
            instances_path=self.instances_path or of_all.instances_path,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """What ``asynchost run`` does. Times in seconds."""

    hosts: tuple[HostConfig, ...]
    quiet_seconds: float = QUIET_SECONDS
    """How long a host must be quiet before its row is written; 0 means at once."""
    maximum_delay_seconds: float = MAXIMUM_DELAY_SECONDS
    """The longest that a change waits for quiet; 0 means at once."""
    on_foreign_edit: OnForeignEdit = OnForeignEdit.REPAIR
    when_fenced: WhenFenced = WhenFenced.EXIT
    beside_nova: bool = False
    dry_run: bool = False
    """Whether to print statements instead of carrying them out."""
    monitor: MonitorSettings = field(default_factory=MonitorSettings)
    """How each of the hosts is watched, but for what it has of its own."""


def parse_hosts(
    connects: Sequence[str],
    service_ids: Sequence[str] = (),
    policies: PolicyOptions = MappingProxyType({}),
    disks: Sequence[str] = (),
    instances_paths: Sequence[str] = (),
) -> tuple[HostConfig, ...]:
    """The hosts of the ``--connect [NAME=]URI`` and ``--service-id [NAME=]N`` options, with what
    counts on each, and the ``--disk`` and ``--instances-path`` that it has.

    Raises :class:`ConfigurationError` if there is none, and :class:`InvalidSettingError` if one
    is malformed, if two share a URI (their domains would be counted twice) or a name (they
    would share one row), or if a service id belongs to no host.
    """
    if not connects:
        raise ConfigurationError(
            "--connect is missing: give at least one libvirt URI, such as qemu:///system"
        )
    named = [parse_connect(text) for text in connects]
    for uri, times in Counter(uri for _, uri in named).items():
        if times > 1:
            raise InvalidSettingError(
                "--connect", uri, f"it is given {times} times; name each host once"
            )
    for name, times in Counter(name for name, _ in named if name is not None).items():
        if times > 1:
            raise InvalidSettingError(
                "--connect",
                name,
                f"{times} hosts carry this name and would share one row; give each its own",
            )
    names = [name for name, _ in named]
    services = _parse_service_ids(service_ids, names)
    return tuple(
        HostConfig(
            uri=uri,
            name=name,
            service_id=service,
            policy=Policy(**policy),
            policy_given=frozenset(policy),
            **disk,
        )
        for (name, uri), service, policy, disk in zip(
            named,
            services,
            parse_policies(policies, names),
            _parse_disks(disks, instances_paths, names),
            strict=True,
        )
    )


def parse_connect(text: str) -> tuple[str | None, str]:
    """Split ``[NAME=]URI`` into name and URI.

    A name ends at the first ``=`` only if none of ``:``, ``/`` and ``?`` comes before it: a
    URI always has its scheme's colon first, so a ``=`` in its query cannot be mistaken.
    """
    head, equals, tail = text.partition("=")
    if not equals or any(mark in head for mark in ":/?"):
        name, uri = None, text
    else:
        name, uri = head, tail
        if not name or len(name) > _LONGEST_NAME or not _is_plain(name):
            raise InvalidSettingError(
                "--connect",
                text,
                f"NAME must have 1 to {_LONGEST_NAME} printable characters without spaces",
            )
    if not _URI_SYNTAX.match(uri) or not uri.isprintable():
        raise InvalidSettingError(
            "--connect", text, "give [NAME=]URI with a libvirt URI, such as qemu:///system"
        )
    return name, uri


def _is_plain(name: str) -> bool:
    return name.isprintable() and not any(character.isspace() for character in name)


def _parse_service_ids(texts: Sequence[str], names: Sequence[str | None]) -> list[int | None]:
    """The service id of each host, in the order of ``names``."""
    by_name: dict[str | None, int] = {}
    for text in texts:
        head, equals, tail = text.rpartition("=")
        name = head if equals else None
        number = _parse_service_id(text, tail)
        if name is None and len(names) > 1:
            raise InvalidSettingError(
                "--service-id",
                text,
                "there are several hosts; say whose it is with NAME=N, after --connect NAME=URI",
            )
        if name is not None and name not in names:
            raise InvalidSettingError(
                "--service-id", text, f"no host is named {name!r}; give --connect {name}=URI"
            )
        # A bare number belongs to the only host, whatever that one is called.
        owner = names[0] if name is None else name
        if owner in by_name:
            raise InvalidSettingError("--service-id", text, "that host has one already")
        by_name[owner] = number
    return [by_name.get(name) for name in names]


def _parse_service_id(text: str, digits: str) -> int:
    # The length is looked at first: Python refuses to convert numbers of thousands of digits.
    if re.fullmatch(r"[0-9]{1,10}", digits) and int(digits) <= _LARGEST_SERVICE_ID:
        return int(digits)
    raise InvalidSettingError(
        "--service-id", text, f"give a whole number from 0 to {_LARGEST_SERVICE_ID}"
    )


def parse_delays(debounce: str | None, max_delay: str | None) -> tuple[float, float]:
    """The quiet time and the maximum delay in seconds; None takes the default.

    A quiet time that was asked for and that the maximum delay would cut short is refused: it
    would never take effect.
    """
    maximum = _parse_seconds(
        "--max-delay", max_delay, MAXIMUM_DELAY_SECONDS, least=0, most=_LONGEST_DELAY_SECONDS
    )
    quiet = _parse_seconds(
        "--debounce", debounce, QUIET_SECONDS, least=0, most=_LONGEST_DELAY_SECONDS
    )
    if debounce is not None and quiet > maximum:
        raise InvalidSettingError(
            "--debounce",
            debounce,
            f"it is longer than the maximum delay of {maximum:g} s; raise --max-delay as well",
        )
    return quiet, maximum


def parse_audit_interval(text: str | None) -> float:
    """The seconds between two audits; 0 leaves only the listings at connects."""
    if text is not None and _to_float(text) == 0:
        return 0.0
    return _parse_seconds(
        "--audit-interval",
        text,
        AUDIT_INTERVAL_SECONDS,
        least=_SHORTEST_AUDIT_INTERVAL_SECONDS,
        most=_LONGEST_AUDIT_INTERVAL_SECONDS,
        also=", or 0 for none",
    )


def _parse_seconds(
    option: str, text: str | None, default: float, *, least: float, most: float, also: str = ""
) -> float:
    if text is None:
        return default
    seconds = _to_float(text)
    # A comparison with NaN is false, so NaN is refused here as well.
    if not least <= seconds <= most:
        raise InvalidSettingError(option, text, f"give seconds from {least:g} to {most:g}{also}")
    return seconds


def _to_float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _parse_disks(
    disks: Sequence[str], instances_paths: Sequence[str], names: Sequence[str | None]
) -> list[dict[str, Any]]:
    """The fields of each host that say where its disk is, in the order of ``names``.

    A host's own value takes the place of the one for all.
    """
    given = [
        by_host("--disk", disks, names, _read_disk, "give pool, path or none"),
        by_host(
            "--instances-path",
            instances_paths,
            names,
            _read_instances_path,
            "give an absolute path, such as /var/lib/libvirt/images",
        ),
    ]
    return [
        {
            field: value
            for one in given
            for field, value in one.get(name if name in one else None, {}).items()
        }
        for name in names
    ]


def _read_disk(text: str) -> dict[str, Any]:
    return {"disk": DiskSource(text)}


def _read_instances_path(text: str) -> dict[str, Any]:
    # It is not looked at here, since it may be on another machine.
    if not text.startswith("/") or "\0" in text:
        raise ValueError
    return {"instances_path": text}
