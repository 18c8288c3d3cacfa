"""Everything that can be set, declared once.

Each :data:`SETTINGS` entry is the command line's option ``--NAME``, the environment variable
``ASYNCHOST_NAME``, the configuration file's key ``NAME``, and a paragraph of the man page and of
``docs/configuration.md``. May live here: what a value looks like and what a value sets. Must not:
where a value comes from, which is ``config.py``'s matter.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from asynchost.accounting import DEFAULT_POLICY, Counted, CountedMemory
from asynchost.database.foreign_edits import OnForeignEdit
from asynchost.database.settings import WhenFenced, WriterSettings
from asynchost.service.logs import FORMATS, LEVELS
from asynchost.settings import DiskSource, MonitorSettings

CREDENTIAL: Final = "database-password"
"""The systemd credential that holds the database password."""
PASSWORD_VARIABLE: Final = "ASYNCHOST_DATABASE_PASSWORD"  # noqa: S105 - a variable's name
CONFIG_VARIABLE: Final = "ASYNCHOST_CONFIG"
USUAL_FOLDER: Final = "/etc/asynchost"

QUIET_SECONDS: Final = WriterSettings().quiet_seconds
MAXIMUM_DELAY_SECONDS: Final = WriterSettings().maximum_delay_seconds
AUDIT_INTERVAL_SECONDS: Final = MonitorSettings().audit_interval_seconds

LONGEST_NAME: Final = 255
"""The width of the column ``hypervisor_hostname``."""
_LARGEST: Final = 2**31 - 1
"""The largest value of a signed int(11), such as ``service_id`` and the columns with a reserve."""
_LONGEST_AUDIT_INTERVAL_SECONDS: Final = 86_400.0
_SHORTEST_AUDIT_INTERVAL_SECONDS: Final = 0.1
_LONGEST_DELAY_SECONDS: Final = 3_600.0
_URI_SYNTAX: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+\Z")
_DOMAIN_0: Final = {  # whether its memory counts, and its vCPUs
    "memory": (True, False),
    "vcpus": (False, True),
    "both": (True, True),
    "none": (False, False),
}


class Part(StrEnum):
    """Which part of the daemon a setting belongs to."""

    HOST = "host"
    """The host itself: :class:`~asynchost.service.config.HostConfig`."""
    POLICY = "policy"
    """What counts on a host."""
    MONITOR = "monitor"
    """How every host is watched."""
    WRITER = "writer"
    """When and how rows are written."""
    DATABASE = "database"
    LOG = "log"


class Scope(StrEnum):
    """For which hosts a value can be given."""

    PROCESS = "process"
    """For the whole process only."""
    ALL_OR_ONE = "all or one"
    """For all hosts, and for one host instead: ``NAME=VALUE``, or a key of its ``[[host]]``."""
    ONE = "one"
    """For one host only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One thing that can be set."""

    name: str
    metavar: str = ""
    help: str
    default: str
    """As a person reads it; in TOML where ``default_is_value``."""
    default_is_value: bool = True
    """Whether ``default`` is a value that could be given, and no description."""
    example: str
    """A value in TOML, for the example of a configuration file."""
    part: Part
    scope: Scope = Scope.PROCESS
    read: Callable[[str], dict[str, Any]]
    """The fields that a value sets. Raises ValueError."""
    expected: str
    """What is allowed."""
    toml: tuple[type, ...] = (str,)
    """The types that a value in a configuration file can have."""
    choices: tuple[str, ...] = ()
    flag: bool = False
    repeatable: bool = False
    restarts: bool = False
    """Whether a change takes effect only when the daemon is started anew."""

    @property
    def option(self) -> str:
        """As it is written on the command line."""
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        """The environment variable's name."""
        return f"ASYNCHOST_{self.name.replace('-', '_').upper()}"

    @property
    def parameter(self) -> str:
        """The keyword by which click hands the option over."""
        return self.name.replace("-", "_")


def _one_of(field: str, choices: type[StrEnum]) -> Callable[[str], dict[str, Any]]:
    return lambda text: {field: choices(text)}


def _text_of(field: str, choices: tuple[str, ...]) -> Callable[[str], dict[str, Any]]:
    def read(text: str) -> dict[str, Any]:
        if text not in choices:
            raise ValueError
        return {field: text}

    return read


def _flag(field: str) -> Callable[[str], dict[str, Any]]:
    def read(text: str) -> dict[str, Any]:
        known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.lower() not in known:
            raise ValueError
        return {field: known[text.lower()]}

    return read


