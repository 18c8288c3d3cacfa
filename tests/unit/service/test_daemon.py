"""When the daemon gives up: not for one host of several, but once nothing is written."""

import asyncio

import pytest

from asynchost import ComputeNodeWriter, WriterSettings
from asynchost.database.attachment import Attachment
from asynchost.database.session import Session
from asynchost.errors import ConfigurationError, FencedError
from asynchost.service import daemon
from asynchost.testing import FakeHost

NOWHERE = "mysql://me@localhost/nova?unix_socket=/nowhere"
IMPATIENT = WriterSettings(backoff_initial_seconds=0.01, backoff_maximum_seconds=0.01)
FENCED = FencedError("a", "rival", 2)


async def watched(
    writer: ComputeNodeWriter,
) -> tuple["asyncio.Task[None]", list[Attachment]]:
    """The daemon's wait for the end of two hosts, the first of which is fenced already."""
    attachments = [writer.attach(FakeHost(name)) for name in "ab"]
    attachments[0].fail(FENCED)
    waiting = asyncio.create_task(daemon._until_nothing_is_written(writer, attachments))
    done, _ = await asyncio.wait({waiting}, timeout=0.01)
    assert not done, "one host of two is no reason to end"
    return waiting, attachments


async def test_the_last_fenced_host_ends_it() -> None:
    """Nothing is left to write."""
    async with ComputeNodeWriter(NOWHERE, settings=IMPATIENT) as writer:
        waiting, attachments = await watched(writer)
        attachments[1].fail(FencedError("b", "rival", 2))
        with pytest.raises(FencedError):
            await asyncio.wait_for(waiting, 10)


async def test_a_host_that_must_be_mended_ends_it() -> None:
    """If nothing else is written, and it was so from the beginning."""
    async with ComputeNodeWriter(NOWHERE, settings=IMPATIENT) as writer:
        waiting, attachments = await watched(writer)
        attachments[1].fail(ConfigurationError("mend it"))
        with pytest.raises(ConfigurationError, match="mend it"):
            await asyncio.wait_for(waiting, 10)


async def test_a_host_that_was_refused_while_running_is_looked_at_again() -> None:
    """The other one is fenced, so nothing is written; but the refused one may be again."""
    async with ComputeNodeWriter(NOWHERE, settings=IMPATIENT) as writer:
        waiting, attachments = await watched(writer)
        attachments[1].was_owned = True
        attachments[1].fail(ConfigurationError("mend it"))
        done, _ = await asyncio.wait({waiting}, timeout=0.05)
        assert not done
        attachments[1].fail(FencedError("b", "rival", 2))
        with pytest.raises(FencedError):
            await asyncio.wait_for(waiting, 10)


async def test_a_fault_of_the_writer_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As what it is, which the process ends with status 1 for; not as the host fenced before."""

    async def fault(*_: object) -> None:
        raise ZeroDivisionError

    async with ComputeNodeWriter(NOWHERE, settings=IMPATIENT) as writer:
        waiting, _ = await watched(writer)
        monkeypatch.setattr(Session, "connect", fault)
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(waiting, 10)
