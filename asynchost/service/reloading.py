"""Reading the configuration again while the daemon works.

May live here: what of two configurations differs, and in which order it is taken over. Must not:
how a host comes or goes, which is ``hosts.py``'s. Memory: the configuration in force.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import structlog

from asynchost import ComputeNodeWriter
from asynchost.errors import ConfigurationError
from asynchost.service.config import HostConfig, Loaded, RunConfig
from asynchost.service.credentials import DatabaseCredentials
from asynchost.service.declared import SETTINGS, Setting
from asynchost.service.hosts import Hosts
from asynchost.service.mistakes import all_of
from asynchost.service.stopping import Stop
from asynchost.service.systemd import Manager

_log = structlog.get_logger("asynchost.service")


class Asked(NamedTuple):
    """All that a daemon was asked to do."""

    loaded: Loaded
    credentials: DatabaseCredentials


class Difference(NamedTuple):
    """What differs between the configuration in force and a new one."""

    gone: Sequence[HostConfig]
    come: Sequence[HostConfig]
    """Hosts that are new. One that is watched otherwise from now on is in both."""
    delays: bool
    password: bool
    needs_restart: Sequence[str]
    """Keys whose new values wait for the next start."""

    @property
    def added(self) -> list[str]:
        """The names of the new hosts."""
        before = {host.called for host in self.gone}
        return [host.called for host in self.come if host.called not in before]

    @property
    def removed(self) -> list[str]:
        """The names of the hosts that are no longer watched."""
        after = {host.called for host in self.come}
        return [host.called for host in self.gone if host.called not in after]

    @property
    def changed(self) -> list[str]:
        """The names of the hosts that are watched otherwise."""
        before = {host.called for host in self.gone}
        return [host.called for host in self.come if host.called in before]


def difference(old: Asked, new: Asked) -> Difference:
    """What has to be done to get from one to the other."""
    before, after = _as_watched(old.loaded.run), _as_watched(new.loaded.run)
    return Difference(
        gone=[host for key, host in before.items() if key not in after],
        come=[host for key, host in after.items() if key not in before],
        delays=_delays(old.loaded.run) != _delays(new.loaded.run),
        password=old.credentials.password != new.credentials.password,
        needs_restart=[
            setting.name
            for setting in SETTINGS.values()
            if setting.restarts and _fields(setting, old) != _fields(setting, new)
        ],
    )


def _as_watched(run: RunConfig) -> Mapping[Any, HostConfig]:
    """The hosts, by all that makes a difference to how they are watched and written."""
    return {
        (host.uri, host.name, host.service_id, host.settings(run.monitor)): host
        for host in run.hosts
    }


def _delays(run: RunConfig) -> tuple[float, float]:
    return run.quiet_seconds, run.maximum_delay_seconds


def _fields(setting: Setting, asked: Asked) -> Mapping[str, Any]:
    """What is in force of a setting for the whole process."""
    if setting.name == "database":
        return {"url": asked.credentials.url}
    given = asked.loaded.origins.of_all.get(setting.name)
    return given[-1].fields if given else setting.read(setting.default.strip('"'))


class Reloader:
    """Reads the configuration again whenever that is asked for, and takes over what differs."""

    def __init__(
        self, asked: Asked, read: Callable[[], Asked], stop: Stop, manager: Manager
    ) -> None:
        """``asked`` is what is in force; ``read`` reads it anew, and may block."""
        self._asked = asked
        self._read = read
        self._stop = stop
        self._manager = manager
        self._wanted = False
        self._moved = asyncio.Event()

    def request(self) -> None:
        """Ask for a reload; any thread may, also before :meth:`run`."""
        self._wanted = True
        self._stop.call_soon(self._moved.set)

    async def run(self, hosts: Hosts, writer: ComputeNodeWriter, status: Callable[[], str]) -> None:
        """Reload whenever it is asked for, for ever. ``status`` is told to the manager."""
        while True:
            if not self._wanted:
                await self._moved.wait()
            self._moved.clear()
            self._wanted = False
            # Before the start is complete, the end of a reload must not be taken for that.
            is_ready = self._manager.is_ready
            if is_ready:
                self._manager.reloading()
            await self._reload(hosts, writer)
            if is_ready:
                self._manager.ready(status())

    async def _reload(self, hosts: Hosts, writer: ComputeNodeWriter) -> None:
        try:
            new = await asyncio.to_thread(self._read)
        except ConfigurationError as error:
            mistakes = [mistake.message for mistake in all_of(error)]
            _log.error("configuration not reloaded, nothing is changed", mistakes=mistakes)
            return
        found = difference(self._asked, new)
        if found.password:
            writer.use_password(new.credentials.secret)
        if found.delays:
            writer.use_delays(*_delays(new.loaded.run))
        await hosts.change(found.gone, found.come, new.loaded.run.monitor)
        self._asked = _in_force(self._asked, new)
        told = {
            "added": found.added,
            "removed": found.removed,
            "changed": found.changed,
            "needs_restart": found.needs_restart,
        }
        _log.info(
            "configuration reloaded",
            hosts=len(new.loaded.run.hosts),
            **{key: names for key, names in told.items() if names},
        )


def _in_force(old: Asked, new: Asked) -> Asked:
    """The new configuration, with the old values of what needs a restart.

    So every reload until the restart names them again.
    """
    of_all = dict(new.loaded.origins.of_all)
    for setting in SETTINGS.values():
        if setting.restarts:
            of_all.pop(setting.name, None)
            if given := old.loaded.origins.of_all.get(setting.name):
                of_all[setting.name] = given
    origins = new.loaded.origins._replace(of_all=of_all)
    loaded = Loaded(new.loaded.run, new.loaded.log, origins)
    return Asked(loaded, DatabaseCredentials(old.credentials.url, new.credentials.password))
