"""What the daemon is asked to do: every source put together and checked, before anything is opened.

Sources, the later before the earlier: the configuration files, the environment, the command line.
May live here: which source wins, and what goes together. Must not: what a single value looks like
(``declared.py``), how files are read (``config_files.py``), where a password comes from
(``credentials.py``). Every error names the source and the value and says the way out; all errors
are told together.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from asynchost.accounting import DEFAULT_POLICY, Policy
from asynchost.database.foreign_edits import OnForeignEdit
from asynchost.database.settings import WhenFenced
from asynchost.errors import ConfigurationError, InvalidSettingError
from asynchost.masking import masked_uri
from asynchost.service.config_files import Files, HostTable
from asynchost.service.declared import (
    LONGEST_NAME,
    MAXIMUM_DELAY_SECONDS,
    NAME,
    QUIET_SECONDS,
    SETTINGS,
    Part,
    Scope,
    Setting,
)
from asynchost.service.mistakes import Given, MistakesError
from asynchost.settings import DiskSource, MonitorSettings

Texts = Mapping[str, Sequence[str]]
"""The values given for each setting, by its name, as text."""


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

    @property
    def called(self) -> str:
        """What the host is called in logs and counts: its name, else its URI without secrets."""
        return self.name or masked_uri(self.uri)


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


class LogConfig(NamedTuple):
    """How lines are logged."""

    level: str = "info"
    format: str = "auto"


class Origins(NamedTuple):
    """Where each value comes from. What is missing is as it is by default."""

    of_all: Mapping[str, Sequence[Given]]
    """By the setting's name."""
    of_hosts: Sequence[Mapping[str, Sequence[Given]]]
    """The same for each host, in the hosts' order: what holds for it."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """All that the sources say, but for the database."""

    run: RunConfig
    log: LogConfig
    origins: Origins


@dataclass(slots=True)
class _Layer:
    """What one source says."""

    of_all: dict[str, list[Given]] = field(default_factory=dict)
    of_host: dict[str | None, dict[str, list[Given]]] = field(default_factory=dict)
    """By the host's name."""


class _Host(NamedTuple):
    """A host as its source gives it."""

    name: str | None
    uri: str
    given: Mapping[str, list[Given]]
    """Its ``name`` and ``connect``."""


COMMAND_LINE: Final = "--"
ENVIRONMENT: Final = "ASYNCHOST_"


def load(
    options: Texts,
    environment: Mapping[str, str] | None = None,
    files: Files | None = None,
    *,
    hosts_needed: bool = True,
) -> Loaded:
    """Put together what the command line, the environment and the files say.

    A source outranks the one before it, also where the earlier one speaks of a single host and
    the later one of all. Hosts of a later source take the place of all hosts of an earlier one.
    Within one source a host's own value takes the place of the one for all, and patterns add up.

    Without a host there is nothing to do, so that is a mistake unless ``hosts_needed`` is false.

    Raises :class:`MistakesError`, a :class:`ConfigurationError`, that holds every mistake, and the
    mistake itself where there is one only.
    """
    files = files or Files()
    mistakes: list[ConfigurationError] = list(files.mistakes)
    variables = from_environment(environment or {})
    hosts = _hosts(options, variables, files, mistakes, hosts_needed=hosts_needed)
    names = [host.name for host in hosts]
    layers = [
        _layer_of_files(files),
        _layer(variables, names, ENVIRONMENT, mistakes),
        _layer(options, names, COMMAND_LINE, mistakes),
    ]
    of_all = _for_process(layers)
    of_hosts = [_for_host(layers, host) for host in hosts]
    # Where something was not understood, what follows from the rest would be a guess.
    run = None if mistakes and not hosts else _run_config(hosts, of_hosts, of_all, mistakes)
    MistakesError.raise_for(mistakes)
    assert run is not None  # noqa: S101 - without mistakes there are hosts
    log = LogConfig(**_fields(of_all, Part.LOG))
    return Loaded(run, log, Origins(of_all, of_hosts))


def from_environment(environment: Mapping[str, str]) -> Texts:
    """What the variables say. An empty one counts as not set; several values are parted by
    spaces."""
    texts = {}
    for setting in SETTINGS.values():
        text = environment.get(setting.variable)
        if text and setting is not NAME:
            texts[setting.name] = text.split() if setting.repeatable else [text]
    return texts


