"""The command line's options, made from what ``declared.py`` declares.

Together with the modules of the commands themselves, the only importer of click.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import click
from click.shell_completion import CompletionItem

from asynchost.errors import ConfigurationError
from asynchost.service.config import Loaded, Texts, load
from asynchost.service.config_files import Files, has_files, read_files
from asynchost.service.credentials import DatabaseCredentials, database_credentials
from asynchost.service.declared import (
    CONFIG_VARIABLE,
    SETTINGS,
    USUAL_FOLDER,
    Part,
    Scope,
    Setting,
    default_text,
)
from asynchost.service.mistakes import MistakesError, all_of
from asynchost.service.systemd import is_under_manager

F = TypeVar("F", bound=Callable[..., Any])

json_option: Final = click.option(
    "--json", "as_json", is_flag=True, help="One JSON document instead of text."
)

config_option: Final = click.option(
    "--config",
    "config_place",
    metavar="FILE|FOLDER",
    help="A configuration file, or a folder with asynchost.toml and conf.d/*.toml. /dev/null: "
    f"none. [default: {USUAL_FOLDER}, if it is there; or set {CONFIG_VARIABLE}]",
)


def options(*names: str, **purposes: str) -> Callable[[F], F]:
    """The options of these settings; ``purposes`` are texts instead of a setting's own help."""

    def decorate(function: F) -> F:
        for name in reversed(names):
            setting = SETTINGS[name]
            function = _option(setting, purposes.get(setting.parameter))(function)
        return function

    return decorate


def _option(setting: Setting, purpose: str | None) -> Callable[[F], F]:
    help_text = purpose or f"{setting.help} [default: {default_text(setting)}]"
    if purpose is None and setting.part is Part.DATABASE:
        help_text = setting.help
    if setting.flag:
        return click.option(
            f"{setting.option}/--no-{setting.name}", setting.parameter, default=None, help=help_text
        )
    if setting.scope is Scope.PROCESS and setting.choices:
        return click.option(
            setting.option, setting.parameter, type=click.Choice(setting.choices), help=help_text
        )
    metavar = setting.metavar
    if setting.scope is Scope.ALL_OR_ONE:
        metavar = f"[NAME=]{metavar}"
    return click.option(
        setting.option,
        setting.parameter,
        metavar=metavar,
        multiple=setting.scope is not Scope.PROCESS,
        help=help_text,
        shell_complete=_completing(setting),
    )


def _completing(setting: Setting) -> Callable[..., list[CompletionItem]]:
    """What a shell offers for the value: choices, and ``NAME=`` of the configured hosts."""

    def complete(
        context: click.Context, _: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        head, equals, _value = incomplete.rpartition("=")
        offered = [f"{head}{equals}{choice}" for choice in setting.choices]
        if not equals and setting.scope is not Scope.PROCESS and setting.name != "connect":
            offered += [f"{name}=" for name in _configured_names(context)]
        return _items(offered, incomplete)

    return complete


def complete_host(
    context: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The names of the configured hosts, for a shell."""
    return _items(_configured_names(context), incomplete)


def _configured_names(context: click.Context) -> list[str]:
    return [table.name for table in files_of(context.params.get("config_place")).hosts]


def _items(offered: Sequence[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(one) for one in offered if one.startswith(incomplete)]


HOST_OPTIONS: Final = tuple(one.name for one in SETTINGS.values() if one.scope is Scope.ALL_OR_ONE)
"""What can be said about how a host is counted."""
DATABASE_OPTIONS: Final = tuple(one.name for one in SETTINGS.values() if one.part is Part.DATABASE)
LOG_OPTIONS: Final = tuple(one.name for one in SETTINGS.values() if one.part is Part.LOG)
ALL_OPTIONS: Final = tuple(name for name in SETTINGS if name != "name")


def texts_of(parameters: Mapping[str, Any]) -> Texts:
    """What was given on the command line, from the keywords that click hands over."""
    texts: dict[str, list[str]] = {}
    for setting in SETTINGS.values():
        value = parameters.get(setting.parameter)
        if value is None or value == ():
            continue
        if isinstance(value, bool):
            texts[setting.name] = ["true" if value else "false"]
        else:
            texts[setting.name] = [value] if isinstance(value, str) else list(value)
    return texts


def hang_up_reloads(place: str | None) -> bool:
    """Whether SIGHUP asks for a reload: there is a file that can be read again, or a service
    manager has started the process. On a terminal without a file it asks for the end."""
    if has_files(_place(place)):
        return True
    return is_under_manager(os.environ) and not (sys.stdin.isatty() or sys.stderr.isatty())


def config_in(arguments: Sequence[str]) -> str | None:
    """The ``--config`` of a command line that may be wrong in any other way."""
    for option, value in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, joined = option.partition("=")
        if name == "--config":
            return joined if equals else value
    return None


def _place(place: str | None) -> str | None:
    return place if place is not None else os.environ.get(CONFIG_VARIABLE) or None


def files_of(place: str | None) -> Files:
    """The configuration files: those of ``--config``, else of the environment, else the usual."""
    return read_files(_place(place))


def loaded(parameters: Mapping[str, Any], files: Files) -> Loaded:
    """All sources put together. Raises :class:`ConfigurationError`."""
    return load(texts_of(parameters), os.environ, files)


def names_database(parameters: Mapping[str, Any], files: Files) -> bool:
    """Whether any source says where the database is, or how to get in."""
    options_given = any(parameters.get(SETTINGS[name].parameter) for name in DATABASE_OPTIONS)
    variables_given = any(os.environ.get(SETTINGS[name].variable) for name in DATABASE_OPTIONS)
    return options_given or variables_given or "database" in files.of_all


def credentials_of(parameters: Mapping[str, Any], files: Files) -> DatabaseCredentials:
    """The database and the way in. Raises :class:`ConfigurationError`."""
    return database_credentials(
        parameters.get("database"),
        parameters.get("database_password_file"),
        os.environ,
        files.of_all,
    )


def everything(parameters: Mapping[str, Any], files: Files) -> tuple[Loaded, DatabaseCredentials]:
    """What to do, and the way into the database. Raises :class:`ConfigurationError`, with the
    mistakes of both."""
    mistakes: list[ConfigurationError] = []
    found: Loaded | None = None
    credentials: DatabaseCredentials | None = None
    try:
        found = loaded(parameters, files)
    except ConfigurationError as error:
        mistakes += all_of(error)
    try:
        credentials = credentials_of(parameters, files)
    except ConfigurationError as error:
        mistakes += all_of(error)
    MistakesError.raise_for(mistakes)
    assert found is not None and credentials is not None  # noqa: S101, PT018 - no mistakes
    return found, credentials
