"""What the database edge's tests share beside the servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from asynchost.database import apply_schema
from tests.support.mariadb import Database

_TODAYS_NOVA = Path(__file__).parent / "nova.sql"


@pytest.fixture
async def nova(empty_database: Database) -> Database:
    """A database of today's Nova, with the companion table."""
    for statement in _TODAYS_NOVA.read_text().split(";\n"):
        if statement.strip():
            empty_database.execute(statement)
    await apply_schema(empty_database.url)
    return empty_database


@pytest.fixture(autouse=True)
def logging_through_structlog() -> Iterator[None]:
    """A program that has configured structlog: log lines can be captured."""
    structlog.configure()
    yield
    structlog.reset_defaults()