def _written(source: str, setting: Setting) -> str:
    """The setting's name on the command line or in the environment."""
    return setting.option if source == COMMAND_LINE else setting.variable


def _hosts(
    options: Texts,
    variables: Texts,
    files: Files,
    mistakes: list[ConfigurationError],
    *,
    hosts_needed: bool,
) -> list[_Host]:
    connect = SETTINGS["connect"]
    for source, texts in ((COMMAND_LINE, options), (ENVIRONMENT, variables)):
        if texts.get(connect.name):
            where = _written(source, connect)
            return _hosts_of_texts(where, texts[connect.name], mistakes)
    if hosts_needed and not files.hosts and not files.unusable_hosts:
        place = f", or write a [[host]] into {files.paths[0]}" if files.paths else ""
        mistakes.append(
            ConfigurationError(
                "--connect is missing: give at least one libvirt URI, such as qemu:///system"
                f"{place}"
            )
        )
    return _hosts_of_tables(files.hosts, mistakes)


def _hosts_of_texts(
    where: str, texts: Sequence[str], mistakes: list[ConfigurationError]
) -> list[_Host]:
    hosts: list[_Host] = []
    for text in texts:
        try:
            name, uri = parse_connect(text, where)
        except InvalidSettingError as mistake:
            mistakes.append(mistake)
            continue
        given = {"connect": [Given({"uri": uri}, uri, where)]}
        if name is not None:
            given["name"] = [Given({"name": name}, name, where)]
        hosts.append(_Host(name, uri, given))
    for uri, times in _repeated(host.uri for host in hosts):
        mistakes.append(
            InvalidSettingError(
                where, masked_uri(uri), f"it is given {times} times; name each host once"
            )
        )
    for name, times in _repeated(host.name for host in hosts if host.name is not None):
        mistakes.append(
            InvalidSettingError(
                where,
                name,
                f"{times} hosts carry this name and would share one row; give each its own",
            )
        )
    return hosts


def _hosts_of_tables(
    tables: Sequence[HostTable], mistakes: list[ConfigurationError]
) -> list[_Host]:
    hosts = []
    seen: dict[tuple[str, str], str] = {}
    for table in tables:
        for key, value, why in (
            ("name", table.name, "hosts of one name would share one row; give each its own"),
            ("connect", table.uri, "its domains would be counted twice; name each host once"),
        ):
            (given,) = table.given[key]
            before = seen.setdefault((key, value), given.where)
            if before is not given.where:
                shown = masked_uri(value)
                mistakes.append(
                    InvalidSettingError(given.where, shown, f"{before} has it, too; {why}")
                )
        identity = {key: table.given[key] for key in ("name", "connect")}
        hosts.append(_Host(table.name, table.uri, identity))
    return hosts


def _repeated(values: Iterable[str]) -> list[tuple[str, int]]:
    times: dict[str, int] = {}
    for value in values:
        times[value] = times.get(value, 0) + 1
    return [(value, count) for value, count in times.items() if count > 1]


def parse_connect(text: str, where: str = "--connect") -> tuple[str | None, str]:
    """Split ``[NAME=]URI`` into name and URI.

    A name ends at the first ``=`` only if none of ``:``, ``/`` and ``?`` comes before it: a
    URI always has its scheme's colon first, so a ``=`` in its query cannot be mistaken.
    """
    head, equals, tail = text.partition("=")
    named = bool(equals) and not any(mark in head for mark in ":/?")
    name, uri = (head, tail) if named else (None, text)
    try:
        if name is not None:
            NAME.read(name)
    except ValueError:
        raise InvalidSettingError(
            where,
            masked_uri(text),
            f"NAME must have 1 to {LONGEST_NAME} printable characters without spaces",
        ) from None
    try:
        SETTINGS["connect"].read(uri)
    except ValueError:
        raise InvalidSettingError(
            where,
            masked_uri(text),
            "give [NAME=]URI with a libvirt URI, such as qemu:///system",
        ) from None
    return name, uri


def _layer_of_files(files: Files) -> _Layer:
    return _Layer(dict(files.of_all), {table.name: dict(table.given) for table in files.hosts})


def _layer(
    texts: Texts, names: Sequence[str | None], source: str, mistakes: list[ConfigurationError]
) -> _Layer:
    layer = _Layer()
    for name, values in texts.items():
        setting = SETTINGS[name]
        if name in ("connect", "name"):
            continue
        for text in values:
            try:
                _add(layer, setting, text, _written(source, setting), names)
            except InvalidSettingError as mistake:
                mistakes.append(mistake)
    return layer


