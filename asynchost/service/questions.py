"""The commands that ask and change nothing: explain, diff, doctor.

May live here: whom each asks, in which order, and with which status it ends. Must not: what the
answers look like.
"""

import asyncio
import json
import os
import sys
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, TypeVar

import click

from asynchost import quiet_libvirt
from asynchost.errors import AsynchostError, ConfigurationError
from asynchost.hypervisor.uri import is_in_process
from asynchost.masking import masked_uri
from asynchost.service.accounts import Account, Told, from_daemons, look, nobody, plain
from asynchost.service.comparing import Found, compare
from asynchost.service.config import HostConfig, from_environment, load
from asynchost.service.config_files import Files
from asynchost.service.credentials import DatabaseCredentials
from asynchost.service.declared import SETTINGS, Scope
from asynchost.service.difference import compared
from asynchost.service.doctor import Finding, Health, configuration, examine
from asynchost.service.exits import ExitStatus, with_options
from asynchost.service.explained import explained
from asynchost.service.live import ask_status
from asynchost.service.logs import configure_logs
from asynchost.service.mistakes import all_of
from asynchost.service.options import (
    DATABASE_OPTIONS,
    HOST_OPTIONS,
    complete_host,
    config_option,
    credentials_of,
    files_of,
    json_option,
    names_database,
    options,
    texts_of,
)
from asynchost.service.terminal import escape
from asynchost.settings import MonitorSettings

T = TypeVar("T")

USUAL_URI: Final = "qemu:///system"
_PROMPT_SECONDS: Final = 10.0
"""A daemon that answers from memory and takes longer is at fault."""


class Asked(NamedTuple):
    """Which hosts a command is about."""

    host: str | None
    """What the wanted one is called; None for all."""
    configs: Sequence[HostConfig]
    """Those to be looked at; none: those of the daemons that run here."""
    settings: MonitorSettings


@click.command()
@click.argument("host", required=False, shell_complete=complete_host)
@options(
    "connect",
    *HOST_OPTIONS,
    connect="Look at this host now, by a connection of this command's own. May be repeated. "
    "[default: ask the daemons that run here]",
)
@json_option
def explain(*, host: str | None, as_json: bool, **parameters: Any) -> ExitStatus:
    """Say where a host's totals come from, domain by domain.

    HOST is a name or URI as the daemon knows it. [default: all hosts]
    """
    asked = _asked(host, parameters)
    accounts, problems = _run(_accounts(asked))
    _warn(problems)
    if as_json:
        _print_json([replace(one, uri=masked_uri(one.uri)) for one in accounts])
    else:
        for number, account in enumerate(accounts):
            _print_lines(explained(account), apart=number > 0)
    return ExitStatus.MUST_MEND if asked.configs and problems else ExitStatus.OK


async def _accounts(asked: Asked) -> tuple[list[Account], list[str]]:
    """The accounts that there are, and why others cannot be had."""
    if not asked.configs:
        told = await _told(asked)
        return told.accounts, told.problems
    looks = [look(one, asked.settings) for one in _meant(asked)]
    accounts: list[Account] = []
    errors: list[AsynchostError] = []
    for found in await asyncio.gather(*looks, return_exceptions=True):
        if isinstance(found, AsynchostError):
            errors.append(found)
        elif isinstance(found, BaseException):
            raise found
        else:
            accounts.append(found)
    if errors and not accounts:
        raise errors[0]
    return accounts, [with_options(error) for error in errors]


async def _told(asked: Asked) -> Told:
    """What the daemons say. Raises :class:`ConfigurationError` where none says anything."""
    told = await from_daemons(asked.host, os.environ)
    if not told.accounts:
        raise nobody(asked.host, told)
    return told


@click.command()
@click.argument("host", required=False, shell_complete=complete_host)
@config_option
@options(
    "connect",
    *DATABASE_OPTIONS,
    "service-id",
    *HOST_OPTIONS,
    connect="Compare this host. May be repeated. [default: those of the daemons that run here]",
)
@json_option
def diff(
    *, host: str | None, config_place: str | None, as_json: bool, **parameters: Any
) -> ExitStatus:
    """Compare a fresh recount, the daemon's totals and the row in the database.

    A column differs if it does so three times in three seconds. Exit status 1 if one differs, 2 if
    a side cannot be had. HOST is a name or URI as the daemon knows it. [default: all hosts]
    """
    asked = _asked(host, parameters)
    found = _run(_compare(asked, _credentials(parameters, files_of(config_place))))
    if as_json:
        _print_json(
            [
                {
                    "host": comparison.host,
                    "sides": comparison.sides,
                    "differing": sorted(differing),
                    "problems": comparison.problems,
                }
                for comparison, differing in found
            ]
        )
    else:
        for number, (comparison, differing) in enumerate(found):
            _print_lines(compared(comparison, differing), apart=number > 0)
    if any(comparison.problems or len(comparison.sides) < 2 for comparison, _ in found):
        return ExitStatus.MUST_MEND
    return ExitStatus.FAULT if any(differing for _, differing in found) else ExitStatus.OK


async def _compare(asked: Asked, credentials: DatabaseCredentials | None) -> list[Found]:
    hosts = [(one, asked.settings) for one in _meant(asked)]
    if not asked.configs:
        told = await _told(asked)
        _warn(told.problems)
        # A host that two daemons watch, one of which stands by, is one host.
        known = {(account.uri, account.host): account for account in told.accounts}
        hosts = [(account.config, account.settings) for account in known.values()]
    return await compare(hosts, credentials, os.environ)


