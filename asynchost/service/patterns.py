"""Patterns of ``--only`` that match no domain: most likely a slip, by which nothing is counted.

May live here: looking once at each host whose domains are chosen by name. Must not: what counts.
Memory: one entry for each host that was looked at.
"""

import asyncio
from collections.abc import MutableMapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

import structlog

from asynchost import HostMonitor
from asynchost.errors import AsynchostError
from asynchost.service.accounts import Watched

_log = structlog.get_logger("asynchost.service")

_LOOK_SECONDS: Final = 1.0


async def find_unmatched(
    hosts: Sequence[Watched], unmatched: MutableMapping[str, list[str]]
) -> None:
    """Warn, once a host is ready, of each pattern that matches no domain of a host that has some.

    Fills ``unmatched`` by the host's name. Runs for ever, because hosts come and go.
    """
    looked_at: set[HostMonitor] = set()
    while True:
        looked_at &= {one.monitor for one in hosts}
        for name in unmatched.keys() - {one.config.called for one in hosts}:
            del unmatched[name]
        for one in list(hosts):
            chosen = one.settings.policy.include
            if chosen and one.monitor not in looked_at and one.monitor.snapshot().fresh:
                looked_at.add(one.monitor)
                unmatched[one.config.called] = await _unmatched(one)
        await asyncio.sleep(_LOOK_SECONDS)


async def _unmatched(watched: Watched) -> list[str]:
    try:
        explanation = await watched.monitor.explain()
    except Exception as error:  # noqa: BLE001 - nothing depends on it
        if not isinstance(error, AsynchostError):
            _log.exception("patterns not looked at", host=watched.config.called)
        return []
    names = [domain.name for domain in explanation.domains]
    if not names or explanation.incomplete is not None:
        return []
    missed = [
        pattern
        for pattern in watched.settings.policy.include
        if not any(fnmatchcase(name or "", pattern) for name in names)
    ]
    if missed:
        _log.warning(
            "patterns match no domain",
            host=watched.config.called,
            patterns=missed,
            domains=len(names),
            remedy="correct --only, or define the domains",
        )
    return missed
