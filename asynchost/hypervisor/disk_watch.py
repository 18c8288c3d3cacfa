"""Reads the space that holds the instances on a slow timer, and soon after a domain came or went.

A file system on a server that is gone can hang the reading for ever. Only the reading of the disks
on that space waits for it: while the space does not answer, no disk is asked for, because libvirt
would hang as well, with a domain or a pool locked. What the disks may still grow by is read beside
the space, and nobody waits for it. Memory: one thread, one connection, two flags.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from asynchost.errors import (
    CallTimeoutError,
    HypervisorRefusedError,
    HypervisorUnavailableError,
)
from asynchost.hypervisor.call_thread import CallThread
from asynchost.hypervisor.connection import Connection
from asynchost.hypervisor.disk import (
    DiskUnknownError,
    Space,
    instances_path,
    read_local,
    read_pool,
)
from asynchost.hypervisor.domain_disks import Place
from asynchost.hypervisor.overcommit_watch import OvercommitWatch
from asynchost.hypervisor.surprises import Surprises
from asynchost.hypervisor.uri import is_local
from asynchost.log import get_logger
from asynchost.model import DiskUsage
from asynchost.settings import DiskSource, MonitorSettings
from asynchost.together import together

# A storm of starts asks for one look a second, not for one each.
_LEAST_SPACING_SECONDS: Final = 1.0


class SpaceHangsError(DiskUnknownError):
    """The space that holds the instances does not answer."""


class SpaceReader:
    """Reads the space that holds the instances of one host.

    In a thread of its own for a file system, over a connection of its own for a storage pool,
    because either can hang for ever.
    """

    def __init__(self, uri: str, settings: MonitorSettings) -> None:
        self._uri = uri
        self._settings = settings
        local = is_local(uri)
        self.source = settings.disk or (DiskSource.PATH if local else DiskSource.POOL)
        self._local = local or self.source == DiskSource.PATH
        self._thread: CallThread | None = None
        self._connection: Connection | None = None

    async def read(self) -> Space:
        """Read it once. Cancelling is safe.

        Raises :class:`SpaceHangsError` if it does not answer within a call's deadline, or still
        owes an earlier answer; otherwise :class:`DiskUnknownError` if it cannot be read.
        """
        try:
            if self.source == DiskSource.POOL:
                return await self._read_pool()
            return await self._read_local()
        except CallTimeoutError as error:
            raise SpaceHangsError(error.message) from None
        except TimeoutError:
            where = self._settings.instances_path or "the folder of the instances"
            raise SpaceHangsError(f"{where} does not answer") from None
        except (HypervisorUnavailableError, HypervisorRefusedError) as error:
            raise DiskUnknownError(error.message) from None

    def _path(self) -> str:
        # In a thread: looking whether a folder is there may hang as well.
        return instances_path(self._settings.instances_path, local=self._local)

    async def _read_local(self) -> Space:
        if self._thread is None:
            self._thread = CallThread("disk", self._uri)
        if self._thread.in_flight:
            raise TimeoutError  # the reading before this one still hangs
        return await self._thread.call(
            lambda: read_local(self._path()), self._settings.call_deadline_seconds
        )

    async def _read_pool(self) -> Space:
        connection = self._connection
        if connection is not None and connection.thread.in_flight:
            raise TimeoutError  # the call before this one still hangs
        if connection is None or connection.lost.done():
            await self._drop_connection()
            connection = self._connection = Connection(self._uri, self._settings)
            try:
                await connection.open()
            except BaseException:
                connection.close()
                raise
        return await connection.ask(
            "virConnectListAllStoragePools", lambda handle: read_pool(handle, self._path())
        )

    async def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    async def aclose(self) -> None:
        """End the thread and the connection, but for what a file system or a pool still holds."""
        await self._drop_connection()
        if self._thread is not None:
            await self._thread.aclose()


class DiskWatch:
    """The readings of one host's disk.

    ``tell`` is given the figures, the last ones with the reason where they cannot be had, or None;
    ``tell_unread``, the domains with a disk that cannot be read, by UUID, each with the reason.
    While ``events_wait``, which is whether what events marked waits to be read, disks do so too.
    """

    def __init__(
        self,
        uri: str,
        settings: MonitorSettings,
        tell: Callable[[DiskUsage | None, str | None], None],
        tell_unread: Callable[[Mapping[str, str]], None],
        events_wait: Callable[[], bool],
        *,
        host: str,
    ) -> None:
        self._uri = uri
        self._settings = settings
        self._tell = tell
        self._tell_unread = tell_unread
        self._reader = SpaceReader(uri, settings)
        self._soon = asyncio.Event()
        self._at_once = asyncio.Event()
        self._space: Space | None = None
        self._space_answers = asyncio.Event()
        """Whether there is a space, and its last reading was answered."""
        self._least: int | None = None
        self._unread: Mapping[str, str] | None = None
        self._surprises = Surprises(get_logger("asynchost.hypervisor", host=host))
        self._overcommit = OvercommitWatch(uri, settings, self._disks_read, events_wait, host=host)

    def look_soon(self, uuid: str, *, redefined: bool) -> None:
        """A domain started or ended, which can change what is used, or may have other disks from
        now on (``redefined``)."""
        if self._reader.source != DiskSource.NONE:
            self._soon.set()
            self._overcommit.look_soon(uuid, redefined=redefined)

    async def run(self) -> None:
        """Read and tell for as long as the host is connected. Cancelling is safe.

        Returns where no disk is wanted.
        """
        if self._reader.source == DiskSource.NONE:
            self._tell(None, None)
            return
        await together(
            self._surprises.endure("disk space", self._keep_space),
            self._surprises.endure("disks", lambda: self._overcommit.run(self._place)),
        )

    async def _keep_space(self) -> None:
        while True:
            self._soon.clear()
            self._at_once.clear()
            # What is available is wanted of the moment at which the disks had been read. After
            # that both move, so the difference stands until they are read again.
            unread, self._unread = self._unread, None
            growth = self._overcommit.total_bytes
            try:
                self._space, reason = await self._reader.read(), None
            except SpaceHangsError as error:
                reason = str(error)
                self._space_answers.clear()
            except DiskUnknownError as error:
                reason = str(error)
                self._answered()
            except Exception as error:  # noqa: BLE001 - told like any other reason
                reason = self._surprises.tell("disk space", error)
                self._answered()
            else:
                self._answered()
            if unread is not None and self._space is not None:  # as it was read last
                self._least = None if growth is None else self._space.available_bytes - growth
            self._tell(self._usage(), reason)
            if unread is not None:
                self._tell_unread(unread)
            await self._until_due()

    async def _until_due(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEAST_SPACING_SECONDS):
                await self._at_once.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.disk_interval_seconds):
                await self._soon.wait()

    def _usage(self) -> DiskUsage | None:
        space = self._space
        if space is None:
            return None
        return DiskUsage(space.total_bytes, space.used_bytes, self._least)

    def _answered(self) -> None:
        if self._space is not None:
            self._space_answers.set()

    async def _place(self) -> Place:
        """Where the instances lie; waits while that space does not answer."""
        while self._space is None or not self._space_answers.is_set():
            await self._space_answers.wait()
        return self._space.place

    def _disks_read(self, unread: Mapping[str, str]) -> None:
        self._unread = unread
        self._at_once.set()
        self._soon.set()

    async def aclose(self) -> None:
        """End the threads and connections, but for those that something still holds."""
        await asyncio.gather(self._overcommit.aclose(), self._reader.aclose())