def _seconds(
    field: str, *, least: float, most: float, or_zero: bool = False
) -> Callable[[str], dict[str, Any]]:
    def read(text: str) -> dict[str, Any]:
        seconds = float(text)
        # A comparison with NaN is false, so NaN is refused here as well.
        if not (least <= seconds <= most or (or_zero and seconds == 0)) or math.isnan(seconds):
            raise ValueError
        return {field: seconds}

    return read


def _whole(field: str) -> Callable[[str], dict[str, Any]]:
    def read(text: str) -> dict[str, Any]:
        # The length is looked at first: Python refuses to convert thousands of digits.
        if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > _LARGEST:
            raise ValueError
        return {field: int(text)}

    return read


def _domain_0(text: str) -> dict[str, Any]:
    if text not in _DOMAIN_0:
        raise ValueError
    memory, vcpus = _DOMAIN_0[text]
    return {"domain_0_memory": memory, "domain_0_vcpus": vcpus}


def _pattern(field: str) -> Callable[[str], dict[str, Any]]:
    def read(text: str) -> dict[str, Any]:
        if not text:
            raise ValueError
        return {field: (text,)}

    return read


def _uri(text: str) -> dict[str, Any]:
    if not _URI_SYNTAX.match(text) or not text.isprintable():
        raise ValueError
    return {"uri": text}


def _name(text: str) -> dict[str, Any]:
    plain = text.isprintable() and not any(character.isspace() for character in text)
    # A name with one of these could not be told from a URI or a path on the command line.
    if not 0 < len(text) <= LONGEST_NAME or not plain or any(mark in text for mark in "=:/?"):
        raise ValueError
    return {"name": text}


def _instances_path(text: str) -> dict[str, Any]:
    # The folder is not looked at here, since it may be on another machine.
    if not text.startswith("/") or "\0" in text:
        raise ValueError
    return {"instances_path": text}


def _database(text: str) -> dict[str, Any]:
    # What makes a URL right is the database's matter: see credentials.py.
    return {"url": text}


def _password_file(text: str) -> dict[str, Any]:
    if not text:
        raise ValueError
    return {"password_file": text}


def _or(words: tuple[str, ...] | type[StrEnum]) -> str:
    *first, last = [str(word) for word in words]
    return f"give {', '.join(first)} or {last}"


def _values(choices: type[StrEnum]) -> tuple[str, ...]:
    return tuple(choice.value for choice in choices)


_WHOLE_NUMBER: Final = f"give a whole number from 0 to {_LARGEST}"
_SHELL_PATTERN: Final = "give a shell pattern of names, such as 'build-*'"
_DELAY: Final = f"give seconds from 0 to {_LONGEST_DELAY_SECONDS:g}"
_YES_OR_NO: Final = "give true or false"

NAME: Final = Setting(
    name="name",
    metavar="NAME",
    help="What the host is called in the row (hypervisor_hostname), in the log and in every "
    "count. A configuration file must name each host; on the command line the name stands before "
    "the URI.",
    default="the name that libvirt reports",
    default_is_value=False,
    example='"rack1-7"',
    part=Part.HOST,
    scope=Scope.ONE,
    read=_name,
    expected=f"give 1 to {LONGEST_NAME} printable characters without spaces and without = : / ?",
)