def _add(
    layer: _Layer, setting: Setting, text: str, where: str, names: Sequence[str | None]
) -> None:
    """Note one value of the command line or the environment."""
    host, value = _addressee(setting, text, where, names)
    try:
        given = Given(setting.read(value), value, where)
    except ValueError:
        raise InvalidSettingError(where, text, setting.expected) from None
    if setting.scope is Scope.ONE and host is None:
        if len(names) > 1:
            raise InvalidSettingError(
                where,
                text,
                "there are several hosts; say whose it is with NAME=N, after --connect NAME=URI",
            )
        # A bare number belongs to the only host, whatever that one is called.
        host = names[0] if names else None
        before = layer.of_host.setdefault(host, {}).setdefault(setting.name, [])
    else:
        of = layer.of_all if host is None else layer.of_host.setdefault(host, {})
        before = of.setdefault(setting.name, [])
    if before and not setting.repeatable:
        of_one = host is not None or setting.scope is Scope.ONE
        whose = "that host has" if of_one else "all hosts have"
        raise InvalidSettingError(where, text, f"{whose} one already")
    before.append(given)


def _addressee(
    setting: Setting, text: str, where: str, names: Sequence[str | None]
) -> tuple[str | None, str]:
    """The host whose value it is, None for all, and the value."""
    if setting.scope is Scope.PROCESS:
        return None, text
    head, equals, tail = text.partition("=")
    # No host's name holds a slash: that is a path.
    if not equals or "/" in head:
        return None, text
    if head and head not in names:
        or_else = f", or ={text} if that is the pattern" if setting.repeatable else ""
        raise InvalidSettingError(
            where, text, f"no host is named {head!r}; give --connect {head}=URI{or_else}"
        )
    return head or None, tail


def _for_process(layers: Sequence[_Layer]) -> dict[str, Sequence[Given]]:
    """What holds for the process as a whole."""
    found: dict[str, Sequence[Given]] = {}
    for layer in layers:
        found.update(
            {
                name: given
                for name, given in layer.of_all.items()
                if SETTINGS[name].scope is Scope.PROCESS
            }
        )
    return found


def _for_host(layers: Sequence[_Layer], host: _Host) -> dict[str, Sequence[Given]]:
    """What holds for one host."""
    found: dict[str, Sequence[Given]] = {}
    for layer in layers:
        found.update(
            {
                name: given
                for name, given in layer.of_all.items()
                if SETTINGS[name].scope is not Scope.PROCESS
            }
        )
        found.update(layer.of_host.get(host.name, {}))
    return {**found, **host.given}


def _fields(given: Mapping[str, Sequence[Given]], *parts: Part) -> dict[str, Any]:
    """The fields that the values of these parts set; patterns add up."""
    fields: dict[str, Any] = {}
    for name, values in given.items():
        setting = SETTINGS[name]
        if setting.part not in parts:
            continue
        for value in values:
            for key, one in value.fields.items():
                before = fields.get(key, ()) if setting.repeatable and key != "uri" else None
                fields[key] = one if before is None else before + one
    return fields


def _run_config(
    hosts: Sequence[_Host],
    of_hosts: Sequence[Mapping[str, Sequence[Given]]],
    of_all: Mapping[str, Sequence[Given]],
    mistakes: list[ConfigurationError],
) -> RunConfig:
    configs = []
    for host, given in zip(hosts, of_hosts, strict=True):
        policy = _fields(given, Part.POLICY)
        configs.append(
            HostConfig(
                **{"name": host.name, "uri": host.uri, **_fields(given, Part.HOST)},
                policy=Policy(**policy),
                policy_given=frozenset(policy),
            )
        )
    writer = _fields(of_all, Part.WRITER)
    quiet = writer.get("quiet_seconds", 0)
    maximum = writer.get("maximum_delay_seconds", MAXIMUM_DELAY_SECONDS)
    if quiet > maximum:
        # A quiet time that was asked for and that the maximum delay cuts short never takes effect.
        asked = of_all["debounce"][-1]
        mistakes.append(
            InvalidSettingError(
                asked.where,
                asked.text,
                f"it is longer than the maximum delay of {maximum:g} s; raise --max-delay as well",
            )
        )
    return RunConfig(
        hosts=tuple(configs), monitor=MonitorSettings(**_fields(of_all, Part.MONITOR)), **writer
    )
