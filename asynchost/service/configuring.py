"""The commands about the configuration itself: check, show, example.

May live here: how a configuration looks to people and to programs. Must not: what it means.
"""

import json
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import click

from asynchost.errors import ConfigurationError
from asynchost.masking import masked, masked_uri
from asynchost.service.config import Loaded
from asynchost.service.declared import NAME, SETTINGS, USUAL_FOLDER, Scope, Setting, default_text
from asynchost.service.exits import ExitStatus
from asynchost.service.mistakes import Given, all_of
from asynchost.service.options import ALL_OPTIONS, config_option, everything, files_of, json_option
from asynchost.service.options import options as setting_options
from asynchost.service.terminal import escape

_WIDTH: Final = 78
_DEFAULT: Final = "default"


@click.group()
def config() -> None:
    """Check, show or begin a configuration."""


@config.command()
@config_option
@setting_options(*ALL_OPTIONS)
def check(*, config_place: str | None, **parameters: Any) -> ExitStatus:
    """Say whether `asynchost run` with these options would find its configuration right.

    Nothing is opened and nobody is asked. Each mistake is one line, with file, line, key, value and
    what is allowed. Exit status 2 if there is one.
    """
    files = files_of(config_place)
    try:
        found, _ = everything(parameters, files)
    except ConfigurationError as error:
        for mistake in all_of(error):
            click.echo(escape(mistake.message))
        return ExitStatus.MUST_MEND
    count = len(found.run.hosts)
    read = ", ".join(map(str, files.paths)) or "no file"
    click.echo(escape(f"ok: {count} {'host' if count == 1 else 'hosts'}; read: {read}"))
    return ExitStatus.OK


@config.command()
@config_option
@setting_options(*ALL_OPTIONS)
@json_option
def show(*, config_place: str | None, as_json: bool, **parameters: Any) -> ExitStatus:
    """Show what `asynchost run` with these options would do, and where each value comes from.

    Passwords are shown as ***. The output can be read as a configuration file.
    """
    found, _ = everything(parameters, files_of(config_place))
    if as_json:
        json.dump(_as_json(found), sys.stdout, indent=2)
        click.echo()
        return ExitStatus.OK
    for line in _as_toml(found):
        click.echo(line)
    return ExitStatus.OK


@config.command()
def example() -> ExitStatus:
    """Print a configuration file with everything that can be set, as a comment."""
    click.echo(example_text(), nl=False)
    return ExitStatus.OK


def example_text() -> str:
    """A configuration file in which every setting is explained, and none is set."""
    lines = [
        f"# The configuration of asynchost: {USUAL_FOLDER}/asynchost.toml",
        "#",
        f"# Files in {USUAL_FOLDER}/conf.d, named *.toml, are read after this one in the order of",
        "# their names; a later value takes the place of an earlier one, and hosts add up.",
        "# Environment variables outrank files, options of the command line outrank both.",
        "# To check: asynchost config check. To see what is in force: asynchost config show.",
        "# What is set below the first [[host]] belongs to that host.",
        "",
    ]
    for setting in _for_process():
        lines += [*_explained(setting), f"#{setting.name} = {setting.example}", ""]
    lines += [
        "# One [[host]] for each host. Its name and its URI are obligatory; what else it says",
        "# takes the place of what is said above for all hosts.",
        "#[[host]]",
    ]
    for setting in (NAME, *_for_hosts()):
        if setting.scope is Scope.ONE:
            lines += [*_explained(setting), f"#{setting.name} = {setting.example}", ""]
    kept = [one.name for one in _for_hosts() if one.scope is Scope.ALL_OR_ONE]
    lines += _comment(f"A host can also have its own: {', '.join(kept)}.")
    return "\n".join(lines) + "\n"


def _explained(setting: Setting) -> list[str]:
    note = "" if setting.name in ("name", "connect") else f" Default: {default_text(setting)}."
    return _comment(f"{_for_files(setting)}{note}")


