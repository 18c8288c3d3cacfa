"""The hosts of one daemon: each is watched by a monitor and written through an attachment.

May live here: how a host comes, goes and is begun anew. Must not: how it is watched or written.
Memory: one monitor, one attachment and one task for each host.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import structlog

from asynchost import ComputeNodeWriter, HostMonitor, MonitorSettings
from asynchost.backoff import Backoff
from asynchost.database.attachment import Attachment
from asynchost.errors import AsynchostError, HypervisorRefusedError
from asynchost.service.accounts import Watched
from asynchost.service.config import HostConfig

_log = structlog.get_logger("asynchost.service")

_LAST_WRITE_SECONDS: Final = 3.0
"""How long hosts that go are waited for, until their last change is written."""
_FIRST_PAUSE_SECONDS: Final = 5.0
_LONGEST_PAUSE_SECONDS: Final = 300.0
"""A fault or a refusal needs a person, who should not have to restart the daemon afterwards."""

NewMonitor = Callable[[HostConfig, MonitorSettings], HostMonitor]
"""Makes the monitor of a host, watched with these settings."""


class Hosts:
    """All hosts of a daemon. The end of one host's monitor is no other host's.

    A monitor that ends by itself is named in the log and begun anew after a pause, which grows
    from a few seconds to five minutes. Only where libvirt refuses every host, :meth:`keep` raises.
    """

    def __init__(
        self,
        writer: ComputeNodeWriter,
        settings_of_all: MonitorSettings,
        new_monitor: NewMonitor,
    ) -> None:
        self.watched: list[Watched] = []
        """The hosts at this moment; the list stays the same object."""
        self.attachments: list[Attachment] = []
        """Their places in the writer, in the same order; the list stays the same object."""
        self._writer = writer
        self._settings_of_all = settings_of_all
        self._new_monitor = new_monitor
        self._tasks: dict[str, asyncio.Task[None]] = {}
        """By the host's URI."""
        self._refusals: dict[str, HypervisorRefusedError] = {}
        """Of the hosts that are not watched because libvirt refuses, by URI."""
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def add(self, config: HostConfig, monitor: HostMonitor | None = None) -> None:
        """Begin to watch and to write a host, by a monitor that was made for it, or a new one."""
        await self._begin(config, len(self.watched), monitor)
        task = asyncio.create_task(self._keep(config), name=f"asynchost host {config.uri}")
        task.add_done_callback(self._on_fault)
        self._tasks[config.uri] = task

    async def change(
        self,
        gone: Sequence[HostConfig],
        come: Sequence[HostConfig],
        settings_of_all: MonitorSettings,
    ) -> None:
        """Let some hosts go and others come; no other host notices.

        What is dirty of those that go is written first, within a few seconds. A host that is in
        both is watched anew, with its new configuration.
        """
        self._settings_of_all = settings_of_all
        if gone:
            # Without a database, or before a lock is gone, the rows stay as they are.
            with suppress(TimeoutError, AsynchostError):
                async with asyncio.timeout(_LAST_WRITE_SECONDS):
                    await self._writer.flush()
        leaving = [self._let_go(host.uri) for host in gone]
        # At once: a host that hangs delays none of the others.
        await asyncio.gather(*leaving)
        for host in come:
            await self.add(host)
        self._end_if_all_are_refused()

    async def _let_go(self, uri: str) -> None:
        """Stop watching and writing one host."""
        task = self._tasks.pop(uri)
        task.cancel()
        await asyncio.wait([task])
        self._refusals.pop(uri, None)
        place = self._place(uri)
        watched = self.watched.pop(place)
        self._writer.detach(self.attachments.pop(place))
        with suppress(Exception):  # what had ended it is told already
            await watched.monitor.aclose()

    @property
    def alive(self) -> bool:
        """Whether every host has somebody who looks after its monitor."""
        return not any(task.done() for task in self._tasks.values())

    async def keep(self) -> None:
        """Wait for ever.

        Raises :class:`HypervisorRefusedError` once libvirt refuses every host, and whatever
        nobody expected of this module itself.
        """
        await asyncio.shield(self._ended)

    async def aclose(self) -> None:
        """Close all monitors at once: a host that hangs delays none of the others."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await asyncio.gather(*(one.monitor.aclose() for one in self.watched))
        if self._ended.done():
            self._ended.exception()  # it was raised by keep(), or came too late for it

    def _place(self, uri: str) -> int:
        return next(n for n, one in enumerate(self.watched) if one.config.uri == uri)

    async def _begin(
        self, config: HostConfig, place: int, monitor: HostMonitor | None = None
    ) -> HostMonitor:
        settings = config.settings(self._settings_of_all)
        monitor = monitor or self._new_monitor(config, settings)
        attachment = self._writer.attach(monitor, service_id=config.service_id)
        self.watched[place : place + 1] = [Watched(config, settings, monitor, attachment)]
        self.attachments[place : place + 1] = [attachment]
        await monitor.start()
        return monitor

    async def _keep(self, config: HostConfig) -> None:
        """Begin the host's monitor anew whenever it has ended by itself."""
        loop = asyncio.get_running_loop()
        monitor = self.watched[self._place(config.uri)].monitor
        backoff = Backoff(random.random, _FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
        while True:
            began = loop.time()
            error = await _end_of(monitor)
            if error is None:
                return
            if loop.time() - began > _LONGEST_PAUSE_SECONDS:
                backoff = Backoff(random.random, _FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
            if isinstance(error, HypervisorRefusedError):
                self._refusals[config.uri] = error
                self._end_if_all_are_refused()
            pause = _FIRST_PAUSE_SECONDS + backoff.next_delay()
            _log.error(
                "host not watched, trying again",
                host=monitor.host,
                reason=str(error) or type(error).__name__,
                in_seconds=round(pause),
            )
            await asyncio.sleep(pause)
            self._refusals.pop(config.uri, None)
            place = self._place(config.uri)
            self._writer.detach(self.attachments[place])
            with suppress(Exception):  # what ended it is told already
                await monitor.aclose()
            monitor = await self._begin(config, place)

    def _end_if_all_are_refused(self) -> None:
        refusals = list(self._refusals.values())
        if refusals and len(refusals) == len(self.watched) and not self._ended.done():
            self._ended.set_exception(refusals[-1])

    def _on_fault(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._ended.done():
            self._ended.set_exception(error)


async def _end_of(monitor: HostMonitor) -> Exception | None:
    """Wait until the monitor has ended; None where it was closed."""
    try:
        await monitor.wait()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this host's alone
        return error
    return None