_ALL: Final = (
    NAME,
    Setting(
        name="connect",
        metavar="[NAME=]URI",
        help="A libvirt host, such as qemu:///system. May be repeated. NAME is written as "
        "hypervisor_hostname instead of what libvirt reports.",
        default="none",
        default_is_value=False,
        example='"qemu+tls://rack1-7.example.org/system"',
        part=Part.HOST,
        scope=Scope.ONE,
        repeatable=True,
        read=_uri,
        expected="give a libvirt URI, such as qemu:///system",
    ),
    Setting(
        name="database",
        metavar="URL",
        help="mysql://user@host:port/db, with several servers as host1,host2:port, or "
        "mysql://user@localhost/db?unix_socket=/path, without a password. "
        "With ?ssl_ca=FILE or ?ssl_mode=… it is TLS or nothing. In the variable "
        "ASYNCHOST_DATABASE, and in a configuration file that only its owner and its group can "
        "read, it may hold a password.",
        default="none",
        default_is_value=False,
        example='"mysql://asynchost@db.example.org/nova"',
        part=Part.DATABASE,
        read=_database,
        expected="give mysql://user@host:port/database",
        restarts=True,
    ),
    Setting(
        name="database-password-file",
        metavar="FILE",
        help="A file that holds the database password and nothing else. "
        f"[or the systemd credential {CREDENTIAL}, or set {PASSWORD_VARIABLE}]",
        default="none",
        default_is_value=False,
        example='"/etc/asynchost/database-password"',
        part=Part.DATABASE,
        read=_password_file,
        expected="give the path of a file",
    ),
    Setting(
        name="service-id",
        metavar="[NAME=]N",
        help="The service_id of the host's row. With several hosts: NAME=N, for the host "
        "connected as NAME=URI.",
        default="the one that the row has; where there is no row, that of the host's "
        "nova-compute in Nova's table services, else 0",
        default_is_value=False,
        example="7",
        part=Part.HOST,
        scope=Scope.ONE,
        read=_whole("service_id"),
        expected=_WHOLE_NUMBER,
        toml=(int,),
    ),
    Setting(
        name="count",
        metavar="active|defined",
        help="The domains that count: the active ones, or those that are shut off, too.",
        default=f'"{DEFAULT_POLICY.count}"',
        example='"defined"',
        part=Part.POLICY,
        scope=Scope.ALL_OR_ONE,
        read=_one_of("count", Counted),
        expected=_or(Counted),
        choices=_values(Counted),
    ),
    Setting(
        name="memory",
        metavar="current|maximum",
        help="The memory that counts: what a domain has, or what it may get.",
        default=f'"{DEFAULT_POLICY.memory}"',
        example='"maximum"',
        part=Part.POLICY,
        scope=Scope.ALL_OR_ONE,
        read=_one_of("memory", CountedMemory),
        expected=_or(CountedMemory),
        choices=_values(CountedMemory),
    ),
    Setting(
        name="reserved-vcpus",
        metavar="N",
        help="vCPUs to add for the host itself.",
        default=f"{DEFAULT_POLICY.reserved_vcpus}",
        example="2",
        part=Part.POLICY,
        scope=Scope.ALL_OR_ONE,
        read=_whole("reserved_vcpus"),
        expected=_WHOLE_NUMBER,
        toml=(int,),
    ),
    Setting(
        name="reserved-memory",
        metavar="MIB",
        help="Memory to add for the host itself, in MiB.",
        default=f"{DEFAULT_POLICY.reserved_memory_mb}",
        example="4096",
        part=Part.POLICY,
        scope=Scope.ALL_OR_ONE,
        read=_whole("reserved_memory_mb"),
        expected=f"{_WHOLE_NUMBER}, in MiB",
        toml=(int,),
    ),
    Setting(
        name="domain-0",
        metavar="memory|vcpus|both|none",
        help="What counts of Xen's Domain-0.",
        default='"memory"',
        example='"none"',
        part=Part.POLICY,
        scope=Scope.ALL_OR_ONE,
        read=_domain_0,
        expected=_or(tuple(_DOMAIN_0)),
        choices=tuple(_DOMAIN_0),
    ),
    Setting(
        name="only",
        metavar="PATTERN",
        help="Count only domains whose name matches, as 'web-*'. May be repeated. A pattern that "
        "holds a = is written =PATTERN on the command line.",
        default="all",
        default_is_value=False,
        example='["web-*", "db-*"]',
        part=Part.POLICY,
        scope=Scope.ALL_OR_ONE,
        read=_pattern("include"),
        expected=_SHELL_PATTERN,
        repeatable=True,
    ),
    Setting(
        name="except",
        metavar="PATTERN",
        help="Do not count domains whose name matches, in spite of --only. May be repeated.",
        default="none",
        default_is_value=False,
        example='["build-*"]',
        part=Part.POLICY,
        scope=Scope.ALL_OR_ONE,
        read=_pattern("exclude"),
        expected=_SHELL_PATTERN,
        repeatable=True,
    ),
    Setting(
        name="instances-path",
        metavar="DIR",
        help="The folder that holds the instances, for the disk columns.",
        default="Nova's if it exists, else libvirt's",
        default_is_value=False,
        example='"/var/lib/nova/instances"',
        part=Part.HOST,
        scope=Scope.ALL_OR_ONE,
        read=_instances_path,
        expected="give an absolute path, such as /var/lib/libvirt/images",
    ),
    Setting(
        name="disk",
        metavar="pool|path|none",
        help="Where the disk columns come from: the host's storage pool that holds that folder, "
        "its file system as this machine sees it, or nowhere.",
        default="path if the URI names no host, else pool",
        default_is_value=False,
        example='"pool"',
        part=Part.HOST,
        scope=Scope.ALL_OR_ONE,
        read=_one_of("disk", DiskSource),
        expected="give pool, path or none",
        choices=_values(DiskSource),
    ),
    Setting(
        name="audit-interval",
        metavar="SECONDS",
        help="Time between two audits; 0 for none.",
        default=f"{AUDIT_INTERVAL_SECONDS:g}",
        example="30",
        part=Part.MONITOR,
        read=_seconds(
            "audit_interval_seconds",
            least=_SHORTEST_AUDIT_INTERVAL_SECONDS,
            most=_LONGEST_AUDIT_INTERVAL_SECONDS,
            or_zero=True,
        ),
        expected=f"give seconds from {_SHORTEST_AUDIT_INTERVAL_SECONDS:g} to "
        f"{_LONGEST_AUDIT_INTERVAL_SECONDS:g}, or 0 for none",
        toml=(int, float),
    ),
    Setting(
        name="debounce",
        metavar="SECONDS",
        help="Write once a host has been quiet for this long; 0 for at once.",
        default=f"{QUIET_SECONDS:g}",
        example="0.2",
        part=Part.WRITER,
        read=_seconds("quiet_seconds", least=0, most=_LONGEST_DELAY_SECONDS),
        expected=_DELAY,
        toml=(int, float),
    ),
    Setting(
        name="max-delay",
        metavar="SECONDS",
        help="Write at the latest this long after a change; 0 for at once.",
        default=f"{MAXIMUM_DELAY_SECONDS:g}",
        example="2",
        part=Part.WRITER,
        read=_seconds("maximum_delay_seconds", least=0, most=_LONGEST_DELAY_SECONDS),
        expected=_DELAY,
        toml=(int, float),
    ),
    Setting(
        name="when-fenced",
        metavar="exit|wait",
        help="When another agent has claimed a row: give it up, or stand by until that agent is "
        "gone.",
        default=f'"{WhenFenced.EXIT}"',
        example='"wait"',
        part=Part.WRITER,
        read=_one_of("when_fenced", WhenFenced),
        expected=_or(WhenFenced),
        choices=_values(WhenFenced),
        restarts=True,
    ),
    Setting(
        name="beside-nova",
        help="Write rows that a nova-compute keeps, too. Without it such a host is refused.",
        default="false",
        example="true",
        part=Part.WRITER,
        read=_flag("beside_nova"),
        expected=_YES_OR_NO,
        toml=(bool,),
        flag=True,
        restarts=True,
    ),
    Setting(
        name="foreign-edits",
        metavar="repair|report",
        help="When another program has changed a row: put it right, at most three times an hour, "
        "or only tell.",
        default=f'"{OnForeignEdit.REPAIR}"',
        example='"report"',
        part=Part.WRITER,
        read=_one_of("on_foreign_edit", OnForeignEdit),
        expected=_or(OnForeignEdit),
        choices=_values(OnForeignEdit),
        restarts=True,
    ),
    Setting(
        name="dry-run",
        help="Print the SQL of each flush on standard output; write and claim nothing. The account "
        "needs no more than to read the table, and beside Nova its services.",
        default="false",
        example="true",
        part=Part.WRITER,
        read=_flag("dry_run"),
        expected=_YES_OR_NO,
        toml=(bool,),
        flag=True,
        restarts=True,
    ),
    Setting(
        name="read-write",
        help="Open libvirt read-write. Read-only suffices.",
        default="false",
        example="true",
        part=Part.MONITOR,
        read=_flag("read_write"),
        expected=_YES_OR_NO,
        toml=(bool,),
        flag=True,
    ),
    Setting(
        name="log-level",
        metavar="debug|info|warning|error",
        help="The least level of the lines that are logged.",
        default='"info"',
        example='"debug"',
        part=Part.LOG,
        read=_text_of("level", LEVELS),
        expected=_or(LEVELS),
        choices=LEVELS,
        restarts=True,
    ),
    Setting(
        name="log-format",
        metavar="auto|console|json",
        help="auto: console on a terminal, json elsewhere.",
        default='"auto"',
        example='"json"',
        part=Part.LOG,
        read=_text_of("format", FORMATS),
        expected=_or(FORMATS),
        choices=FORMATS,
        restarts=True,
    ),
)

SETTINGS: Final[Mapping[str, Setting]] = MappingProxyType({one.name: one for one in _ALL})
"""All settings, by name, in the order of the help."""


def default_text(setting: Setting) -> str:
    """What is so where nothing is given, for people."""
    return setting.default.strip('"') if setting.default_is_value else setting.default
