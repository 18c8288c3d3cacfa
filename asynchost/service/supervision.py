"""What the service manager is told of the daemon: ready, how it stands, alive.

May live here: when a host has settled, and in which words. Must not: how a message is sent, which
is ``systemd.py``'s. Memory: nothing that lasts.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final

import structlog

from asynchost.host_state import UNDER_WAY
from asynchost.service.accounts import Watched
from asynchost.service.systemd import Manager

_log = structlog.get_logger("asynchost.service")

READY_SECONDS: Final = 60.0
"""After this the start is called complete, whatever is missing: a service that depends on the
daemon must not wait for one host for ever."""
_LOOK_SECONDS: Final = 0.1
_STATUS_SECONDS: Final = 10.0
"""How often the manager's status line is renewed, where it has changed."""
_NAMED: Final = 10
"""How many hosts a status line names of each kind."""
_BEATS: Final = 3
"""Signs of life within the time in which the manager wants one."""


class Standing(StrEnum):
    """How it stands with a host and its row."""

    WRITTEN = "written"
    STANDING_BY = "standing by"
    """Another agent owns the row, and this one waits for its end."""
    GIVEN_UP = "given up"
    """Another agent owns the row, or somebody must mend something first."""
    AWAY = "not reachable"
    """libvirt did not take the last attempt to connect, or the connection is lost."""
    WAITING = "waiting"
    """Connected, or about to be; the row is not written yet."""


def standing(watched: Watched) -> Standing:
    """How it stands with one host. From memory."""
    attachment, snapshot = watched.attachment, watched.monitor.snapshot()
    if attachment is not None and attachment.error is not None:
        return Standing.GIVEN_UP
    if attachment is not None and attachment.standby is not None:
        return Standing.STANDING_BY
    if not snapshot.fresh:
        under_way = snapshot.usage is None and snapshot.reason in UNDER_WAY
        return Standing.WAITING if under_way else Standing.AWAY
    # What the database refuses is not dirty either, and has settled so far as it can.
    settled = snapshot.writable and (attachment is None or not attachment.dirty)
    return Standing.WRITTEN if settled else Standing.WAITING


def summary(hosts: Sequence[Watched]) -> str:
    """One line: how many hosts stand how, with the names of those that are not written."""
    standings = [(one.monitor.host, standing(one)) for one in hosts]
    counts = Counter(how for _, how in standings)
    parts = []
    for how in Standing:
        if not counts[how]:
            continue
        part = f"{counts[how]} {how}"
        if how is not Standing.WRITTEN:
            names = [name for name, one in standings if one is how]
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            part += f" ({', '.join(names[:_NAMED])}{more})"
        parts.append(part)
    return f"{len(hosts)} {'host' if len(hosts) == 1 else 'hosts'}: {', '.join(parts) or 'none'}"


async def tell(hosts: Sequence[Watched], manager: Manager) -> None:
    """Tell the manager when every host has settled, and from then on how it stands.

    Settled is a host that is written, standing by, given up or not reachable. Returns at once where
    no manager listens.
    """
    if not manager.listens:
        return
    loop = asyncio.get_running_loop()
    until = loop.time() + READY_SECONDS
    while loop.time() < until:
        if all(standing(one) is not Standing.WAITING for one in hosts):
            break
        manager.status(summary(hosts))
        await asyncio.sleep(_LOOK_SECONDS)
    manager.ready(summary(hosts))
    while True:
        await asyncio.sleep(_STATUS_SECONDS)
        manager.status(summary(hosts))


async def beat(is_alive: Callable[[], bool], manager: Manager) -> None:
    """Give the manager signs of life while the event loop turns and ``is_alive`` says so.

    Neither libvirt nor the database is asked: a restart would mend neither. Returns at once where
    the manager wants no sign.
    """
    if manager.watchdog_seconds is None:
        return
    told = False
    while True:
        if is_alive():
            manager.alive()
        elif not told:
            told = True
            _log.error("a part of the daemon has ended, no more signs of life to the watchdog")
        await asyncio.sleep(manager.watchdog_seconds / _BEATS)
