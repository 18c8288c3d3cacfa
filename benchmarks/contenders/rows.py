"""A host's row kept true, and the statement and the call that this is measured against."""

import asyncio
import logging
import random
import time
from collections.abc import MutableMapping
from typing import Any

import aiomysql
import libvirt
import structlog

import asynchost
from asynchost.database.url import DatabaseUrl
from benchmarks.contenders.monitor import Monitor


class Row(Monitor):
    """A monitor with a writer that writes at once."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._writer: asynchost.ComputeNodeWriter | None = None
        # The writer says in the log what it has written as soon as that is acknowledged.
        structlog.configure(
            processors=[self._note],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        )

    def _note(
        self, _logger: object, _method: str, line: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        if line["event"] == "row written" and "running_vms" in line:
            self.marks.append(("", time.monotonic_ns(), line["running_vms"]))
        raise structlog.DropEvent

    async def watch(self, uri: str) -> dict[str, Any]:
        """See the base."""
        await super().watch(uri)
        settings = asynchost.WriterSettings(quiet_seconds=0, maximum_delay_seconds=0)
        self._writer = asynchost.ComputeNodeWriter(self._url, settings=settings)
        await self._writer.__aenter__()
        self._writer.attach(self.monitor)
        await self.monitor.get_host_stats()  # until there are all figures of a row
        await self._writer.flush()
        return {}

    async def unwatch(self) -> None:
        """See the base."""
        if self._writer is not None:
            await self._writer.aclose()
        await super().unwatch()


class Update:
    """One bare UPDATE through aiomysql, again and again."""

    def __init__(self, url: str) -> None:
        self._url = DatabaseUrl.parse(url)

    async def measure(self, uri: str, count: int, interval: float) -> dict[str, Any]:  # noqa: ARG002
        """``count`` times, with pauses: how long each took."""
        url = self._url
        connection = await aiomysql.connect(
            unix_socket=url.unix_socket, user=url.user, db=url.database, autocommit=True
        )
        latencies = []
        async with connection.cursor() as cursor:
            for number in range(count):
                await asyncio.sleep(interval * random.uniform(0.5, 1.5))
                before = time.monotonic()
                await cursor.execute(
                    "UPDATE bare SET vcpus_used = %s, memory_mb_used = %s, running_vms = %s,"
                    " free_ram_mb = %s, updated_at = UTC_TIMESTAMP() WHERE id = 1",
                    (number, number, number, number),
                )
                latencies.append(time.monotonic() - before)
        await connection.ensure_closed()
        return {"latencies": latencies}


class Info:
    """One ``info()``, again and again, straight from the one thread there is."""

    async def measure(self, uri: str, count: int, interval: float) -> dict[str, Any]:
        """``count`` times, with pauses: how long each took."""
        return await asyncio.to_thread(self._measure, uri, count, interval)

    def _measure(self, uri: str, count: int, interval: float) -> dict[str, Any]:
        connection = libvirt.openReadOnly(uri)
        domain = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)[0]
        latencies = []
        for _ in range(count):
            time.sleep(interval * random.uniform(0.5, 1.5))
            before = time.monotonic()
            domain.info()
            latencies.append(time.monotonic() - before)
        del domain
        connection.close()
        return {"latencies": latencies}
