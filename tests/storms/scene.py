"""What a storm breaks: servers, a network in front of them, and an account with no more rights
than are printed for it.

May live here: what the faults break and mend. Must not: which faults there are.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pymysql

from asynchost.database import PrivateMariaDB, WriterSettings, apply_schema
from asynchost.database.schema import grant_statements
from tests.storms.load import VERSION, Load
from tests.support.disk import small_disk
from tests.support.mariadb import MYSQL, Database, PrivateServer
from tests.support.proxy import Proxy

WRITER = "writer"
"""The account that storms write with. It may neither write to a read-only server nor have the
connection that is kept for administrators."""
_DISK_MIB = 768 if MYSQL else 384
_SERVER = (
    # A crash then takes back what was acknowledged within the last second.
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-buffer-pool-size=64M",
    "--max-connections=40",
)

HURRIED = WriterSettings(
    # More than the second that it waits for a lock.
    statement_deadline_seconds=1.5,
    renewal_interval_seconds=1.0,
    connection_age_seconds=5.0,
    backoff_initial_seconds=0.05,
    backoff_maximum_seconds=0.5,
    refusal_retry_seconds=0.2,
)
"""A writer in a hurry: what takes minutes in its defaults takes a second here."""


class ImpossibleError(Exception):
    """A fault that this machine does not let anyone make."""


class Scene:
    """What every fault may lay hands on."""

    def __init__(
        self,
        databases: Sequence[Database],
        proxies: Sequence[Proxy],
        url: str,
        load: Load,
        rng: random.Random,
    ) -> None:
        self.databases = databases
        """The database, as each node shows it; past the proxies."""
        self.proxies = proxies
        self.url = url
        """The way through the proxies."""
        self.load = load
        self.rng = rng
        self.ended: Callable[[], bool] = lambda: False
        """Whether the time is over: then nothing is waited for that may never come."""
        self.violations: list[str] = []
        """What a fault itself found wrong."""

    async def execute(self, statement: str) -> list[dict[str, Any]]:
        """A statement of an administrator, who tries again where the writer was in the way."""
        while True:
            try:
                return await asyncio.to_thread(self.databases[0].execute, statement)
            except pymysql.err.OperationalError as error:
                if error.args[0] not in (1205, 1213):
                    raise

    async def pause(self, least_seconds: float, most_seconds: float) -> None:
        """The fault goes on for some time."""
        await asyncio.sleep(self.rng.uniform(least_seconds, most_seconds))

    async def grant(self) -> None:
        """The account's rights, column by column."""
        for statement in grant_statements("nova", f"{WRITER}@localhost"):
            await self.execute(statement)

    async def holds(self, versions: Mapping[str, int]) -> bool:
        """Whether each host's row has come as far, on one of the nodes; False if none tells."""
        return any([await self._holds(database, versions) for database in self.databases])

    async def _holds(self, database: Database, versions: Mapping[str, int]) -> bool:
        statement = f"SELECT hypervisor_hostname, {VERSION} FROM compute_nodes WHERE deleted = 0"
        try:
            rows = await asyncio.to_thread(database.execute, statement)
        except (pymysql.err.Error, OSError):
            return False
        found = {row["hypervisor_hostname"]: row[VERSION] for row in rows}
        return all(found.get(host, 0) >= version for host, version in versions.items())


class OneServer(Scene):
    """A single server, on a small disk of its own where one can be had."""

    def __init__(self, server: PrivateMariaDB, disk: Path | None, proxy: Proxy, *rest: Any) -> None:
        super().__init__([Database(server, "nova")], [proxy], *rest)
        self.server = server
        self.disk = disk


@asynccontextmanager
async def one_server(load: Load, rng: random.Random) -> AsyncIterator[OneServer]:
    """A server with both tables, empty, and the way to it; all gone afterwards."""
    with ExitStack() as stack:
        disk: Path | None = Path(stack.enter_context(TemporaryDirectory(prefix="storm-")))
        try:
            stack.enter_context(small_disk(Path(str(disk)), _DISK_MIB))
        except OSError:
            disk = None
        async with PrivateServer(arguments=_SERVER) as server:
            await furnish(server)
            listen = Path(server.folder, "p")
            with Proxy(server.socket, listen) as proxy:
                url = server.url("nova", user=WRITER).replace(str(server.socket), str(listen))
                made = OneServer(server, disk, proxy, url, load, rng)
                await made.grant()
                yield made


async def furnish(server: PrivateMariaDB) -> None:
    """Both tables and the account, which may do nothing yet."""
    Database(server, "mysql").execute("CREATE DATABASE nova")
    await apply_schema(server.url("nova"))
    Database(server, "nova").execute(f"CREATE USER {WRITER}@localhost")
