"""Real database servers for the tests, and an independent look into their databases.

The server is Debian's MariaDB, or a MySQL where ``ASYNCHOST_MYSQL`` names a root folder that holds
one; see :mod:`tests.support.mysql`.

May live here: fixtures that any ``conftest.py`` can import by name, and a plain blocking client
that shares no code with what is tested. Must not: anything that a writer is meant to do.
"""

import itertools
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pymysql
import pytest
import pytest_asyncio
from pymysql.cursors import DictCursor

from asynchost.database.inspection import apply_schema
from asynchost.database.private_server import PrivateMariaDB
from tests.support import mysql
from tests.support.libvirtd_settings import free_tcp_port
from tests.support.waiting import eventually

__all__ = [
    "MYSQL",
    "Database",
    "PrivateServer",
    "database",
    "empty_database",
    "in_the_open",
    "mariadb",
    "numbers",
    "over_tcp",
    "private_database",
]

MYSQL = mysql.ROOT is not None
"""Whether the server is a MySQL."""
PrivateServer: type[PrivateMariaDB] = mysql.PrivateMySQL if MYSQL else PrivateMariaDB
"""The server that the database tests start."""

_numbers = itertools.count(1)


class Database:
    """A database of one test: its URL, and statements by another client."""

    def __init__(self, server: PrivateMariaDB, name: str) -> None:
        self.server = server
        self.name = name
        self.url = server.url(name)
        self._own: set[tuple[int | None, int]] = set()
        """The test's own connections, each with the server's process: another one counts anew."""

    def connect(self) -> "pymysql.Connection[DictCursor]":
        """A connection of the test's own, with autocommit, to be closed by the test.

        Raises OSError where the server is down.
        """
        # The driver would leave its socket open where nobody listens.
        door = socket.socket(socket.AF_UNIX)
        try:
            door.connect(str(self.server.socket))
            connection: pymysql.Connection[DictCursor] = pymysql.connect(
                user=self.server.user,
                database=self.name,
                autocommit=True,
                cursorclass=DictCursor,
                read_timeout=60,
                defer_connect=True,
            )
            connection.connect(door)
        except BaseException:
            door.close()
            raise
        self._own.add((self.server.pid, connection.thread_id()))
        return connection

    def execute(self, statement: str) -> list[dict[str, Any]]:
        """Carry out one statement on a connection of its own; returns its rows."""
        connection = self.connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall())
        finally:
            connection.close()

    def make_account(self, account: str, *grants: str, password: str = "", more: str = "") -> None:
        """An account, ``name`` or ``name@host``, anew; with these GRANTs."""
        self.execute(f"DROP USER IF EXISTS {account}")
        self.execute(f"CREATE USER {account} IDENTIFIED BY '{password}' {more}")
        for grant in grants:
            self.execute(grant)

    def rows(self, where: str = "TRUE") -> list[dict[str, Any]]:
        """The rows of compute_nodes, by name: which of two is made first is nobody's promise."""
        return self.execute(
            f"SELECT * FROM compute_nodes WHERE {where} ORDER BY hypervisor_hostname, id"
        )

    def row(self, where: str = "TRUE") -> dict[str, Any]:
        """The one row of compute_nodes."""
        (row,) = self.rows(where)
        return row

    def fences(self) -> list[dict[str, Any]]:
        """The rows of the companion table, by key."""
        return self.execute("SELECT * FROM asynchost_fence ORDER BY node, service")

    def connections(self) -> list[int]:
        """The ids of the connections to this database that are not the test's own.

        One that was closed stays in the server's list for as long as the server takes to notice.
        """
        listed = [row["Id"] for row in self.execute("SHOW PROCESSLIST") if row["db"] == self.name]
        return [number for number in listed if (self.server.pid, number) not in self._own]

    async def only_connection(self) -> int:
        """The id of the one connection that is left once all that were closed are gone."""
        (number,) = await eventually(lambda: len(one := self.connections()) == 1 and one)
        return number

    def insert_node(self, **columns: object) -> int:
        """A row as some other program would have left it; returns its id."""
        values: dict[str, object] = {
            **dict.fromkeys(("vcpus", "memory_mb", "local_gb"), 1),
            **dict.fromkeys(("vcpus_used", "memory_mb_used", "local_gb_used"), 0),
            "service_id": 7,
            "hypervisor_type": "QEMU",
            "hypervisor_version": 1,
            "cpu_info": "{}",
            "hypervisor_hostname": "node",
            "deleted": 0,
            **columns,
        }
        connection = self.connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(
                    f"INSERT INTO compute_nodes ({', '.join(values)})"
                    f" VALUES ({', '.join(['%s'] * len(values))})",
                    list(values.values()),
                )
                return int(cursor.lastrowid)
        finally:
            connection.close()

    def insert_service(
        self, host: str, silent_seconds: int, binary: str = "nova-compute", deleted: int = 0
    ) -> int:
        """A service in Nova's table that reported so long ago; returns its id."""
        connection = self.connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(
                    "INSERT INTO services"
                    " (host, `binary`, topic, report_count, deleted, updated_at)"
                    " VALUES (%s, %s, %s, 1, %s, UTC_TIMESTAMP() - INTERVAL %s SECOND)",
                    (host, binary, binary, deleted, silent_seconds),
                )
                return int(cursor.lastrowid)
        finally:
            connection.close()


