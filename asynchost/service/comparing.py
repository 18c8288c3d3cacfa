"""Puts a host's three sides together: recounted now, as its daemon knows it, as the row says.

May live here: whom to ask, and how often. Must not: what is the same, which is
``difference.py``'s. Memory: three rows and one account for each domain of each host.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from asynchost.accounting import DEFAULT_POLICY
from asynchost.database.checkup import read_rows
from asynchost.hypervisor.uri import is_in_process
from asynchost.service.accounts import from_daemons, look
from asynchost.service.config import HostConfig
from asynchost.service.credentials import DatabaseCredentials
from asynchost.service.difference import Comparison
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

    A host that a daemon watches is recounted as that daemon counts, unless its policy says
    otherwise. Raises what :func:`~asynchost.service.accounts.look` and
    :func:`~asynchost.database.checkup.read_rows` raise.
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
    # Of two, one stands by.
    daemon = max(watching, key=lambda account: account.row_id is not None, default=None)
    if daemon is not None and host.policy == DEFAULT_POLICY:
        host, settings = daemon.config, daemon.settings
    recount = None
    if daemon is None or not is_in_process(host.uri):
        recount = await look(host, settings)
    if credentials is None:
        return Comparison(recount, daemon)
    account = recount or daemon
    name = None if account is None else account.name
    if name is None:  # the daemon has not been connected yet
        return Comparison(recount, daemon, asked_database=True)
    rows = await read_rows(credentials.url, {name: host.service_id}, password=credentials.password)
    row = rows[name]
    if row is None:
        return Comparison(recount, daemon, asked_database=True)
    return Comparison(recount, daemon, row.row_id, row.values, asked_database=True)
