"""Log lines go where the embedding program says; the library configures nothing."""

import logging

import pytest
import structlog
from structlog.testing import LogCapture

from asynchost.log import get_logger


@pytest.fixture(autouse=True)
def _unconfigured() -> None:
    """structlog as a program finds it: other tests' capture_logs() leaves it configured."""
    structlog.reset_defaults()


def test_a_program_without_structlog_gets_standard_lines(caplog: pytest.LogCaptureFixture) -> None:
    """Its own logging decides: name, level and text are the standard library's."""
    caplog.set_level(logging.INFO, "asynchost.example")
    log = get_logger("asynchost.example", host="node-1")
    log.debug("not asked for")
    log.info("connected", generation=1)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("asynchost.example", logging.INFO)
    assert record.getMessage() == "event='connected' host='node-1' generation=1"


def test_text_from_outside_is_quoted(caplog: pytest.LogCaptureFixture) -> None:
    """A domain's name cannot forge a line or a colour."""
    get_logger("asynchost.example").warning("read", domain="a\nevent='forged' \x1b[31m")
    assert "\n" not in caplog.records[0].getMessage()
    assert "\x1b" not in caplog.records[0].getMessage()


def test_a_program_with_structlog_gets_structured_lines() -> None:
    """Its own processors see the event, the bound values and the level."""
    assert not structlog.is_configured()
    capture = LogCapture()
    structlog.configure(processors=[capture])
    try:
        get_logger("asynchost.example", host="node-1").info("connected", generation=1)
    finally:
        structlog.reset_defaults()
    assert capture.entries == [
        {"event": "connected", "log_level": "info", "host": "node-1", "generation": 1}
    ]


def test_nothing_is_configured() -> None:
    """Making a logger touches neither structlog nor the root logger."""
    handlers, level = list(logging.getLogger().handlers), logging.getLogger().level
    get_logger("asynchost.example")
    assert not structlog.is_configured()
    assert logging.getLogger("asynchost.example").handlers == []
    assert (list(logging.getLogger().handlers), logging.getLogger().level) == (handlers, level)
