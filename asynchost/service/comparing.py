"""Puts a host's three sides together: recounted now, as its daemon knows it, as the row says.

May live here: whom to ask, and how often. Must not: what is the same, which is
``difference.py``'s. Memory: three rows and one account for each domain of each host.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from asynchost.database.checkup import read_rows
from asynchost.errors import AmbiguousRowError, AsynchostError, UnavailableError
from asynchost.hypervisor.uri import is_in_process
from asynchost.service.accounts import Account, from_daemons, look
from asynchost.service.config import HostConfig
from asynchost.service.credentials import DatabaseCredentials
from asynchost.service.difference import Comparison
from asynchost.service.exits import with_options
from asynchost.settings import MonitorSettings

_LOOKS: Final = 3
_BETWEEN_LOOKS_SECONDS: Final = 1.0
"""More than a row is behind by default, so that a busy host's three sides can meet."""
_AT_ONCE: Final = 8
"""Hosts: each takes connections, threads and a listing."""

Found = tuple[Comparison, frozenset[str]]
"""A host's sides, and the columns on which they differed at every look."""


async def compare(
    hosts: Sequence[tuple[HostConfig, MonitorSettings]],
    credentials: DatabaseCredentials | None,
    environment: Mapping[str, str],
) -> list[Found]:
    """Look at each host up to three times, until its sides agree.

    A host that a daemon watches is recounted as that daemon was told, but for what was asked for
    otherwise. What cannot be had of one host is its comparison's problem, and keeps nobody from
    the others. Raises :class:`~asynchost.errors.DatabaseRefusedError`.
    """
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def one(host: HostConfig, settings: MonitorSettings) -> Found:
        async with at_once:
            return await _compare_host(host, settings, credentials, environment)

    return await asyncio.gather(*(one(*host) for host in hosts))


async def _compare_host(
    host: HostConfig,
    settings: MonitorSettings,
    credentials: DatabaseCredentials | None,
    environment: Mapping[str, str],
) -> Found:
    comparison = await _look_at(host, settings, credentials, environment)
    differing = comparison.differing()
    for _ in range(_LOOKS - 1):
        if not differing:
            break
        await asyncio.sleep(_BETWEEN_LOOKS_SECONDS)
        comparison = await _look_at(host, settings, credentials, environment)
        differing &= comparison.differing()
    return comparison, differing


async def _look_at(
    host: HostConfig,
    settings: MonitorSettings,
    credentials: DatabaseCredentials | None,
    environment: Mapping[str, str],
) -> Comparison:
    told = await from_daemons(host.uri, environment)
    watching = [one for one in told.accounts if host.name in (None, one.host, one.name)]
    called = host.name or host.uri
    # One host can be watched under two names; of two daemons of one name, one stands by.
    daemon = max(
        watching,
        key=lambda account: (account.host == called, account.row_id is not None),
        default=None,
    )
    if daemon is not None:
        host, settings = _as_told(host, daemon), daemon.settings
    problems: dict[str, str] = {}
    recount = await _recount(host, settings, daemon, problems)
    comparison = Comparison(
        recount,
        daemon,
        asked_database=credentials is not None,
        host=called if daemon is None else daemon.host,
        problems=problems,
    )
    # The daemon's first: a name that the host took later is not followed.
    known = (one.name for one in (daemon, recount) if one is not None)
    name = next((name for name in known if name is not None), host.name)
    if credentials is None:
        return comparison
    if name is None:
        problems["row"] = "what the host is called there was not known to anybody yet"
        return comparison
    try:
        rows = await read_rows(
            credentials.url, {name: host.service_id}, password=credentials.password
        )
    except (UnavailableError, AmbiguousRowError) as error:
        problems["row"] = with_options(error)
        return comparison
    row = rows[name]
    return comparison if row is None else replace(comparison, row_id=row.row_id, row=row.values)


def _as_told(host: HostConfig, daemon: Account) -> HostConfig:
    """The host as its daemon was told of it, but for what was asked for otherwise."""
    asked = {field: getattr(host.policy, field) for field in host.policy_given}
    return replace(
        daemon.config,
        service_id=daemon.service_id if host.service_id is None else host.service_id,
        policy=replace(daemon.settings.policy, **asked),
        disk=host.disk,
        instances_path=host.instances_path,
    )


async def _recount(
    host: HostConfig,
    settings: MonitorSettings,
    daemon: Account | None,
    problems: dict[str, str],
) -> Account | None:
    """None where it cannot be had: with a problem, unless the host is in its daemon's process."""
    if daemon is not None and is_in_process(host.uri):
        return None
    if daemon is not None and not daemon.may_be_looked_at:
        problems["recount"] = (
            "what another user's daemon opens is not opened here: "
            f"{daemon.as_its_user} asynchost diff"
        )
        return None
    try:
        return await look(host, settings, with_disks=True)
    except AsynchostError as error:
        problems["recount"] = error.message
        return None
