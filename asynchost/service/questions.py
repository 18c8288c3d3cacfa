"""The commands that ask and change nothing: explain, diff, doctor.

May live here: whom each asks, in which order, and with which status it ends. Must not: what the
answers look like.
"""

import asyncio
import json
import os
import sys
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import click

from asynchost import quiet_libvirt
from asynchost.errors import AsynchostError, ConfigurationError
from asynchost.hypervisor.uri import is_in_process
from asynchost.service import config
from asynchost.service.accounts import Account, Told, from_daemons, look, nobody, plain
from asynchost.service.comparing import Found, compare
from asynchost.service.credentials import (
    URL_VARIABLE,
    DatabaseCredentials,
    database_credentials,
)
from asynchost.service.difference import compared
from asynchost.service.doctor import Finding, Health, examine
from asynchost.service.exits import ExitStatus, with_options
from asynchost.service.explained import explained
from asynchost.service.logs import configure_logs
from asynchost.service.options import (
    connect_option,
    database_options,
    disk_options,
    json_option,
    policy_options,
    service_id_option,
)
from asynchost.service.policies import by_option
from asynchost.service.terminal import escape
from asynchost.settings import MonitorSettings

T = TypeVar("T")

USUAL_URI: Final = "qemu:///system"


class Asked(NamedTuple):
    """Which hosts a command is about."""

    host: str | None
    """What the wanted one is called; None for all."""
    configs: Sequence[config.HostConfig]
    """Those to be looked at; none: those of the daemons that run here."""
    settings: MonitorSettings


@click.command()
@click.argument("host", required=False)
@connect_option(
    "Look at this host now, by a connection of this command's own. May be repeated. "
    "[default: ask the daemons that run here]"
)
@policy_options
@disk_options
@json_option
def explain(
    *,
    host: str | None,
    connects: tuple[str, ...],
    instances_paths: tuple[str, ...],
    disks: tuple[str, ...],
    as_json: bool,
    **policies: tuple[str, ...],
) -> ExitStatus:
    """Say where a host's totals come from, domain by domain.

    HOST is a name or URI as the daemon knows it. [default: all hosts]
    """
    asked = _asked(host, connects, policies, disks, instances_paths)
    accounts, problems = _run(_accounts(asked))
    _warn(problems)
    if as_json:
        _print_json(accounts)
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
@click.argument("host", required=False)
@connect_option("Compare this host. May be repeated. [default: those of the daemons that run here]")
@database_options
@service_id_option
@policy_options
@disk_options
@json_option
def diff(
    *,
    host: str | None,
    connects: tuple[str, ...],
    database: str | None,
    database_password_file: str | None,
    service_ids: tuple[str, ...],
    instances_paths: tuple[str, ...],
    disks: tuple[str, ...],
    as_json: bool,
    **policies: tuple[str, ...],
) -> ExitStatus:
    """Compare a fresh recount, the daemon's totals and the row in the database.

    A column differs if it does so three times in three seconds. Exit status 1 if one differs, 2 if
    a side cannot be had. HOST is a name or URI as the daemon knows it. [default: all hosts]
    """
    asked = _asked(host, connects, policies, disks, instances_paths, service_ids=service_ids)
    found = _run(_compare(asked, _credentials(database, database_password_file)))
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
@connect_option(
    "A host to look at. May be repeated. "
    f"[default: those of the daemons that run here, else {USUAL_URI}]"
)
@database_options
@click.option(
    "--probe",
    is_flag=True,
    help="Also start a domain of libvirt's test driver, inside this process, and time its event.",
)
@json_option
def doctor(
    *,
    connects: tuple[str, ...],
    database: str | None,
    database_password_file: str | None,
    probe: bool,
    as_json: bool,
) -> ExitStatus:
    """Look at everything that the work takes: each thing is ok, or comes with what mends it.

    It starts nothing and writes nothing. Exit status 2 if something must be mended.
    """
    configs = config.parse_hosts(connects) if connects else ()
    credentials = _credentials(database, database_password_file)
    # libvirt would start a daemon for a session that has none.
    os.environ["LIBVIRT_AUTOSTART"] = "0"
    findings = _run(_examine(configs, credentials, probe=probe, told_at_once=not as_json))
    if as_json:
        _print_json(findings)
    must_mend = any(finding.health is Health.MEND for finding in findings)
    return ExitStatus.MUST_MEND if must_mend else ExitStatus.OK


async def _examine(
    configs: Sequence[config.HostConfig],
    credentials: DatabaseCredentials | None,
    *,
    probe: bool,
    told_at_once: bool,
) -> list[Finding]:
    told = await from_daemons(None, os.environ)
    watched = tuple(
        {
            account.uri: account.config
            for account in told.accounts
            if account.may_be_looked_at and not is_in_process(account.uri)
        }.values()
    )
    usual = () if told.accounts else (config.HostConfig(USUAL_URI),)
    hosts = configs or watched or usual
    findings = []
    async for finding in examine(hosts, MonitorSettings(), credentials, told, probe=probe):
        findings.append(finding)
        if told_at_once:
            _print_lines(finding.lines())
    return findings


def _asked(
    host: str | None,
    connects: Sequence[str],
    policies: Mapping[str, Sequence[str]],
    disks: Sequence[str],
    instances_paths: Sequence[str],
    *,
    service_ids: Sequence[str] = (),
) -> Asked:
    """Raises :class:`ConfigurationError` for options that would have no effect."""
    options = by_option(policies)
    if connects:
        configs = config.parse_hosts(connects, service_ids, options, disks, instances_paths)
        return Asked(host, configs, MonitorSettings())
    further = {
        "--service-id": service_ids,
        "--disk": disks,
        "--instances-path": instances_paths,
    }
    given = [option for option, values in {**options, **further}.items() if values]
    if given:
        raise ConfigurationError(
            f"{given[0]} goes with --connect: a daemon's hosts are counted as the daemon was told"
        )
    return Asked(host, (), MonitorSettings())


def _meant(asked: Asked) -> list[config.HostConfig]:
    """Of the hosts that were given, those that are called so."""
    if asked.host is None:
        return list(asked.configs)
    meant = [one for one in asked.configs if asked.host in (one.name, one.uri)]
    if asked.configs and not meant:
        names = [one.name or one.uri for one in asked.configs]
        raise nobody(asked.host, Told([], names, []))
    return meant


def _credentials(
    database: str | None, database_password_file: str | None
) -> DatabaseCredentials | None:
    """None where no database was named: what can be told without one is told."""
    if not (database or database_password_file or os.environ.get(URL_VARIABLE)):
        return None
    return database_credentials(database, database_password_file, os.environ)


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
