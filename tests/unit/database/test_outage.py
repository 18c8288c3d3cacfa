"""What failures in a row amount to."""

import pytest
import structlog

from asynchost.database import WriterSettings
from asynchost.database.outage import Outage
from asynchost.database.url import DatabaseUrl
from asynchost.errors import DatabaseRefusedError, DatabaseUnavailableError

URL = DatabaseUrl.parse("mysql://u@h/db")
GONE, TOO_MANY, NOVELTY, DENIED = 2013, 1040, 31337, 1142
SETTINGS = WriterSettings(
    backoff_initial_seconds=2, backoff_maximum_seconds=8, refusal_retry_seconds=60
)


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Outage:
    """With the longest delay that could be drawn."""
    monkeypatch.setattr("random.random", lambda: 1.0)
    return Outage(URL, SETTINGS, structlog.get_logger())


def unavailable(code: int | None) -> DatabaseUnavailableError:
    return DatabaseUnavailableError("db", code, "is away")


REFUSED = DatabaseRefusedError("db", DENIED, "is not for you", "ask")


def test_attempts_are_made_for_ever_and_ever_more_seldom(outage: Outage) -> None:
    """Up to the longest delay, and from the beginning once something was written."""
    delays = [outage.delay_after(unavailable(GONE), closing=False) for _ in range(5)]
    assert delays == [2, 4, 8, 8, 8]
    outage.over()
    assert outage.delay_after(unavailable(GONE), closing=False) == 2


def test_a_refusal_is_waited_out_only_by_who_was_let_in_before(outage: Outage) -> None:
    """Else somebody must mend it."""
    with pytest.raises(DatabaseRefusedError) as caught:
        outage.delay_after(REFUSED, closing=False)
    assert caught.value is REFUSED
    outage.accepted()
    assert outage.delay_after(REFUSED, closing=False) == 120


def test_an_unknown_error_that_comes_again_and_again_is_a_refusal(outage: Outage) -> None:
    """The third time in a row; connecting, which succeeded each time, is no end of it."""
    for _ in range(2):
        outage.delay_after(unavailable(NOVELTY), closing=False)
        outage.accepted()
    assert outage.delay_after(unavailable(NOVELTY), closing=False) == 120


@pytest.mark.parametrize("between", [GONE, None, NOVELTY + 1])
def test_another_error_between_two_unknown_ones_begins_the_count_anew(
    outage: Outage, between: int | None
) -> None:
    """What is known, has no code, or is another novelty."""
    delays = [
        outage.delay_after(unavailable(code), closing=False)
        for code in (NOVELTY, NOVELTY, between, NOVELTY, NOVELTY)
    ]
    assert delays == [2, 4, 8, 8, 8]
    with pytest.raises(DatabaseRefusedError, match="is away, 3 times in a row"):
        outage.delay_after(unavailable(NOVELTY), closing=False)


def test_a_success_between_two_unknown_ones_begins_the_count_anew(outage: Outage) -> None:
    """A turn of writing, not a connection."""
    for _ in range(4):
        outage.delay_after(unavailable(NOVELTY), closing=False)
        outage.over()


def test_each_reason_of_an_outage_is_told_once(outage: Outage) -> None:
    """And again in the next one."""
    with structlog.testing.capture_logs() as logs:
        for code in (GONE, GONE, TOO_MANY, GONE, TOO_MANY):
            outage.delay_after(unavailable(code), closing=False)
    assert [line["reason"] for line in logs] == [
        unavailable(code).message for code in (GONE, TOO_MANY)
    ]
    outage.accepted()
    with structlog.testing.capture_logs() as logs:
        outage.delay_after(unavailable(GONE), closing=False)
    assert len(logs) == 1


@pytest.mark.parametrize(("closing", "lines"), [(False, 3), (True, 1)])
def test_a_refusal_is_told_of_each_time(outage: Outage, closing: bool, lines: int) -> None:
    """It needs a person; except while closing, when attempts follow at once."""
    outage.accepted()
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            outage.delay_after(REFUSED, closing=closing)
    assert [line["log_level"] for line in logs] == ["error"] * lines
