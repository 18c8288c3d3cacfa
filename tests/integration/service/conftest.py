"""Fixtures of the daemon's tests: a private MariaDB with both tables, for one test each."""

from collections.abc import AsyncIterator

import pytest

from asynchost.database.inspection import apply_schema
from asynchost.database.private_server import PrivateMariaDB
from tests.integration.service.rows import Database


@pytest.fixture
async def empty_database() -> AsyncIterator[Database]:
    """A database without tables."""
    async with PrivateMariaDB() as server:
        database = Database(server, "nova")
        database.execute("CREATE DATABASE nova", within="mysql")
        yield database


@pytest.fixture
async def database(empty_database: Database) -> Database:
    """A database with the two tables, both empty."""
    await apply_schema(empty_database.url())
    return empty_database