@click.command()
@config_option
@options(
    "connect",
    *DATABASE_OPTIONS,
    connect="A host to look at. May be repeated. [default: those of the daemons that run here, "
    f"else those of the configuration, else {USUAL_URI}]",
)
@click.option(
    "--probe",
    is_flag=True,
    help="Also start a domain of libvirt's test driver, inside this process, and time its event.",
)
@json_option
def doctor(
    *, config_place: str | None, probe: bool, as_json: bool, **parameters: Any
) -> ExitStatus:
    """Look at everything that the work takes: each thing is ok, or comes with what mends it.

    It starts nothing and writes nothing. Exit status 2 if something must be mended.
    """
    files = files_of(config_place)
    configured = _configured(files)
    given = load({"connect": parameters["connect"]}).run.hosts if parameters["connect"] else ()
    try:
        credentials = _credentials(parameters, files)
    except ConfigurationError as error:
        if not _is_of_files(error, files):
            raise
        configured.mistakes.append(error)
        credentials = None
    # libvirt would start a daemon for a session that has none.
    os.environ["LIBVIRT_AUTOSTART"] = "0"
    findings = _run(_examine(given, configured, credentials, probe=probe, told_at_once=not as_json))
    if as_json:
        _print_json(findings)
    must_mend = any(finding.health is Health.MEND for finding in findings)
    return ExitStatus.MUST_MEND if must_mend else ExitStatus.OK


class Configured(NamedTuple):
    """What the configuration files and the environment say."""

    files: Sequence[str]
    """Those that were read."""
    hosts: Sequence[HostConfig]
    mistakes: list[ConfigurationError]


def _configured(files: Files) -> Configured:
    if not files.paths and not files.mistakes and not from_environment(os.environ).get("connect"):
        return Configured((), (), [])
    paths = [str(path) for path in files.paths]
    try:
        return Configured(paths, load({}, os.environ, files, hosts_needed=False).run.hosts, [])
    except ConfigurationError as error:
        return Configured(paths, (), list(all_of(error)))


def _is_of_files(error: ConfigurationError, files: Files) -> bool:
    """Whether it is a file that has to be mended."""
    return any(error.message.startswith(f"{path}:") for path in files.paths)


async def _examine(
    given: Sequence[HostConfig],
    configured: Configured,
    credentials: DatabaseCredentials | None,
    *,
    probe: bool,
    told_at_once: bool,
) -> list[Finding]:
    told = await from_daemons(None, os.environ, seconds=_PROMPT_SECONDS, explain=False)
    if told.accounts:
        daemons, problems, _ = await ask_status(_PROMPT_SECONDS)
        told = told._replace(statuses=daemons, problems=[*told.problems, *problems])
    watched = tuple(
        {
            account.uri: account.config
            for account in told.accounts
            if account.may_be_looked_at and not is_in_process(account.uri)
        }.values()
    )
    usual = () if told.accounts else (HostConfig(USUAL_URI),)
    hosts = given or watched or configured.hosts or usual
    findings = []
    for finding in configuration(configured.files, len(configured.hosts), configured.mistakes):
        findings.append(finding)
        if told_at_once:
            _print_lines(finding.lines())
    async for finding in examine(hosts, MonitorSettings(), credentials, told, probe=probe):
        findings.append(finding)
        if told_at_once:
            _print_lines(finding.lines())
    return findings


def _asked(host: str | None, parameters: Mapping[str, Any]) -> Asked:
    """Raises :class:`ConfigurationError` for options that would have no effect."""
    given = {
        name: texts
        for name, texts in texts_of(parameters).items()
        if SETTINGS[name].scope is not Scope.PROCESS
    }
    if "connect" in given:
        return Asked(host, load(given).run.hosts, MonitorSettings())
    if given:
        option = SETTINGS[next(iter(given))].option
        raise ConfigurationError(
            f"{option} goes with --connect: a daemon's hosts are counted as the daemon was told"
        )
    return Asked(host, (), MonitorSettings())


def _meant(asked: Asked) -> list[HostConfig]:
    """Of the hosts that were given, those that are called so."""
    if asked.host is None:
        return list(asked.configs)
    meant = [one for one in asked.configs if asked.host in (one.name, one.uri)]
    if asked.configs and not meant:
        names = [one.called for one in asked.configs]
        raise nobody(asked.host, Told([], names, []))
    return meant


def _credentials(parameters: Mapping[str, Any], files: Files) -> DatabaseCredentials | None:
    """None where no database was named: what can be told without one is told."""
    return credentials_of(parameters, files) if names_database(parameters, files) else None


def _run(work: Coroutine[Any, Any, T]) -> T:
    """With the answer on standard output, and only warnings of the work itself beside it."""
    quiet_libvirt()
    configure_logs("error", "console")
    return asyncio.run(work)


def _warn(problems: Iterable[str]) -> None:
    for problem in problems:
        click.echo(f"asynchost: {escape(problem)}", err=True)


def _print_lines(lines: Iterable[str], *, apart: bool = False) -> None:
    if apart:
        click.echo()
    for line in lines:
        # Once more, whatever a daemon may have said: what is plain stays as it is.
        click.echo(escape(line))


def _print_json(value: Any) -> None:
    json.dump(plain(value), sys.stdout, indent=2)
    click.echo()
