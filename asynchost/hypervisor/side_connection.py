"""A connection for calls that may hang, beside those that the totals need.

A call that hangs holds its connection, which is then left to it; the next call is made over a new
one. Who uses it decides how many may hang: each takes one of libvirtd's twenty workers.

Memory: one connection, and those that a call holds.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple, TypeVar

import libvirt

from asynchost.errors import CallTimeoutError, HypervisorUnavailableError
from asynchost.hypervisor.connection import Connection
from asynchost.settings import MonitorSettings

T = TypeVar("T")

_CLOSE_DEADLINE_SECONDS: Final = 0.5
_OPENING: Final = "a new connection"


class InProcessError(Exception):
    """The driver runs inside this process, where another connection can be another host."""


class Hang(NamedTuple):
    """A call that was given up, and holds its connection."""

    connection: Connection
    about: object
    """What its caller said of it, besides its subject."""


class SideConnection:
    """One connection at a time, opened when a call is made."""

    def __init__(self, uri: str, settings: MonitorSettings) -> None:
        self._uri = uri
        self._settings = settings
        self._connection: Connection | None = None
        self._hanging: dict[str, Hang] = {}

    async def ask(
        self,
        subject: str,
        name: str,
        call: Callable[[libvirt.virConnect], T],
        deadline_seconds: float,
        about: object = None,
    ) -> T:
        """Make one call about ``subject``; if it hangs, leave it the connection.

        ``name`` is libvirt's name for the call. Raises :class:`CallTimeoutError` when the call
        outlives its deadline, and without a call where an earlier one about that subject still
        hangs; :class:`InProcessError`; otherwise as :meth:`Connection.ask`. Cancelling is safe.
        """
        if self.hangs(subject):
            raise CallTimeoutError(self._uri, name, deadline_seconds)
        connection = await self._connected()
        try:
            return await connection.ask(name, call, deadline_seconds)
        except (CallTimeoutError, asyncio.CancelledError):
            self._leave(subject, about)
            raise

    def hangs(self, subject: str) -> bool:
        """Whether a call about ``subject`` was given up, and libvirt has not answered yet."""
        hang = self._hanging.get(subject)
        if hang is None:
            return False
        if hang.connection.thread.in_flight:
            return True
        del self._hanging[subject]
        return False

    @property
    def hanging(self) -> list[Hang]:
        """The calls that hang now."""
        return [self._hanging[subject] for subject in tuple(self._hanging) if self.hangs(subject)]

    async def _connected(self) -> Connection:
        if self._connection is not None and not self._connection.lost.done():
            return self._connection
        await self.drop()
        if self.hangs(_OPENING):
            raise HypervisorUnavailableError(self._uri, "no new connection can be opened")
        self._connection = Connection(self._uri, self._settings)
        try:
            await self._connection.open()
        except BaseException:
            self._leave(_OPENING, None)
            raise
        if self._connection.in_process:
            raise InProcessError("the driver runs inside this process")
        return self._connection

    def _leave(self, subject: str, about: object) -> None:
        """Leave the connection to the call that hangs in it; it is closed when that is back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            self._hanging[subject] = Hang(connection, about)

    async def drop(self) -> None:
        """Close the connection; the next call opens another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    async def aclose(self) -> None:
        """Close all connections, but for those that a call still holds."""
        left = [hang.connection for hang in self._hanging.values()]
        left += [self._connection] if self._connection else []
        self._connection = None
        for connection in left:
            connection.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_DEADLINE_SECONDS):
                await asyncio.gather(*(connection.aclose() for connection in left))
