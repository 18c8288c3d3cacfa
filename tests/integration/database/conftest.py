"""What the database edge's tests share beside the servers."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def logging_through_structlog() -> Iterator[None]:
    """A program that has configured structlog: log lines can be captured."""
    structlog.configure()
    yield
    structlog.reset_defaults()
