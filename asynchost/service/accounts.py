"""What is known of a host, as plain values: of a running daemon's, or of one looked at now.

May live here: how a monitor's state becomes JSON and back. Must not: sockets, tables, text.
"""

import asyncio
import os
import pwd
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, Final, NamedTuple

from asynchost import DiskSource, HostMonitor, MonitorSettings, Policy
from asynchost.database import Attachment
from asynchost.database.rows import RowEncoder, named
from asynchost.errors import (
    AsynchostError,
    ConfigurationError,
    HypervisorUnavailableError,
    NotReadyError,
)
from asynchost.hypervisor.uri import is_the_same_for_all
from asynchost.masking import masked_uri
from asynchost.service.config import HostConfig
from asynchost.service.control import ask_all

_LOOK_SECONDS: Final = 45.0
"""For opening, listing, every domain and the capabilities of one host."""
_DISKS_SECONDS: Final = 15.0
"""A thousand domains' disks, and then some."""


class Watched(NamedTuple):
    """One host of a running daemon."""

    config: HostConfig
    settings: MonitorSettings
    """Its policy included."""
    monitor: HostMonitor
    attachment: Attachment | None = None

    def is_called(self, host: str) -> bool:
        """Whether a person who says ``host`` can mean this one."""
        return host in (self.monitor.host, self.config.uri, self.monitor.snapshot().name)


@dataclass(frozen=True, slots=True)
class Account:
    """A host's totals, and what they are made of."""

    host: str
    """Its name in logs: the one given, else its URI."""
    name: str | None
    """Its ``hypervisor_hostname``."""
    uri: str
    settings: MonitorSettings
    """How it is watched, its policy included."""
    service_id: int | None
    """As asked for."""
    pid: int | None
    """The daemon's process; None for a host that was looked at now."""
    row_id: int | None
    row: Mapping[str, int | str | None] | None
    """The columns of its row; frozen ones while it is stale; None while it is not complete.
    Without what its domains' disks may still take, as long as not all were looked at."""
    stale_seconds: float | None
    generation: int
    explanation: Mapping[str, Any] | None
    """:class:`~asynchost.Explanation` as plain values; None before the first resync."""
    left_out: list[str] = field(default_factory=list)
    """The columns of its row that the daemon knows to be false and cannot write for now."""
    user: int | None = None
    """Whose process the daemon is, as the kernel told whoever asked it."""

    @classmethod
    def from_plain(cls, values: Mapping[str, Any], user: int | None = None) -> "Account":
        """The reverse of :func:`plain`.

        Raises KeyError, TypeError, AttributeError, ValueError or :class:`AsynchostError` for what
        is no account, as that of a daemon of another version may not be.
        """
        settings = dict(values["settings"])
        policy = dict(settings.pop("policy"))
        for name in ("include", "exclude"):
            policy[name] = tuple(policy[name])
        settings["policy"] = Policy(**policy)
        if settings["disk"] is not None:
            settings["disk"] = DiskSource(settings["disk"])
        return cls(**{**values, "settings": MonitorSettings(**settings), "user": user})

    @property
    def config(self) -> HostConfig:
        """The host, to be looked at again."""
        return HostConfig(
            self.uri,
            name=None if self.host == masked_uri(self.uri) else self.host,
            service_id=self.service_id,
            policy=self.settings.policy,
            disk=self.settings.disk,
            instances_path=self.settings.instances_path,
        )

    @property
    def may_be_looked_at(self) -> bool:
        """Whether this user may open the URI that the daemon gave, and would find the same host.

        Another user's daemon is not believed that far: a URI can name a command to run, and
        ``qemu:///session`` is another host for each user.
        """
        return self.user in (None, os.geteuid()) or is_the_same_for_all(self.uri)

    @property
    def as_its_user(self) -> str:
        """What to put before a command so that it is its daemon's own user who asks."""
        try:
            name = pwd.getpwuid(os.geteuid() if self.user is None else self.user).pw_name
        except KeyError:
            name = f"'#{self.user}'"
        return f"sudo -u {name}"


