"""Unexpected errors of work that no total needs: logged once, tried again."""

import asyncio
from collections.abc import Iterator

import pytest
import structlog
from structlog.testing import capture_logs

from asynchost.hypervisor.surprises import Surprises
from asynchost.log import get_logger


@pytest.fixture(autouse=True)
def structlog_as_before() -> Iterator[None]:
    """Capturing lines configures structlog, which other tests find as they left it."""
    yield
    structlog.reset_defaults()


def test_the_same_error_is_logged_once_for_each_work() -> None:
    """With the error itself, so that its traceback can be shown; another text is news."""
    with capture_logs() as logs:
        surprises = Surprises(get_logger("asynchost.test"))
        error = ValueError("odd")
        assert surprises.tell("facts", error) == "ValueError: odd"
        surprises.tell("facts", ValueError("odd"))
        surprises.tell("disk", ValueError("odd"))
        assert surprises.tell("facts", KeyError()) == "KeyError"
    assert [line["work"] for line in logs] == ["facts", "disk", "facts"]
    assert logs[0]["exc_info"] is error


async def test_work_is_begun_again_until_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each error is followed by a pause that may be twice as long as the last one."""
    pauses: list[float] = []
    begun = 0

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun < 4:
            raise ValueError("odd")

    monkeypatch.setattr(asyncio, "sleep", pause)
    with capture_logs():
        await Surprises(get_logger("asynchost.test")).endure("facts", work)
    assert begun == 4
    assert len(pauses) == 3
    assert all(0 <= pause <= bound for pause, bound in zip(pauses, (0.5, 1.0, 2.0), strict=True)), (
        pauses
    )


async def test_a_cancellation_is_no_surprise() -> None:
    """It ends the work."""
    task = asyncio.create_task(
        Surprises(get_logger("asynchost.test")).endure("facts", asyncio.Event().wait)  # type: ignore[arg-type]
    )
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
