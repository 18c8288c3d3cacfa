"""Whether asynchost can do its work here: each thing it needs, ok or with what mends it.

It starts nothing and writes nothing.
"""

import os
import pwd
import shlex
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from asynchost.database import checkup as database
from asynchost.database.columns import mend
from asynchost.database.schema import FENCE, TABLE
from asynchost.database.statements import PARTIAL
from asynchost.database.tls import Mode
from asynchost.database.url import DatabaseUrl
from asynchost.errors import (
    CallTimeoutError,
    ConfigurationError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    HypervisorRefusedError,
    HypervisorUnavailableError,
)
from asynchost.hypervisor.checkup import check_up, probe_delivery
from asynchost.hypervisor.uri import check_uri, is_local
from asynchost.masking import masked_uri
from asynchost.service.accounts import Account, Told
from asynchost.service.config import HostConfig
from asynchost.service.control import MUTE
from asynchost.service.credentials import DatabaseCredentials
from asynchost.service.explained import age
from asynchost.service.standing import Standing, remarks_on, remarks_on_daemon
from asynchost.service.terminal import escape
from asynchost.settings import MonitorSettings

_CLOCK_SECONDS: Final = 2.0
"""Two clocks that are kept by NTP differ by less."""
_THIS_MACHINE: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_RIGHTS_CODES: Final = frozenset({1142, 1143})


class Health(StrEnum):
    """How one thing is."""

    OK = "ok"
    NOTE = "note"
    """Not as it might be; asynchost works all the same."""
    MEND = "MEND"


_HEALTH: Final = {Standing.LATE: Health.NOTE, Standing.NOT_KEPT: Health.MEND}
"""What a remark on a daemon amounts to."""


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
    told: Told,
    *,
    probe: bool,
) -> AsyncIterator[Finding]:
    """Look at everything, one thing after another, and tell of each as soon as it is known.

    ``told`` is what the daemons said that run here.
    """
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
    for finding in daemons(told, hosts):
        yield finding


def configuration(
    files: Sequence[str], hosts: int, mistakes: Sequence[ConfigurationError]
) -> Iterator[Finding]:
    """What the configuration files say, or each mistake in them; nothing where there are none."""
    for mistake in mistakes:
        yield Finding(
            Health.MEND, "configuration", mistake.message, "correct it, then asynchost config check"
        )
    if files and not mistakes:
        noun = "host" if hosts == 1 else "hosts"
        yield Finding(Health.OK, "configuration", f"{hosts} {noun}, from {', '.join(files)}")


async def _host(host: HostConfig, settings: MonitorSettings) -> AsyncIterator[Finding]:
    what = f"libvirt {escape(masked_uri(host.uri))}"
    try:
        found = await check_up(host.uri, host.settings(settings))
    except HypervisorRefusedError as error:
        remedy = error.remedy
        if "polkit" in remedy:
            remedy = remedy.replace("USER", _user())
        elif "socket" in remedy or "polkit" in error.reason:
            remedy = f"usermod -aG libvirt {_user()}, and log in anew; or a polkit rule for it"
        yield Finding(Health.MEND, what, error.reason, remedy)
        return
    except CallTimeoutError as error:
        yield Finding(Health.MEND, what, error.reason, _unanswered(error.call, host.uri))
        return
    except HypervisorUnavailableError as error:
        polkit = "polkit" in error.reason or "org.freedesktop" in error.reason
        remedy = _start_polkit(host.uri) if polkit else _start_libvirt(host.uri)
        yield Finding(Health.MEND, what, error.reason, remedy)
        return
    library = _version(found.libvirt_version)
    version = "" if found.hypervisor_version is None else f" {_version(found.hypervisor_version)}"
    yield Finding(
        Health.OK,
        what,
        f"{found.hypervisor_type}{version}, libvirt {library},"
        f" opened in {_milliseconds(found.open_seconds)}",
    )
    if found.version_reason is not None:
        yield Finding(
            Health.NOTE,
            "hypervisor_version",
            f"libvirt cannot tell it, so it is 0 or the last known one: {found.version_reason}",
            "install the emulator (Debian: qemu-system-x86), or link it into a folder of libvirtd's"
            " PATH",
        )
    read = (
        "" if found.read_seconds is None else f", one read in {_milliseconds(found.read_seconds)}"
    )
    yield Finding(
        Health.OK,
        "rights",
        f"domains listed: {found.domains}, in {_milliseconds(found.list_seconds)}{read}",
    )
    registered = f"{found.registered} kinds registered, as far as the driver sends them"
    if found.missing_events:
        missing = ", ".join(found.missing_events)
        yield Finding(
            Health.NOTE, "events", f"{registered}; not had here: {missing}", "the audit stands in"
        )
    else:
        yield Finding(Health.OK, "events", registered)
    if found.disk_reason is not None:
        reason, _, remedy = found.disk_reason.rpartition("; ")
        yield Finding(
            Health.NOTE,
            "disk",
            f"not known, so free_disk_gb is NULL and schedulers skip the row: {reason or remedy}",
            remedy if reason else None,
        )
    yield keepalive(found.keepalive, host.uri)


