"""The options that several commands share, named and explained.

Together with the modules of the commands themselves, the only importer of click. What the
options mean is decided in ``config.py``, ``policies.py`` and ``credentials.py``.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final, TypeVar

import click

from asynchost.service.credentials import CREDENTIAL, PASSWORD_VARIABLE, URL_VARIABLE
from asynchost.service.logs import FORMATS, LEVELS
from asynchost.service.policies import POLICY_OPTIONS

F = TypeVar("F", bound=Callable[..., Any])

service_id_option: Final = click.option(
    "--service-id",
    "service_ids",
    metavar="[NAME=]N",
    multiple=True,
    help="The service_id of the host's row. With several hosts: NAME=N, for the host connected "
    "as NAME=URI. [default: the one that the row has; where there is no row, that of the host's "
    "nova-compute in Nova's table services, else 0]",
)
json_option: Final = click.option(
    "--json", "as_json", is_flag=True, help="One JSON document instead of text."
)


def connect_option(purpose: str) -> Callable[[F], F]:
    """``--connect``, with what it is good for in this command."""
    return click.option("--connect", "connects", metavar="[NAME=]URI", multiple=True, help=purpose)


def database_options(function: F) -> F:
    """``--database`` and ``--database-password-file``."""
    function = click.option(
        "--database-password-file",
        metavar="FILE",
        help=f"A file that holds the database password and nothing else. "
        f"[or the systemd credential {CREDENTIAL}, or set {PASSWORD_VARIABLE}]",
    )(function)
    return click.option(
        "--database",
        metavar="URL",
        help="mysql://user@host:port/db, with several servers as host1,host2:port, or "
        "mysql://user@localhost/db?unix_socket=/path, without a password. "
        "With ?ssl_ca=FILE or ?ssl_mode=… it is TLS or nothing. "
        f"[or set {URL_VARIABLE}; there it may hold one]",
    )(function)


def choice(choices: type[StrEnum]) -> click.Choice[str]:
    """One of the values; click would take the names of an enumeration."""
    return click.Choice([choice.value for choice in choices])


def policy_options(function: F) -> F:
    """What counts; with a NAME, on the host that is connected as NAME=URI."""
    for name, option in reversed(POLICY_OPTIONS.items()):
        metavar = f"[NAME=]{option.metavar}"
        function = click.option(name, metavar=metavar, multiple=True, help=option.help)(function)
    return function


def disk_options(function: F) -> F:
    """``--instances-path`` and ``--disk``."""
    function = click.option(
        "--disk",
        "disks",
        metavar="[NAME=]pool|path|none",
        multiple=True,
        help="Where the disk columns come from: the host's storage pool that holds that folder, "
        "its file system as this machine sees it, or nowhere. [default: path if the URI names no "
        "host, else pool]",
    )(function)
    return click.option(
        "--instances-path",
        "instances_paths",
        metavar="[NAME=]DIR",
        multiple=True,
        help="The folder that holds the instances, for the disk columns. "
        "[default: Nova's if it exists, else libvirt's]",
    )(function)


def log_options(function: F) -> F:
    """``--log-level`` and ``--log-format``."""
    function = click.option(
        "--log-format",
        type=click.Choice(FORMATS),
        default="auto",
        show_default=True,
        help="auto: console on a terminal, json elsewhere.",
    )(function)
    return click.option(
        "--log-level", type=click.Choice(LEVELS), default="info", show_default=True
    )(function)