def _for_files(setting: Setting) -> str:
    """The help, without what is true of the command line only."""
    text = re.sub(r" \[or .*?\]", "", setting.help)
    for of_command_line in (
        " May be repeated.",
        " NAME is written as hypervisor_hostname instead of what libvirt reports.",
        " A pattern that holds a = is written =PATTERN on the command line.",
        " With several hosts: NAME=N, for the host connected as NAME=URI.",
        "; on the command line the name stands before the URI",
    ):
        text = text.replace(of_command_line, "")
    return text


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH, break_on_hyphens=False)]


def _for_process() -> list[Setting]:
    return [one for one in SETTINGS.values() if one.scope is not Scope.ONE]


def _for_hosts() -> list[Setting]:
    return [one for one in SETTINGS.values() if one.scope is not Scope.PROCESS and one is not NAME]


def _as_toml(found: Loaded) -> Iterator[str]:
    """Everything that is in force, in an order that a file can have."""
    for setting in SETTINGS.values():
        if setting.scope is Scope.PROCESS:
            yield from _line(setting, found.origins.of_all.get(setting.name, ()))
    for given in found.origins.of_hosts:
        yield ""
        yield "[[host]]"
        for setting in (NAME, *_for_hosts()):
            yield from _line(setting, given.get(setting.name, ()))


def _line(setting: Setting, given: Sequence[Given]) -> Iterator[str]:
    if given:
        where = ", ".join(dict.fromkeys(escape(_place(one.where)) for one in given))
        yield f"{setting.name} = {_value(setting, given)}  # {where}"
    elif setting.default_is_value:
        yield f"{setting.name} = {setting.default}  # {_DEFAULT}"
    elif setting.name == "database":
        yield "# database: see the environment and the options"
    else:
        yield f"# {setting.name}: {setting.default}  # {_DEFAULT}"


def _place(where: str) -> str:
    """File and line without the key, which stands there already."""
    place, colon, _ = where.rpartition(": ")
    return place if colon else where


def _plain(setting: Setting, given: Sequence[Given]) -> Any:
    values = [_shown(setting, one.text) for one in given]
    many = setting.repeatable and setting.name != "connect"
    return values if many else values[-1]


def _shown(setting: Setting, value: object) -> object:
    """A value without passwords, and of the type that it has in a file."""
    if setting.flag:
        return str(value).lower() in ("true", "yes", "1")
    if not isinstance(value, str):
        return value
    if setting.name == "connect":
        return masked_uri(value)
    if setting.name == "database":
        return masked(value)
    if int in setting.toml:
        number = float(value)
        return int(number) if number.is_integer() else number
    return value


def _value(setting: Setting, given: Sequence[Given]) -> str:
    plain = _plain(setting, given)
    if isinstance(plain, list):
        return f"[{', '.join(map(_toml, plain))}]"
    return _toml(plain)


def _toml(value: object) -> str:
    """One value as TOML writes it; nothing in it is more than printable."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        inside = "".join(
            f"\\{one}" if one in '"\\' else one if one.isprintable() else f"\\U{ord(one):08X}"
            for one in value
        )
        return f'"{inside}"'
    return str(value)


def _as_json(found: Loaded) -> Mapping[str, Any]:
    def one(setting: Setting, given: Sequence[Given]) -> Mapping[str, Any]:
        if given:
            origin = [_place(value.where) for value in given]
            return {"value": _plain(setting, given), "origin": list(dict.fromkeys(origin))}
        value = json.loads(setting.default) if setting.default_is_value else None
        return {"value": value, "origin": [_DEFAULT]}

    of_all = found.origins.of_all
    return {
        **{
            setting.name: one(setting, of_all.get(setting.name, ()))
            for setting in SETTINGS.values()
            if setting.scope is Scope.PROCESS
        },
        "host": [
            {
                setting.name: one(setting, given.get(setting.name, ()))
                for setting in (NAME, *_for_hosts())
            }
            for given in found.origins.of_hosts
        ],
    }