def numbers(count: int) -> str:
    """A SELECT of the numbers from 1 to ``count``: MariaDB's sequence tables are not MySQL's."""
    places = [f"d{place}" for place in range(len(str(count - 1)))]
    digits = " UNION ALL ".join(f"SELECT {digit} n" for digit in range(10))
    number = " + ".join(f"{10**place} * {name}.n" for place, name in enumerate(places))
    tables = " JOIN ".join(f"({digits}) {name}" for name in places)
    return f"SELECT 1 + {number} AS number FROM {tables} WHERE 1 + {number} <= {count}"


def in_the_open(server: PrivateMariaDB) -> str:
    """What a URL needs to log in over TCP without TLS."""
    is_mysql = isinstance(server, mysql.PrivateMySQL)
    return f"?server_public_key={server.public_key}" if is_mysql else ""


@asynccontextmanager
async def over_tcp(*arguments: str, requires: str = "NONE") -> AsyncIterator[Database]:
    """A server of its own that listens on 127.0.0.1, and its database with both tables.

    ``url`` is over TCP, for the account ``agent`` (password ``pw``), which may do anything there
    and nothing elsewhere; ``requires`` is what it asks of a connection: ``SSL``, ``X509``.
    """
    port = free_tcp_port()
    listening = ("--skip-networking=OFF", "--bind-address=127.0.0.1", f"--port={port}")
    async with PrivateServer(arguments=[*listening, *arguments]) as server:
        admin = Database(server, "mysql")
        admin.execute("CREATE DATABASE nova")
        agent = "agent@'127.0.0.1'"
        more = f"REQUIRE {requires}"
        admin.make_account(agent, f"GRANT ALL ON nova.* TO {agent}", password="pw", more=more)
        database = Database(server, "nova")
        await apply_schema(database.url)
        database.url = f"mysql://agent:pw@127.0.0.1:{port}/nova{in_the_open(server)}"
        yield database


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mariadb() -> AsyncIterator[PrivateMariaDB]:
    """The session's server, for tests that leave the server itself alone."""
    async with PrivateServer(arguments=["--max-connections=200"]) as server:
        yield server


@pytest.fixture
def empty_database(mariadb: PrivateMariaDB) -> Iterator[Database]:
    """A database without tables on the session's server, gone after the test."""
    database = Database(mariadb, f"test_{next(_numbers)}")
    admin = Database(mariadb, "mysql")
    admin.execute(f"CREATE DATABASE {database.name}")
    yield database
    admin.execute(f"DROP DATABASE {database.name}")


@pytest.fixture
async def database(empty_database: Database) -> Database:
    """A database with both tables, both empty, on the session's server."""
    await apply_schema(empty_database.url)
    return empty_database


@pytest.fixture
async def private_database() -> AsyncIterator[Database]:
    """A database with both tables on a server of the test's own, to be killed at will."""
    async with PrivateServer() as server:
        Database(server, "mysql").execute("CREATE DATABASE nova")
        database = Database(server, "nova")
        await apply_schema(database.url)
        yield database