def plain(value: Any) -> Any:
    """A record as what JSON can hold."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in value]
    return value


async def account_of(watched: Watched, *, pid: int | None, explains: bool = True) -> Account:
    """What the monitor knows; from memory, unless it ``explains``. Cancelling is safe."""
    monitor, attachment = watched.monitor, watched.attachment
    explanation = None
    if explains:
        with suppress(NotReadyError):
            # In a thread, as all that goes over every domain: the loop has events to hear.
            explanation = await asyncio.to_thread(plain, await monitor.explain())
    snapshot = monitor.snapshot()
    complete = replace(snapshot, fresh=True)
    row = named(RowEncoder().encode(complete)) if complete.writable else None
    if row is not None and not snapshot.disks_settled:
        del row["disk_available_least"]
    return Account(
        host=monitor.host,
        name=snapshot.name,
        uri=watched.config.uri,
        settings=watched.settings,
        service_id=watched.config.service_id,
        pid=pid,
        row_id=None if attachment is None else attachment.row_id,
        row=row,
        stale_seconds=snapshot.stale_seconds,
        generation=snapshot.generation,
        explanation=explanation,
        left_out=[] if attachment is None else sorted(attachment.left_out),
    )


async def answer(hosts: Sequence[Watched], question: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a daemon says to whoever asks it: all its hosts, or the one that is called so.

    With ``explain`` false, it says nothing of their domains, and so makes no call into libvirt.
    """
    host = question.get("host")
    explains = question.get("explain", True)
    meant = [one for one in hosts if host is None or one.is_called(host)]
    accounts = await asyncio.gather(
        *(account_of(one, pid=os.getpid(), explains=explains) for one in meant)
    )
    # The explanations, by far the most of it, are plain already.
    told = [
        {**plain(replace(account, explanation=None)), "explanation": account.explanation}
        for account in accounts
    ]
    return {"accounts": told, "hosts": [one.monitor.host for one in hosts]}


class Told(NamedTuple):
    """What all daemons said that this user may ask."""

    accounts: list[Account]
    """Of the hosts that were asked for."""
    hosts: list[str]
    """All that there are."""
    problems: list[str]
    statuses: Sequence[Mapping[str, Any]] = ()
    """How each daemon is doing, where that was asked for."""


async def from_daemons(
    host: str | None,
    environment: Mapping[str, str],
    *,
    seconds: float | None = None,
    explain: bool = True,
) -> Told:
    """Ask the daemons on this machine for all their hosts, or for the one that is called so.

    ``seconds`` is how long each may take; with ``explain`` false they answer from memory.
    """
    question = {"host": host} if explain else {"host": host, "explain": False}
    within = {} if seconds is None else {"seconds": seconds}
    given, problems = await ask_all(question, environment, **within)
    accounts: list[Account] = []
    hosts: list[str] = []
    problems = list(problems)
    for said, user in given:
        try:
            accounts += [Account.from_plain(one, user) for one in said["accounts"]]
            hosts += map(str, said["hosts"])
        except (KeyError, TypeError, AttributeError, ValueError, AsynchostError):
            problems.append(
                "a daemon's answer could not be understood; it is of another version: restart it"
            )
    return Told(sorted(accounts, key=lambda account: account.host), sorted(hosts), problems)


async def look(
    config: HostConfig, settings: MonitorSettings, *, with_disks: bool = False
) -> Account:
    """Look at a host now, by a monitor of its own that is gone afterwards.

    ``with_disks`` waits for the domains' disks, too, for some seconds: each takes a call, and
    one of a domain that hangs takes long. Raises :class:`HypervisorUnavailableError` where it
    cannot be reached or does not answer in time, and :class:`HypervisorRefusedError` where it
    never will.
    """
    once = config.settings(replace(settings, audit_interval_seconds=0, second_resync_seconds=0))
    monitor = HostMonitor(config.uri, name=config.name, settings=once)
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            await monitor.start()
            await monitor.ready(patient=False)
            await monitor.get_host_stats()  # which waits until the row is complete
            if with_disks:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_DISKS_SECONDS):
                        await monitor.disks_read()
            return await account_of(Watched(config, once, monitor), pid=None)
    except TimeoutError:
        raise HypervisorUnavailableError(
            config.uri, f"no complete answer within {_LOOK_SECONDS:g} s"
        ) from None
    finally:
        await monitor.aclose()


def nobody(host: str | None, told: Told) -> ConfigurationError:
    """Why there is no account to give."""
    if told.hosts:
        return ConfigurationError(f"no host is called {host!r}; there are {', '.join(told.hosts)}")
    if told.problems:
        return ConfigurationError("; ".join(told.problems))
    return ConfigurationError(
        "no daemon runs here that this user may ask; start one (asynchost run), or look without "
        "one: give --connect URI"
    )


def one_line(policy: Policy) -> str:
    """What differs from the default policy, for people."""
    plainly = asdict(Policy())
    changed = [
        f"{name}={value}" for name, value in asdict(policy).items() if value != plainly[name]
    ]
    return ", ".join(changed) or "default policy"
