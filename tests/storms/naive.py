"""Writers as one would write them at first: they show that the invariants can be broken.

For each host the newest state is queued, and written with one ``UPDATE`` that is tried again on
any error. They open a new connection when one breaks, have a deadline for each statement, and no
guard. The one holds absolute values, the other adds differences.
"""

import asyncio
from types import TracebackType
from typing import Self

import aiomysql
import pymysql

from asynchost.database.rows import RowEncoder, Values, named
from asynchost.database.settings import WriterSettings
from asynchost.database.statements import literal
from asynchost.database.url import DatabaseUrl
from asynchost.model import SnapshotSource


class NaiveWriter:
    """Has of :class:`~asynchost.database.ComputeNodeWriter` what a storm uses."""

    def __init__(self, url: str, *, settings: WriterSettings) -> None:
        self._url = DatabaseUrl.parse(url)
        self._settings = settings
        self._queue: dict[SnapshotSource, None] = {}
        self._rows: dict[SnapshotSource, int] = {}
        self._known: dict[SnapshotSource, Values] = {}
        """What was acknowledged."""
        self._woken = asyncio.Event()
        self._idle = asyncio.Event()
        self._connection: aiomysql.Connection | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._close()

    def attach(self, source: SnapshotSource) -> None:
        """Write this host's row from now on."""

        def moved() -> None:
            self._queue[source] = None
            self._idle.clear()
            self._woken.set()

        source.add_listener(moved)
        moved()

    async def flush(self) -> None:
        """Wait until the queue is empty."""
        await self._idle.wait()

    async def _run(self) -> None:
        while True:
            while self._queue:
                source = next(iter(self._queue))
                del self._queue[source]
                try:
                    async with asyncio.timeout(self._settings.statement_deadline_seconds):
                        await self._write(source)
                except (pymysql.err.Error, OSError, TimeoutError, RuntimeError):
                    self._close()
                    self._queue[source] = None
                    await asyncio.sleep(self._settings.backoff_initial_seconds)
            self._idle.set()
            self._woken.clear()
            await self._woken.wait()

    async def _write(self, source: SnapshotSource) -> None:
        if self._connection is None:
            self._connection = await aiomysql.connect(
                unix_socket=self._url.unix_socket,
                user=self._url.user,
                db=self._url.database,
                autocommit=True,
            )
        values = named(RowEncoder().encode(source.snapshot()))
        async with self._connection.cursor() as cursor:
            if source not in self._rows:
                await cursor.execute(
                    "SELECT id FROM compute_nodes WHERE hypervisor_hostname = %s AND deleted = 0",
                    (source.host,),
                )
                found = await cursor.fetchone()
                if found is None:
                    await cursor.execute(
                        f"INSERT INTO compute_nodes (deleted, service_id, {', '.join(values)})"
                        f" VALUES (0, 0, {', '.join(map(literal, values.values()))})"
                    )
                self._rows[source] = cursor.lastrowid if found is None else found[0]
                self._known[source] = dict(values)
            await cursor.execute(
                f"UPDATE compute_nodes SET {self._assignments(source, values)}"
                f" WHERE id = {self._rows[source]}"
            )
            self._known[source] = dict(values)

    def _assignments(self, source: SnapshotSource, values: Values) -> str:
        return ", ".join(f"{column} = {literal(value)}" for column, value in values.items())

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class RelativeWriter(NaiveWriter):
    """Adds what has changed since the last acknowledged write."""

    def _assignments(self, source: SnapshotSource, values: Values) -> str:
        known = self._known[source]
        changes = {
            column: value - before
            for column, value in values.items()
            if isinstance(value, int) and isinstance(before := known[column], int)
        }
        return ", ".join(f"{column} = {column} + ({by:d})" for column, by in changes.items())
