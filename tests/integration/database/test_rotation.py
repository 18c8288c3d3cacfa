"""A password that changes while a writer runs is asked for before each connection."""

import asyncio
import threading
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from asynchost.database import ComputeNodeWriter, WriterSettings
from asynchost.testing import FakeHost
from tests.support.mariadb import Database
from tests.support.waiting import eventually, eventually_equal

SETTINGS = WriterSettings(
    quiet_seconds=0,
    maximum_delay_seconds=0,
    statement_deadline_seconds=2.0,
    backoff_initial_seconds=0.02,
    backoff_maximum_seconds=0.1,
    refusal_retry_seconds=0.1,
)
ACCOUNT = "rotating@localhost"


@pytest.fixture
def url(database: Database) -> str:
    """The way in, for an account whose password is ``first``."""
    grant = f"GRANT ALL ON {database.name}.* TO {ACCOUNT}"
    database.make_account(ACCOUNT, grant, password="first")
    return database.server.url(database.name, user="rotating")


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_a_rotated_password_is_taken_up(database: Database, url: str, kind: str) -> None:
    """After the session has ended, and after a refusal as well: the next attempt asks anew."""
    now = ["first"]

    async def ask() -> str:
        await asyncio.sleep(0)
        return now[-1]

    host = FakeHost("n1")
    password = ask if kind == "async" else lambda: now[-1]
    with capture_logs() as logs:
        async with ComputeNodeWriter(url, password=password, settings=SETTINGS) as writer:
            writer.attach(host)
            await writer.flush()
            (session,) = database.connections()
            database.execute(f"ALTER USER {ACCOUNT} IDENTIFIED BY 'second'")
            database.execute(f"KILL {session}")
            host.start(vcpus=2)
            await eventually(lambda: "1045" in str(logs))
            now.append("second")
            await writer.flush()
            assert database.row()["vcpus_used"] == 2


@pytest.mark.parametrize("trouble", ["error", "hangs", "no text"])
async def test_a_password_that_cannot_be_had_is_an_outage(
    database: Database, url: str, trouble: str
) -> None:
    """Told with its text; the loop goes on, and the row is written once there is one again."""
    held = threading.Event()
    troubles: dict[str, Callable[[], object]] = {
        "error": lambda: (_ for _ in ()).throw(RuntimeError("the vault is sealed")),
        "hangs": held.wait,
        "no text": lambda: 42,
    }
    said = {
        "error": "the password cannot be had: the vault is sealed",
        "hangs": "no password within 2 s",
        "no text": "int is no text",
    }
    ask: list[Callable[[], object]] = [troubles[trouble]]
    host = FakeHost("n1")
    with capture_logs() as logs:

        def password() -> str:
            return ask[-1]()  # type: ignore[return-value]

        async with ComputeNodeWriter(url, password=password, settings=SETTINGS) as writer:
            writer.attach(host)
            await eventually(lambda: said[trouble] in str(logs))
            ask.append(lambda: "first")
            held.set()
            await eventually_equal(lambda: len(database.rows()), 1)
