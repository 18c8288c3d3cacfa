"""Whether asynchost can do its work here: each thing it needs, ok or with what mends it.

It starts nothing and writes nothing.
"""

import getpass
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from asynchost.database import checkup as database
from asynchost.errors import (
    ConfigurationError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    HypervisorRefusedError,
    HypervisorUnavailableError,
)
from asynchost.hypervisor.checkup import check_up, probe_delivery
from asynchost.service.accounts import from_daemons
from asynchost.service.config import HostConfig
from asynchost.service.credentials import DatabaseCredentials
from asynchost.service.terminal import escape
from asynchost.settings import MonitorSettings

_CLOCK_SECONDS: Final = 2.0
"""Two clocks that are kept by NTP differ by less."""


class Health(StrEnum):
    """How one thing is."""

    OK = "ok"
    NOTE = "note"
    """Not as it might be; asynchost works all the same."""
    MEND = "MEND"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    health: Health
    what: str
    found: str
    remedy: str | None = None
    """The command, or what else to do; None where nothing is to be done."""

    def lines(self) -> list[str]:
        """For a terminal."""
        lines = [f"{self.health:5} {self.what}: {escape(self.found)}"]
        if self.remedy is not None:
            lines.append(f"      -> {escape(self.remedy)}")
        return lines


async def examine(
    hosts: Sequence[HostConfig],
    settings: MonitorSettings,
    credentials: DatabaseCredentials | None,
    environment: Mapping[str, str],
    *,
    probe: bool,
) -> AsyncIterator[Finding]:
    """Look at everything, one thing after another, and tell of each as soon as it is known."""
    for host in hosts:
        async for finding in _host(host, settings):
            yield finding
    if probe:
        yield await _probe()
    if credentials is None:
        yield Finding(Health.NOTE, "database", "not looked at", "give --database URL")
    else:
        async for finding in _database(credentials):
            yield finding
    yield await _daemons(environment)


async def _host(host: HostConfig, settings: MonitorSettings) -> AsyncIterator[Finding]:
    what = f"libvirt {escape(host.uri)}"
    try:
        found = await check_up(host.uri, settings)
    except HypervisorRefusedError as error:
        remedy = error.remedy
        if "socket" in remedy:
            remedy = f"usermod -aG libvirt {getpass.getuser()}, and log in anew"
        yield Finding(Health.MEND, what, error.reason, remedy)
        return
    except HypervisorUnavailableError as error:
        yield Finding(Health.MEND, what, error.reason, _start_libvirt(host.uri))
        return
    library = _version(found.libvirt_version)
    yield Finding(
        Health.OK,
        what,
        f"{found.hypervisor_type} {_version(found.hypervisor_version)}, libvirt {library},"
        f" opened in {_milliseconds(found.open_seconds)}",
    )
    read = (
        "" if found.read_seconds is None else f", one read in {_milliseconds(found.read_seconds)}"
    )
    yield Finding(
        Health.OK,
        "rights",
        f"{found.domains} domains listed in {_milliseconds(found.list_seconds)}{read}",
    )
    registered = f"{found.registered} kinds registered"
    if found.missing_events:
        missing = ", ".join(found.missing_events)
        yield Finding(
            Health.NOTE, "events", f"{registered}; not had here: {missing}", "the audit stands in"
        )
    else:
        yield Finding(Health.OK, "events", registered)
    yield Finding(
        Health.OK,
        "keepalive",
        "on" if found.keepalive else "not needed: the driver runs inside this process",
    )


async def _probe() -> Finding:
    try:
        seconds = await probe_delivery()
    except TimeoutError:
        return Finding(
            Health.MEND,
            "event delivery",
            "a domain of the test driver was started, and no event came",
            "report it, with the versions of libvirt and libvirt-python",
        )
    return Finding(Health.OK, "event delivery", f"heard after {_milliseconds(seconds)}")


async def _database(credentials: DatabaseCredentials) -> AsyncIterator[Finding]:
    url, password = credentials.url, credentials.password
    try:
        server = await database.reach(url, password=password)
    except DatabaseRefusedError as error:
        yield Finding(Health.MEND, "database", error.reason, error.remedy)
        return
    except DatabaseUnavailableError as error:
        yield Finding(
            Health.MEND, "database", error.reason, "systemctl start mariadb, or correct --database"
        )
        return
    secured = "TLS" if server.tls else "no TLS"
    yield Finding(Health.OK, "database", f"{server.version} as {server.account}, {secured}")
    try:
        layout = await database.inspect(url, password=password)
    except DatabaseRefusedError as error:
        yield Finding(Health.MEND, "tables and rights", error.reason, error.remedy)
    except DatabaseUnavailableError as error:
        yield Finding(Health.MEND, "tables and rights", error.reason, "try again")
    else:
        beside = f", and {len(layout.columns)} columns beside" if layout.columns else ""
        yield Finding(Health.OK, "tables and rights", f"all there{beside}")
    seconds = server.behind.total_seconds()
    if abs(seconds) > _CLOCK_SECONDS:
        yield Finding(
            Health.NOTE,
            "clock",
            f"the database's is {abs(seconds):.1f} s {'behind' if seconds > 0 else 'ahead'}",
            "timedatectl set-ntp true, on both machines; asynchost itself compares no two clocks",
        )
    else:
        yield Finding(Health.OK, "clock", f"within {_CLOCK_SECONDS:g} s of the database's")


async def _daemons(environment: Mapping[str, str]) -> Finding:
    try:
        accounts = await from_daemons(None, environment)
    except ConfigurationError as error:
        return Finding(Health.NOTE, "daemons", error.message)
    if not accounts:
        return Finding(Health.NOTE, "daemons", "none runs here that this user may ask")
    listed = ", ".join(
        f"{account.host} ({'fresh' if account.stale_seconds is None else 'stale'},"
        f" process {account.pid})"
        for account in accounts
    )
    return Finding(Health.OK, "daemons", listed)


def _start_libvirt(uri: str) -> str:
    if "+" in uri.partition(":")[0] or uri.partition("://")[2].partition("/")[0]:
        return "start libvirtd there, and see that this machine may reach it"
    return "systemctl start libvirtd (or the socket of its driver's own daemon, virtqemud.socket)"


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"
