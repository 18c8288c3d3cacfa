"""Reads the disk's figures on a slow timer, and soon after a domain came or went.

Its own thread for a local host and its own connection for a remote one, because a file system
on a server that is gone can hang the reading for ever; nothing else waits for it. Memory: one
thread, one flag.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from asynchost.errors import HypervisorRefusedError, HypervisorUnavailableError
from asynchost.hypervisor.call_thread import CallThread
from asynchost.hypervisor.connection import Connection
from asynchost.hypervisor.disk import DiskUnknownError, instances_path, read_local, read_pool
from asynchost.hypervisor.uri import is_local
from asynchost.model import DiskUsage
from asynchost.settings import MonitorSettings

# A storm of starts asks for one look a second, not for one each.
_LEAST_SPACING_SECONDS: Final = 1.0


class DiskWatch:
    """The readings of one host's disk."""

    def __init__(
        self,
        uri: str,
        settings: MonitorSettings,
        tell: Callable[[DiskUsage | None, str | None], None],
    ) -> None:
        self._uri = uri
        self._settings = settings
        self._tell = tell
        self._local = is_local(uri)
        self._path = instances_path(settings.instances_path, local=self._local)
        self._thread: CallThread | None = None
        self._connection: Connection | None = None
        self._soon = asyncio.Event()

    def look_soon(self) -> None:
        """Something happened that can change what is used."""
        self._soon.set()

    async def run(self) -> None:
        """Read and tell for as long as the host is connected. Cancelling is safe."""
        while True:
            self._soon.clear()
            try:
                disk, reason = await self._read(), None
            except DiskUnknownError as error:
                disk, reason = None, str(error)
            except (HypervisorUnavailableError, HypervisorRefusedError) as error:
                disk, reason = None, error.message
                await self._drop_connection()
            except TimeoutError:
                disk, reason = None, f"{self._path} does not answer"
            self._tell(disk, reason)
            await asyncio.sleep(_LEAST_SPACING_SECONDS)
            try:
                async with asyncio.timeout(self._settings.disk_interval_seconds):
                    await self._soon.wait()
            except TimeoutError:
                pass

    async def _read(self) -> DiskUsage:
        if not self._local:
            return await self._read_pool()
        if self._thread is None:
            self._thread = CallThread("disk")
        if self._thread.in_flight:
            raise TimeoutError  # the reading before this one still hangs
        return await self._thread.call(
            lambda: read_local(self._path), self._settings.call_deadline_seconds
        )

    async def _read_pool(self) -> DiskUsage:
        if self._connection is None:
            self._connection = Connection(self._uri, self._settings)
            await self._connection.open()
        return await self._connection.ask(
            "virConnectListAllStoragePools", lambda handle: read_pool(handle, self._path)
        )

    async def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    async def aclose(self) -> None:
        """End the thread, but for one that the file system still holds."""
        await self._drop_connection()
        if self._thread is not None:
            await self._thread.aclose()
