"""One private server, a network in front of it, and an account with the rights that are printed.

May live here: what the faults break and mend. Must not: which faults there are.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymysql

from asynchost.database import PrivateMariaDB, apply_schema
from asynchost.database.schema import grant_statements
from tests.storms.load import VERSION, Load
from tests.support.mariadb import Database
from tests.support.proxy import Proxy

WRITER = "writer"
"""The account that storms write with. It may neither write to a read-only server nor have the
connection that is kept for administrators."""
_SERVER = (
    # A crash then takes back what was acknowledged within the last second.
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-buffer-pool-size=64M",
    "--max-connections=40",
)


@dataclass
class Scene:
    """What a fault may lay hands on."""

    server: PrivateMariaDB
    database: Database
    proxy: Proxy
    url: str
    """The way through the proxy."""
    load: Load
    rng: random.Random
    ended: Callable[[], bool] = field(default=lambda: False)
    """Whether the time is over: then nothing is waited for that may never come."""

    async def execute(self, statement: str) -> list[dict[str, Any]]:
        """A statement of an administrator, past the proxy."""
        return await asyncio.to_thread(self.database.execute, statement)

    async def pause(self, least_seconds: float, most_seconds: float) -> None:
        """The fault goes on for some time."""
        await asyncio.sleep(self.rng.uniform(least_seconds, most_seconds))

    async def grant(self) -> None:
        """The account's rights, column by column."""
        for statement in grant_statements("nova", f"{WRITER}@localhost"):
            await self.execute(statement)

    async def versions(self) -> dict[str, int]:
        """The states that the live rows hold."""
        rows = await self.execute(
            f"SELECT hypervisor_hostname, {VERSION} FROM compute_nodes WHERE deleted = 0"
        )
        return {row["hypervisor_hostname"]: row[VERSION] for row in rows}

    async def holds(self, versions: dict[str, int]) -> bool:
        """Whether each host's row has come as far, as far as can be told."""
        try:
            found = await self.versions()
        except (pymysql.err.Error, OSError):
            return False
        return all(found.get(host, 0) >= version for host, version in versions.items())


@asynccontextmanager
async def scene(
    load: Load, rng: random.Random, arguments: Sequence[str] = ()
) -> AsyncIterator[Scene]:
    """A server with both tables, empty, and the way to it; all gone afterwards."""
    async with PrivateMariaDB(arguments=[*_SERVER, *arguments]) as server:
        Database(server, "mysql").execute("CREATE DATABASE nova")
        database = Database(server, "nova")
        await apply_schema(database.url)
        database.execute(f"CREATE USER {WRITER}@localhost")
        listen = Path(server.folder, "p")
        with Proxy(server.socket, listen) as proxy:
            url = server.url("nova", user=WRITER).replace(str(server.socket), str(listen))
            made = Scene(server, database, proxy, url, load, rng)
            await made.grant()
            yield made