def keepalive(answered: bool | None, uri: str) -> Finding:
    """Whether a libvirtd that hangs would be noticed, and one that lives not be cut off."""
    if answered is None:
        return Finding(Health.OK, "keepalive", "not needed: the driver runs in this process")
    if answered:
        return Finding(Health.OK, "keepalive", "answered")
    return Finding(
        Health.MEND,
        "keepalive",
        "not answered, so the connection is cut again and again",
        f"{_journal(uri)}, for what keeps it from answering; {_count_clients(uri)}",
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
    except (HypervisorRefusedError, HypervisorUnavailableError) as error:
        return Finding(
            Health.NOTE,
            "event delivery",
            f"libvirt's test driver cannot be used: {error.reason}",
            "leave out --probe, and watch for 'row written' in the daemon's log",
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
        yield Finding(Health.MEND, "database", error.reason, _start_database(url))
        return
    yield Finding(Health.OK, "database", f"{server.version} answers {server.account}")
    yield tls(DatabaseUrl.parse(url), server.tls)
    async for finding in _tables(url, password):
        yield finding
    yield clock(server.behind.total_seconds())


def tls(url: DatabaseUrl, encrypted: bool) -> Finding:
    """Whether what is written can be read and changed on the way."""
    if encrypted:
        checked = url.tls is not None and url.tls.mode is not Mode.REQUIRED
        if checked:
            return Finding(Health.OK, "TLS", "on, and the server's certificate is checked")
        return Finding(
            Health.NOTE,
            "TLS",
            "on, but nothing tells whose server it is",
            "name the authority in --database: ?ssl_ca=/path/ca.pem",
        )
    if url.unix_socket is not None:
        return Finding(Health.OK, "TLS", "not needed on a unix socket")
    if all(endpoint.host in _THIS_MACHINE for endpoint in url.endpoints):
        return Finding(Health.OK, "TLS", "not needed on this machine")
    return Finding(
        Health.NOTE,
        "TLS",
        "off: whoever is on the way can read and change what is written",
        "name the server's authority in --database: ?ssl_ca=/path/ca.pem",
    )


async def _tables(url: str, password: str | None) -> AsyncIterator[Finding]:
    try:
        layout = await database.inspect(url, password=password)
    except DatabaseRefusedError as error:
        what = "rights" if error.code in _RIGHTS_CODES else "tables"
        yield Finding(Health.MEND, what, error.reason, error.remedy)
    except DatabaseUnavailableError as error:
        yield Finding(Health.MEND, "tables", error.reason, "asynchost doctor, once more")
    else:
        beside = f", {len(layout.columns)} more to fill in new rows" if layout.columns else ""
        services = ", Nova's services" if layout.services else ""
        yield Finding(
            Health.OK, "tables", f"{TABLE} and {FENCE}, with all columns{beside}{services}"
        )
        for misfit in layout.misfits:
            found = f"{misfit.reason}: not every host's values"
            yield Finding(Health.NOTE, "tables", found, mend([misfit]))
        yield Finding(Health.OK, "rights", "all that writing takes")
        yield matches(layout.counts_matches)
        async for finding in _rows(url, password):
            yield finding


def matches(seen: bool) -> Finding:
    """Whether a write that changes no value is told from one that found no row."""
    if seen:
        return Finding(Health.OK, "matched rows", "counted by the server, also where none changes")
    return Finding(
        Health.NOTE,
        "matched rows",
        f"not known yet whether the server, or a proxy before it, counts them (CLIENT_FOUND_ROWS):"
        f" {FENCE} has no row to see it by",
        "none needed: the daemon sees it with its first row, and refuses a server that does not",
    )


async def _rows(url: str, password: str | None) -> AsyncIterator[Finding]:
    """Whether agents say of some rows that they are false."""
    try:
        false = await database.known_false(url, password=password)
    except (DatabaseRefusedError, DatabaseUnavailableError) as error:
        yield Finding(Health.NOTE, "rows", f"not read: {error.reason}")
        return
    for name, state in false.items():
        found = f"{name} is {state}: the database refuses what its agent writes"
        if state == PARTIAL:
            found = f"{name} is {state}: some columns hold another value than the host has"
        remedy = "its agent's log names columns and reason ('row left out'); mend the table"
        yield Finding(Health.MEND, "rows", found, remedy)


def clock(behind_seconds: float) -> Finding:
    """Whether the database's clock, which the rows' times come from, is right."""
    if abs(behind_seconds) <= _CLOCK_SECONDS:
        return Finding(Health.OK, "clock", f"within {_CLOCK_SECONDS:g} s of the database's")
    return Finding(
        Health.NOTE,
        "clock",
        f"the database's is {abs(behind_seconds):.1f} s"
        f" {'behind' if behind_seconds > 0 else 'ahead'}; asynchost compares no two clocks,"
        " but whoever reads its times may",
        "timedatectl set-ntp true, on both machines",
    )


def daemons(told: Told, given: Sequence[HostConfig] = ()) -> Iterator[Finding]:
    """The daemons that run here: whether they answer, and whether they keep the rows.

    ``given`` are the hosts that were named; one that no daemon watches is noted.
    """
    for problem in told.problems:
        # Which of them it is, and whose, stands in the problem.
        mute = MUTE in problem
        yield Finding(
            Health.MEND if mute else Health.NOTE,
            "daemon",
            problem,
            "see what it waits for (cat /proc/PID/wchan), whether it is stopped (kill -CONT PID),"
            " and its log; systemctl restart asynchost ends it"
            if mute
            else "ask as root, or as the daemon's own user",
        )
    for account in told.accounts:
        if not account.may_be_looked_at:
            yield Finding(
                Health.NOTE,
                f"libvirt {escape(masked_uri(account.uri))}",
                "not looked at: what another user's daemon opens is not opened here",
                f"{account.as_its_user} asynchost doctor",
            )
    for daemon in told.statuses:
        yield from _daemon(daemon)
    described = {daemon["pid"] for daemon in told.statuses}
    for account in told.accounts:
        if account.pid not in described:
            yield _watches(account)
    watched = {account.uri for account in told.accounts}
    for host in given if told.accounts else ():
        if host.uri not in watched:
            yield Finding(
                Health.NOTE,
                "daemon",
                f"none here watches {host.called}",
                "add it to a daemon's --connect or configuration",
            )
    if not told.accounts and not told.problems:
        yield Finding(
            Health.NOTE,
            "daemon",
            "none runs here that this user may ask",
            "asynchost run --connect URI --database URL",
        )


def _watches(account: Account) -> Finding:
    """What a daemon says that tells no status: one of another version."""
    watches = f"process {account.pid} watches {account.host}"
    if account.stale_seconds is not None:
        stale = f"{watches}: stale for {age(account.stale_seconds)}"
        return Finding(Health.NOTE, "daemon", stale, _look_at(account.uri))
    if account.explanation is None:
        waits = f"{watches}: not ready, it has not listed the domains yet"
        return Finding(Health.NOTE, "daemon", waits, _look_at(account.uri))
    return Finding(Health.OK, "daemon", f"{watches}: fresh")


def _daemon(daemon: Mapping[str, Any]) -> Iterator[Finding]:
    """What a daemon knows: of its database, of its log, and of each of its hosts."""
    who = f"process {daemon['pid']}"
    for remark in remarks_on_daemon(daemon):
        yield Finding(
            _HEALTH[remark.standing],
            "daemon",
            f"{who}: {remark.text}",
            "asynchost doctor --database URL, with the URL and the password of that daemon",
        )
    if lost := daemon["log_lines_lost"]:
        yield Finding(
            Health.NOTE,
            "daemon",
            f"{who}: {lost} log lines were lost, because nobody took them",
            "see who reads its standard error: a pager, a terminal after Ctrl-S, journald",
        )
    for host in daemon["hosts"]:
        watches = f"{who} watches {host['host']}"
        remarks = remarks_on(host, daemon)
        if not remarks:
            row = "" if host["row"] is None else f", row {host['row']['state']}"
            yield Finding(Health.OK, "daemon", f"{watches}: fresh{row}")
        for remark in remarks:
            yield Finding(
                _HEALTH[remark.standing],
                "daemon",
                f"{watches}: {remark.text}",
                "asynchost status; the daemon's log says more",
            )


def _look_at(uri: str) -> str:
    return f"asynchost doctor --connect {shlex.quote(masked_uri(uri))}"


def _start_database(url: str) -> str:
    parsed = DatabaseUrl.parse(url)
    if parsed.unix_socket or all(endpoint.host in _THIS_MACHINE for endpoint in parsed.endpoints):
        return "systemctl start mariadb (or mysql), or correct --database"
    return "start the server there, open its port to this machine, or correct --database"


def _start_libvirt(uri: str) -> str:
    if not is_local(uri):
        return "start libvirtd there, and see that this machine may reach it"
    if check_uri(uri).path == "/session":
        return f"virsh -c {shlex.quote(masked_uri(uri))} version, which starts it"
    return f"systemctl start libvirtd, or where each driver has a daemon {_service(uri)}.socket"


def _unanswered(call: str, uri: str) -> str:
    """For a daemon that runs, since its socket was there, and does not answer a call.

    To restart it is no advice: it would probe its emulators anew, and what holds it up may stay.
    """
    if call == "virConnectOpenAuth":
        return (
            f"{_count_clients(uri)}: where nclients is nclients_max, raise max_clients in"
            f" /etc/libvirt/{_service(uri)}.conf (or libvirtd.conf), or end the clients that"
            f" client-list names; else {_journal(uri)}, for why it takes no client"
        )
    if call in ("virConnectGetVersion", "virConnectGetCapabilities"):
        return (
            "it may be probing its emulators, after its start or an update of theirs, which takes"
            f" up to some minutes: ask again then; if it never ends, {_journal(uri)}"
        )
    # What was opened and then does not list is held up by one domain.
    return f"{_journal(uri)}, for a domain that is locked by a hook script or a start that hangs"


def _count_clients(uri: str) -> str:
    service = _service(uri)
    return f"virt-admin -c {service}:///system server-clients-info {service} (or libvirtd for both)"


def _journal(uri: str) -> str:
    return f"journalctl -u {_service(uri)} -u libvirtd{_there(uri)}"


def _start_polkit(uri: str) -> str:
    return (
        f'systemctl start dbus polkit{_there(uri)}, or set auth_unix_ro = "none" in'
        f" /etc/libvirt/{_service(uri)}.conf (or libvirtd.conf)"
    )


def _service(uri: str) -> str:
    """The driver's own daemon, which is libvirtd on older systems."""
    driver = check_uri(uri).scheme.partition("+")[0]
    return "libvirtd" if driver == "test" else f"virt{driver}d"


def _there(uri: str) -> str:
    return "" if is_local(uri) else " there"


def _user() -> str:
    """The one that this process acts as, whoever logged in."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"
